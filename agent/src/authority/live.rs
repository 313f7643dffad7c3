//! The document made usable: keys unwrapped, an intermediate signed, the bundle rendered, the TLS
//! certificate made. Immutable; a change makes a new one.

use std::{sync::Arc, time::Duration, time::SystemTime};

use bytes::Bytes;
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use serde_json::value::RawValue;
use warifu::{
    SpiffeId,
    identity::{TrustBundle, X509Svid},
    jwt::{KeySet, SigningKey},
    tls,
};

use super::{
    ca::{self, CaError, Signer, Wanted},
    ca_state::{CaState, CaStateError, Line},
    challenge,
    keyring::Keyring,
    keys::Kek,
    publish::{self, Page, Pages},
    rotation::Phase,
    settings::Settings,
};

/// Life of the authority's own certificate, within its intermediate's.
const OWN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Everything a replica issues with at one moment.
#[derive(Debug)]
pub(super) struct Live {
    /// The version of the document.
    pub(super) version: i64,
    /// Kept, so that a new intermediate can be made while the store is away.
    pub(super) state: CaState,
    pub(super) signer: Arc<Signer>,
    /// What it is under.
    root: CertificateDer<'static>,
    /// Why the signer is an old one, where it should be a new one.
    pub(super) stale_because: Option<CaError>,
    pub(super) jwt_key: SigningKey,
    /// Signs access tokens, where any are minted.
    pub(super) access_key: Option<SigningKey>,
    /// Every key an access token may be signed with.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "others read them in `access_keys_page` and `pages`"
        )
    )]
    pub(super) access_keys: KeySet,
    /// The same for agents, where any are minted.
    pub(super) access_keys_page: Option<Page>,
    pub(super) record_key: SigningKey,
    /// Every key a record may be signed with.
    pub(super) record_keys: KeySet,
    pub(super) challenge_keys: challenge::Keys,
    pub(super) bundle: TrustBundle,
    /// The bundle as it goes with every certificate …
    pub(super) bundle_text: Box<RawValue>,
    /// … as agents ask for it …
    pub(super) bundle_page: Page,
    /// … and for the world, with what else that may read.
    pub(super) pages: Pages,
    pub(super) own: Own,
}

/// The authority's own certificate, for its front door.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) config: Arc<rustls::ServerConfig>,
    pub(super) not_after: SystemTime,
    renew_at: SystemTime,
}

impl Live {
    /// From the document; keeps `previous`'s signer and certificate while they are fresh, and beyond that
    /// while they are good and new ones can't be had.
    pub(super) async fn build(
        version: i64,
        state: CaState,
        previous: Option<&Self>,
        settings: &Settings,
        keyring: &Keyring,
        now: SystemTime,
    ) -> Result<Self, CaStateError> {
        let kek = &*keyring.kek(&state).await?;
        let root = state.current_root(settings, keyring, kek)?;
        let fresh = previous.filter(|live| !live.signer.is_stale(root.certificate(), now));
        let made = match fresh {
            Some(live) => Ok(Arc::clone(&live.signer)),
            None => Signer::make(
                &settings.trust_domain,
                &root,
                now,
                settings.intermediate_ttl,
            )
            .await
            .map(Arc::new),
        };
        let own = match (&made, fresh.filter(|live| now < live.own.renew_at)) {
            (Ok(_), Some(live)) => Ok(live.own.clone()),
            (Ok(signer), None) => Own::make(signer, &root, settings, now).await,
            (Err(_), _) => Err(CaError::Expired("intermediate")),
        };
        let (signer, own, stale_because) = match (made, own) {
            (Ok(signer), Ok(own)) => (signer, own, None),
            (Err(why), _) | (_, Err(why)) => {
                match previous.filter(|live| live.is_good(&state, now)) {
                    Some(live) => (Arc::clone(&live.signer), live.own.clone(), Some(why)),
                    None => return Err(why.into()),
                }
            }
        };

        let mut jwt_keys = state.keys(Line::JwtKeys, settings, kek)?;
        let mut record_keys = state.keys(Line::RecordKeys, settings, kek)?;
        let bundle = TrustBundle {
            trust_domain: settings.trust_domain.clone(),
            x509_authorities: state
                .root_certificates()
                .into_iter()
                .map(|(_, certificate)| certificate)
                .collect(),
            jwt_authorities: KeySet::new(public(&jwt_keys)),
            sequence: state.sequence,
            refresh_hint: settings.refresh_hint,
        };
        let bundle_text = RawValue::from_string(bundle.to_json())
            .map_err(|why| CaStateError::Damaged(why.to_string()))?;
        let bundle_json = Bytes::from(bundle_text.get().to_owned());
        let mut access_keys = state.keys(Line::AccessKeys, settings, kek)?;
        let public_access_keys = KeySet::new(public(&access_keys));
        let pages = Pages::new(
            settings,
            &bundle_json,
            &bundle.jwt_authorities,
            &public_access_keys,
        );
        Ok(Self {
            version,
            jwt_key: current(&mut jwt_keys, Line::JwtKeys)?,
            record_keys: KeySet::new(public(&record_keys)),
            record_key: current(&mut record_keys, Line::RecordKeys)?,
            access_keys_page: settings
                .access_issuer
                .as_ref()
                .map(|issuer| publish::access_token_keys(issuer, &public_access_keys)),
            access_keys: public_access_keys,
            access_key: match settings.access_algorithm {
                Some(_) => Some(current(&mut access_keys, Line::AccessKeys)?),
                None => None,
            },
            challenge_keys: challenge_keys(&state, settings, kek)?,
            bundle_text,
            bundle_page: Page::always_asked_about(bundle_json),
            pages,
            bundle,
            root: match &stale_because {
                None => root.certificate().clone(),
                Some(_) => {
                    previous.map_or_else(|| root.certificate().clone(), |live| live.root.clone())
                }
            },
            signer,
            stale_because,
            own,
            state,
        })
    }

    /// Whether time alone asks for a new one: an intermediate or a certificate is half over.
    pub(super) fn is_stale(&self, now: SystemTime) -> bool {
        let root = self
            .state
            .root_certificates()
            .into_iter()
            .find(|(phase, _)| *phase == Phase::Current);
        root.is_none_or(|(_, root)| self.signer.is_stale(&root, now)) || now >= self.own.renew_at
    }

    /// Whether what this one signs still leads to a root of `state`.
    fn is_good(&self, state: &CaState, now: SystemTime) -> bool {
        let mut roots = state.root_certificates().into_iter();
        now < self.signer.not_after()
            && now < self.own.not_after
            && roots.any(|(_, root)| self.root == root)
    }

    /// Pins of every root, and its place in the rotation.
    pub(super) fn root_pins(&self) -> Vec<(Phase, [u8; 32])> {
        let roots = self.state.root_certificates().into_iter();
        roots
            .filter_map(|(phase, certificate)| Some((phase, ca::spki_sha256(&certificate).ok()?)))
            .collect()
    }
}

impl Own {
    /// Leaf, intermediate *and* root: an agent that only has a pin of the root needs to see it.
    async fn make(
        signer: &Signer,
        root: &ca::Root,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let unusable = |why: String| CaError::Unusable(why);
        let key = ca::new_key()?;
        let public = SubjectPublicKeyInfo::from_der(&key.subject_public_key_info());
        let td = &settings.trust_domain;
        let id = SpiffeId::new(format!("spiffe://{td}/warifu/authority"))
            .map_err(|why| unusable(why.to_string()))?;
        let wanted = Wanted {
            key: &public.map_err(|why| unusable(why.to_string()))?,
            csr: &ca::request(&key)?,
            id: &id,
            dns: &settings.dns_names,
            origin: None,
            ttl: OWN_TTL,
        };
        let leaf = signer.leaf(wanted, now).await?;
        let not_after = leaf.not_after;
        let life = not_after.duration_since(now).unwrap_or_default();
        let mut chain = vec![leaf.certificate];
        chain.extend(leaf.above);
        let root = std::slice::from_ref(root.certificate());
        // What an agent would do: if it refused this certificate, it would refuse every other one too.
        tls::verify(&chain, &id, root, now).map_err(|why| unusable(why.to_string()))?;
        let svid = X509Svid::new(chain, key.into()).map_err(|why| unusable(why.to_string()))?;
        let config = tls::server_config_without_client_auth(&svid, root)
            .map_err(|why| unusable(why.to_string()))?;
        Ok(Self {
            config: Arc::new(config),
            not_after,
            renew_at: now + life / 3,
        })
    }
}

fn public(keys: &[(Phase, SigningKey)]) -> Vec<warifu::jwt::PublicJwk> {
    keys.iter().map(|(_, key)| key.public().clone()).collect()
}

fn challenge_keys(
    state: &CaState,
    settings: &Settings,
    kek: &Kek,
) -> Result<challenge::Keys, CaStateError> {
    let line = Line::ChallengeKeys;
    let mut others = state.secrets(line, settings, kek)?;
    let current = current(&mut others, line)?;
    let others = others.iter().map(|(_, key)| key.expose().as_slice());
    Ok(challenge::Keys::new(current.expose(), others))
}

/// Takes the current one out of `keys`.
fn current<K>(keys: &mut Vec<(Phase, K)>, line: Line) -> Result<K, CaStateError> {
    let at = keys.iter().position(|(phase, _)| *phase == Phase::Current);
    let at = at.ok_or(CaStateError::NoCurrent(line.name()))?;
    Ok(keys.swap_remove(at).1)
}
