//! Readiness as named tasks, so that "not ready" says what is still missing.

/// What `/readyz` reports.
#[derive(Debug, Clone, Default)]
pub struct Readiness {}

/// One condition of readiness. Not ready until told otherwise.
#[derive(Debug, Clone)]
pub struct Condition {}

impl Readiness {
    /// Adds a condition, unmet, with the reason `why`.
    pub fn condition(&self, name: &'static str, why: &str) -> Condition {
        let _ = (name, why);
        unimplemented!("telemetry")
    }
    /// The unmet conditions: name and reason. Empty means ready.
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        unimplemented!("telemetry")
    }
}

impl Condition {
    /// Met.
    pub fn met(&self) {
        unimplemented!("telemetry")
    }
    /// Not met (any more), because of `why`.
    pub fn unmet(&self, why: &str) {
        let _ = why;
        unimplemented!("telemetry")
    }
}
