//! Users whom an Application Load Balancer signed in: what it says of them in `x-amzn-oidc-data` is verified by the keys
//! of its region, and believed of the load balancers alone that are listed.

use serde_json::{Value, json};
use warifu_tests::{
    alb::{LoadBalancers, Said},
    mesh::{Agent, App, Direct, Mesh, RawAnswer, until},
    oidc::{Algorithm, Issuer, claims},
};

const ISSUER: &str = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc";
const OURS: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/web/50dc6c495c0c9188";
const THEIRS: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:999999999999:loadbalancer/app/web/50dc6c495c0c9188";

struct World {
    region: LoadBalancers,
    agent: Agent,
    app: App,
    other: Issuer,
    _mesh: Mesh,
}

impl World {
    async fn start() -> Self {
        let (region, other) = (LoadBalancers::start().await, Issuer::start().await);
        let mesh = Mesh::start().await;
        let app = mesh.app("payments").await;
        let accept = format!(
            "[{{jwt: {{profile: alb, issuer: \"{ISSUER}\", signers: [\"{OURS}\"], client_ids: [web], \
             jwks_uri: \"{}\"}}}}, {{jwt: {{profile: oidc, issuer: \"{}\", audiences: [payments], \
             algorithms: [RS256]}}}}]",
            region.url(),
            other.url()
        );
        let allow =
            "[{subject: {issuer: alb, claims: {email: alice@example.org}}, to: [\"GET /**\"]}]";
        let agent = mesh
            .agent("payments")
            .app(&app)
            .accept(&accept)
            .allow(allow);
        let agent = agent.inbound_also("forward_claims: {sub: x-user-id, email: x-user-email}");
        Self {
            agent: agent.start().await,
            region,
            app,
            other,
            _mesh: mesh,
        }
    }

    fn alice(&self) -> Said {
        let user = json!({"sub": "a1", "email": "alice@example.org", "email_verified": "true"});
        self.region.says(OURS, ISSUER, "web", user)
    }

    /// What it says of Alice, with this changed.
    fn changed(&self, change: impl FnOnce(&mut Said)) -> Said {
        let mut said = self.alice();
        change(&mut said);
        said
    }

    /// Asks with these header lines.
    async fn ask(&self, lines: &str) -> RawAnswer {
        let mut direct = Direct::connect(&self.agent, None).await.unwrap();
        let request = format!("GET /a HTTP/1.1\nhost: payments\n{lines}\n");
        direct.exchange(&request).await.unwrap()
    }

    /// Asks as an ALB: its status, and why.
    async fn verdict(&self, token: &str) -> (u16, String) {
        let answer = self.ask(&format!("x-amzn-oidc-data: {token}\n")).await;
        let reason = answer.header("x-warifu-reason").unwrap_or_default();
        (answer.status, reason.to_owned())
    }
}

fn good() -> (u16, String) {
    (200, String::new())
}

fn invalid() -> (u16, String) {
    (401, "invalid-token".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_the_app_is_told_of_the_user_and_sees_nothing_of_what_the_load_balancer_sent() {
    let world = World::start().await;
    let token = world.region.sign(&world.alice());
    assert!(token.contains('='), "padded, as an ALB has it: {token}");
    for _ in 0..10 {
        let answer = world
            .ask(&format!(
                "x-amzn-oidc-data: {token}\nx-amzn-oidc-identity: mallory\nx-amzn-oidc-accesstoken: opaque\nx-user-id: mallory\n"
            ))
            .await;
        assert_eq!(answer.status, 200);
    }
    let seen = world.app.last();
    assert_eq!(seen.headers["x-user-id"], "a1");
    assert_eq!(seen.headers["x-user-email"], "alice@example.org");
    assert!(
        seen.headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-amzn-oidc")),
        "{:?}",
        seen.headers
    );
    let subject = seen.caller.unwrap().subject.unwrap();
    assert_eq!(
        (subject.proof.as_str(), subject.subject.as_str()),
        ("alb", "a1")
    );
    assert_eq!(world.region.asked().len(), 1, "one fetch for one key");

    // Another user has the same proof, and no rule.
    let bob = world.region.says(
        OURS,
        ISSUER,
        "web",
        json!({"sub": "b1", "email": "bob@example.org"}),
    );
    let bob = world.region.sign(&bob);
    assert_eq!(world.verdict(&bob).await, (403, "denied".to_owned()));
    let audit = format!("{:?}", world.agent.audit());
    assert!(!audit.contains(&token) && !audit.contains(&bob), "S12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_another_load_balancer_client_or_key_and_what_has_ended_is_refused() {
    let world = World::start().await;
    assert_eq!(
        world.verdict(&world.region.sign(&world.alice())).await,
        good()
    );
    type Change = fn(&mut Said);
    let changes: [(&str, Change); 13] = [
        ("another's load balancer", |it| {
            it.header["signer"] = THEIRS.into()
        }),
        ("no load balancer", |it| {
            drop(it.header.as_object_mut().unwrap().remove("signer"))
        }),
        ("another client", |it| it.header["client"] = "admin".into()),
        ("no client", |it| {
            drop(it.header.as_object_mut().unwrap().remove("client"))
        }),
        ("another issuer", |it| {
            it.claims["iss"] = "https://evil.example".into()
        }),
        ("ended", |it| it.header["exp"] = 1.into()),
        ("ended, by its payload", |it| it.claims["exp"] = 1.into()),
        ("no end", |it| {
            drop(it.header.as_object_mut().unwrap().remove("exp"));
        }),
        ("nobody", |it| {
            drop(it.claims.as_object_mut().unwrap().remove("sub"))
        }),
        ("no algorithm", |it| it.header["alg"] = "none".into()),
        ("another algorithm", |it| it.header["alg"] = "HS256".into()),
        ("an extension", |it| it.header["crit"] = json!(["exp"])),
        ("keys of its own", |it| {
            it.header["jku"] = "https://evil.example".into()
        }),
    ];
    for (what, change) in changes {
        let token = world.region.sign(&world.changed(change));
        assert_eq!(world.verdict(&token).await, invalid(), "{what}");
    }
    let forged = world.region.sign_by_another(&world.alice());
    assert_eq!(world.verdict(&forged).await, invalid());
    let token = world.region.sign(&world.alice());
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(world.verdict(&format!("{signed}.")).await, invalid());

    // It is worth nothing in another place, and nothing else is worth anything in its.
    let answer = world.ask(&format!("authorization: Bearer {token}\n")).await;
    assert_eq!(answer.status, 401);
    let oidc = claims(
        &world.other,
        "alice",
        "payments",
        json!({"email": "alice@example.org"}),
    );
    let oidc = world.other.sign(Algorithm::Rs256, &oidc);
    assert_eq!(world.verdict(&oidc).await, invalid());
    let twice = format!("x-amzn-oidc-data: {token}\nx-amzn-oidc-data: {token}\n");
    let answer = world.ask(&twice).await;
    assert!((400..500).contains(&answer.status), "{}", answer.head);
    assert_eq!(world.app.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_keys_are_fetched_by_name_as_they_rotate_and_while_they_are_away_the_answer_is_503() {
    let world = World::start().await;
    let first = world.region.sign(&world.alice());
    assert_eq!(world.verdict(&first).await, good());
    world.region.rotate();
    let second = world.region.sign(&world.alice());
    assert_eq!(world.verdict(&second).await, good());
    assert_eq!(world.region.asked().len(), 2);

    world.region.rotate();
    world.region.is_away(true);
    let third = world.region.sign(&world.alice());
    assert_eq!(world.verdict(&third).await, (503, "no-keys".to_owned()));
    assert_eq!(world.verdict(&first).await, good(), "its key is at hand");
    world.region.is_away(false);
    until("the third key is had", async || {
        (world.verdict(&third).await == good()).then_some(())
    })
    .await;

    // Names that nobody gave drive few fetches, and are no way out of the place of the keys.
    let before = world.region.asked().len();
    for n in 0..50 {
        let name: Value = match n % 3 {
            0 => "../../secret".into(),
            1 => format!("{n}?x=").into(),
            _ => format!("unknown-{n}").into(),
        };
        let said = world.changed(|it| it.header["kid"] = name);
        let verdict = world.verdict(&world.region.sign(&said)).await;
        assert_ne!(verdict, good());
    }
    let asked = world.region.asked();
    assert!(asked.len() - before <= 20, "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|path| !path.contains("..") && !path.contains('?')),
        "{asked:?}"
    );
    assert_eq!(world.verdict(&first).await, good());
}
