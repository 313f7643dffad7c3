//! Tokens of a Cognito user pool, as an emulator has them: access tokens, which have no audience, and ID tokens, each
//! where it is asked for and nowhere else.

use serde_json::{Value, json};
use warifu_tests::{
    mesh::{Direct, Mesh, ORDERS, RawAnswer},
    peers::Ministack,
};

const PASSWORD: &str = "Correct-Horse-7";

struct Pool<'a> {
    ministack: &'a Ministack,
    id: String,
}

impl<'a> Pool<'a> {
    async fn create(ministack: &'a Ministack, name: &str) -> Self {
        let pool = call(ministack, "create_user_pool", json!({"PoolName": name})).await;
        let id = text(&pool, "/UserPool/Id");
        let user = json!({"UserPoolId": id, "Username": "alice", "MessageAction": "SUPPRESS"});
        call(ministack, "admin_create_user", user).await;
        let password = json!({
            "UserPoolId": id, "Username": "alice", "Password": PASSWORD, "Permanent": true,
        });
        call(ministack, "admin_set_user_password", password).await;
        Self { ministack, id }
    }

    async fn client(&self, name: &str) -> String {
        let client = json!({
            "UserPoolId": self.id, "ClientName": name, "ExplicitAuthFlows": ["ALLOW_USER_PASSWORD_AUTH"],
        });
        let client = call(self.ministack, "create_user_pool_client", client).await;
        text(&client, "/UserPoolClient/ClientId")
    }

    /// What alice gets who signs in by `client`: an access token and an ID token.
    async fn sign_in(&self, client: &str) -> (String, String) {
        let asked = json!({
            "ClientId": client, "AuthFlow": "USER_PASSWORD_AUTH",
            "AuthParameters": {"USERNAME": "alice", "PASSWORD": PASSWORD},
        });
        let signed_in = call(self.ministack, "initiate_auth", asked).await;
        (
            text(&signed_in, "/AuthenticationResult/AccessToken"),
            text(&signed_in, "/AuthenticationResult/IdToken"),
        )
    }
}

async fn call(ministack: &Ministack, operation: &str, parameters: Value) -> Value {
    let called = ministack.call("cognito-idp", operation, parameters).await;
    called.unwrap_or_else(|why| panic!("{operation}: {why}"))
}

fn text(value: &Value, at: &str) -> String {
    let text = value.pointer(at).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{at} in {value}")).to_owned()
}

fn issuer(token: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap());
    let payload: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    text(&payload, "/iss")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_access_and_id_tokens_of_a_user_pool_are_taken_of_listed_clients_each_at_its_own_entry()
{
    let ministack = Ministack::start().await.unwrap();
    let pool = Pool::create(&ministack, "shop").await;
    let (web, other) = (pool.client("web").await, pool.client("other").await);
    let (access, id) = pool.sign_in(&web).await;
    let (of_other, id_of_other) = pool.sign_in(&other).await;
    let foreign = Pool::create(&ministack, "foreign").await;
    let (foreign_access, _) = foreign.sign_in(&foreign.client("web").await).await;

    let mesh = Mesh::start().await;
    let entry = |profile: &str| {
        let (issuer, pool, endpoint) = (issuer(&access), &pool.id, ministack.endpoint());
        format!(
            "{{jwt: {{profile: {profile}, issuer: \"{issuer}\", client_ids: [\"{web}\"], \
             jwks_uri: \"{endpoint}/{pool}/.well-known/jwks.json\"}}}}"
        )
    };
    let orders = mesh.workload("orders").await;
    for (name, entries, takes_access, takes_id) in [
        ("access", vec![entry("cognito-access")], true, false),
        ("id", vec![entry("cognito-id")], false, true),
        (
            "both",
            vec![entry("cognito-id"), entry("cognito-access")],
            true,
            true,
        ),
    ] {
        let app = mesh.app(name).await;
        let mtls = "{mtls: {trust_domains: [example.org]}}";
        let accept = format!("[{mtls}, {}]", entries.join(", "));
        let agent = mesh.agent(&format!("payments-{name}")).app(&app);
        let agent = agent.accept(&accept).allow(ORDERS).start().await;
        let ask = async |token: &str| -> RawAnswer {
            let identity = orders.identity();
            let mut direct = Direct::connect(&agent, Some(&identity)).await.unwrap();
            let line = format!("GET / HTTP/1.1\nhost: a\nauthorization: Bearer {token}\n\n");
            direct.exchange(&line).await.unwrap()
        };
        for (token, proof, is_taken) in [
            (&access, "cognito-access", takes_access),
            (&id, "cognito-id", takes_id),
        ] {
            let answer = ask(token).await;
            assert_eq!(answer.status == 200, is_taken, "{name}: {}", answer.head);
            if is_taken {
                let subject = app.last().caller.unwrap().subject.unwrap();
                assert_eq!(subject.proof, proof);
            } else {
                assert_eq!(answer.header("x-warifu-reason"), Some("invalid-token"));
            }
        }
        // Of another client, of another pool, and with another signature.
        for token in [&of_other, &id_of_other, &foreign_access] {
            assert_eq!(ask(token).await.status, 401, "{name}");
        }
        let (signed, _) = access.rsplit_once('.').unwrap();
        let (_, signature) = of_other.rsplit_once('.').unwrap();
        assert_eq!(ask(&format!("{signed}.{signature}")).await.status, 401);
    }
}
