//! Whether an X.509-SVID is of use by the clock of this machine.

use std::time::{Duration, SystemTime};

use warifu::identity::X509Svid;

use crate::{
    attest::{ClientError, Skew},
    config::{defaults, value::Span},
};

/// The largest difference of clocks with which an agent becomes ready: with a larger one a JWT-SVID
/// of the default life has expired, or is not valid yet, wherever the other clock counts.
const MAX_SKEW: Duration = defaults::JWT_TTL;

/// A certificate the clock here does not accept is of no use: peers with this clock refuse it, and
/// we would refuse theirs. `skew` is what is known of the authority's clock; a great one keeps an
/// agent from starting (`is_first`), but takes no identity from one that has it: the authority's
/// clock may be the wrong one.
pub(super) fn check(
    svid: &X509Svid,
    now: SystemTime,
    skew: Option<Skew>,
    is_first: bool,
) -> Result<(), ClientError> {
    let what = if now < svid.not_before() {
        "by this machine's clock the new X.509-SVID is not valid yet".to_owned()
    } else if now >= svid.not_after() {
        "by this machine's clock the new X.509-SVID has expired already".to_owned()
    } else if is_first && skew.is_some_and(|skew| skew.by() > MAX_SKEW) {
        let most = Span(MAX_SKEW);
        format!("clocks that differ by more than {most} make tokens expire before they are used")
    } else {
        return Ok(());
    };
    Err(ClientError::Clock {
        what,
        skew: skew.map_or_else(|| "the clocks agree now".into(), |skew| skew.to_string()),
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
        assert!(check(&issued, now, None, true).is_ok());
        let told = |now, skew| {
            check(&issued, now, Some(skew), false)
                .unwrap_err()
                .to_string()
        };
        let behind = told(now - TEN_MINUTES, Skew::Behind(TEN_MINUTES));
        for part in [
            "is not valid yet",
            "this machine's clock is about 10m behind the authority's",
            "correct this machine's clock",
        ] {
            assert!(behind.contains(part), "{behind}");
        }
        let ahead = told(now + TEN_MINUTES, Skew::Ahead(TEN_MINUTES));
        assert!(ahead.contains("has expired already"), "{ahead}");
    }

    #[test]
    fn a_great_difference_keeps_an_agent_from_starting_and_takes_nothing_from_one_that_runs() {
        let now = SystemTime::now();
        let issued = svid(now - TEN_MINUTES, now + TEN_MINUTES);
        let check = |skew, is_first| check(&issued, now, Some(skew), is_first);
        assert!(check(Skew::Ahead(MAX_SKEW), true).is_ok());
        assert!(check(Skew::Ahead(TEN_MINUTES), false).is_ok());
        let refused = check(Skew::Ahead(TEN_MINUTES), true)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("about 10m ahead"), "{refused}");
    }
}
