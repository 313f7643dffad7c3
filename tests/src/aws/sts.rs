//! An STS that does what it is told, and an API that tells with which session it was called.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use warifu_agent::telemetry::timestamp::Timestamp;

/// Where it tells who calls.
const WHO: &str = "/who";

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Sessions that live this long; the nth has the access key id `ASIA<n>`, from 1.
    Well(Duration),
    /// 503.
    Failing,
    /// 403: the role may not be assumed.
    Refusing,
    /// Not at all.
    Hanging,
}

/// A scripted STS on loopback. `POST /` is STS; `/who` is an STS that is always well and tells who calls; any other path
/// is an API that takes everything and answers with the access key id it was called with.
#[derive(Debug)]
pub struct Sts {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    state: Arc<Mutex<State>>,
    serving: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    asked: usize,
    sessions: usize,
    expires: Option<SystemTime>,
}

impl Sts {
    /// One in this mood.
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let mood = watch::Sender::new(mood);
        let (shared, now) = (Arc::clone(&state), mood.subscribe());
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, mood) = (Arc::clone(&shared), now.clone());
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&state), mood.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(connection);
            }
        });
        Self {
            address,
            mood,
            state,
            serving: serving.abort_handle(),
        }
    }

    /// From now on it answers like this; what hangs goes on hanging.
    pub fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoint for an app's own `GetCallerIdentity`: its ARN's session is the access key id of the caller.
    pub fn tells(&self) -> String {
        format!("http://{}{WHO}", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// When the last session it gave expires.
    pub fn expires(&self) -> SystemTime {
        let expires = self.state.lock().unwrap().expires;
        expires.expect("a session was given")
    }
}

impl Drop for Sts {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    mood: watch::Receiver<Mood>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if path.starts_with(WHO) {
        let answer = Response::builder().header("content-type", "text/xml");
        return Ok(answer.body(Full::from(caller(&request))).unwrap());
    }
    if path != "/" {
        let key = access_key_id(&request);
        let said = json!({"called_with": key}).to_string();
        return Ok(Response::new(Full::from(said)));
    }
    state.lock().unwrap().asked += 1;
    let mood = *mood.borrow();
    let (status, body) = match mood {
        Mood::Well(life) => (200, state.lock().unwrap().session(life)),
        Mood::Failing => {
            let error = "<ErrorResponse><Error><Type>Receiver</Type><Code>ServiceUnavailable</Code>\
                         <Message>later</Message></Error></ErrorResponse>";
            (503, error.to_owned())
        }
        Mood::Refusing => {
            let error = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                         <Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>";
            (403, error.to_owned())
        }
        Mood::Hanging => std::future::pending().await,
    };
    let answer = Response::builder()
        .status(status)
        .header("content-type", "text/xml");
    Ok(answer.body(Full::from(body)).unwrap())
}

fn access_key_id(request: &Request<Incoming>) -> Option<String> {
    let authorization = request.headers().get(AUTHORIZATION)?;
    let (_, credential) = authorization.to_str().ok()?.split_once("Credential=")?;
    Some(credential.split_once('/')?.0.to_owned())
}

fn caller(request: &Request<Incoming>) -> String {
    let key = access_key_id(request).unwrap_or_default();
    format!(
        "<GetCallerIdentityResponse><GetCallerIdentityResult>\
         <Arn>arn:aws:sts::123456789012:assumed-role/orders/{key}</Arn>\
         <UserId>AROA:{key}</UserId><Account>123456789012</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

impl State {
    fn session(&mut self, life: Duration) -> String {
        self.sessions += 1;
        // In whole seconds, as STS has it: rounded up here, so that a life is never shorter.
        let since = (SystemTime::now() + life)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() + 1);
        self.expires = Some(expires);
        format!(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
             <AccessKeyId>ASIA{}</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>{}</Expiration>\
             </Credentials></AssumeRoleResult></AssumeRoleResponse>",
            self.sessions,
            Timestamp(expires),
        )
    }
}
