//! ACM PCA as the root: the binary against a strict stand-in of ours, and against moto, whose requests and answers
//! are AWS's and whose certificates are not.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rcgen::{CertificateParams, DnType, KeyPair};
use warifu::{TrustDomain, identity::X509Svid, jwt::SigningKey, tls};
use warifu_agent::{
    attest::{Client, ClientError, bearer, wire::Evidence},
    authority::admin::{JoinTokenRequest, client as admin},
    config::{agent::AuthorityRef, value::HttpsOrigin},
};
use warifu_tests::{
    aws::{PrivateCa, PrivateCaMood},
    peers::Moto,
    ports::free_port,
    process::{AuthorityProcess, Command, Running, Sandbox, TRUST_DOMAIN, ask},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_signs_an_intermediate_that_signs_leaves_under_its_root() {
    let pca = PrivateCa::start().await;
    let authority = Authority::start(&pca.url(), PrivateCa::ARN, "subordinate");
    for _ in 0..3 {
        let chain = authority.attest().await.unwrap();
        assert_eq!(
            chain.len(),
            3,
            "the leaf, the replica's intermediate, the private CA"
        );
        assert_eq!(chain[2].as_ref(), pca.own());
    }
    let issued = pca.issued();
    assert_eq!(issued.len(), 1, "one intermediate, whatever is issued");
    assert_eq!(
        issued[0]["TemplateArn"],
        "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1"
    );
    let status = admin::status(&authority.socket).await.unwrap();
    assert_eq!(status.roots[0].key, PrivateCa::ARN);

    // The same private CA has no other root: the keys rotate, the root stays.
    let status = admin::rotate(&authority.socket).await.unwrap();
    assert_eq!(status.roots.len(), 1);
    assert!(
        status
            .rotations
            .iter()
            .any(|rotation| rotation.what == "JWT key")
    );
    authority.attest().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_signs_every_leaf_with_the_names_of_the_rule_and_no_others() {
    let pca = PrivateCa::start().await;
    let authority = Authority::start(&pca.url(), PrivateCa::ARN, "leaf");
    let own = pca.issued().len();
    let chain = authority.attest().await.unwrap();
    assert_eq!(chain.len(), 2, "the leaf and the private CA");
    let issued = pca.issued();
    assert_eq!(issued.len(), own + 1);
    let asked = &issued[own];
    assert_eq!(
        asked["TemplateArn"],
        "arn:aws:acm-pca:::template/EndEntityCertificate_APIPassthrough/V1"
    );
    let names = &asked["ApiPassthrough"]["Extensions"]["SubjectAlternativeNames"];
    assert_eq!(names.as_array().unwrap().len(), 2, "{names}");
    assert_eq!(
        names[0]["UniformResourceIdentifier"],
        "spiffe://example.org/orders"
    );
    assert_eq!(names[1]["DnsName"], "orders.internal");

    // Another certificate cannot be told from what was asked for: an hour is an hour.
    pca.is(PrivateCaMood::YearLong);
    let refused = authority.attest().await.unwrap_err();
    assert!(refused.to_string().contains("(unavailable)"), "{refused}");
    let said = authority.process.running.wait_for("longer than asked for");
    assert!(
        said.to_string()
            .contains("EndEntityCertificate_APIPassthrough/V1"),
        "{said}"
    );
    pca.is(PrivateCaMood::Well);
    authority.attest().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_private_ca_makes_of_its_own_is_refused_at_start_with_the_template_to_look_at() {
    let pca = PrivateCa::start().await;
    for (mode, mood, reason) in [
        (
            "subordinate",
            PrivateCaMood::YearLong,
            "longer than asked for",
        ),
        ("subordinate", PrivateCaMood::Bare, "no basic constraints"),
        ("leaf", PrivateCaMood::YearLong, "longer than asked for"),
        ("leaf", PrivateCaMood::Bare, "is none that an agent takes"),
    ] {
        pca.is(mood);
        let sandbox = Sandbox::new();
        let ended = command(&sandbox, &pca.url(), PrivateCa::ARN, mode, free_port()).run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let said = &ended.stderr;
        assert!(
            said.contains(reason) && said.contains(PrivateCa::ARN),
            "{said}"
        );
        assert!(said.contains("it is used for nothing"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_ca_that_is_away_is_waited_for_and_one_that_is_not_there_is_not() {
    let pca = PrivateCa::start().await;
    pca.is(PrivateCaMood::Failing);
    let (sandbox, probes) = (Sandbox::new(), free_port());
    let running = command(&sandbox, &pca.url(), PrivateCa::ARN, "subordinate", probes).start();
    running.wait_for("keys and state can't be loaded yet");
    let answer = ask(&probes, "localhost", "/readyz").unwrap();
    let action = "acm-pca:GetCertificateAuthorityCertificate";
    assert!(
        answer.status == 503 && answer.text.contains(action),
        "{}",
        answer.text
    );
    pca.is(PrivateCaMood::Well);
    Authority::of(sandbox, running).attest().await.unwrap();

    let sandbox = Sandbox::new();
    let other = PrivateCa::ARN.replace("11111111", "22222222");
    let ended = command(&sandbox, &pca.url(), &other, "subordinate", free_port()).run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("check its name"), "{}", ended.stderr);
    // A start that failed leaves nothing that keeps the next one from starting.
    let running = command(
        &sandbox,
        &pca.url(),
        PrivateCa::ARN,
        "subordinate",
        free_port(),
    )
    .start();
    Authority::of(sandbox, running).attest().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn motos_certificates_follow_no_template_and_are_refused_by_name() {
    let moto = Moto::start().await.unwrap();
    let arn = moto.create_private_ca().await.unwrap();
    for (mode, template, reason) in [
        (
            "subordinate",
            "SubordinateCACertificate_PathLen0/V1",
            "has no basic constraints",
        ),
        (
            "leaf",
            "EndEntityCertificate_APIPassthrough/V1",
            "is none that an agent takes",
        ),
    ] {
        let sandbox = Sandbox::new();
        let ended = command(&sandbox, moto.endpoint(), &arn, mode, free_port()).run();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let said = &ended.stderr;
        assert!(said.contains(reason) && said.contains(template), "{said}");
        assert!(said.contains(&arn), "{said}");
    }
}

struct Authority {
    client: Client,
    socket: PathBuf,
    process: AuthorityProcess,
    _sandbox: Sandbox,
}

fn command(sandbox: &Sandbox, pca: &str, arn: &str, mode: &str, probes: SocketAddr) -> Command {
    let dir = sandbox.path("").display().to_string();
    let yaml = format!(
        r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:0
admin: unix:{dir}authority.sock
probes: {probes}
ca: {{key: acm-pca, arn: "{arn}", mode: {mode}, path: {dir}ca}}
state: sqlite
aws: {{region: eu-west-1}}
attestors:
  bootstrap: {{kind: join-token}}
rules:
- {{attestor: bootstrap, match: {{service: "*"}}, id: "/{{service}}", dns: ["{{service}}.internal"]}}
"#
    );
    sandbox.write("authority.yaml", yaml);
    sandbox
        .warifu(&["authority", "--config", "authority.yaml"])
        .env("AWS_ENDPOINT_URL_ACM_PCA", pca)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
}

impl Authority {
    fn start(pca: &str, arn: &str, mode: &str) -> Self {
        let sandbox = Sandbox::new();
        let running = command(&sandbox, pca, arn, mode, free_port()).start();
        Self::of(sandbox, running)
    }

    fn of(sandbox: Sandbox, running: Running) -> Self {
        let process = tokio::task::block_in_place(|| AuthorityProcess::of(running));
        let url: HttpsOrigin = format!("https://{}", process.address).parse().unwrap();
        let authority = AuthorityRef {
            url,
            root_spki_sha256: vec![process.pin.parse().unwrap()],
            bundle: None,
        };
        let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        Self {
            client: Client::new(&domain, &authority).unwrap(),
            socket: sandbox.path("authority.sock"),
            process,
            _sandbox: sandbox,
        }
    }

    /// The chain that an agent gets, once it was looked at as agents do.
    async fn attest(&self) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, ClientError> {
        let request = JoinTokenRequest {
            attestor: "bootstrap".to_owned(),
            facts: [("service".to_owned(), "orders".to_owned())].into(),
            ttl: Duration::from_secs(600).as_secs(),
        };
        let token = admin::create_join_token(&self.socket, &request).await;
        let token = token.unwrap().token;
        let evidence = bearer(Evidence::JoinToken { token });
        let leaf = KeyPair::generate().unwrap();
        // Whatever an agent asks for, it gets what the rule says.
        let mut asked = CertificateParams::new(vec!["admin.internal".to_owned()]).unwrap();
        asked.distinguished_name.push(DnType::CommonName, "admin");
        let csr = asked.serialize_request(&leaf).unwrap();
        let key = SigningKey::generate();
        let issued = self
            .client
            .attest(&*evidence, None, csr.der(), &key)
            .await?;
        let id = "spiffe://example.org/orders".parse().unwrap();
        let roots = &issued.bundle.x509_authorities;
        tls::verify(&issued.chain, &id, roots, std::time::SystemTime::now()).unwrap();
        X509Svid::new(issued.chain.clone(), leaf.into()).unwrap();
        Ok(issued.chain)
    }
}
