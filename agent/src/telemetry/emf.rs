//! Counts of decisions for CloudWatch: lines in its embedded metric format, which CloudWatch Logs makes metrics of by
//! itself. <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! What is counted are words of ours (`allowed`, `denied`; `bad-path`), never a caller or a path: every
//! combination of dimensions is a metric that somebody pays for.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{sync::oneshot, task::JoinHandle, time::MissedTickBehavior};

use super::audit::Audit;

/// What requests count in until they are written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The usual case, without a lock.
    allowed: AtomicU64,
    /// By result and reason: as many as the agent has reasons.
    others: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

/// Counts that are being written. Dropped, it writes the rest by itself.
#[derive(Debug)]
pub struct Writing {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Writing {
    /// Writes the rest: for when nothing more is counted.
    pub async fn finish(self) {
        drop(self.end);
        // It does not panic, and if it did, there would be nothing left to write.
        let _ = self.task.await;
    }
}

/// A line: one combination of dimensions.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "_aws")]
    aws: Aws<'a>,
    #[serde(rename = "Result")]
    result: &'a str,
    #[serde(rename = "Reason", skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(rename = "Requests")]
    requests: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Aws<'a> {
    /// Milliseconds since 1970.
    timestamp: u64,
    cloud_watch_metrics: [Directive<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'a str,
    dimensions: &'a [&'a [&'a str]],
    metrics: [Metric; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: &'static str,
    unit: &'static str,
}

impl Counts {
    /// One more that was let through.
    pub fn allowed(&self) {
        self.0.allowed.fetch_add(1, Ordering::Relaxed);
    }

    /// One more that was not.
    pub fn other(&self, result: &'static str, reason: &'static str) {
        let mut others = self.lock();
        let count = others.entry((result, reason)).or_default();
        *count = count.saturating_add(1);
    }

    /// Writes what was counted to `audit` in every span of time, in a task of its own.
    pub fn start(self, audit: Audit, namespace: String, every: Duration) -> Writing {
        let (end, mut ended) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            ticks.tick().await;
            loop {
                let over = tokio::select! {
                    _ = ticks.tick() => false,
                    _ = &mut ended => true,
                };
                self.flush(&audit, &namespace, SystemTime::now());
                if over {
                    return;
                }
            }
        });
        Writing { end, task }
    }

    /// Writes what was counted since the last time. Where nothing was, nothing.
    fn flush(&self, audit: &Audit, namespace: &str, now: SystemTime) {
        let allowed = self.0.allowed.swap(0, Ordering::Relaxed);
        let others = mem::take(&mut *self.lock());
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let line = |result, reason, requests| Line {
            aws: Aws {
                timestamp,
                cloud_watch_metrics: [Directive {
                    namespace,
                    dimensions: match reason {
                        Some(_) => &[&["Result"], &["Result", "Reason"]],
                        None => &[&["Result"]],
                    },
                    metrics: [Metric {
                        name: "Requests",
                        unit: "Count",
                    }],
                }],
            },
            result,
            reason,
            requests,
        };
        if allowed > 0 {
            audit.write(&line("allowed", None, allowed));
        }
        for ((result, reason), requests) in others {
            audit.write(&line(result, Some(reason), requests));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        // Whole after every step.
        self.0.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::audit::Lines;

    /// What was written since the first `seen` lines.
    fn written(lines: &Lines, seen: &mut usize) -> Vec<Value> {
        let all = lines.all();
        let new = all[*seen..].to_vec();
        *seen = all.len();
        new
    }

    #[test]
    fn what_was_counted_is_written_once_in_cloudwatchs_format() {
        let (audit, lines) = Audit::memory();
        let mut seen = 0;
        let counts = Counts::default();
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        counts.flush(&audit, "Warifu", now);
        assert_eq!(written(&lines, &mut seen), Vec::<Value>::new());

        counts.allowed();
        counts.allowed();
        counts.other("denied", "denied");
        counts.other("unauthenticated", "invalid-token");
        counts.other("denied", "denied");
        counts.flush(&audit, "Warifu", now);
        let aws = |dimensions: Value| {
            json!({
                "Timestamp": 1_700_000_000_123_u64,
                "CloudWatchMetrics": [{
                    "Namespace": "Warifu",
                    "Dimensions": dimensions,
                    "Metrics": [{"Name": "Requests", "Unit": "Count"}],
                }],
            })
        };
        let (one, two) = (
            json!([["Result"]]),
            json!([["Result"], ["Result", "Reason"]]),
        );
        let expected = [
            json!({"_aws": aws(one), "Result": "allowed", "Requests": 2}),
            json!({"_aws": aws(two.clone()), "Result": "denied", "Reason": "denied", "Requests": 2}),
            json!({"_aws": aws(two), "Result": "unauthenticated", "Reason": "invalid-token", "Requests": 1}),
        ];
        assert_eq!(written(&lines, &mut seen), expected);
        counts.flush(&audit, "Warifu", now);
        assert_eq!(written(&lines, &mut seen), Vec::<Value>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_written_in_time_and_the_rest_at_the_end() {
        let (audit, lines) = Audit::memory();
        let mut seen = 0;
        let counts = Counts::default();
        let every = Duration::from_secs(60);
        let writing = counts.clone().start(audit, "N".into(), every);
        // It has begun to wait.
        tokio::task::yield_now().await;
        counts.allowed();
        tokio::time::advance(Duration::from_secs(59)).await;
        tokio::task::yield_now().await;
        assert_eq!(written(&lines, &mut seen).len(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::task::yield_now().await;
        assert_eq!(written(&lines, &mut seen).len(), 1);
        counts.other("failed", "app-unreachable");
        writing.finish().await;
        assert_eq!(written(&lines, &mut seen).len(), 1);
    }
}
