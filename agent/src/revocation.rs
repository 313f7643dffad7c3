//! What credentials go back to, and what of that is revoked. Pure: no I/O, time is handed in.
//!
//! ```text
//! authority ─ Published::sign ─▶ JWS ─▶ Published::verify ─▶ List ◀── Provenance of a peer or a token
//!                                                             └──▶ revoked by …, or not
//! ```

mod list;
mod origin;
mod provenance;
mod published;

pub use list::{Kind, List};
pub use origin::{Origin, OriginError, role_name};
pub use provenance::{LINEAGE_CLAIM, Provenance, ROLE_CLAIM, issuers_of_peer};
pub use published::Published;

/// Lower-case hex: how hashes of keys and roles are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
