//! What Envoy is told.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tonic::Code;

use super::proto::{
    HttpStatus, Status,
    core::{HeaderValue as Value, HeaderValueOption},
    service::{CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse},
};

/// The request may pass, with `ours` in place of what it has of these names, and without `remove`.
pub(super) fn pass(ours: &HeaderMap, remove: Vec<String>) -> CheckResponse {
    let ok = OkHttpResponse {
        headers: set(ours),
        headers_to_remove: remove,
    };
    CheckResponse {
        status: Some(status(Code::Ok)),
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

/// The request may not, and its caller gets `response`.
pub(super) fn refuse(response: &Response<Bytes>) -> CheckResponse {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus {
            code: response.status().as_u16().into(),
        }),
        headers: set(response.headers()),
        // Made by us, of text.
        body: String::from_utf8_lossy(response.body()).into_owned(),
    };
    CheckResponse {
        status: Some(status(Code::PermissionDenied)),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
    }
}

fn status(code: Code) -> Status {
    Status {
        code: code as i32,
        ..Status::default()
    }
}

fn set(headers: &HeaderMap) -> Vec<HeaderValueOption> {
    let options = headers.iter().map(|(name, value)| HeaderValueOption {
        header: Some(header(name.as_str(), value)),
        append: Some(false),
    });
    options.collect()
}

/// What is text goes as text: not every version of Envoy reads the other.
fn header(name: &str, value: &HeaderValue) -> Value {
    let text = value.to_str().map(str::to_owned);
    Value {
        key: name.to_owned(),
        raw_value: match &text {
            Ok(_) => Bytes::new(),
            Err(_) => Bytes::copy_from_slice(value.as_bytes()),
        },
        value: text.unwrap_or_default(),
    }
}
