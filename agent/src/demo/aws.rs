//! The AWS leg: `orders` assumes a role and calls an API that checks SigV4 signatures.

use serde_json::Value;
use warifu::Client;

use super::Failed;

/// The role the demo makes and assumes.
const ROLE: &str = "warifu-demo-orders";

/// The account emulators give to the root user.
const ACCOUNT: &str = "000000000000";

/// The region requests are signed for.
const REGION: &str = "us-east-1";

/// Two routes: one to make the role with the base credentials, one that signs as the role.
pub(super) fn routes(endpoint: &str) -> String {
    format!(
        "  - host: iam
    upstream: {endpoint}
    sigv4: {{service: iam}}
  - host: sts
    upstream: {endpoint}
    sigv4: {{service: sts, role: \"{role}\"}}
  - host: sts-base
    upstream: {endpoint}
    sigv4: {{service: sts}}
",
        role = role(),
    )
}

/// Where roles are assumed.
pub(super) fn settings(endpoint: &str) -> String {
    format!("aws: {{region: {REGION}, sts_endpoint: \"{endpoint}\"}}\n")
}

pub(super) fn role() -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{ROLE}")
}

/// Makes the role, unless it is there. The call itself is signed by the agent.
pub(super) async fn make_role(client: &Client) -> Result<(), Failed> {
    let trust = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")},
            "Action": "sts:AssumeRole",
        }],
    });
    let form = format!(
        "Action=CreateRole&Version=2010-05-08&RoleName={ROLE}&AssumeRolePolicyDocument={}",
        percent_encoded(&trust.to_string()),
    );
    let answer = post(client, "http://iam/", form).await?;
    let (status, text) = answer;
    if status.is_success() || text.contains("EntityAlreadyExists") {
        return Ok(());
    }
    Err(Failed::new(format!(
        "making the role {ROLE}: {status}: {text}"
    )))
}

/// Who AWS says is calling, as an ARN.
pub(super) async fn caller(client: &Client, host: &str) -> Result<String, Failed> {
    let form = "Action=GetCallerIdentity&Version=2011-06-15".to_owned();
    let (status, text) = post(client, &format!("http://{host}/"), form).await?;
    if !status.is_success() {
        return Err(Failed::new(format!("GetCallerIdentity: {status}: {text}")));
    }
    let arn = between(&text, "<Arn>", "</Arn>")
        .map(str::to_owned)
        .or_else(|| {
            let json: Value = serde_json::from_str(&text).ok()?;
            Some(
                json.pointer("/GetCallerIdentityResponse/GetCallerIdentityResult/Arn")?
                    .as_str()?
                    .to_owned(),
            )
        });
    arn.ok_or_else(|| Failed::new(format!("GetCallerIdentity answered without an ARN: {text}")))
}

async fn post(
    client: &Client,
    url: &str,
    form: String,
) -> Result<(http::StatusCode, String), Failed> {
    let response = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await?;
    let status = response.status();
    let body = response.bytes().await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}
