//! What the scenarios of an STS in trouble share: sessions that are over in seconds, and an app that goes on calling.

use std::time::{Duration, SystemTime};

use warifu_tests::{
    aws::{Agent, Answer, Keys},
    mesh::until,
};

pub(crate) const KEYS: Keys<'_> = Keys {
    id: "AKIABASE",
    secret: "s",
};
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/orders-caller";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Real STS gives no session so short; it is as if the rest of its life had passed.
pub(crate) const LIFE: Duration = Duration::from_secs(6);

/// Before a session's end: tests look away, as what they ask then may arrive after it.
const BLINK: Duration = Duration::from_millis(500);

/// The key the API was called with.
pub(crate) fn key(answer: &Answer) -> String {
    answer.is_of_the_service(200);
    let said: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    said["called_with"].as_str().unwrap().to_owned()
}

/// Calls until the session's end, and every call must pass: how many did.
pub(crate) async fn outlive(agent: &Agent, expires: SystemTime) -> u32 {
    let mut served = 0;
    let is_over = || SystemTime::now() + BLINK >= expires;
    until("the session is over", async || {
        if is_over() {
            return Some(());
        }
        let answer = agent.post("api", "/charges").await;
        // What was asked in good time and answered late, on a busy machine, says nothing.
        if !is_over() {
            assert_eq!(key(&answer), "ASIA1");
            served += 1;
        }
        None
    })
    .await;
    served
}
