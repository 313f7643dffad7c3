//! Values that occur in both files: durations, addresses, references to secrets, patterns.
//! Each parses from a string once ([`std::str::FromStr`]) and says what it expected when it can't.

mod address;
mod cidr;
mod claim;
mod clock;
mod glob;
mod hop;
mod moment;
pub(super) mod name;
mod pattern;
mod quantity;
mod role;
mod secret;
mod session;
mod sts;
pub mod template;
mod text;

pub use address::{Forward, HttpsOrigin, Listen, Upstream};
pub use cidr::Cidr;
pub use claim::{AnyOf, ClaimValue};
pub use clock::{Clock, UtcOffset};
pub use glob::Glob;
pub use hop::{HttpProxy, TcpUpstream};
pub use moment::Moment;
pub use name::{is_attestation_audience, is_call_audience, is_of_signature, is_unsignable};
pub use pattern::{IdPattern, Segment, Target};
pub(super) use quantity::size;
pub use quantity::{Size, Span};
pub use role::{ProvedRole, RolePattern, RoleRef, is_role_name};
pub use secret::{ManagedSecret, SecretFile, SecretFileError, SecretRef, SpkiPin};
pub use session::{MAX_TAG_VALUE, SessionTemplate, TagTemplate, is_tag_character};
pub use sts::StsRegion;
pub use template::{DnsTemplate, IdTemplate};
pub use text::ValueError;
pub(super) use text::{As, list, map, one, option, read, shortened};
