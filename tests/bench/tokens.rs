//! Access tokens (RFC 9068) of one issuer, for callers that show one with each request.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use warifu::jwt::{self, SigningKey};

use crate::{
    Result,
    backend::{self, answer},
    client::request,
};

/// `iss`.
pub(crate) const ISSUER: &str = "https://issuer.bench.test";

/// `aud`.
pub(crate) const AUDIENCE: &str = "payments";

/// What the rules ask for.
pub(crate) const SCOPE: &str = "bench.read";

/// Distinct tokens: more than a proxy could remember by chance, and fewer than caches hold.
const COUNT: usize = 1_000;

/// Longer than any benchmark runs.
const LIFE: Duration = Duration::from_secs(3_600);

/// Tokens, and where the keys are that verify them.
pub(crate) struct Tokens {
    key: SigningKey,
    tokens: Vec<String>,
    keys_at: SocketAddr,
}

impl Tokens {
    /// Made now; the keys are served on a loopback port until the runtime ends.
    pub(crate) async fn new() -> Result<Self> {
        let key = SigningKey::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let keys_at = listener.local_addr()?;
        let keys = answer(jwks(&key).as_bytes());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let keys = keys.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    while connection.read(&mut request).await? > 0 {
                        connection.write_all(&keys).await?;
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        let tokens = (0..COUNT)
            .map(|number| token(&key, number, SCOPE))
            .collect::<Result<_>>()?;
        Ok(Self {
            key,
            tokens,
            keys_at,
        })
    }

    /// `http://HOST:PORT` of the keys.
    pub(crate) fn keys_url(&self) -> String {
        format!("http://{}/keys", self.keys_at)
    }

    /// The keys, as a JWK Set.
    pub(crate) fn jwks(&self) -> String {
        jwks(&self.key)
    }

    /// A request with each of the tokens.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        let requests = self.tokens.iter();
        requests
            .map(|token| request(backend::PATH, &bearer(token)))
            .collect()
    }

    /// The header of a token that is allowed.
    pub(crate) fn allowed(&self) -> String {
        self.tokens
            .first()
            .map_or_else(String::new, |token| bearer(token))
    }

    /// The header of a token whose scope no rule allows.
    pub(crate) fn of_another_scope(&self) -> Result<String> {
        Ok(bearer(&token(&self.key, COUNT, "bench.other")?))
    }

    /// The header of a token that another key signed.
    pub(crate) fn forged(&self) -> Result<String> {
        // With the right `kid`, so that it is the signature that is refused.
        let own = token(&self.key, 0, SCOPE)?;
        let foreign = token(&SigningKey::generate(), 0, SCOPE)?;
        let (signed, _) = own.rsplit_once('.').ok_or("a JWS has three parts")?;
        let (_, signature) = foreign.rsplit_once('.').ok_or("a JWS has three parts")?;
        Ok(bearer(&format!("{signed}.{signature}")))
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn jwks(key: &SigningKey) -> String {
    json!({"keys": [key.public().to_json("sig")]}).to_string()
}

fn token(key: &SigningKey, number: usize, scope: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": format!("user-{number}"),
        "client_id": "orders",
        "jti": format!("token-{number}"),
        "iat": now.as_secs(),
        "exp": (now + LIFE).as_secs(),
        "scope": scope,
    });
    Ok(jwt::sign(key, "at+jwt", &claims))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn each_request_has_a_token_of_its_own() {
        let tokens = Tokens::new().await.unwrap();
        let distinct: BTreeSet<_> = tokens.requests().into_iter().collect();
        assert_eq!(distinct.len(), COUNT);
        assert!(!distinct.contains(&request(backend::PATH, &tokens.forged().unwrap())));
    }
}
