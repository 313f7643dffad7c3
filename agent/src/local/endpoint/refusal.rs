//! Why a request gets nothing, whatever is spoken.

use http::StatusCode;

use crate::local::guard::Foreign;

/// Why a request gets nothing.
#[derive(Debug)]
pub(in crate::local) struct Refusal {
    pub(in crate::local) why: Why,
    /// For whoever asks, and the log: no secrets.
    pub(in crate::local) message: String,
}

/// The kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) enum Why {
    /// The `Host`, or the target's authority, is not this endpoint's.
    ForeignHost,
    /// A web page asks.
    Origin,
    /// A proxy asks for somebody.
    Forwarded,
    /// The process's user and group are not listed.
    NotAllowed,
    /// Nothing is here.
    UnknownPath,
    /// It is asked for otherwise: with these methods.
    WrongMethod(&'static str),
    /// Not now.
    Unavailable,
    /// What only one protocol refuses.
    Own(Own),
}

/// A kind of refusal of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) struct Own {
    status: StatusCode,
    /// Of the metric, and the log.
    word: &'static str,
    /// What the protocol calls it.
    pub(in crate::local) code: &'static str,
}

impl Own {
    pub(in crate::local) const fn new(
        status: StatusCode,
        word: &'static str,
        code: &'static str,
    ) -> Self {
        Self { status, word, code }
    }
}

impl Why {
    /// What is refused at every endpoint.
    pub(super) const EVERYWHERE: &'static [Self] = &[
        Self::ForeignHost,
        Self::Origin,
        Self::Forwarded,
        Self::NotAllowed,
        Self::UnknownPath,
        Self::WrongMethod(""),
        Self::Unavailable,
    ];

    /// 4xx ends a client's attempts, 5xx makes it ask again.
    pub(in crate::local) fn status(self) -> StatusCode {
        match self {
            Self::ForeignHost | Self::Origin | Self::Forwarded | Self::NotAllowed => {
                StatusCode::FORBIDDEN
            }
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Own(own) => own.status,
        }
    }

    /// Of the metric, and the log.
    pub(in crate::local) fn word(self) -> &'static str {
        match self {
            Self::ForeignHost => "foreign-host",
            Self::Origin => "origin",
            Self::Forwarded => "forwarded",
            Self::NotAllowed => "not-allowed",
            Self::UnknownPath => "unknown-path",
            Self::WrongMethod(_) => "wrong-method",
            Self::Unavailable => "unavailable",
            Self::Own(own) => own.word,
        }
    }

    /// Whether the same request may be answered in a moment.
    pub(super) fn may_pass(self) -> bool {
        let status = self.status();
        status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS
    }
}

impl Refusal {
    pub(in crate::local) fn new(why: Why, message: impl Into<String>) -> Self {
        Self {
            why,
            message: message.into(),
        }
    }
}

impl From<Foreign> for Refusal {
    fn from(foreign: Foreign) -> Self {
        let why = match foreign {
            Foreign::Host => Why::ForeignHost,
            Foreign::Origin => Why::Origin,
            Foreign::Forwarded(_) => Why::Forwarded,
        };
        Self::new(why, foreign.to_string())
    }
}
