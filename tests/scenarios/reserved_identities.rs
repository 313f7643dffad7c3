//! No rule yields an identity that is not its holder's to have.

use warifu_agent::authority::rules::Facts;
use warifu_tests::mesh::{Mesh, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_no_fact_becomes_the_authority_or_somebody_else() {
    let mesh = Mesh::with(|authority| {
        authority.rules(
            r#"
- {attestor: bootstrap, match: {service: "*", role: "*"}, id: "/{service}/{role}"}
- {attestor: bootstrap, match: {service: "*"}, id: "/{service}"}
"#,
        )
    })
    .await;
    for (number, (service, role)) in [
        ("warifu", Some("authority")),
        ("warifu", None),
        ("payments/admin", None),
        ("..", Some("payments")),
        (".", None),
        ("", None),
        ("pay ments", None),
        ("payments%2fadmin", None),
        ("zahlungen-für-alle", None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut facts = Facts::from([("service".to_owned(), service.to_owned())]);
        facts.extend(role.map(|role| ("role".to_owned(), role.to_owned())));
        let before = mesh.authority.audit("attest").len();
        // Some are refused when the token is made, the others when it is used.
        let life = std::time::Duration::from_secs(60);
        let issuer = &mesh.authority.running().issuer;
        let Ok(token) = issuer.create_join_token("bootstrap", facts, life).await else {
            continue;
        };
        let agent = mesh
            .agent(&format!("agent-{number}"))
            .join_token(token.token.expose());
        let agent = agent.start_unready().await;
        let refused = until("the authority decides", async || {
            mesh.authority.audit("attest").into_iter().nth(before)
        });
        let refused = refused.await;
        assert_eq!(
            refused["decision"], "refused",
            "{service:?} {role:?}: {refused}"
        );
        let why = until("the agent is told", async || {
            let (_, text) = agent.probe("/readyz").await;
            text.contains("refused").then_some(text)
        });
        assert!(why.await.contains("rule"), "{service:?} {role:?}");
    }
}
