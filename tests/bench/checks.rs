//! Before a proxy is measured it must show that it does the work: a fast proxy that skipped a step
//! would only look good. What is checked is what every row of the table takes for granted.

use std::{
    fs,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Result, backend,
    client::{Client, request},
    proxies::Proxy,
    tokens::Tokens,
};

/// A header a caller forges; no proxy may let it through.
const FORGED: &str = "x-forwarded-client-cert: URI=spiffe://bench.test/forged\r\n";

/// How long an access log may hold back lines: Envoy writes every 10 s.
const LOG_DELAY: Duration = Duration::from_secs(15);

/// Authenticates, authorises, tells the app who called, resumes nothing.
pub(crate) async fn does_the_work(proxy: &mut Proxy) -> Result<()> {
    let forged_echo = request(backend::ECHO_PATH, &format!("{FORGED}{}", proxy.proof));
    let mut connection = proxy.caller.connect().await?;
    let answer = connection.ask(&forged_echo).await?;
    require(proxy, answer.status == 200, "answers an allowed request")?;
    let seen = answer.body.to_ascii_lowercase();
    require(
        proxy,
        !seen.contains("forged"),
        "removes a forged x-forwarded-client-cert",
    )?;
    let named = seen
        .lines()
        .any(|line| line.starts_with("x-forwarded-client-cert:") && line.contains("orders"));
    require(proxy, named, "tells the app who called")?;
    let forbidden = connection.ask(&request("/admin", &proxy.proof)).await?;
    require(
        proxy,
        forbidden.status == 403,
        "refuses a path that no rule allows",
    )?;
    require(
        proxy,
        connection.tickets() == 0,
        "offers no session resumption",
    )?;

    let mut stranger = proxy.stranger.connect().await?;
    let answer = stranger.ask(&forged_echo).await?;
    require(
        proxy,
        answer.status == 403,
        "refuses a caller that no rule allows",
    )?;

    require(
        proxy,
        !is_served(&proxy.anonymous, &proxy.proof).await,
        "demands a client certificate",
    )?;
    require(
        proxy,
        !is_served(&proxy.outsider, &proxy.proof).await,
        "verifies the client certificate",
    )?;
    proxy.requests += 3;
    Ok(())
}

/// Verifies tokens, decides by them, tells the app what they say.
pub(crate) async fn verifies_tokens(proxy: &mut Proxy, tokens: &Tokens) -> Result<()> {
    let mut connection = proxy.caller.connect().await?;
    let refused: [(String, &[u16], &str); 3] = [
        // To ours the certificate alone is somebody, too: whom no rule allows.
        (String::new(), &[401, 403], "asks for a token"),
        (tokens.forged()?, &[401], "verifies a token's signature"),
        (
            tokens.of_another_scope()?,
            &[403],
            "refuses a token whose scope no rule allows",
        ),
    ];
    for (proof, statuses, claim) in refused {
        let answer = connection.ask(&request(backend::PATH, &proof)).await?;
        require(proxy, statuses.contains(&answer.status), claim)?;
        proxy.requests += 1;
    }
    let seen = connection
        .ask(&request(backend::ECHO_PATH, &proxy.proof))
        .await?;
    let told = seen.body.lines().any(|line| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        let claims = URL_SAFE_NO_PAD
            .decode(value.trim().trim_end_matches('='))
            .unwrap_or_default();
        name.starts_with("x-") && String::from_utf8_lossy(&claims).contains("user-0")
    });
    require(proxy, told, "tells the app what a token says")?;
    proxy.requests += 1;
    Ok(())
}

/// After the measuring: a line in the access log for each request.
pub(crate) async fn has_logged(proxy: &Proxy) -> Result<()> {
    let Some(log) = &proxy.log else { return Ok(()) };
    let deadline = Instant::now() + LOG_DELAY;
    loop {
        let log = fs::read(log)?;
        let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
        if lines >= proxy.requests {
            return Ok(());
        }
        if Instant::now() > deadline {
            let expected = proxy.requests;
            return Err(format!(
                "{} logged {lines} lines for {expected} requests, so it did less work",
                proxy.name
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// TLS 1.3 tells a client late that its certificate was refused, so only an answer counts.
async fn is_served(client: &Client, proof: &str) -> bool {
    let Ok(mut connection) = client.connect().await else {
        return false;
    };
    connection.ask(&request(backend::PATH, proof)).await.is_ok()
}

fn require(proxy: &Proxy, holds: bool, claim: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(format!(
        "{} is not comparable: it should show that it {claim}, and does not",
        proxy.name
    )
    .into())
}
