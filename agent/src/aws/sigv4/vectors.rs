//! The official SigV4 test vectors, which ship in the source of the `aws-sigv4` crate.
//!
//! Where our profile normalises what the vectors leave alone, or HTTP forbids what they have, the
//! request is brought into our form first:
//! - `get-header-value-multiline`: a folded header (forbidden since RFC 9112) is unfolded, as the RFC says;
//! - `post-x-www-form-urlencoded*`: `content-length` is signed, which no route may name;
//! - `get-space-*`: their path is escaped once, as for S3 (the suite predates escaping twice);
//!   a raw space, which is no URI, is given as `%20`;
//! - other `*-unnormalized`: signed by a test-only profile, as no service of ours escapes twice unnormalised;
//! - `post-sts-header-after`: as there, the token is not signed;
//! - `double-*` have no context: keys, time and scope are those of the signed request they come with.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use aws_credential_types::Credentials;
use serde_json::Value;

use super::*;
use crate::aws::signer::hex_sha256;

/// AWS's example keys, in its documentation for ever.
const EXAMPLE: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
/// The SDK's keys for tests.
const SDK_EXAMPLE: (&str, &str) = ("ANOTREAL", "notrealrnrELgWzOk3IfjzDKtFBhDby");

/// `2015-08-30T12:36:00Z`
const EXAMPLE_TIME: u64 = 1_440_938_160;

struct Vector {
    profile: Profile,
    region: String,
    service: String,
    credentials: Credentials,
    time: SystemTime,
    signature: String,
}

#[test]
fn the_official_vectors_pass() {
    let suite = suite();
    let mut names: Vec<_> = fs::read_dir(&suite)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 40, "{names:?}");
    for name in names {
        run(&name, &suite.join(&name));
    }
}

fn run(name: &str, dir: &FilePath) {
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let vector = if dir.join("context.json").exists() {
        with_context(name, &read)
    } else {
        without_context(name, &read)
    };
    let (mut parts, body) = parse(&read("request.txt"));
    // A route would name these; what is stripped can't be named.
    let extras: Vec<HeaderName> = parts
        .headers
        .keys()
        .filter(|name| *name != HOST && *name != CONTENT_TYPE && !name.as_str().starts_with(AMZ))
        .cloned()
        .collect();
    prepare(vector.profile, &extras, &mut parts).unwrap();
    sign(
        vector.profile,
        &extras,
        Scope {
            region: &vector.region,
            service: &vector.service,
        },
        &Identity::from(vector.credentials),
        vector.time,
        &mut parts,
        hex_sha256(body.as_bytes()),
    )
    .unwrap();
    let authorization = parts.headers[AUTHORIZATION].to_str().unwrap();
    let signature = authorization.rsplit_once("Signature=").unwrap().1;
    assert_eq!(signature, vector.signature, "{name}: {authorization}");
}

fn with_context(name: &str, read: &dyn Fn(&str) -> String) -> Vector {
    let context: Value = serde_json::from_str(&read("context.json")).unwrap();
    let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str);
    let flag = |name: &str| context[name].as_bool();
    assert_eq!(text("/timestamp"), Some("2015-08-30T12:36:00Z"));
    Vector {
        profile: Profile {
            path: match flag("normalize") {
                _ if name.starts_with("get-space-") => Path::AsSent,
                Some(true) => Path::Normalised,
                _ => Path::DoubleAsSent,
            },
            content_sha256: flag("sign_body").unwrap(),
            session_token: match flag("omit_session_token") {
                Some(true) => SessionTokenMode::Exclude,
                _ => SessionTokenMode::Include,
            },
        },
        region: text("/region").unwrap().to_owned(),
        service: text("/service").unwrap().to_owned(),
        credentials: Credentials::new(
            text("/credentials/access_key_id").unwrap(),
            text("/credentials/secret_access_key").unwrap(),
            text("/credentials/token").map(str::to_owned),
            None,
            "test",
        ),
        time: UNIX_EPOCH + Duration::from_secs(EXAMPLE_TIME),
        signature: read("header-signature.txt").trim().to_owned(),
    }
}

fn without_context(name: &str, read: &dyn Fn(&str) -> String) -> Vector {
    let ((id, secret), time, region, service) = match name {
        "double-encode-path" => (SDK_EXAMPLE, EXAMPLE_TIME, "us-east-1", "service"),
        _ => (EXAMPLE, 1_620_747_645, "us-east-2", "lambda"),
    };
    let signed = read("header-signed-request.txt");
    let signature = signed.split("Signature=").nth(1).unwrap();
    Vector {
        profile: Profile::GENERIC,
        region: region.to_owned(),
        service: service.to_owned(),
        credentials: Credentials::new(id, secret, None, None, "test"),
        time: UNIX_EPOCH + Duration::from_secs(time),
        signature: signature.lines().next().unwrap().to_owned(),
    }
}

fn parse(request: &str) -> (Parts, String) {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.lines();
    let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
    let target = rest.strip_suffix(" HTTP/1.1").unwrap().replace(' ', "%20");
    let mut headers: Vec<(&str, String)> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if line.starts_with(' ') {
            headers.last_mut().unwrap().1.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name, value.to_owned()));
        }
    }
    let mut builder = http::Request::builder().method(method).uri(target);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let (parts, ()) = builder.body(()).unwrap().into_parts();
    (parts, body.trim_end_matches('\n').to_owned())
}

/// `aws-signing-test-suite/v4` in the source of the crate that signs, wherever cargo keeps it.
fn suite() -> PathBuf {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {error}");
        output.stdout
    };
    // Only what was downloaded to build this test: cargo then needs no network.
    let rustc = String::from_utf8(run("rustc", &["-vV"])).unwrap();
    let host = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let args = [
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        host,
    ];
    let metadata: Value = serde_json::from_slice(&run(env!("CARGO"), &args)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|p| p["name"] == "aws-sigv4").unwrap();
    FilePath::new(package["manifest_path"].as_str().unwrap())
        .with_file_name("aws-signing-test-suite")
        .join("v4")
}
