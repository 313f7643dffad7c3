//! What facts are called that tell two accounts, clusters or namespaces apart. Attestors prove facts by these
//! names, and the check that no two of them get one SPIFFE ID reads the rules by them.

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
