//! The TLS of a listener.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::config::value::{self, As, name};

/// The TLS of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TlsFields")]
pub struct InboundTls {
    /// What the listener presents.
    pub presents: Presents,
    /// What is asked of callers; by what `accept` says where absent.
    pub client_cert: Option<ClientCert>,
}

/// What a listener presents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Presents {
    /// The agent's X.509-SVID, for callers of the mesh.
    #[default]
    Svid,
    /// Certificates from files, by the name that is asked for; the first where none has it.
    Files(Vec<CertificateFiles>),
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// A PEM file of the chain, leaf first. Read again when it changes.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub certificate_file: PathBuf,
    /// A PEM file of its private key, which others may not read.
    #[serde(deserialize_with = "value::one::<name::AbsolutePath, _>")]
    #[schemars(with = "As<name::AbsolutePath>")]
    pub key_file: PathBuf,
}

/// Whether callers are asked for an X.509-SVID. One that is presented must always verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCert {
    /// Callers without one are refused.
    Required,
    /// Callers may have one.
    Optional,
    /// Nobody is asked.
    None,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InboundTls")]
struct TlsFields {
    /// `svid`: the agent's X.509-SVID. So it is unless there are `certificates`.
    identity: Option<IdentityWord>,
    /// Certificates for callers from outside the mesh, by the name they ask for (SNI); the first where none has it.
    #[serde(default)]
    certificates: Vec<CertificateFiles>,
    /// Whether callers present an X.509-SVID: `required` where `accept` has `mtls`, else `none`, unless said.
    client_cert: Option<ClientCert>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum IdentityWord {
    /// The agent's X.509-SVID.
    Svid,
}

impl JsonSchema for InboundTls {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        TlsFields::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        TlsFields::json_schema(generator)
    }
}

impl TryFrom<TlsFields> for InboundTls {
    type Error = String;

    fn try_from(fields: TlsFields) -> Result<Self, String> {
        let presents = match (fields.identity, fields.certificates.is_empty()) {
            (Some(IdentityWord::Svid), false) => {
                return Err(
                    "expected identity: svid or certificates, not both: a listener presents one or the other".to_owned(),
                );
            }
            (_, true) => Presents::Svid,
            (None, false) => Presents::Files(fields.certificates),
        };
        Ok(Self {
            presents,
            client_cert: fields.client_cert,
        })
    }
}
