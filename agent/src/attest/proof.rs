//! What the renewal key signs: one line each for the purpose, the trust domain, the challenge, and
//! the SHA-256 of everything the request asks for.
//!
//! No line can contain a line break (the variable parts are hashes, base64url or a trust domain),
//! so no two requests have the same transcript, and the first line keeps a signature made for one
//! purpose from being good for another.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use warifu::{Secret, TrustDomain};

use super::wire::Evidence;

/// For [`AttestRequest`](super::wire::AttestRequest). `thumbprint` is the renewal key's (RFC 7638). A `record`
/// adds a line.
pub fn attest(
    trust_domain: &TrustDomain,
    challenge: &str,
    csr: &[u8],
    thumbprint: &str,
    evidence: &Evidence,
    record: Option<&str>,
) -> Vec<u8> {
    let evidence = proof_of(evidence);
    let csr = hash(csr);
    let record = record.map(|record| hash(record.as_bytes()));
    let mut parts = vec![csr.as_str(), thumbprint, evidence.as_str()];
    parts.extend(record.as_deref());
    transcript("attest", trust_domain, challenge, &parts)
}

/// For [`RenewRequest`](super::wire::RenewRequest).
pub fn renew(trust_domain: &TrustDomain, challenge: &str, csr: &[u8], record: &str) -> Vec<u8> {
    transcript(
        "renew",
        trust_domain,
        challenge,
        &[&hash(csr), &hash(record.as_bytes())],
    )
}

/// For [`JwtSvidRequest`](super::wire::JwtSvidRequest). One that names an identity is for another purpose: its
/// identity passes for no audience, and an authority that does not know of further identities refuses it, where it
/// would mint for the first.
pub fn jwt_svid(
    trust_domain: &TrustDomain,
    challenge: &str,
    audiences: &[String],
    spiffe_id: Option<&str>,
    record: &str,
) -> Vec<u8> {
    let mut parts = vec![hash(record.as_bytes())];
    parts.extend(spiffe_id.map(|id| hash(id.as_bytes())));
    parts.extend(audiences.iter().map(|audience| hash(audience.as_bytes())));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let purpose = match spiffe_id {
        None => "jwt-svid",
        Some(_) => "jwt-svid-of",
    };
    transcript(purpose, trust_domain, challenge, &parts)
}

/// For [`AccessTokenRequest`](super::wire::AccessTokenRequest). One line for each scope, in their order.
pub fn access_token(
    trust_domain: &TrustDomain,
    challenge: &str,
    record: &str,
    audience: &str,
    scopes: &[String],
) -> Vec<u8> {
    let mut parts = vec![hash(record.as_bytes()), hash(audience.as_bytes())];
    parts.extend(scopes.iter().map(|scope| hash(scope.as_bytes())));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    transcript("access-token", trust_domain, challenge, &parts)
}

/// For [`ExchangeRequest`](super::wire::ExchangeRequest). `thumbprint` is the renewal key's.
pub fn exchange(
    trust_domain: &TrustDomain,
    challenge: &str,
    thumbprint: &str,
    evidence: &Evidence,
    audience: &str,
    scopes: &[String],
) -> Vec<u8> {
    let mut parts = vec![
        thumbprint.to_owned(),
        proof_of(evidence),
        hash(audience.as_bytes()),
    ];
    parts.extend(scopes.iter().map(|scope| hash(scope.as_bytes())));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    transcript("exchange", trust_domain, challenge, &parts)
}

/// For [`AdminRequest`](super::wire::AdminRequest). `act` is the act's JSON, `thumbprint` the renewal key's.
pub fn admin(
    trust_domain: &TrustDomain,
    challenge: &str,
    thumbprint: &str,
    evidence: &Evidence,
    act: &[u8],
) -> Vec<u8> {
    let parts = [thumbprint, &proof_of(evidence), &hash(act)];
    transcript("admin", trust_domain, challenge, &parts)
}

/// Evidence in one line.
fn proof_of(evidence: &Evidence) -> String {
    let token =
        |kind: &str, token: &Secret<String>| format!("{kind} {}", hash(token.expose().as_bytes()));
    match evidence {
        Evidence::JoinToken { token: it } => token("join-token", it),
        Evidence::AwsWebIdentity { token: it } => token("aws-web-identity", it),
        Evidence::Kubernetes { token: it } => token("kubernetes", it),
        Evidence::Oidc { token: it } => token("oidc", it),
        // The signature covers all the rest.
        Evidence::AwsCallerIdentity(it) => {
            format!("aws-caller-identity {}", hash(it.signature.as_bytes()))
        }
    }
}

fn transcript(
    purpose: &str,
    trust_domain: &TrustDomain,
    challenge: &str,
    parts: &[&str],
) -> Vec<u8> {
    // The challenge comes from the other side: hashed, it cannot bring a line of its own.
    let mut text = format!(
        "warifu issuing api v1: {purpose}\n{trust_domain}\n{}\n",
        hash(challenge.as_bytes())
    );
    for part in parts {
        text.push_str(part);
        text.push('\n');
    }
    text.into_bytes()
}

fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warifu::Secret;

    use super::*;

    fn td() -> TrustDomain {
        TrustDomain::new("example.org").unwrap()
    }

    #[test]
    fn a_transcript_for_one_purpose_is_good_for_no_other() {
        let all = [
            renew(&td(), "c", b"x", "r"),
            jwt_svid(&td(), "c", &["x".into()], None, "r"),
            jwt_svid(&td(), "c", &["x".into()], Some("x"), "r"),
            jwt_svid(&td(), "c", &["x".into(), "x".into()], None, "r"),
            access_token(&td(), "c", "r", "x", &[]),
            exchange(
                &td(),
                "c",
                "t",
                &Evidence::JoinToken {
                    token: Secret::new("r".into()),
                },
                "x",
                &[],
            ),
            admin(
                &td(),
                "c",
                "t",
                &Evidence::JoinToken {
                    token: Secret::new("r".into()),
                },
                b"x",
            ),
            attest(
                &td(),
                "c",
                b"x",
                "t",
                &Evidence::JoinToken {
                    token: Secret::new("r".into()),
                },
                None,
            ),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }

    #[test]
    fn s12_a_transcript_does_not_contain_the_token() {
        let evidence = Evidence::JoinToken {
            token: Secret::new("hunter2".into()),
        };
        let text = String::from_utf8(attest(&td(), "c", b"x", "t", &evidence, None)).unwrap();
        assert!(!text.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn two_requests_never_have_the_same_transcript(
            a in (".{0,8}", ".{0,8}", ".{0,8}"), b in (".{0,8}", ".{0,8}", ".{0,8}"),
        ) {
            prop_assume!(a != b);
            prop_assert_ne!(
                renew(&td(), &a.0, a.1.as_bytes(), &a.2),
                renew(&td(), &b.0, b.1.as_bytes(), &b.2)
            );
        }
    }
}
