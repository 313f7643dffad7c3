//! Envoy, from a static configuration.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;
use warifu::Client;

use super::{Unavailable, envoy_binary, process::Tied};
use crate::mesh::until;

/// A running Envoy. Ended when dropped.
#[derive(Debug)]
pub struct Envoy {
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    process: Tied,
}

impl Envoy {
    /// Runs Envoy with `static_resources` (YAML), its files in `dir`, and waits until it serves. Its
    /// listeners ask for port 0; [`Envoy::listener`] says what they got.
    ///
    /// # Errors
    /// When Envoy can't be had, or refuses its configuration; with its log.
    pub async fn start(dir: &Path, static_resources: &str) -> Result<Self, Unavailable> {
        let mut envoy = Self::launch(dir, &configuration(static_resources)).await?;
        envoy.serves().await?;
        Ok(envoy)
    }

    /// Runs Envoy with a whole bootstrap (YAML), its files in `dir`, and waits until its admin listener answers.
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub async fn launch(dir: &Path, bootstrap: &str) -> Result<Self, Unavailable> {
        let fail = |why: String| Unavailable::new("envoy", why);
        let binary = tokio::task::spawn_blocking(envoy_binary)
            .await
            .map_err(|why| fail(why.to_string()))??;
        let config = dir.join("envoy.yaml");
        let admin_file = dir.join("envoy-admin-address");
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&config, bootstrap))
            .map_err(|why| fail(format!("writing {}: {why}", config.display())))?;
        let args: [PathBuf; 9] = [
            "-c".into(),
            config,
            "--admin-address-path".into(),
            admin_file.clone(),
            "--concurrency".into(),
            "1".into(),
            "--disable-hot-restart".into(),
            "--log-level".into(),
            "warn".into(),
        ];
        let mut process = Tied::run("envoy", &binary, &args, &[])?;
        let answers = until("envoy's admin listener answers", async || {
            if let Some(why) = ended(&mut process) {
                return Some(Err(why));
            }
            let admin: SocketAddr = fs::read_to_string(&admin_file).ok()?.trim().parse().ok()?;
            get(admin, "/ready").await.map(|_| Ok(admin))
        });
        Ok(Self {
            admin: answers.await?,
            listeners: BTreeMap::new(),
            process,
        })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it ended; with its log.
    pub async fn serves(&mut self) -> Result<(), Unavailable> {
        let started = until("envoy serves", async || {
            if let Some(why) = ended(&mut self.process) {
                return Some(Err(why));
            }
            if self.state().await? != "LIVE" {
                return None;
            }
            let listeners = get(self.admin, "/listeners?format=json").await?;
            Some(Ok(addresses(&listeners)?))
        });
        self.listeners = started.await?;
        Ok(())
    }

    /// What it says of itself: `LIVE`, `PRE_INITIALIZING`, `INITIALIZING`.
    pub async fn state(&self) -> Option<String> {
        let state = get(self.admin, "/ready").await?;
        Some(state.trim().to_owned())
    }

    /// The end of its log: warnings and errors.
    pub fn log(&self) -> String {
        self.process.log_tail()
    }

    /// Where the listener of this name listens.
    ///
    /// # Panics
    /// When the configuration has none.
    #[allow(clippy::panic, reason = "the test asked for what it did not configure")]
    pub fn listener(&self, name: &str) -> SocketAddr {
        match self.listeners.get(name) {
            Some(address) => *address,
            None => panic!("envoy has no listener {name}: {:?}", self.listeners),
        }
    }

    /// A counter: `cluster.NAME.ssl.fail_verify_san`; 0 where Envoy has none of this name.
    pub async fn counter(&self, name: &str) -> u64 {
        let counters = self.counters(|it| it == name).await;
        counters.into_values().sum()
    }

    /// The counters whose names `is` likes.
    pub async fn counters(&self, is: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
        let counters = get(self.admin, "/stats?format=json&type=Counters").await;
        let counters: Option<Value> = counters.and_then(|text| serde_json::from_str(&text).ok());
        let all = counters.as_ref().and_then(|it| it.get("stats")?.as_array());
        let counter = |counter: &Value| {
            let name = counter.get("name")?.as_str().filter(|name| is(name))?;
            Some((name.to_owned(), counter.get("value")?.as_u64()?))
        };
        all.into_iter().flatten().filter_map(counter).collect()
    }
}

fn ended(process: &mut Tied) -> Option<Unavailable> {
    let how = process.exited()?;
    let why = format!("it ended, {how}:\n{}", process.log_tail());
    Some(Unavailable::new("envoy", why))
}

fn configuration(static_resources: &str) -> String {
    let indented: String = static_resources
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!(
        "node: {{id: tests, cluster: tests}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
{indented}"
    )
}

fn addresses(listeners: &str) -> Option<BTreeMap<String, SocketAddr>> {
    let listeners: Value = serde_json::from_str(listeners).ok()?;
    let statuses = listeners.get("listener_statuses")?.as_array()?;
    let address = |status: &Value| {
        let name = status.get("name")?.as_str()?.to_owned();
        let socket = status.get("local_address")?.get("socket_address")?;
        let ip = socket.get("address")?.as_str()?.parse().ok()?;
        let port = socket.get("port_value")?.as_u64()?.try_into().ok()?;
        Some((name, SocketAddr::new(ip, port)))
    };
    statuses.iter().map(address).collect()
}

/// What Envoy's admin listener says, once it does.
async fn get(admin: SocketAddr, path: &str) -> Option<String> {
    let client = Client::new(&format!("http://{admin}")).ok()?;
    let answer = client.get(&format!("http://envoy{path}")).send().await;
    let body = answer.ok()?.bytes().await.ok()?;
    String::from_utf8(body.to_vec()).ok()
}
