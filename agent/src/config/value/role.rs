//! Roles: by account and name, and as the configuration refers to them.

use std::{borrow::Cow, fmt};

use super::{
    Glob, name,
    text::{Kind, reads_from_text},
};

/// `ACCOUNT:role/NAME`: roles of one account. The name may have `*`; it is the role's without its path, which is
/// no part of its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolePattern {
    account: String,
    name: Glob,
}

/// A role of AWS: its ARN, or its name in `aws.roles`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleRef {
    /// `arn:aws:iam::ACCOUNT:role/NAME`: assumed with the base credentials, and with nothing said of it.
    Arn(String),
    /// One of `aws.roles`.
    Name(String),
}

/// `ACCOUNT:role/NAME`: one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedRole(pub String);

reads_from_text!(RolePattern, RoleRef, ProvedRole);

/// Longest name in `aws.roles`.
const MAX_NAME: usize = 64;

/// Whether a role may be called so in `aws.roles`.
pub fn is_role_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed)
}

impl Kind for RoleRef {
    type Value = Self;
    const NAME: &'static str = "RoleRef";
    const EXPECTED: &'static str =
        "a name of aws.roles, or the ARN of a role such as arn:aws:iam::123456789012:role/orders";

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        if text.starts_with("arn:") {
            return name::role_arn(text).map(Self::Arn);
        }
        match is_role_name(text) {
            true => Ok(Self::Name(text.to_owned())),
            false => Err("".into()),
        }
    }
}

impl fmt::Display for RoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Arn(text) | Self::Name(text)) = self;
        f.write_str(text)
    }
}

impl RolePattern {
    /// Whether it is for the role of this name.
    pub fn matches(&self, account: &str, name: &str) -> bool {
        self.account == account && self.name.matches(name)
    }

    /// Whose roles.
    pub fn account(&self) -> &str {
        &self.account
    }
}

impl Kind for RolePattern {
    type Value = Self;
    const NAME: &'static str = "RolePattern";
    const EXPECTED: &'static str = "roles of one account as ACCOUNT:role/NAME, without a path, such as 123456789012:role/shop-*";
    const PATTERN: Option<&'static str> = Some("^[0-9]{12}:role/");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let (account, role) = text.split_once(':').ok_or("")?;
        let account =
            name::Account::parse(account).map_err(|_| "it begins with an account of 12 digits")?;
        let role = role
            .strip_prefix("role/")
            .ok_or("after the account comes role/")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-*".contains(&byte);
        match role.bytes().all(is_name) {
            true => Ok(Self {
                account,
                name: Glob::parse(role)?,
            }),
            false => Err(
                "a role's name has letters, digits and +=,.@_-; write it without its path".into(),
            ),
        }
    }
}

impl Kind for ProvedRole {
    type Value = Self;
    const NAME: &'static str = "ProvedRole";
    const EXPECTED: &'static str = "a role as ACCOUNT:role/NAME, such as 123456789012:role/batch";
    const PATTERN: Option<&'static str> = Some("^[0-9]{12}:role/");

    fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        match text.contains('*') {
            true => Err("a caller has one role".into()),
            false => RolePattern::parse(text).map(|_| Self(text.to_owned())),
        }
    }
}

impl fmt::Display for RolePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:role/{}", self.account, self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_roles_of_its_account_by_name() {
        let shop: RolePattern = "123456789012:role/shop-*".parse().unwrap();
        assert!(shop.matches("123456789012", "shop-orders"));
        assert!(!shop.matches("123456789012", "orders"));
        assert!(!shop.matches("210987654321", "shop-orders"));
        assert_eq!(shop.to_string(), "123456789012:role/shop-*");
    }

    #[test]
    fn a_role_is_referred_to_by_arn_or_name() {
        let arn = "arn:aws:iam::123456789012:role/shop";
        assert_eq!(
            arn.parse::<RoleRef>().unwrap(),
            RoleRef::Arn(arn.to_owned())
        );
        assert_eq!("shop-1".parse::<RoleRef>().unwrap().to_string(), "shop-1");
        for wrong in [
            "",
            "a b",
            "arn:aws:iam::1:role/x",
            "arn:",
            "123456789012:role/shop",
            &"x".repeat(65),
        ] {
            assert!(wrong.parse::<RoleRef>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn refuses_what_would_match_no_role_or_too_many() {
        for wrong in [
            "",
            "*",
            "*:role/shop",
            "12345678901:role/shop",
            "123456789012:shop",
            "123456789012:role/",
            "123456789012:role/team/shop",
            "123456789012:user/shop",
            "arn:aws:iam::123456789012:role/shop",
        ] {
            assert!(wrong.parse::<RolePattern>().is_err(), "{wrong}");
        }
    }
}
