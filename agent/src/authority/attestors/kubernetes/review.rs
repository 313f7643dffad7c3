//! TokenReview: asking the cluster's API whether a token still holds.
//! <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use warifu::{Secret, jwt::MAX_TOKEN_BYTES};

use super::{super::token::Refused, Bound};
use crate::{
    authority::denied::Denied,
    config::authority::TokenReview,
    http::fetch::{FetchError, Fetcher, FetcherError, Limits},
};

/// Under the API server.
const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// What asking may take: below the time a request has here. The answer repeats the token and names a few groups.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(2),
    total: Duration::from_secs(5),
    answer: 64 * 1024,
};

/// Who asks.
#[derive(Debug)]
pub(super) struct Reviewer {
    fetcher: Fetcher,
    url: String,
    /// Our own token; the kubelet replaces it.
    token_file: PathBuf,
}

/// Why there was no answer; for the log.
#[derive(Debug, Error)]
enum Unanswered {
    #[error(
        "our own token {path:?}: {why}; expected a service-account token as the kubelet writes it"
    )]
    OwnToken { path: PathBuf, why: String },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("POST {url}: {status}{}", hint(*status))]
    Status { url: String, status: StatusCode },
    #[error("POST {url}: the answer is no TokenReview")]
    Answer { url: String },
}

#[derive(Deserialize)]
struct Review {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    user: User,
    #[serde(default)]
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

impl Reviewer {
    pub(super) fn new(configured: &TokenReview) -> Result<Self, FetcherError> {
        Ok(Self {
            fetcher: Fetcher::new(configured.ca_file.clone())?.limited(LIMITS),
            url: format!("{}{PATH}", configured.url),
            token_file: configured.token_file.clone(),
        })
    }

    /// Whether the cluster still takes `token`, which verified and says `bound`.
    ///
    /// # Errors
    /// 401 where it does not, 503 where it could not be asked.
    pub(super) async fn review(
        &self,
        token: &Secret<String>,
        audience: &str,
        subject: &str,
        bound: &Bound,
    ) -> Result<(), Denied> {
        let status = self.ask(token, audience).await.map_err(|why| {
            tracing::error!(%why, "a TokenReview failed");
            Denied::evidence_unavailable(
                "the cluster could not be asked about this token; the authority's log has the reason",
            )
        })?;
        Ok(judge(&status, audience, subject, bound)?)
    }

    async fn ask(&self, token: &Secret<String>, audience: &str) -> Result<Status, Unanswered> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": [audience]},
        });
        let mut request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Bytes::from(review.to_string()))
            .map_err(|_| FetchError::Url {
                url: self.url.clone(),
            })?;
        let own = self.own_token().await?;
        request.headers_mut().insert(header::AUTHORIZATION, own);
        let answer = self.fetcher.send(request).await?;
        let url = || self.url.clone();
        match answer.status() {
            StatusCode::OK | StatusCode::CREATED => {}
            status => return Err(Unanswered::Status { url: url(), status }),
        }
        let review: Review =
            serde_json::from_slice(answer.body()).map_err(|_| Unanswered::Answer { url: url() })?;
        Ok(review.status)
    }

    /// `Authorization`, from the file as it is now.
    async fn own_token(&self) -> Result<HeaderValue, Unanswered> {
        let wrong = |why: String| Unanswered::OwnToken {
            path: self.token_file.clone(),
            why,
        };
        let file = self.token_file.clone();
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file));
        let read = read.await.map_err(|why| wrong(why.to_string()))?;
        let token = Secret::new(read.map_err(|why| wrong(why.to_string()))?);
        let text = token.expose().trim();
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES {
            return Err(wrong("it is empty or too long".to_owned()));
        }
        let mut value = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| wrong("it is no token".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => " (the API server does not take our own token)",
        StatusCode::FORBIDDEN => {
            " (our service account may not create tokenreviews: bind it to the ClusterRole system:auth-delegator)"
        }
        _ => "",
    }
}

/// Holds the cluster's answer against the token: an API server that does not know audiences, or that speaks of
/// somebody else, proves nothing.
fn judge(status: &Status, audience: &str, subject: &str, bound: &Bound) -> Result<(), Refused> {
    let refused = |why: &str| Err(Refused(why.to_owned()));
    if !status.authenticated {
        return refused(
            "the cluster does not take this token any more: its pod or service account is gone, or it was made anew",
        );
    }
    if !status.audiences.iter().any(|it| it == audience) {
        return refused("the cluster does not say that this token is for our audience");
    }
    if status.user.username != subject {
        return refused("the cluster says this token is of another service account");
    }
    let same = |ours: &Option<String>, theirs: Option<&str>| match (ours, theirs) {
        (Some(ours), Some(theirs)) => ours == theirs,
        (Some(_), None) => false,
        (None, _) => true,
    };
    if !same(&bound.serviceaccount.uid, Some(&status.user.uid)) {
        return refused("the cluster has another service account of this name");
    }
    let extra = status
        .user
        .extra
        .get("authentication.kubernetes.io/pod-uid");
    let pod_uid = match extra.map(Vec::as_slice) {
        None => None,
        Some([uid]) => Some(uid.as_str()),
        Some(_) => return refused("the cluster names more than one pod"),
    };
    match &bound.pod {
        Some(pod) if !same(&pod.uid, pod_uid) => {
            refused("the cluster says this token is of another pod")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Object, *};

    const AUDIENCE: &str = "warifu:example.org:attest";
    const SUBJECT: &str = "system:serviceaccount:shop:orders";

    fn bound() -> Bound {
        let object = |name: &str, uid: &str| Object {
            name: name.to_owned(),
            uid: Some(uid.to_owned()),
        };
        Bound {
            namespace: "shop".to_owned(),
            serviceaccount: object("orders", "1"),
            pod: Some(object("orders-7d9c", "2")),
            node: None,
        }
    }

    fn review(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), Refused> {
        let mut status = json!({
            "authenticated": true,
            "user": {
                "username": SUBJECT,
                "uid": "1",
                "groups": ["system:serviceaccounts"],
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["orders-7d9c"],
                    "authentication.kubernetes.io/pod-uid": ["2"],
                },
            },
            "audiences": [AUDIENCE],
        });
        change(&mut status);
        let status: Status = serde_json::from_value(status).unwrap();
        judge(&status, AUDIENCE, SUBJECT, &bound())
    }

    #[test]
    fn an_answer_counts_if_it_is_about_this_token_and_our_audience() {
        assert_eq!(review(|_| ()), Ok(()));
        let pod_uid = "authentication.kubernetes.io/pod-uid";
        let refused = [
            review(|status| status["authenticated"] = json!(false)),
            review(|status| {
                status.as_object_mut().unwrap().remove("authenticated");
            }),
            review(|status| status["audiences"] = json!([])),
            review(|status| status["audiences"] = json!(["https://kubernetes.default.svc"])),
            review(|status| {
                status.as_object_mut().unwrap().remove("audiences");
            }),
            review(|status| status["user"]["username"] = json!("system:serviceaccount:shop:x")),
            review(|status| status["user"]["uid"] = json!("9")),
            review(|status| status["user"] = json!({})),
            review(|status| status["user"]["extra"][pod_uid] = json!(["9"])),
            review(|status| status["user"]["extra"][pod_uid] = json!(["2", "9"])),
            review(|status| status["user"]["extra"] = json!({})),
        ];
        for (index, result) in refused.iter().enumerate() {
            assert!(result.is_err(), "{index}");
        }
    }
}
