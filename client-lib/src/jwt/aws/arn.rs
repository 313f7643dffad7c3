//! ARNs, cut strictly. <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws`, `aws-cn`, ….
    pub partition: &'a str,
    /// `iam`, `ec2`, ….
    pub service: &'a str,
    /// Empty for what has none.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// The rest, whatever it is.
    pub resource: &'a str,
}

/// A role, and nothing else that IAM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role<'a> {
    pub(super) partition: &'a str,
    pub(super) account: &'a str,
    /// `/`, or `/team/orders/`. No part of the identity: a name is unique in its account.
    pub(super) path: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Arn<'a> {
    /// Cuts `text`; `None` where it is no ARN of an account.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut part = || parts.next();
        let ("arn", partition, service, region, account, resource) =
            (part()?, part()?, part()?, part()?, part()?, part()?)
        else {
            return None;
        };
        let is_partition = partition == "aws"
            || partition.strip_prefix("aws-").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
            });
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        (is_partition && is_account).then_some(Self {
            partition,
            service,
            region,
            account,
            resource,
        })
    }
}

impl<'a> Role<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let arn = Arn::parse(text)?;
        if arn.service != "iam" || !arn.region.is_empty() {
            return None;
        }
        let rest = arn.resource.strip_prefix("role")?;
        // The path begins and ends with a slash; between them is any visible ASCII.
        let (path, name) = rest.split_at(rest.rfind('/')? + 1);
        let is_path = path.starts_with('/')
            && path.len() <= 512
            && path.bytes().all(|b| b.is_ascii_graphic());
        let is_name = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
        (is_path && is_name).then_some(Self {
            partition: arn.partition,
            account: arn.account,
            path,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_role_is_cut_into_its_path_and_name() {
        let role = Role::parse("arn:aws-cn:iam::123456789012:role/a/b:c/orders").unwrap();
        assert_eq!((role.partition, role.account), ("aws-cn", "123456789012"));
        assert_eq!((role.path, role.name), ("/a/b:c/", "orders"));
        let role = Role::parse("arn:aws:iam::123456789012:role/orders").unwrap();
        assert_eq!((role.path, role.name), ("/", "orders"));
    }

    #[test]
    fn nothing_but_a_role_is_a_role() {
        for not_one in [
            "arn:aws:iam::123456789012:user/orders",
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:role",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/team/",
            "arn:aws:iam::123456789012:rolex/orders",
            "arn:aws:iam::123456789012:role/or ders",
            "arn:aws:iam::123456789012:role/te am/orders",
            "arn:aws:iam::12345678901:role/orders",
            "arn:aws:iam::1234567890123:role/orders",
            "arn:aws:iam:eu-west-1:123456789012:role/orders",
            "arn:aws:sts::123456789012:assumed-role/orders/session",
            "arn:aws:sts::123456789012:federated-user/orders",
            "arn:aws:sts::123456789012:role/orders",
            "arn:gcp:iam::123456789012:role/orders",
            "arn:awsome:iam::123456789012:role/orders",
            "arn:aws-:iam::123456789012:role/orders",
            "ARN:aws:iam::123456789012:role/orders",
            " arn:aws:iam::123456789012:role/orders",
            "",
        ] {
            assert_eq!(Role::parse(not_one), None, "{not_one}");
        }
        let long = format!("arn:aws:iam::123456789012:role/{}", "x".repeat(65));
        assert_eq!(Role::parse(&long), None);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_cut_is_what_was_written(text in "(arn:aws:iam::123456789012:role/)?\\PC{0,40}") {
            if let Some(role) = Role::parse(&text) {
                let again = format!("arn:{}:iam::{}:role{}{}", role.partition, role.account, role.path, role.name);
                prop_assert_eq!(again, text);
            }
        }
    }
}
