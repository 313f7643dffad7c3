//! The container credential provider's protocol: `AWS_CONTAINER_CREDENTIALS_FULL_URI`.

use http::{Method, Request, StatusCode};
use serde::Serialize;

use super::{
    Credentials,
    answer::{NO_TOKEN, seconds},
    bearer::Bearer,
};
use crate::{
    aws::SessionCredentials,
    local::endpoint::{Answer, GIVEN, Refusal, Why, json},
};

/// Where credentials are.
const PATH: &str = "/v1/credentials";

/// [ECS](https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html)'s names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
    role_arn: &'a str,
}

/// Answers one request, which the guard let through.
pub(super) async fn answer<B>(
    credentials: &Credentials,
    bearer: Option<&Bearer>,
    request: &Request<B>,
) -> Result<Answer, Refusal> {
    may_have(bearer, request)?;
    let given = credentials.give().await?;
    Ok(Answer {
        response: json(StatusCode::OK, &content(&given)),
        outcome: Some(GIVEN),
    })
}

/// Whoever has no token learns nothing else.
fn may_have<B>(bearer: Option<&Bearer>, request: &Request<B>) -> Result<(), Refusal> {
    if !bearer.is_none_or(|bearer| bearer.is_presented(request.headers())) {
        return Err(Refusal::new(
            NO_TOKEN,
            "expected the Authorization header to be the content of token_file \
             (AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE), which each start of the agent writes anew",
        ));
    }
    let uri = request.uri();
    if uri.path() != PATH || uri.query().is_some() {
        return Err(Refusal::new(
            Why::UnknownPath,
            format!("here is {PATH} and nothing else"),
        ));
    }
    if request.method() != Method::GET {
        return Err(Refusal::new(
            Why::WrongMethod("GET"),
            format!("{PATH} is asked with GET"),
        ));
    }
    Ok(())
}

fn content(given: &SessionCredentials) -> Content<'_> {
    Content {
        access_key_id: &given.access_key_id,
        secret_access_key: given.secret_access_key.expose(),
        token: given.session_token.expose(),
        expiration: seconds(given.expires),
        role_arn: &given.role,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s20_other_paths_methods_and_whoever_has_no_token_are_refused() {
        let verdict = |method: &str, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(());
            let refused = may_have(None, &request.unwrap()).err();
            refused.map(|refusal| refusal.why)
        };
        assert_eq!(verdict("GET", PATH), None);
        for path in [
            "/",
            "/v1/credentials/",
            "//v1/credentials",
            "/v1//credentials",
            "/v1/%63redentials",
            "/v1/x/../credentials",
            "/v1/./credentials",
            "/v1/credentials;a=b",
            "/V1/credentials",
            "/v1/credentials?id=1",
            "/v1/credentials?",
        ] {
            assert_eq!(verdict("GET", path), Some(Why::UnknownPath), "{path}");
        }
        for method in ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
            assert_eq!(
                verdict(method, PATH),
                Some(Why::WrongMethod("GET")),
                "{method}"
            );
        }
        let bearer = Bearer::new().unwrap();
        let request = Request::post("/anything").body(()).unwrap();
        let refused = may_have(Some(&bearer), &request).err();
        assert_eq!(refused.map(|it| it.why), Some(NO_TOKEN));
    }
}
