//! The authority takes an attestation record no more, while the certificate that it issued on it is good. A token is
//! refused for a reason that passes then, with the agent's next attestation; nobody who asks is told that it was decided.

use spiffe::{WorkloadApiClient, WorkloadApiError};
use warifu_tests::{
    mesh::{Mesh, until},
    oauth::{Endpoint, FORM},
    process::Sandbox,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_authority_takes_no_more_is_unavailable_at_every_door_and_not_denied() {
    let mut mesh = Mesh::with(|authority| {
        let authority = authority.on_disk();
        authority.more("tokens: {access_token: {issuer: \"https://tokens.example.org\"}}")
    })
    .await;
    let dir = mesh.dir().display().to_string();
    let (api, oauth) = (
        format!("unix:{dir}/api.sock"),
        format!("unix:{dir}/oauth.sock"),
    );
    let agent = mesh.agent("orders").more(&format!(
        "local: {{workload_api: {{listen: \"{api}\"}}, oauth: {{listen: \"{oauth}\", audiences: [payments, ledger]}}}}"
    ));
    let agent = agent.start().await;
    let client = WorkloadApiClient::connect_to(&api).await.unwrap();
    client.fetch_jwt_svid(["payments"], None).await.unwrap();

    // The attestor of the record is called otherwise now.
    mesh.authority.stop();
    let rename = |yaml: String| yaml.replace("bootstrap", "renamed");
    mesh.authority.configure(rename);
    mesh.authority.start().await;
    let why = "attest again, with evidence";

    let told = until("the authority has looked at the record", async || {
        let told = client.fetch_jwt_svid(["billing"], None).await.unwrap_err();
        told.to_string().contains(why).then_some(told)
    })
    .await;
    assert!(matches!(told, WorkloadApiError::Transport(_)), "{told:?}");
    let told = format!("{told:?}");
    assert!(
        told.contains("Unavailable") && !told.contains("no identity issued"),
        "{told}"
    );

    let form = format!("{FORM}&audience=ledger");
    let answer = until("the authority has looked at the record", async || {
        let answer = Endpoint::of(&agent).ask(&[], &form).await;
        let said = answer.json()["error_description"].to_string();
        said.contains(why).then_some(answer)
    })
    .await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "temporarily_unavailable")
    );
    assert_eq!(answer.headers["retry-after"], "2");

    let asked = tokio::task::spawn_blocking(move || {
        let token = [
            "token",
            "--audience",
            "shipping",
            "--timeout",
            "3s",
            "--socket",
            &api,
        ];
        Sandbox::new().warifu(&token).run()
    });
    let asked = asked.await.unwrap();
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(
        asked.stderr.contains("has nothing to give yet"),
        "{asked:?}"
    );

    // And it passes.
    mesh.authority.stop();
    mesh.authority
        .configure(|yaml| yaml.replace("renamed", "bootstrap"));
    mesh.authority.start().await;
    until("there is a token", async || {
        let again = client.fetch_jwt_svid(["billing"], None).await;
        again.ok()
    })
    .await;
    until("there is an access token", async || {
        let answer = Endpoint::of(&agent).ask(&[], &form).await;
        (answer.status == 200).then_some(())
    })
    .await;
}
