//! What facts are called that tell two accounts, clusters or namespaces apart. Attestors prove facts by these
//! names, and the check that no two of them get one SPIFFE ID reads the rules by them.

use super::Attestor;

/// AWS: the partition, such as `aws` or `aws-cn`. Accounts are numbered in each anew.
pub const PARTITION: &str = "partition";
/// AWS: the account, 12 digits.
pub const ACCOUNT: &str = "account";
/// AWS: the role's name, without its path. Unique in its account.
pub const ROLE: &str = "role";

/// Kubernetes, and AWS where EKS Pod Identity proved it: the namespace.
pub const NAMESPACE: &str = "namespace";
/// Kubernetes, and AWS where EKS Pod Identity proved it: the service account. Unique in its namespace.
pub const SERVICE_ACCOUNT: &str = "service_account";
/// Kubernetes, and AWS where EKS Pod Identity proved it: the pod's name. Unique in its namespace, at one time.
pub const POD: &str = "pod";
/// Kubernetes, and AWS where EKS Pod Identity proved it: the pod's UID.
pub const POD_UID: &str = "pod_uid";

/// AWS with EKS Pod Identity: the cluster's ARN. It says [`CLUSTER`], [`CLUSTER_REGION`] and [`CLUSTER_ACCOUNT`],
/// and has characters no SPIFFE ID has: for `match`.
pub const CLUSTER_ARN: &str = "cluster_arn";
/// AWS with EKS Pod Identity: the cluster's name. Unique in its account and region only.
pub const CLUSTER: &str = "cluster";
/// AWS with EKS Pod Identity: the cluster's region.
pub const CLUSTER_REGION: &str = "cluster_region";
/// AWS with EKS Pod Identity: the cluster's account. Not always the role's.
pub const CLUSTER_ACCOUNT: &str = "cluster_account";

/// AWS: what whoever assumes the role chooses. It can narrow a match, and be no part of an identity.
pub const CHOSEN: [&str; 3] = ["session", "region", "source_region"];

/// What EKS Pod Identity proves beside the role.
pub const OF_PODS: [&str; 8] = [
    CLUSTER_ARN,
    CLUSTER,
    CLUSTER_REGION,
    CLUSTER_ACCOUNT,
    NAMESPACE,
    SERVICE_ACCOUNT,
    POD,
    POD_UID,
];

/// The facts of a token of `sts:GetWebIdentityToken`, beside those of [`OF_PODS`] and tags.
const OF_WEB_IDENTITY: [&str; 10] = [
    ACCOUNT,
    PARTITION,
    ROLE,
    "role_path",
    "org",
    "ou_path",
    "source_region",
    "ec2_instance",
    "lambda_function",
    "lambda_region",
];
/// The facts of `sts:GetCallerIdentity`.
const OF_CALLER_IDENTITY: [&str; 6] = [
    ACCOUNT,
    PARTITION,
    ROLE,
    "session",
    "principal_id",
    "region",
];
/// The facts of a service-account token.
const OF_KUBERNETES: [&str; 5] = [NAMESPACE, SERVICE_ACCOUNT, POD, POD_UID, "node"];
/// What a tag of the role or its session is called begins with this.
const TAG: &str = "tag_";

/// The facts that `attestor` may prove, without tags; `None` where that is for whoever makes its tokens to say.
pub(in crate::config) fn of(attestor: &Attestor) -> Option<Vec<&str>> {
    Some(match attestor {
        Attestor::JoinToken => return None,
        Attestor::AwsWebIdentity(aws) if aws.pod_identity_roles.is_empty() => {
            OF_WEB_IDENTITY.to_vec()
        }
        Attestor::AwsWebIdentity(_) => [&OF_WEB_IDENTITY[..], &OF_PODS[..]].concat(),
        Attestor::AwsCallerIdentity(_) => OF_CALLER_IDENTITY.to_vec(),
        Attestor::Kubernetes(_) => OF_KUBERNETES.to_vec(),
        Attestor::Oidc(oidc) => {
            let configured = oidc.facts.keys().map(String::as_str);
            configured.chain(["sub"]).collect()
        }
    })
}

/// Whether `attestor` may prove a fact called `name`.
pub(in crate::config) fn is_of(attestor: &Attestor, name: &str) -> bool {
    let is_tag = matches!(attestor, Attestor::AwsWebIdentity(_)) && name.starts_with(TAG);
    is_tag || of(attestor).is_none_or(|facts| facts.contains(&name))
}
