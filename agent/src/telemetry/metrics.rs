//! The metrics registry and its text form (OpenMetrics 1.0).

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{gauge::ConstGauge, info::Info},
    registry::{Registry, Unit},
};

/// What [`encode`] returns, for `content-type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with prefix `warifu`, in which every part registers its metrics; it holds
/// `warifu_build_info` already.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("warifu");
    registry.register(
        "build",
        "Which version runs",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry
}

/// `process_*` metrics, with the names every Prometheus client gives them (so without our prefix).
#[derive(Debug, Clone, Copy)]
pub struct Process {
    started: SystemTime,
}

impl Process {
    /// `started` is when the process began.
    pub fn new(started: SystemTime) -> Self {
        Self { started }
    }

    fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix("process");
        let started = self
            .started
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        registry.register_with_unit(
            "start_time",
            "When the process started, since the Unix epoch",
            Unit::Seconds,
            ConstGauge::new(started),
        );
        if let Some(bytes) = resident_memory() {
            registry.register_with_unit(
                "resident_memory",
                "Resident memory",
                Unit::Bytes,
                ConstGauge::new(bytes),
            );
        }
        if let Some(count) = open_files() {
            registry.register("open_fds", "Open file descriptors", ConstGauge::new(count));
        }
        registry
    }
}

/// Everything that is measured, as OpenMetrics text ([`CONTENT_TYPE`]).
///
/// # Errors
/// When a metric cannot be encoded, which is a mistake in the metric.
pub fn encode(process: Process, registry: &Registry) -> Result<String, fmt::Error> {
    let mut out = String::with_capacity(16 * 1024);
    text::encode_registry(&mut out, &process.registry())?;
    text::encode(&mut out, registry)?;
    Ok(out)
}

/// Resident set size in bytes; `None` where there is no `/proc`.
fn resident_memory() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn open_files() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory we are reading.
    Some(entries.count().saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn encodes_process_and_own_metrics_with_one_end_mark() {
        let mut registry = registry();
        let requests = Counter::<u64>::default();
        registry.register("requests", "Requests", requests.clone());
        requests.inc();
        let text = encode(Process::new(SystemTime::now()), &registry).unwrap();
        assert!(text.contains("warifu_requests_total 1\n"), "{text}");
        assert!(text.contains("warifu_build_info{version="), "{text}");
        assert!(text.contains("process_start_time_seconds 1"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn measures_resident_memory_and_open_files() {
        assert!(resident_memory().unwrap() > 100_000);
        assert!(open_files().unwrap() >= 3);
    }
}
