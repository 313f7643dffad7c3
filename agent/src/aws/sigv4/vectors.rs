//! The official SigV4 test vectors, which ship in the source of the `aws-sigv4` crate.
//!
//! Where our profile normalises what the vectors leave alone, or HTTP forbids what they have, the
//! request is brought into our form first:
//! - `get-header-value-multiline`: a folded header (forbidden since RFC 9112) is unfolded, as the RFC says;
//! - `post-x-www-form-urlencoded*`: `content-length` is signed, which no route may name;
//! - `get-space-*`: their path is escaped once, as for S3 (the suite predates escaping twice);
//!   a raw space, which is no URI, is given as `%20`;
//! - other `*-unnormalized`: signed by a test-only profile, as no service of ours escapes twice unnormalised;
//! - `post-sts-header-after`: the token is not signed, so it is not there;
//! - `double-*` have no context: keys, time and scope are those of the signed request they come with.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::Value;

use super::*;
use crate::telemetry::timestamp::Timestamp;

/// AWS's example keys, in its documentation for ever.
const EXAMPLE: (&str, &str) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
/// The SDK's keys for tests.
const SDK_EXAMPLE: (&str, &str) = ("ANOTREAL", "notrealrnrELgWzOk3IfjzDKtFBhDby");

/// `2015-08-30T12:36:00Z`
const EXAMPLE_TIME: u64 = 1_440_938_160;

struct Vector {
    recipe: Recipe,
    credentials: Credentials,
    time: u64,
    /// Of the query form.
    expires: Duration,
}

#[test]
fn the_official_vectors_pass() {
    let suite = suite("v4");
    let names = names(&suite);
    assert_eq!(names.len(), 40, "{names:?}");
    for name in names {
        let read = |file: &str| fs::read_to_string(suite.join(&name).join(file)).unwrap();
        let vector = match suite.join(&name).join("context.json").exists() {
            true => with_context(&name, &read, |region| Regions::One(region.to_owned())),
            false => without_context(&name),
        };
        let (signature, _) = vector.signed(&read("request.txt"));
        let expected = read("header-signed-request.txt");
        let expected = expected.split("Signature=").nth(1).unwrap();
        assert_eq!(signature, expected.lines().next().unwrap(), "{name}");
        if !suite.join(&name).join("query-signature.txt").exists() {
            continue;
        }
        let (signature, _) = vector.presigned(&read("request.txt"));
        assert_eq!(
            signature,
            read("query-signature.txt").trim(),
            "{name} in the query"
        );
    }
}

/// Its signatures have chance in them: what they sign and with which key is what the vectors fix.
#[cfg(feature = "sigv4a")]
#[test]
fn the_official_vectors_of_sigv4a_pass() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    let bytes = |hex: &str| -> Vec<u8> {
        // A number: leading zeroes may be missing.
        let hex = format!("{hex:0>64}");
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    };
    let suite = suite("v4a");
    let names = names(&suite);
    assert_eq!(names.len(), 38, "{names:?}");
    for name in names {
        let read = |file: &str| fs::read_to_string(suite.join(&name).join(file)).unwrap();
        let vector = with_context(&name, &read, |region| Regions::Set(region.to_owned()));
        let public: Value = serde_json::from_str(&read("public-key.json")).unwrap();
        let half = |name: &str| bytes(public[name].as_str().unwrap());
        let point = [vec![4], half("X"), half("Y")].concat();
        assert_eq!(key::public_key(&vector.credentials), point, "{name}");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        for (form, (signature, _)) in [
            ("header", vector.signed(&read("request.txt"))),
            ("query", vector.presigned(&read("request.txt"))),
        ] {
            let signed = read(&format!("{form}-string-to-sign.txt"));
            let verified = public.verify(signed.as_bytes(), &bytes_of(&signature));
            assert!(verified.is_ok(), "{name} in the {form}");
            assert!(public.verify(b"another", &bytes_of(&signature)).is_err());
        }
    }
}

#[cfg(feature = "sigv4a")]
fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
    (0..hex.len() / 2).map(byte).collect()
}

impl Vector {
    fn signed(&self, request: &str) -> (String, Parts) {
        let (recipe, mut parts, payload) = self.prepared(request);
        let date = Timestamp(UNIX_EPOCH + Duration::from_secs(self.time)).basic();
        let key = recipe.key(&self.credentials, &date).unwrap();
        recipe.sign(&key, &date, &mut parts, &payload).unwrap();
        let authorization = parts.headers[AUTHORIZATION].to_str().unwrap();
        let (_, signature) = authorization.rsplit_once("Signature=").unwrap();
        (signature.to_owned(), parts)
    }

    fn presigned(&self, request: &str) -> (String, Parts) {
        let (recipe, mut parts, payload) = self.prepared(request);
        let date = Timestamp(UNIX_EPOCH + Duration::from_secs(self.time)).basic();
        let key = recipe.key(&self.credentials, &date).unwrap();
        let signed = recipe.presign(&key, &date, self.expires, &mut parts, &payload);
        signed.unwrap();
        let query = parts.uri.query().unwrap();
        let (_, signature) = query.rsplit_once("&X-Amz-Signature=").unwrap();
        (signature.to_owned(), parts)
    }

    fn prepared(&self, request: &str) -> (Recipe, Parts, Payload) {
        let (mut parts, body) = parse(request);
        // A route would name these; what is signed anyhow can't be named.
        let extras = parts
            .headers
            .keys()
            .filter(|name| !name.as_str().starts_with(AMZ));
        let recipe = Recipe {
            extras: extras.cloned().collect(),
            ..self.recipe.clone()
        };
        recipe.prepare(&mut parts).unwrap();
        (recipe, parts, Payload::hash(body.as_bytes()))
    }
}

fn names(suite: &FilePath) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(suite)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn with_context(
    name: &str,
    read: &dyn Fn(&str) -> String,
    regions: impl Fn(&str) -> Regions,
) -> Vector {
    let context: Value = serde_json::from_str(&read("context.json")).unwrap();
    let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str);
    let flag = |name: &str| context[name].as_bool();
    assert_eq!(text("/timestamp"), Some("2015-08-30T12:36:00Z"));
    let profile = Profile {
        path: match flag("normalize") {
            _ if name.starts_with("get-space-") => Path::Key,
            Some(true) => Path::Normalised,
            _ => Path::DoubleAsSent,
        },
        bodies: Bodies::Hashed,
        content_sha256: flag("sign_body").unwrap(),
    };
    let token = text("/credentials/token").filter(|_| flag("omit_session_token") != Some(true));
    Vector {
        recipe: Recipe::new(
            profile,
            text("/service").unwrap(),
            regions(text("/region").unwrap()),
        ),
        credentials: Credentials::new(
            text("/credentials/access_key_id").unwrap(),
            text("/credentials/secret_access_key").unwrap(),
            token.map(str::to_owned),
            None,
            "test",
        ),
        time: EXAMPLE_TIME,
        expires: Duration::from_secs(context["expiration_in_seconds"].as_u64().unwrap()),
    }
}

fn without_context(name: &str) -> Vector {
    let ((id, secret), time, region, service) = match name {
        "double-encode-path" => (SDK_EXAMPLE, EXAMPLE_TIME, "us-east-1", "service"),
        _ => (EXAMPLE, 1_620_747_645, "us-east-2", "lambda"),
    };
    Vector {
        recipe: Recipe::new(Profile::GENERIC, service, Regions::One(region.to_owned())),
        credentials: Credentials::new(id, secret, None, None, "test"),
        time,
        expires: Duration::from_secs(3600),
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

/// `aws-signing-test-suite` in the source of the crate that signs, wherever cargo keeps it.
fn suite(version: &str) -> PathBuf {
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
        .join(version)
}
