//! Waiting for what must come true.

use std::time::{Duration, Instant};

/// How long a test waits for what should take moments: other tests and builds run on the same cores.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Asks until there is an answer; panics at [`DEADLINE`], saying `what` never was.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            began.elapsed() < DEADLINE,
            "waited {DEADLINE:?} in vain: {what}"
        );
        tokio::time::sleep(LOOK).await;
    }
}
