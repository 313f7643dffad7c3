//! One DynamoDB table, for any number of replicas. Every write is one conditional `PutItem`, every read a
//! strongly consistent `GetItem`: the table's key policy and its cost are in `docs/operations.md`.
//!
//! | `pk` | attributes |
//! | --- | --- |
//! | `ca_state`, `revocations`, `federation` | `version`, `document`, `swap` (whose write it was) |
//! | `join-token#HASH` | `attestor`, `facts` (JSON), `lineage`, `expires_at` (Unix milliseconds) |
//! | `claim#ID` | `holder`, `kept_until` (Unix milliseconds) |
//!
//! `forget_at` (Unix seconds) is the attribute for DynamoDB's time to live. It deletes days late, so that
//! nothing here relies on it.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_config::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client, error::SdkError, operation::put_item::PutItemError, primitives::Blob,
    types::AttributeValue,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::SdkConfig;

use super::{
    super::{ca::hex, keys},
    Claim, Claimed, Document, JoinToken, Pending, REMEMBER, Store, StoreError, TokenHash,
    Versioned, check_size, from_millis, millis,
};

mod error;

use error::Doing;

/// One attempt: DynamoDB answers in milliseconds, and a lost packet should cost one second, not eight.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// An operation with its attempts. Attesting takes two, and the front door gives it 8 s.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More only adds to the load that made the first ones fail.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt, doubled for the third, with the SDK's jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The partition key.
const PK: &str = "pk";
/// The attribute for the table's time to live.
const FORGET_AT: &str = "forget_at";

/// A table. Clones share its client.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    region: String,
}

type Item = HashMap<String, AttributeValue>;

impl DynamoDb {
    /// The table `table` of `sdk`'s account and region. Asks it whether it may be read and written, without
    /// writing: what is missing should be said at the start, and not to the first agent.
    ///
    /// # Errors
    /// When DynamoDB can't be reached, there is no such table, its key is another, or a permission is
    /// missing.
    pub async fn open(sdk: &SdkConfig, table: &str) -> Result<Self, StoreError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT_TIMEOUT)
            .read_timeout(ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(TIMEOUT);
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_PAUSE);
        let config = aws_sdk_dynamodb::config::Builder::from(sdk)
            .timeout_config(timeouts.build())
            .retry_config(retries);
        let store = Self {
            client: Client::from_conf(config.build()),
            table: table.to_owned(),
            region: sdk.region().map(ToString::to_string).unwrap_or_default(),
        };
        store.load(Document::CaState).await?;
        // Nothing fulfils this condition, so nothing is written.
        let probe = Put {
            item: store.item("probe"),
            condition: "attribute_exists(#pk) AND attribute_not_exists(#pk)",
            names: &[("#pk", PK)],
            values: vec![],
        };
        store.put("asking whether it may be written", probe).await?;
        Ok(store)
    }

    async fn get(&self, what: Doing, pk: &str) -> Result<Option<Item>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(PK, text(pk))
            .consistent_read(true)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(answer.item),
            Err(why) => Err(self.failed(what, "dynamodb:GetItem", &why)),
        }
    }

    /// False if the condition did not hold.
    async fn put(&self, what: Doing, put: Put<'_>) -> Result<bool, StoreError> {
        let mut request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(put.item))
            .condition_expression(put.condition);
        // Always by another name: some of ours are words of the expression language.
        for (name, attribute) in put.names {
            request = request.expression_attribute_names(*name, *attribute);
        }
        for (name, value) in put.values {
            request = request.expression_attribute_values(name, value);
        }
        match request.send().await {
            Ok(_) => Ok(true),
            Err(why) if did_not_hold(&why) => Ok(false),
            Err(why) => Err(self.failed(what, "dynamodb:PutItem", &why)),
        }
    }

    fn item(&self, pk: &str) -> Item {
        HashMap::from([(PK.to_owned(), text(pk))])
    }

    async fn swap(
        &self,
        which: Document,
        expected: Option<i64>,
        document: Vec<u8>,
    ) -> Result<bool, StoreError> {
        check_size(which, &document)?;
        let version = expected.unwrap_or(0) + 1;
        let nonce = keys::random::<16>().map_err(|why| StoreError::Failed(why.to_string()))?;
        let swap = hex(nonce.expose());
        let mut item = self.item(which.name());
        item.insert("version".to_owned(), number(version));
        item.insert(
            "document".to_owned(),
            AttributeValue::B(Blob::new(document)),
        );
        item.insert("swap".to_owned(), text(&swap));
        let put = match expected {
            None => Put {
                item,
                condition: "attribute_not_exists(#pk)",
                names: &[("#pk", PK)],
                values: vec![],
            },
            Some(expected) => Put {
                item,
                condition: "#version = :expected",
                names: &[("#version", "version")],
                values: vec![(":expected", number(expected))],
            },
        };
        if self.put("swapping a document", put).await? {
            return Ok(true);
        }
        // The SDK sends again what was not answered; the first may have been done.
        let found = self.get("looking who was first", which.name()).await?;
        Ok(found.is_some_and(|item| item.get("swap") == Some(&text(&swap))))
    }
}

impl Store for DynamoDb {
    fn load(&self, which: Document) -> Pending<'_, Option<Versioned>> {
        Box::pin(async move {
            let Some(item) = self.get("loading a document", which.name()).await? else {
                return Ok(None);
            };
            let document = item
                .get("document")
                .and_then(|value| value.as_b().ok().cloned());
            match (number_of(&item, "version"), document) {
                (Some(version), Some(document)) => Ok(Some(Versioned {
                    version,
                    document: document.into_inner(),
                })),
                _ => Err(self.damaged(which.name())),
            }
        })
    }

    fn compare_and_swap(
        &self,
        which: Document,
        expected: Option<i64>,
        bytes: Vec<u8>,
    ) -> Pending<'_, bool> {
        Box::pin(self.swap(which, expected, bytes))
    }

    fn put_join_token(&self, token: JoinToken, _: SystemTime) -> Pending<'_, ()> {
        Box::pin(async move {
            let facts = serde_json::to_string(&token.facts)
                .map_err(|why| StoreError::Failed(why.to_string()))?;
            let mut item = self.item(&join_token_key(&token.hash));
            item.extend([
                ("attestor".to_owned(), text(&token.attestor)),
                ("facts".to_owned(), text(&facts)),
                ("lineage".to_owned(), text(&token.lineage)),
                ("expires_at".to_owned(), number(millis(token.expires_at))),
                (FORGET_AT.to_owned(), seconds(token.expires_at + REMEMBER)),
            ]);
            let put = Put {
                item,
                // Or it is there from an attempt that was not answered.
                condition: "attribute_not_exists(#pk) OR #lineage = :lineage",
                names: &[("#pk", PK), ("#lineage", "lineage")],
                values: vec![(":lineage", text(&token.lineage))],
            };
            match self.put("keeping a join token", put).await? {
                true => Ok(()),
                false => Err(StoreError::Failed(
                    "there is another join token with this hash".to_owned(),
                )),
            }
        })
    }

    fn join_token(&self, hash: TokenHash) -> Pending<'_, Option<JoinToken>> {
        Box::pin(async move {
            let key = join_token_key(&hash);
            let Some(item) = self.get("looking for a join token", &key).await? else {
                return Ok(None);
            };
            let of = |name| item.get(name).and_then(|value| value.as_s().ok());
            let facts = of("facts").and_then(|facts| serde_json::from_str(facts).ok());
            let expires_at = number_of(&item, "expires_at").map(from_millis);
            match (of("attestor"), facts, of("lineage"), expires_at) {
                (Some(attestor), Some(facts), Some(lineage), Some(expires_at)) => {
                    Ok(Some(JoinToken {
                        hash,
                        attestor: attestor.clone(),
                        facts,
                        lineage: lineage.clone(),
                        expires_at,
                    }))
                }
                _ => Err(self.damaged("a join token")),
            }
        })
    }

    fn claim(&self, claim: Claim, now: SystemTime) -> Pending<'_, Claimed> {
        Box::pin(async move {
            let end = claim.kept_until(now);
            let mut item = self.item(&format!("claim#{}", hex(&claim.id)));
            item.extend([
                ("holder".to_owned(), text(&claim.holder)),
                ("kept_until".to_owned(), number(millis(end))),
                (FORGET_AT.to_owned(), seconds(end)),
            ]);
            let put = Put {
                item,
                condition: "attribute_not_exists(#pk) OR #holder = :holder OR #kept_until <= :now",
                names: &[
                    ("#pk", PK),
                    ("#holder", "holder"),
                    ("#kept_until", "kept_until"),
                ],
                values: vec![
                    (":holder", text(&claim.holder)),
                    (":now", number(millis(now))),
                ],
            };
            Ok(match self.put("claiming", put).await? {
                true => Claimed::Yours,
                false => Claimed::Another,
            })
        })
    }
}

/// A conditional write.
struct Put<'a> {
    item: Item,
    condition: &'static str,
    names: &'a [(&'static str, &'static str)],
    values: Vec<(&'static str, AttributeValue)>,
}

fn did_not_hold(why: &SdkError<PutItemError, HttpResponse>) -> bool {
    why.as_service_error()
        .is_some_and(PutItemError::is_conditional_check_failed_exception)
}

fn join_token_key(hash: &TokenHash) -> String {
    format!("join-token#{}", hex(hash))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Unix seconds, rounded up.
fn seconds(time: SystemTime) -> AttributeValue {
    number(millis(time) / 1000 + 1)
}

fn number_of(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}
