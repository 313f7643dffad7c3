//! Readiness as named tasks, so that "not ready" says what is still missing.

use tokio::sync::watch;

/// What `/readyz` reports. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: watch::Sender<Vec<Entry>>,
}

/// One condition of readiness. Not ready until told otherwise.
#[derive(Debug, Clone)]
pub struct Condition {
    conditions: watch::Sender<Vec<Entry>>,
    index: usize,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// Why it is not met; `None` when it is.
    missing: Option<String>,
}

impl Readiness {
    /// Adds a condition, unmet, with the reason `why`.
    pub fn condition(&self, name: &'static str, why: &str) -> Condition {
        let mut index = 0;
        self.conditions.send_modify(|entries| {
            index = entries.len();
            entries.push(Entry {
                name,
                missing: Some(why.to_owned()),
            });
        });
        Condition {
            conditions: self.conditions.clone(),
            index,
        }
    }

    /// The unmet conditions: name and reason. Empty means ready.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let missing = |entry: &Entry| Some((entry.name, entry.missing.clone()?));
        self.conditions
            .borrow()
            .iter()
            .filter_map(missing)
            .collect()
    }

    /// Waits until nothing is missing.
    pub async fn ready(&self) {
        // This handle is itself a sender, so the channel cannot close while we wait.
        let _ = self
            .conditions
            .subscribe()
            .wait_for(|entries| all_met(entries))
            .await;
    }
}

impl Condition {
    /// Met.
    pub fn met(&self) {
        self.set(None, true);
    }

    /// Not met (any more), because of `why`.
    pub fn unmet(&self, why: &str) {
        self.set(Some(why), true);
    }

    /// As [`unmet`](Self::unmet), for whoever has logged it already.
    pub fn unmet_quietly(&self, why: &str) {
        self.set(Some(why), false);
    }

    fn set(&self, missing: Option<&str>, loud: bool) {
        self.conditions.send_if_modified(|entries| {
            let Some(entry) = entries.get_mut(self.index) else {
                return false;
            };
            if entry.missing.as_deref() == missing {
                return false;
            }
            match missing {
                None => tracing::info!(condition = entry.name, "condition met"),
                Some(_) if !loud => {}
                Some(why) => tracing::warn!(condition = entry.name, why, "condition not met"),
            }
            entry.missing = missing.map(str::to_owned);
            if all_met(entries) {
                tracing::info!("ready");
            }
            true
        });
    }
}

fn all_met(entries: &[Entry]) -> bool {
    entries.iter().all(|entry| entry.missing.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_only_when_every_condition_is_met_and_names_the_rest() {
        let readiness = Readiness::default();
        let identity = readiness.condition("identity", "no X.509-SVID yet");
        let bundle = readiness.condition("bundle", "no bundle yet");
        identity.met();
        assert_eq!(
            readiness.missing(),
            [("bundle", "no bundle yet".to_owned())]
        );
        bundle.met();
        assert!(readiness.missing().is_empty());
        identity.unmet("the X.509-SVID expired");
        assert_eq!(
            readiness.missing(),
            [("identity", "the X.509-SVID expired".to_owned())]
        );
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_condition_is_met() {
        let readiness = Readiness::default();
        let condition = readiness.condition("identity", "none yet");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        condition.met();
        waiting.await.unwrap();
    }
}
