//! Every parameter of a role session: asked for as the configuration says it, and never mixed up.

use super::*;

/// The parameters of the last request.
fn asked(world: &World) -> std::collections::BTreeMap<String, String> {
    let (_, form) = world.sts.last_request();
    let pairs = form.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), decoded(value))
    });
    pairs.collect()
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn all() -> serde_json::Value {
    json!({
        "arn": ROLE,
        "session_name": "{name}@{trust_domain}",
        "external_id": "tenant-1",
        "source_identity": "{path}",
        "tags": {"team": "shop", "workload": "{spiffe_id}"},
        "transitive_tags": ["workload"],
        "policy": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]},
        "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
        "duration": "30m",
    })
}

#[tokio::test]
async fn every_parameter_of_assume_role_is_asked_for_as_the_file_says() {
    let world = World::of(timing(), json!({"all": all()}), |_| Vec::new()).await;
    assert_eq!(key(&world.signer_of("all")).await, "ASIA1");
    let asked = asked(&world);
    let expected = [
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", ROLE),
        ("RoleSessionName", "orders@example.org"),
        ("ExternalId", "tenant-1"),
        ("SourceIdentity", "shop.orders"),
        ("Tags.member.1.Key", "team"),
        ("Tags.member.1.Value", "shop"),
        ("Tags.member.2.Key", "workload"),
        ("Tags.member.2.Value", "spiffe://example.org/shop/orders"),
        ("TransitiveTagKeys.member.1", "workload"),
        (
            "Policy",
            r#"{"Statement":[{"Action":"s3:GetObject","Effect":"Allow","Resource":"*"}],"Version":"2012-10-17"}"#,
        ),
        (
            "PolicyArns.member.1.arn",
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
        ),
        ("DurationSeconds", "1800"),
    ];
    assert_eq!(asked.len(), expected.len(), "{asked:?}");
    for (name, value) in expected {
        assert_eq!(asked.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_session_is_shared_by_what_is_the_same_and_by_nothing_else() {
    let mut roles = serde_json::Map::new();
    roles.insert("first".to_owned(), all());
    roles.insert("same".to_owned(), all());
    let other = [
        ("arn", json!("arn:aws:iam::123456789012:role/other")),
        ("session_name", json!("other")),
        ("external_id", json!("tenant-2")),
        ("source_identity", json!("other")),
        ("tags", json!({"team": "shop", "workload": "x"})),
        ("transitive_tags", json!(["team"])),
        ("policy", json!({"Statement": []})),
        ("policy_arns", json!([])),
        ("duration", json!("31m")),
        ("from", json!("first")),
        ("from", json!({"web_identity": {"audience": "a"}})),
        ("from", json!({"web_identity": {"audience": "b"}})),
        ("from", json!({"web_identity": {"token_file": "/t"}})),
    ];
    for (index, (field, value)) in other.iter().enumerate() {
        let mut role = all();
        role[*field] = value.clone();
        roles.insert(format!("other-{index}"), role);
    }
    let names: Vec<String> = roles.keys().cloned().collect();
    let world = World::of(timing(), roles.into(), |_| Vec::new()).await;
    let session = |name: &String| {
        let role = name.parse().unwrap();
        world.roles.session(&role, Some(&workload())).unwrap()
    };
    let sessions: std::collections::HashSet<RoleSession> = names.iter().map(session).collect();
    // All but `same`.
    assert_eq!(sessions.len(), names.len() - 1);
    assert_eq!(session(&"first".to_owned()), session(&"same".to_owned()));
    assert_eq!(key(&world.signer_of("first")).await, "ASIA1");
    assert_eq!(key(&world.signer_of("same")).await, "ASIA1");
    assert_eq!(key(&world.signer_of("other-0")).await, "ASIA2");
}

#[tokio::test]
async fn a_role_by_its_arn_alone_is_named_after_the_workload() {
    let world = World::new().await;
    assert_eq!(key(&world.signer_of(ROLE)).await, "ASIA1");
    let asked = asked(&world);
    assert_eq!(asked["RoleSessionName"], "shop.orders");
    assert_eq!(asked["DurationSeconds"], "3600");
    assert_eq!(asked.len(), 5, "{asked:?}");
}

#[tokio::test]
async fn a_session_that_is_named_after_the_workload_waits_for_its_identity() {
    let world = World::new().await;
    let plain = ROLE.parse().unwrap();
    let none = world.roles.session(&plain, None).unwrap_err();
    assert_eq!(none, SessionError::NoIdentity);
    let fixed = "orders-caller".parse().unwrap();
    assert!(world.roles.session(&fixed, None).is_ok());
}

#[tokio::test]
async fn a_tag_that_comes_out_too_long_is_an_error_that_says_so() {
    let role = json!({"arn": ROLE, "tags": {"workload": "{spiffe_id}"}});
    let world = World::of(timing(), json!({"tagged": role}), |_| Vec::new()).await;
    let id = warifu::SpiffeId::new(format!("spiffe://example.org/{}", "x".repeat(300))).unwrap();
    let role = "tagged".parse().unwrap();
    let error = world.roles.session(&role, Some(&id)).unwrap_err();
    assert!(
        error.to_string().contains("at most 256 characters"),
        "{error}"
    );
}

#[tokio::test]
async fn a_chain_is_walked_with_the_session_before() {
    let second = "arn:aws:iam::210987654321:role/second";
    let roles = json!({
        "first": {"arn": ROLE},
        "second": {"arn": second, "from": "first"},
    });
    let world = World::of(timing(), roles, |_| Vec::new()).await;
    let signer = world.signer_of("second");
    assert_eq!(key(&signer).await, "ASIA2");
    assert_eq!(world.sts.requests(), 2);
    let (head, form) = world.sts.last_request();
    assert!(form.contains("role%2Fsecond"), "{form}");
    let authorization = head.headers[AUTHORIZATION].to_str().unwrap();
    assert!(
        authorization.contains("Credential=ASIA1/"),
        "{authorization}"
    );
    // The first is used, not asked for again, by who needs it alone.
    assert_eq!(key(&world.signer_of("first")).await, "ASIA1");
    assert_eq!(world.sts.requests(), 2);
}

#[tokio::test]
async fn a_chain_that_breaks_says_where() {
    let roles = json!({
        "first": {"arn": ROLE},
        "second": {"arn": "arn:aws:iam::210987654321:role/second", "from": "first"},
    });
    let world = World::of(timing(), roles, |_| Vec::new()).await;
    world.sts.answer([denied()]);
    let error = signed(&world.signer_of("second"))
        .await
        .unwrap_err()
        .to_string();
    let said = "AssumeRole for arn:aws:iam::210987654321:role/second was not tried: STS refused AssumeRole for arn";
    assert!(error.contains(said), "{error}");
    assert_eq!(world.sts.requests(), 1);
    // A session that STS no longer accepts is renewed before the next role is assumed with it.
    world.clock.advance(MINUTE);
    let expired = Answer::Error(403, "ExpiredToken", "expired".to_owned());
    world.sts.answer([Answer::Credentials(HOUR), expired]);
    let error = signed(&world.signer_of("second"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("The session of arn:aws:iam::123456789012:role/orders-caller"),
        "{error}"
    );
    world.clock.advance(MINUTE);
    world.sts.answer([Answer::Credentials(HOUR)]);
    assert_eq!(key(&world.signer_of("second")).await, "ASIA3");
}

#[tokio::test]
async fn s14_a_thousand_first_calls_make_one_call_of_sts() {
    let world = World::new().await;
    world.sts.answer([Answer::Held(HOUR)]);
    let signer = Arc::new(world.signer());
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let signer = signer.clone();
            tokio::spawn(async move { key(&signer).await })
        })
        .collect();
    world.sts.arrived().await;
    world.sts.release();
    for call in calls {
        assert_eq!(call.await.unwrap(), "ASIA1");
    }
    assert_eq!(world.sts.requests(), 1);
}

#[derive(Debug)]
struct Issued(std::sync::atomic::AtomicUsize);

impl IdentityTokens for Issued {
    fn token<'a>(
        &'a self,
        audience: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<warifu::Secret<String>, String>> + Send + 'a>>
    {
        Box::pin(async move {
            let n = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match n {
                0 => Err("the authority is away".to_owned()),
                _ => Ok(warifu::Secret::new(format!("svid-for-{audience}-{n}"))),
            }
        })
    }
}

#[tokio::test]
async fn a_role_is_assumed_with_a_token_of_a_file_read_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let roles = json!({"web": {"arn": ROLE, "from": {"web_identity": {"token_file": file}}, "duration": "2h"}});
    let world = World::of(timing(), roles, |_| Vec::new()).await;
    let signer = world.signer_of("web");
    let error = signed(&signer).await.unwrap_err().to_string();
    assert!(
        error.contains("AssumeRoleWithWebIdentity") && error.contains("was not tried"),
        "{error}"
    );
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    for (n, token) in ["first", "second"].into_iter().enumerate() {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        world.clock.advance(3 * HOUR);
        assert_eq!(key(&signer).await, format!("ASIA{}", n + 1));
        let (head, _) = world.sts.last_request();
        assert!(
            !head.headers.contains_key(AUTHORIZATION),
            "it is not signed"
        );
        let asked = asked(&world);
        let expected = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("WebIdentityToken", token),
            ("RoleSessionName", "shop.orders"),
            ("DurationSeconds", "7200"),
        ];
        for (name, value) in expected {
            assert_eq!(asked[name], value);
        }
    }
}

#[tokio::test]
async fn a_role_is_assumed_with_a_token_of_the_authority() {
    let roles =
        json!({"web": {"arn": ROLE, "from": {"web_identity": {"audience": "sts.amazonaws.com"}}}});
    let world = World::of(timing(), roles, |_| Vec::new()).await;
    let issued: Arc<dyn IdentityTokens> = Arc::new(Issued(0.into()));
    world.roles.present_tokens_of(&issued);
    let signer = world.signer_of("web");
    let error = signed(&signer).await.unwrap_err().to_string();
    assert!(error.contains("the authority is away"), "{error}");
    world.clock.advance(MINUTE);
    assert_eq!(key(&signer).await, "ASIA1");
    assert_eq!(
        asked(&world)["WebIdentityToken"],
        "svid-for-sts.amazonaws.com-1"
    );
}

#[tokio::test]
async fn s12_a_token_that_sts_quotes_is_not_repeated() {
    let roles = json!({"web": {"arn": ROLE, "from": {"web_identity": {"audience": "a"}}}});
    let world = World::of(timing(), roles, |_| Vec::new()).await;
    let issued: Arc<dyn IdentityTokens> = Arc::new(Issued(1.into()));
    world.roles.present_tokens_of(&issued);
    let quoting = "the token svid-for-a-1 is no good".to_owned();
    world
        .sts
        .answer([Answer::Error(400, "InvalidIdentityToken", quoting)]);
    let error = signed(&world.signer_of("web"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("InvalidIdentityToken: the token *** is no good"),
        "{error}"
    );
    assert!(error.contains("An IAM OIDC provider"), "{error}");
}
