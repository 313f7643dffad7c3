//! What is known of one secret, and what to do next. No I/O; time is passed in.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use warifu::Secret;

use super::{SecretError, SecretStatus, Stage, Value};

/// Waits between failing readings double from the first to the last of these …
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// … but to no more than this while requests fail for want of the secret.
const RETRY_EMPTY: Duration = Duration::from_secs(2);

/// How long a refusal stands: of a policy, say. Whoever changes one watches what happens.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Between readings that were forced by a refused value.
const FORCED_EVERY: Duration = Duration::from_secs(10);

/// How long no other value is tried after none of them was taken.
const HOPELESS_FOR: Duration = Duration::from_secs(10);

/// The share of a refresh that agents spread over.
const JITTER: f64 = 0.2;

#[derive(Debug)]
pub(super) struct State {
    refresh: Duration,
    current: Option<Value>,
    pending: Option<Value>,
    previous: Option<Value>,
    /// Taken where the current one was refused.
    preferred: Option<Value>,
    reading: bool,
    read_at: Option<(Instant, SystemTime)>,
    failure: Option<Failure>,
    forced_at: Option<Instant>,
    hopeless_until: Option<Instant>,
    /// A random share of one, renewed with every reading.
    jitter: f64,
}

/// What to do for someone who wants the secret.
#[derive(Debug)]
pub(super) enum Step {
    /// Here it is.
    Use(Value),
    /// Here it is; read it again. The state counts that as started.
    UseAndRead(Value),
    /// There is none: start reading, then wait. The state counts that as started.
    Read,
    /// There is none; it is being read.
    Wait,
    /// There is none, and asking again is too early.
    Fail(SecretError),
}

/// What a reading brought.
#[derive(Debug, Default)]
pub(super) struct Read {
    current: Option<Secret<String>>,
    /// Where the other stages were asked for, what they have.
    pending: Option<Option<Secret<String>>>,
    previous: Option<Option<Secret<String>>>,
}

#[derive(Debug)]
struct Failure {
    error: SecretError,
    at: Instant,
    /// How many in a row.
    count: u32,
}

impl Read {
    pub(super) fn of_current(text: Secret<String>) -> Self {
        Self {
            current: Some(text),
            ..Self::default()
        }
    }

    pub(super) fn put(&mut self, stage: Stage, text: Option<Secret<String>>) {
        match stage {
            Stage::Current => self.current = text,
            Stage::Pending => self.pending = Some(text),
            Stage::Previous => self.previous = Some(text),
        }
    }

    pub(super) fn has_current(&self) -> bool {
        self.current.is_some()
    }
}

impl State {
    pub(super) fn new(refresh: Duration, jitter: f64) -> Self {
        Self {
            refresh,
            current: None,
            pending: None,
            previous: None,
            preferred: None,
            reading: false,
            read_at: None,
            failure: None,
            forced_at: None,
            hopeless_until: None,
            jitter,
        }
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        let due = !self.reading && now >= self.due(now);
        match self.in_use() {
            Some(value) if due => {
                let value = value.clone();
                self.reading = true;
                Step::UseAndRead(value)
            }
            Some(value) => Step::Use(value.clone()),
            None if self.reading => Step::Wait,
            None => match &self.failure {
                Some(failure) if !due => Step::Fail(failure.error.clone()),
                _ => {
                    self.reading = true;
                    Step::Read
                }
            },
        }
    }

    /// When it is read again.
    pub(super) fn due(&self, now: Instant) -> Instant {
        if let Some(failure) = &self.failure {
            let doublings = failure.count.saturating_sub(1).min(10);
            let wait = match (failure.error.is_refusal(), self.in_use()) {
                (true, _) => REFUSED_FOR,
                (false, None) => (RETRY_FIRST * (1 << doublings)).min(RETRY_EMPTY),
                (false, Some(_)) => (RETRY_FIRST * (1 << doublings)).min(RETRY_LAST),
            };
            return failure.at + wait.mul_f64(1.0 - JITTER * self.jitter);
        }
        match self.read_at {
            Some((at, _)) => at + self.refresh.mul_f64(1.0 - JITTER * self.jitter),
            None => now,
        }
    }

    /// What is in use, if that was none of `refused`.
    pub(super) fn changed_since(&self, refused: &[Value]) -> Option<Value> {
        let in_use = self.in_use().filter(|it| !is_one_of(it, refused));
        in_use.cloned()
    }

    /// The best that is none of `refused`.
    pub(super) fn other_than(&self, refused: &[Value]) -> Option<Value> {
        let known = [
            &self.preferred,
            &self.current,
            &self.pending,
            &self.previous,
        ];
        let mut known = known.into_iter().flatten();
        known.find(|it| !is_one_of(it, refused)).cloned()
    }

    /// The current value, and the next where there is one, else the one before.
    pub(super) fn live(&self) -> Vec<Value> {
        // When a rotation is over, its label may still be where it was: on what is current now.
        let next = self.pending.as_ref();
        let next = next.filter(|it| !self.current.as_ref().is_some_and(|now| now.is(it)));
        let second = next.or(self.previous.as_ref());
        self.current.iter().chain(second).cloned().collect()
    }

    /// The first two lines of the current value.
    pub(super) fn lines(&self) -> Vec<Value> {
        let text = self.current.as_ref().map_or("", Value::expose);
        let lines = text.lines().filter(|line| !line.is_empty()).take(2);
        let value = |line: &str| Value::new(Secret::new(line.to_owned()), Stage::Current);
        lines.map(value).collect()
    }

    /// Whether the caller is to start reading every stage (else something is being read); `None` where it is too early
    /// for another. Counts as started.
    pub(super) fn start_forced(&mut self, now: Instant) -> Option<bool> {
        if self.reading {
            return Some(false);
        }
        if self.forced_at.is_some_and(|at| now < at + FORCED_EVERY) {
            return None;
        }
        self.forced_at = Some(now);
        self.reading = true;
        Some(true)
    }

    /// Whether it was another than the one in use.
    pub(super) fn works(&mut self, value: &Value) -> bool {
        self.hopeless_until = None;
        if self.in_use().is_some_and(|it| it.is(value)) {
            return false;
        }
        let is_current = self.current.as_ref().is_some_and(|it| it.is(value));
        self.preferred = (!is_current).then(|| value.clone());
        true
    }

    pub(super) fn hopeless(&mut self, now: Instant) {
        self.hopeless_until = Some(now + HOPELESS_FOR);
    }

    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        self.hopeless_until.is_some_and(|until| now < until)
    }

    /// A reading ended.
    pub(super) fn settle(
        &mut self,
        outcome: Result<Read, SecretError>,
        now: Instant,
        clock: SystemTime,
        jitter: f64,
    ) {
        self.reading = false;
        self.jitter = jitter;
        let read = match outcome {
            Ok(read) => read,
            Err(error) => {
                let count = self.failure.as_ref().map_or(0, |failure| failure.count) + 1;
                self.failure = Some(Failure {
                    error,
                    at: now,
                    count,
                });
                return;
            }
        };
        self.failure = None;
        self.read_at = Some((now, clock));
        if let Some(text) = read.current {
            let new = Value::new(text, Stage::Current);
            if !self.current.as_ref().is_some_and(|it| it.is(&new)) {
                // A rotation ended. What was current is what Secrets Manager calls AWSPREVIOUS now.
                let old = self.current.replace(new);
                self.previous = old.map(|it| Value::new(it.0.text.clone(), Stage::Previous));
                self.pending = None;
                self.preferred = None;
                self.hopeless_until = None;
            }
        }
        let of = |stage, text: Option<Secret<String>>| text.map(|text| Value::new(text, stage));
        if let Some(text) = read.pending {
            self.pending = of(Stage::Pending, text);
        }
        if let Some(text) = read.previous {
            self.previous = of(Stage::Previous, text);
        }
    }

    /// Why the last reading failed, if it did.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.failure.as_ref().map(|it| it.error.why.as_str())
    }

    pub(super) fn status(&self, name: &str) -> SecretStatus {
        SecretStatus {
            name: name.to_owned(),
            stage: self.in_use().map(Value::stage),
            read: self.read_at.map(|(_, at)| at),
            failures: self.failure.as_ref().map_or(0, |it| it.count),
            last_error: self.trouble().map(str::to_owned),
        }
    }

    fn in_use(&self) -> Option<&Value> {
        self.preferred.as_ref().or(self.current.as_ref())
    }
}

fn is_one_of(value: &Value, others: &[Value]) -> bool {
    others.iter().any(|it| it.is(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(300);

    fn read(current: &str) -> Result<Read, SecretError> {
        Ok(Read::of_current(Secret::new(current.to_owned())))
    }

    fn error(refused: bool) -> SecretError {
        SecretError {
            name: "secretsmanager:x".into(),
            why: "away".into(),
            refused,
        }
    }

    fn settle(state: &mut State, outcome: Result<Read, SecretError>, now: Instant) {
        state.settle(outcome, now, SystemTime::UNIX_EPOCH, 0.0);
    }

    fn used(state: &mut State, now: Instant) -> Value {
        match state.step(now) {
            Step::Use(value) | Step::UseAndRead(value) => value,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn s13_a_secret_stays_in_use_for_as_long_as_it_cannot_be_read_again() {
        let mut now = Instant::now();
        let mut state = State::new(REFRESH, 0.0);
        assert!(matches!(state.step(now), Step::Read));
        assert!(matches!(state.step(now), Step::Wait));
        settle(&mut state, read("one"), now);
        let mut readings = 0;
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            match state.step(now) {
                Step::Use(_) => {}
                Step::UseAndRead(_) => {
                    readings += 1;
                    settle(&mut state, Err(error(false)), now);
                }
                step => panic!("{step:?}"),
            }
        }
        assert!((40..90).contains(&readings), "{readings} readings");
    }

    #[test]
    fn a_failure_is_remembered_shortly_and_a_refusal_for_longer() {
        for (refused, wait) in [(false, RETRY_EMPTY), (true, REFUSED_FOR)] {
            let mut now = Instant::now();
            let mut state = State::new(REFRESH, 0.0);
            for _ in 0..8 {
                assert!(matches!(state.step(now), Step::Read));
                settle(&mut state, Err(error(refused)), now);
                assert!(matches!(state.step(now), Step::Fail(_)));
                now += wait;
            }
        }
    }

    #[test]
    fn each_stage_is_tried_and_the_one_that_works_is_remembered_until_the_current_one_changes() {
        let now = Instant::now();
        let mut state = State::new(REFRESH, 0.0);
        let _ = state.step(now);
        settle(&mut state, read("old"), now);
        let old = used(&mut state, now);
        assert!(state.changed_since(std::slice::from_ref(&old)).is_none());
        assert_eq!(state.start_forced(now), Some(true));
        assert_eq!(state.start_forced(now), Some(false));
        let mut all = Read::of_current(Secret::new("old".to_owned()));
        all.put(Stage::Pending, Some(Secret::new("new".to_owned())));
        all.put(Stage::Previous, Some(Secret::new("older".to_owned())));
        settle(&mut state, Ok(all), now);
        let new = state.other_than(std::slice::from_ref(&old)).unwrap();
        assert_eq!((new.expose(), new.stage()), ("new", Stage::Pending));
        let last = state.other_than(&[old.clone(), new.clone()]).unwrap();
        assert_eq!((last.expose(), last.stage()), ("older", Stage::Previous));
        assert!(
            state
                .other_than(&[old.clone(), new.clone(), last])
                .is_none()
        );
        assert_eq!(state.start_forced(now), None);
        // It worked, so it is used.
        assert!(state.works(&new) && !state.works(&new));
        assert_eq!(used(&mut state, now).expose(), "new");
        // The rotation ends: the same text is AWSCURRENT now, and what was is AWSPREVIOUS.
        let later = now + REFRESH;
        assert!(matches!(state.step(later), Step::UseAndRead(_)));
        settle(&mut state, read("new"), later);
        assert_eq!(used(&mut state, later).stage(), Stage::Current);
        let other = state.other_than(&[new]).unwrap();
        assert_eq!((other.expose(), other.stage()), ("old", Stage::Previous));
    }

    #[test]
    fn two_values_are_live_while_a_secret_is_rotated_and_the_one_before_afterwards() {
        let now = Instant::now();
        let mut state = State::new(REFRESH, 0.0);
        let live = |state: &State| -> Vec<String> {
            let live = state.live();
            live.iter().map(|it| it.expose().to_owned()).collect()
        };
        let read = |current: &str, pending: Option<&str>, previous: Option<&str>| {
            let secret = |text: &str| Secret::new(text.to_owned());
            let mut read = Read::of_current(secret(current));
            read.put(Stage::Pending, pending.map(secret));
            read.put(Stage::Previous, previous.map(secret));
            Ok(read)
        };
        assert!(live(&state).is_empty());
        settle(&mut state, read("b", None, Some("a")), now);
        assert_eq!(live(&state), ["b", "a"]);
        settle(&mut state, read("b", Some("c"), Some("a")), now);
        assert_eq!(live(&state), ["b", "c"]);
        settle(&mut state, read("c", Some("c"), Some("b")), now);
        assert_eq!(live(&state), ["c", "b"]);
        settle(&mut state, read("c", None, None), now);
        assert_eq!(live(&state), ["c"]);
    }

    #[test]
    fn two_lines_of_a_file_are_live_and_what_it_had_before_is_not() {
        let now = Instant::now();
        let mut state = State::new(REFRESH, 0.0);
        for (text, expected) in [
            ("a", vec!["a"]),
            ("b\r\n\na\nold", vec!["b", "a"]),
            ("b", vec!["b"]),
        ] {
            settle(&mut state, read(text), now);
            let lines = state.lines();
            let lines: Vec<&str> = lines.iter().map(Value::expose).collect();
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn where_no_value_works_no_other_is_tried_for_a_while() {
        let now = Instant::now();
        let mut state = State::new(REFRESH, 0.0);
        let _ = state.step(now);
        settle(&mut state, read("one"), now);
        state.hopeless(now);
        assert!(state.is_hopeless(now) && !state.is_hopeless(now + HOPELESS_FOR));
        let one = used(&mut state, now);
        state.works(&one);
        assert!(!state.is_hopeless(now));
    }
}
