//! The state stores: one suite, run over every one of them, each opened twice as two replicas would. What
//! only one of them can do wrong is tested beside its code.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use serde_json::json;
use warifu_agent::{
    authority::state::{DynamoDb, Memory, Sqlite, Store, StoreError},
    aws,
    config::aws::Aws,
};
use warifu_tests::peers::{Ministack, UserKeys};

mod suite;

use suite::Replicas;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_memory_keeps_what_every_store_promises() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    suite::run(&[Arc::clone(&store), store]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_sqlite_keeps_what_every_store_promises() {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("state.db")).unwrap();
    // A second process is refused; clones are what there is of replicas.
    suite::run(&[Arc::new(store.clone()), Arc::new(store)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_dynamodb_keeps_what_every_store_promises() {
    let table = Table::make("warifu").await;
    let replicas: Replicas = [
        Arc::new(table.open(&table.authority).await.unwrap()),
        Arc::new(table.open(&table.authority).await.unwrap()),
    ];
    suite::run(&replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dynamodb_lacks_is_said_at_the_start_with_what_to_do() {
    let table = Table::make("warifu").await;
    let expect = async |opened: Result<DynamoDb, StoreError>, words: &[&str]| {
        let refused = opened.unwrap_err().to_string();
        for word in words {
            assert!(refused.contains(word), "no {word:?} in: {refused}");
        }
    };
    let reader = table.user("reader", &["dynamodb:GetItem"]).await;
    let writes = [
        "dynamodb:PutItem on the table",
        "table/warifu",
        "docs/operations.md",
    ];
    expect(table.open(&reader).await, &writes).await;
    let nobody = table.user("nobody", &["dynamodb:ListTables"]).await;
    expect(
        table.open(&nobody).await,
        &["dynamodb:GetItem on the table"],
    )
    .await;

    let missing = table.named("missing");
    let words = [
        "state.dynamodb.table (missing)",
        "(us-east-1)",
        "make the table",
    ];
    expect(missing.open(&table.authority).await, &words).await;

    table.make_with_another_key("sorted").await;
    let sorted = table.named("sorted");
    expect(
        sorted.open(&table.authority).await,
        &["string pk, without a sort key"],
    )
    .await;

    let table = Table {
        endpoint: "http://127.0.0.1:1".to_owned(),
        ..table
    };
    let started = Instant::now();
    let words = ["no answer from table warifu", "Connection refused"];
    expect(table.open(&table.authority).await, &words).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "the front door waits 8 s"
    );
}

/// A table of ministack's, as `docs/operations.md` makes it, and who may use it.
struct Table {
    ministack: Arc<Ministack>,
    endpoint: String,
    name: String,
    authority: UserKeys,
}

impl Table {
    async fn make(name: &str) -> Self {
        let ministack = Ministack::start().await.unwrap();
        let table = json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        });
        let made = ministack.call("dynamodb", "create_table", table);
        made.await.unwrap();
        let statements = allow(&["dynamodb:GetItem", "dynamodb:PutItem"], "*");
        let authority = ministack.create_user("authority", statements);
        Self {
            authority: authority.await.unwrap(),
            endpoint: ministack.endpoint().to_owned(),
            ministack: Arc::new(ministack),
            name: name.to_owned(),
        }
    }

    async fn make_with_another_key(&self, name: &str) {
        let table = json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
        });
        let made = self.ministack.call("dynamodb", "create_table", table);
        made.await.unwrap();
    }

    async fn user(&self, name: &str, actions: &[&str]) -> UserKeys {
        let user = self.ministack.create_user(name, allow(actions, "*"));
        user.await.unwrap()
    }

    fn named(&self, name: &str) -> Self {
        Self {
            ministack: Arc::clone(&self.ministack),
            endpoint: self.endpoint.clone(),
            name: name.to_owned(),
            authority: self.authority.clone(),
        }
    }

    async fn open(&self, who: &UserKeys) -> Result<DynamoDb, StoreError> {
        let (id, secret) = (&who.access_key_id, &who.secret_access_key);
        let keys = Credentials::new(id, secret, None, None, "test");
        let settings = Aws {
            region: Some(Ministack::REGION.to_owned()),
            ..Aws::default()
        };
        let provider = SharedCredentialsProvider::new(keys);
        let sdk = aws::sdk_at(&settings, provider, &self.endpoint).await;
        DynamoDb::open(&sdk.unwrap(), &self.name).await
    }
}

fn allow(actions: &[&str], resource: &str) -> serde_json::Value {
    json!([{"Effect": "Allow", "Action": actions, "Resource": resource}])
}
