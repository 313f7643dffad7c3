//! AWS's own SDK, unmodified, with keys that are worth nothing, pointed at the agent: each request is signed anew,
//! as the route's role.

use serde_json::{Value, json};
use warifu_tests::{
    aws::{Account, Agent},
    peers::{Boto, CallError, Caller, Ministack},
};

/// What the app has instead of credentials.
const NOTHING: &str = "unused";

/// An agent with a route for each service, by the host that the SDK is pointed at.
async fn agent(account: &Account, routes: &[(&str, &str)]) -> Agent {
    let mut lines = Vec::new();
    for (host, service) in routes {
        let actions = format!("{service}:*");
        let role = account
            .role(&format!("{service}-caller"), json!({}), &actions)
            .await;
        lines.push(account.service_route(host, service, &format!("role: \"{role}\"")));
    }
    account.agent(&lines)
}

/// The app.
struct App {
    boto: Boto,
    endpoint: String,
    service: &'static str,
}

impl App {
    async fn of(agent: &Agent, host: &str, service: &'static str) -> Self {
        Self {
            boto: Boto::start().await.unwrap(),
            endpoint: format!("http://{host}:{}", agent.address().port()),
            service,
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            endpoint: &self.endpoint,
            region: Ministack::REGION,
            access_key_id: NOTHING,
            secret_access_key: NOTHING,
        }
    }

    async fn try_call(&self, operation: &str, parameters: Value) -> Result<Value, CallError> {
        self.boto
            .call(self.caller(), self.service, operation, parameters)
            .await
    }

    async fn call(&self, operation: &str, parameters: Value) -> Value {
        let said = self.try_call(operation, parameters).await;
        said.unwrap_or_else(|why| panic!("{operation}: {why}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_and_sqs_serve_an_sdk_that_holds_no_credentials() {
    let account = Account::open().await;
    account
        .set_up(
            "dynamodb",
            "create_table",
            json!({
                "TableName": "orders",
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
            }),
        )
        .await;
    let routes = [("127.0.0.1", "dynamodb"), ("localhost", "sqs")];
    let through = agent(&account, &routes).await;
    let app = App::of(&through, "127.0.0.1", "dynamodb").await;
    let item = json!({"id": {"S": "割符 1"}, "n": {"N": "1"}});
    app.call("put_item", json!({"TableName": "orders", "Item": item}))
        .await;
    let key = json!({"TableName": "orders", "Key": {"id": {"S": "割符 1"}}});
    assert_eq!(app.call("get_item", key).await["Item"], item);
    // What the operation is called is a header, and signed.
    let sent = account.wire.take_sent();
    assert!(
        sent.contains("\r\nx-amz-target: DynamoDB_20120810.PutItem\r\n"),
        "{sent}"
    );
    assert!(sent.contains(";x-amz-target, Signature="), "{sent}");
    assert!(!sent.contains(NOTHING), "{sent}");
    account
        .wire
        .swap("DynamoDB_20120810.GetItem", "DynamoDB_20120810.PutItem");
    let key = json!({"TableName": "orders", "Key": {"id": {"S": "x"}}});
    assert!(app.try_call("get_item", key).await.is_err());
    assert_eq!(account.wire.swapped(), 1);

    let queue = account
        .set_up("sqs", "create_queue", json!({"QueueName": "jobs"}))
        .await;
    let url = &queue["QueueUrl"];
    let app = App::of(&through, "localhost", "sqs").await;
    app.call(
        "send_message",
        json!({"QueueUrl": url, "MessageBody": "a job"}),
    )
    .await;
    let got = app.call("receive_message", json!({"QueueUrl": url})).await;
    assert_eq!(got["Messages"][0]["Body"], "a job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_serves_an_sdk_that_holds_no_credentials_in_parts_and_with_checksums() {
    let account = Account::open().await;
    account
        .set_up("s3", "create_bucket", json!({"Bucket": "shelf"}))
        .await;
    let through = agent(&account, &[("127.0.0.1", "s3")]).await;
    let app = App::of(&through, "127.0.0.1", "s3").await;
    for key in [
        "plain",
        "with space+plus",
        "a//b/割符",
        "..dots/.",
        "per%2Fcent",
    ] {
        let object = json!({
            "Bucket": "shelf", "Key": key, "Body": "hello", "ContentType": "text/plain",
            "Metadata": {"owner": "alice"},
        });
        app.call("put_object", object).await;
        let there = json!({"Bucket": "shelf", "Key": key});
        let got = app.call("get_object", there.clone()).await;
        assert_eq!(got["Body"], "hello", "{key}");
        assert_eq!(got["Metadata"], json!({"owner": "alice"}));
        // As the service has it.
        assert_eq!(
            account.set_up("s3", "get_object", there).await["Body"],
            "hello"
        );
    }
    let copy = json!({"Bucket": "shelf", "Key": "copy", "CopySource": "shelf/with space+plus"});
    app.call("copy_object", copy).await;
    let got = app
        .call("get_object", json!({"Bucket": "shelf", "Key": "copy"}))
        .await;
    assert_eq!(got["Body"], "hello");
    assert!(!account.wire.take_sent().contains(NOTHING));
    // Above boto3's threshold of 8 MiB: several parts, at the same time.
    let transfer = app.boto.transfer(app.caller(), "shelf", "large", 20 << 20);
    assert!(transfer.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lambda_s_url_and_its_api_serve_an_app_that_holds_no_credentials() {
    let account = Account::open().await;
    let role = account.role("lambda-caller", json!({}), "lambda:*").await;
    let function = json!({
        "FunctionName": "greeter",
        "Runtime": "python3.12",
        "Role": role,
        "Handler": "index.handler",
        "Code": {"ZipFile": {"$zip": {"index.py": "import base64\ndef handler(event, context):\n    body = event.get('body', '')\n    if event.get('isBase64Encoded'):\n        body = base64.b64decode(body).decode()\n    return {'statusCode': 200, 'body': 'hello ' + body}\n"}}},
    });
    account.set_up("lambda", "create_function", function).await;
    let url = json!({"FunctionName": "greeter", "AuthType": "AWS_IAM"});
    let url = account
        .set_up("lambda", "create_function_url_config", url)
        .await;
    let url = url["FunctionUrl"].as_str().unwrap();
    let id = url
        .strip_prefix("https://")
        .unwrap()
        .split_once('.')
        .unwrap()
        .0;
    // How the emulator serves it without a name of its own.
    let upstream = format!("http://{}/_aws/lambda-url/{id}", account.wire.address());
    let agent = account.agent(&[
        format!("- {{host: greeter, upstream: \"{upstream}\", sigv4: {{service: lambda, role: \"{role}\"}}}}\n"),
        account.service_route("127.0.0.1", "lambda", &format!("role: \"{role}\"")),
    ]);
    let greet = || {
        let request = http::Request::post("/a%20b?b=2&a=1")
            .header("host", "greeter")
            .header("content-type", "text/plain");
        agent.send(request.body("alice".into()).unwrap())
    };
    let answer = greet().await;
    answer.is_of_the_service(200);
    assert_eq!(answer.text, "hello alice");
    account.wire.swap("alice", "mallo");
    greet().await.is_of_the_service(403);
    assert_eq!(account.wire.swapped(), 1);
    let app = App::of(&agent, "127.0.0.1", "lambda").await;
    let asked = json!({
        "FunctionName": "greeter", "InvocationType": "RequestResponse", "LogType": "Tail",
        "Payload": "{\"body\": \"bob\"}",
    });
    let said = app.call("invoke", asked).await;
    assert!(
        said["Payload"].as_str().unwrap().contains("hello bob"),
        "{said}"
    );
}
