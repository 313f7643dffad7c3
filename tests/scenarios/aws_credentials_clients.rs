//! The AWS SDKs and the AWS CLI, as they are, get the credentials of the app's role from its agent: from the container
//! endpoint, emulated instance metadata, and `credential_process`.

use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use warifu_agent::{aws, config::aws::Aws};
use warifu_tests::{
    aws::{Endpoints, Keys, Source},
    peers::{AwsSdk, Environment, Ministack, RUST_ASKS, Unavailable},
};

/// What STS says of who calls: the role, with a session named after `spiffe://example.org/orders`.
const CALLER: &str = "arn:aws:sts::000000000000:assumed-role/orders-app/orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sdk_and_the_cli_call_aws_with_the_role_across_starts_and_drains() {
    let (ministack, role) = account().await;
    let user = ministack.create_user("agent", may_assume()).await.unwrap();
    let keys = Keys {
        id: &user.access_key_id,
        secret: &user.secret_access_key,
    };
    let endpoints = Endpoints::of(&role);
    let sts = ministack.endpoint();
    let from = |source| endpoints.environment(source, sts);
    let mut sdks = all_sdks().await.unwrap();

    // Before the agent: an error, and no end. The client that is kept is the app's own.
    let container = from(Source::Container);
    for sdk in &mut sdks {
        failed(sdk.name, &ask(sdk, &container, Some("app")).await);
    }

    let agent = endpoints.start(keys, sts);
    for sdk in &mut sdks {
        is_caller(sdk.name, &ask(sdk, &container, Some("app")).await);
        for source in Source::ALL {
            is_caller(sdk.name, &ask(sdk, &from(source), None).await);
        }
    }

    // A new agent, and so a new token.
    let token = std::fs::read(endpoints.token_file()).unwrap();
    assert_eq!(agent.stop().code, Some(0));
    assert!(!endpoints.token_file().exists());
    let agent = endpoints.start(keys, sts);
    assert_ne!(std::fs::read(endpoints.token_file()).unwrap(), token);
    for sdk in &mut sdks {
        for source in Source::ALL {
            is_caller(sdk.name, &ask(sdk, &from(source), None).await);
        }
    }

    // Drained: who has credentials goes on, who has none is told.
    assert_eq!(agent.stop().code, Some(0));
    for sdk in &mut sdks {
        failed(sdk.name, &ask(sdk, &container, None).await);
        if sdk.keeps_clients() {
            is_caller(sdk.name, &ask(sdk, &container, Some("app")).await);
        }
    }
    let alone = endpoints.workload.warifu(&["aws-credentials", "--socket"]);
    let socket = format!("unix:{}", endpoints.socket().display());
    let alone = alone.args(&[&socket]).run();
    assert_eq!((alone.code, alone.stdout.as_str()), (Some(1), ""));
    assert!(alone.stderr.contains("is the agent running"), "{alone:?}");
}

/// The Rust SDK reads its process's environment: it is asked in a process of its own.
#[tokio::test]
async fn the_rust_sdk_is_asked() {
    if std::env::var_os(RUST_ASKS).is_none() {
        return;
    }
    let said = ask_rust().await;
    println!("\n{}", said.unwrap_or_else(|why| json!({"error": why})));
}

async fn ask_rust() -> Result<Value, String> {
    let sdk = aws::sdk(&Aws::default(), &mut Registry::default()).await;
    let sdk = sdk.map_err(|why| why.to_string())?;
    let sts = aws_sdk_sts::Client::new(&sdk);
    let me = sts.get_caller_identity().send().await;
    let me = me.map_err(|why| aws::chain(&why))?;
    Ok(json!({"arn": me.arn()}))
}

async fn account() -> (Ministack, String) {
    let ministack = Ministack::start().await.unwrap();
    let trust = json!([{
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{}:root", Ministack::ACCOUNT)},
    }]);
    let may = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]);
    let role = ministack.create_role("orders-app", trust, may).await;
    (ministack, role.unwrap())
}

fn may_assume() -> Value {
    json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}])
}

pub(super) async fn all_sdks() -> Result<Vec<AwsSdk>, Unavailable> {
    Ok(vec![
        AwsSdk::boto3().await?,
        AwsSdk::cli().await?,
        AwsSdk::rust("aws_credentials_clients::the_rust_sdk_is_asked")?,
        #[cfg(feature = "peers-js")]
        AwsSdk::js().await?,
        #[cfg(feature = "peers-go")]
        AwsSdk::go().await?,
    ])
}

async fn ask(sdk: &mut AwsSdk, environment: &Environment, kept: Option<&str>) -> Value {
    sdk.ask(environment, kept).await.unwrap()
}

fn is_caller(name: &str, answer: &Value) {
    assert_eq!(*answer, json!({"arn": CALLER}), "{name}");
}

fn failed(name: &str, answer: &Value) {
    let why = answer["error"].as_str();
    assert!(why.is_some_and(|why| !why.is_empty()), "{name}: {answer}");
}
