//! An X.509-SVID is for showing, not for keeping: whoever has one, key and all, can't stay it.

use std::fs;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use warifu::jwt::SigningKey;
use warifu_agent::{
    attest::{Client, ClientError, wire::ErrorCode},
    config,
};
use warifu_tests::mesh::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exported_svid_renews_nothing_and_mints_nothing() {
    let shop = Shop::open().await;
    let dir = &shop.orders.dir;
    let config = config::load_agent(&dir.join("agent.yaml")).unwrap();
    let client = Client::new(&config.trust_domain, &config.authority).unwrap();
    // All that a thief of certificate and private key can have, and the record on top.
    let identity = shop.orders.identity();
    let stolen = SigningKey::from_pkcs8(identity.svid.key().secret_pkcs8_der()).unwrap();
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("state/attested.json")).unwrap()).unwrap();
    let record = kept["record"].as_str().unwrap();
    let csr = {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&key).unwrap().der().to_vec()
    };

    let renewed = client.renew(record, &csr, &stolen).await.unwrap_err();
    assert_eq!(
        renewed.refusal(),
        Some(ErrorCode::InvalidProof),
        "{renewed}"
    );
    let minted = client
        .jwt_svid(record, &["payments".to_owned()], None, &stolen)
        .await
        .unwrap_err();
    assert_eq!(minted.refusal(), Some(ErrorCode::InvalidProof), "{minted}");
    // Nor is the certificate itself a record.
    let without = client
        .renew(&identity.svid.chain_pem(), &csr, &stolen)
        .await
        .unwrap_err();
    assert_eq!(
        without.refusal(),
        Some(ErrorCode::InvalidRecord),
        "{without}"
    );
    assert!(matches!(without, ClientError::Refused { .. }));

    // With the renewal key, which never leaves the agent, the same requests are granted.
    let own = fs::read(dir.join("state/renewal.key")).unwrap();
    let own = SigningKey::from_pkcs8(&own).unwrap();
    let granted = client.renew(record, &csr, &own).await.unwrap();
    assert_eq!(granted.chain.len(), 2);
}
