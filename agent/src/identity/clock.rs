//! Whether an X.509-SVID is of use by the clock of this machine.

use std::time::SystemTime;

use warifu::identity::X509Svid;

use crate::{attest::ClientError, telemetry::timestamp::Timestamp};

/// A certificate the clock here does not accept is of no use: peers with this clock refuse it, and
/// we would refuse theirs. `skew` is what is known of the authority's clock.
pub(super) fn check(
    svid: &X509Svid,
    now: SystemTime,
    skew: Option<String>,
) -> Result<(), ClientError> {
    let (verb, at) = if now < svid.not_before() {
        ("is only valid from", svid.not_before())
    } else if now >= svid.not_after() {
        ("expired at", svid.not_after())
    } else {
        return Ok(());
    };
    Err(ClientError::Clock {
        what: format!(
            "by this machine's clock ({}) the new X.509-SVID {verb} {}",
            Timestamp(now),
            Timestamp(at)
        ),
        skew: skew.unwrap_or_else(|| "and the clocks agree now".into()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    const TEN_MINUTES: Duration = Duration::from_secs(600);

    fn svid(not_before: SystemTime, not_after: SystemTime) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org/a".try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let certificate = params.self_signed(&key).unwrap();
        X509Svid::new(vec![certificate.into()], key.into()).unwrap()
    }

    #[test]
    fn a_clock_ten_minutes_off_is_named_with_what_to_do() {
        let now = SystemTime::now();
        let issued = svid(now - Duration::from_secs(30), now + TEN_MINUTES / 2);
        assert!(check(&issued, now, None).is_ok());
        let told = |now, skew: &str| {
            check(&issued, now, Some(skew.into()))
                .unwrap_err()
                .to_string()
        };
        let behind = told(now - TEN_MINUTES, "it is 600s behind");
        for part in [
            "only valid from",
            "it is 600s behind",
            "correct this machine's clock",
        ] {
            assert!(behind.contains(part), "{behind}");
        }
        let ahead = told(now + TEN_MINUTES, "it is 600s ahead");
        assert!(ahead.contains("expired at"), "{ahead}");
    }
}
