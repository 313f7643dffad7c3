//! What is kept of connections: of those that fail, and, when they end, of those that are carried.

use std::{num::NonZeroU32, time::Instant};

use serde::Serialize;

use super::Session;
use crate::{
    http::{
        server::{Failed, Remote},
        tunnel::{End, Passed},
    },
    telemetry::{audit::Audit, timestamp::Timestamp},
};

/// How the audit log calls a connection.
pub(super) const EVENT: &str = "inbound-connection";

/// The result of a connection that was cut because what let it in no longer does.
const WITHDRAWN: &str = "withdrawn";

/// A connection that the app has. Dropped, it has ended, and its second line is written.
#[derive(Debug)]
pub(in crate::inbound) struct Carried<'a> {
    pub(super) session: &'a Session,
    /// What both lines call it.
    pub(super) id: &'a str,
    pub(super) began: Instant,
    /// Where it has lines: for how many they stand.
    pub(super) one_in: Option<NonZeroU32>,
    pub(in crate::inbound) passed: Passed,
    /// `None`: it was cut, at the end of a drain.
    pub(super) end: Option<End>,
}

impl Carried<'_> {
    /// How it ended.
    pub(in crate::inbound) fn ended(mut self, end: End) {
        self.end = Some(end);
    }

    fn write(&self) {
        let (result, reason, detail) = match &self.end {
            Some(End::Withdrawn(why)) => (WITHDRAWN, &**why, None),
            Some(end @ End::Broken(why)) => ("ended", end.as_str(), Some(&**why)),
            Some(end) => ("ended", end.as_str(), None),
            None => ("ended", "cut", None),
        };
        let environment = &self.session.inbound.environment;
        let is_withdrawn = result == WITHDRAWN;
        if is_withdrawn && let Some(counts) = &environment.counts {
            counts.other(WITHDRAWN, WITHDRAWN);
        }
        let one_in = match self.one_in {
            Some(one_in) => one_in.get(),
            // Whatever is not as usual has its line.
            None if is_withdrawn => 1,
            None => return,
        };
        let peer = self.session.peer.as_deref();
        environment.audit.write(&EndLine {
            time: Timestamp::now(),
            event: EVENT,
            connection: self.id,
            remote: &self.session.remote,
            peer: peer.and_then(|peer| peer.peer.as_deref()),
            result,
            one_in: (!is_withdrawn && one_in > 1).then_some(one_in),
            reason,
            detail,
            bytes_received: self.passed.sent(),
            bytes_sent: self.passed.received(),
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.write();
    }
}

#[derive(Serialize)]
struct EndLine<'a> {
    time: Timestamp,
    event: &'static str,
    connection: &'a str,
    remote: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_in: Option<u32>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// From the caller to the app.
    bytes_received: u64,
    bytes_sent: u64,
    /// From when it was up.
    duration_us: u64,
}

/// A caller that did not get as far as a request: without an identity, most likely.
pub(in crate::inbound) fn failed_connection(audit: &Audit, remote: &Remote, why: &Failed) {
    audit.write(&FailedLine {
        time: Timestamp::now(),
        event: EVENT,
        remote: &remote.to_string(),
        result: "refused",
        detail: &why.to_string(),
    });
}

#[derive(Serialize)]
struct FailedLine<'a> {
    time: Timestamp,
    event: &'static str,
    remote: &'a str,
    result: &'static str,
    detail: &'a str,
}
