//! A directory and an environment for processes, and the configurations they commonly have.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
};

use tempfile::TempDir;

use super::{Answer, Finished, Running, ask, binary, clock};

/// The trust domain of every sandbox.
pub const TRUST_DOMAIN: &str = "example.org";

/// Files by path: mode, and content of those that are regular.
pub type Content = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// A directory of its own.
#[derive(Debug)]
pub struct Sandbox(TempDir);

/// A command to be run in a sandbox.
#[derive(Debug)]
pub struct Command(process::Command);

/// An authority with a disk CA, that listens.
#[derive(Debug)]
pub struct AuthorityProcess {
    /// The process.
    pub running: Running,
    /// Where agents connect.
    pub address: SocketAddr,
    /// Its probes.
    pub probes: SocketAddr,
    /// The pin of its root, as configurations have it.
    pub pin: String,
}

/// An agent that listens, and may not be ready yet.
#[derive(Debug)]
pub struct AgentProcess {
    /// The process.
    pub running: Running,
    /// Its admin socket.
    pub admin: PathBuf,
    /// Its probes.
    pub probes: SocketAddr,
    /// Its first inbound listener.
    pub inbound: Option<SocketAddr>,
    /// Its outbound listener.
    pub outbound: Option<SocketAddr>,
}

impl Sandbox {
    /// An empty one.
    ///
    /// # Panics
    /// When there is no temporary directory.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let made = tempfile::Builder::new().prefix("warifu-process-").tempdir();
        Self(made.expect("a temporary directory"))
    }

    /// The path of `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file that can be written");
        path
    }

    /// What is in it.
    ///
    /// # Panics
    /// When it can't be read.
    pub fn content(&self) -> Content {
        let mut content = Content::new();
        read(self.0.path(), &mut content);
        content
    }

    /// `warifu` with `arguments`, here, with no environment but `PATH` and `HOME`.
    pub fn warifu(&self, arguments: &[&str]) -> Command {
        let mut command = process::Command::new(binary::warifu());
        command
            .args(arguments)
            .current_dir(&self.0)
            .env_clear()
            .env("HOME", self.0.path())
            // Not every machine answers quickly that it is no EC2 instance.
            .env("AWS_EC2_METADATA_DISABLED", "true");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        Command(command)
    }

    /// Writes `authority.yaml`: a disk CA in `ca`, join tokens for services, and `more` keys.
    pub fn authority_yaml(&self, more: &str) {
        let dir = self.0.path().display();
        let yaml = format!(
            r#"trust_domain: {TRUST_DOMAIN}
listen: 127.0.0.1:0
admin: unix:{dir}/authority.sock
probes: 127.0.0.1:0
ca: {{key: disk, path: {dir}/ca}}
state: sqlite
attestors:
  bootstrap: {{kind: join-token}}
rules:
- {{attestor: bootstrap, match: {{service: "*"}}, id: "/{{service}}", audiences: ["*"], scopes: [charges.read]}}
{more}"#
        );
        self.write("authority.yaml", yaml);
    }

    /// Starts the authority of [`Sandbox::authority_yaml`].
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn authority(&self) -> AuthorityProcess {
        self.authority_yaml("");
        self.warifu(&["authority", "--config", "authority.yaml"])
            .authority()
    }

    /// Makes a join token for `service` in the file `SERVICE.token`.
    ///
    /// # Panics
    /// When the authority does not.
    pub fn join_token(&self, service: &str) -> PathBuf {
        let path = self.path(&format!("{service}.token"));
        let fact = format!("service={service}");
        let out = path.to_str().expect("a path in UTF-8");
        let made = self
            .warifu(&["authority", "join-token", "--config", "authority.yaml"])
            .args(&["--fact", &fact, "--out", out])
            .run();
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        path
    }

    /// Writes `NAME.yaml`, for an agent of `authority` that attests with `NAME.token` and has `more`
    /// keys, and returns the command that runs it.
    pub fn agent(&self, name: &str, authority: &AuthorityProcess, more: &str) -> Command {
        let url = format!("https://{}", authority.address);
        self.agent_of(name, &url, &authority.pin, more)
    }

    /// As [`Sandbox::agent`], for an authority at `url` with the root `pin`.
    pub fn agent_of(&self, name: &str, url: &str, pin: &str, more: &str) -> Command {
        let dir = self.0.path().display();
        let join_token = format!("{{join-token: {{token: \"file:{dir}/{name}.token\"}}}}");
        self.agent_attesting(name, url, pin, &join_token, more)
    }

    /// As [`Sandbox::agent_of`], with `attestation` (YAML) instead of a join token.
    pub fn agent_attesting(
        &self,
        name: &str,
        url: &str,
        pin: &str,
        attestation: &str,
        more: &str,
    ) -> Command {
        let dir = self.0.path().display();
        let yaml = format!(
            r#"trust_domain: {TRUST_DOMAIN}
authority: {{url: "{url}", root_spki_sha256: ["{pin}"]}}
attestation: {attestation}
state_dir: {dir}/{name}.state
admin: {{listen: "unix:{dir}/{name}.sock", probes: 127.0.0.1:0}}
{more}"#
        );
        let file = format!("{name}.yaml");
        self.write(&file, yaml);
        self.warifu(&["agent", "--config", &file])
    }

    /// The agent `NAME` that `running` is, once it listens.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn listening(&self, name: &str, running: Running) -> AgentProcess {
        let said = running.wait_for("the agent is listening");
        let address = |key: &str| said[key].as_str()?.split(", ").next()?.parse().ok();
        AgentProcess {
            admin: self.path(&format!("{name}.sock")),
            probes: address("probes").expect("the address of its probes"),
            inbound: address("inbound"),
            outbound: address("outbound"),
            running,
        }
    }
}

impl Command {
    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Has the process believe that it is later than it is by the seconds in the file `offset`, which
    /// may change.
    #[must_use]
    pub fn clock(mut self, offset: &Path) -> Self {
        self.0.env("LD_PRELOAD", clock::preload());
        self.0.env("CLOCK_OFFSET_FILE", offset);
        self
    }

    /// Has `program` run it: with `arguments`, then the command itself.
    #[must_use]
    pub fn through(self, program: &str, arguments: &[&str]) -> Self {
        let mut outer = process::Command::new(program);
        outer
            .args(arguments)
            .arg(self.0.get_program())
            .args(self.0.get_args())
            .env_clear();
        for (name, value) in self.0.get_envs() {
            outer.envs(value.map(|value| (name, value)));
        }
        if let Some(dir) = self.0.get_current_dir() {
            outer.current_dir(dir);
        }
        Self(outer)
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(self) -> Running {
        Running::start(self.0)
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run(self) -> Finished {
        self.start().ended()
    }

    /// Starts an authority, and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn authority(self) -> AuthorityProcess {
        AuthorityProcess::of(self.start())
    }
}

impl AuthorityProcess {
    /// The authority that `running` is, once it listens.
    ///
    /// # Panics
    /// When it does not listen in time.
    pub fn of(running: Running) -> Self {
        let said = running.wait_for("the authority is listening");
        let address = |key: &str| said[key].as_str().and_then(|it| it.parse().ok());
        let root = running.wait_for("authority serves");
        Self {
            address: address("address").expect("its address"),
            probes: address("probes").expect("the address of its probes"),
            pin: root["root_spki_sha256"].as_str().expect("a pin").to_owned(),
            running,
        }
    }
}

impl AgentProcess {
    /// `GET path` of its admin socket.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn admin(&self, path: &str) -> Answer {
        ask(self.admin.as_path(), "localhost", path).expect("an answer of the admin socket")
    }

    /// `GET path` of its probes.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn probe(&self, path: &str) -> Answer {
        ask(&self.probes, "localhost", path).expect("an answer of the probes")
    }

    /// Calls `host` as its app does.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn call(&self, host: &str, path: &str) -> Answer {
        let outbound = self.outbound.expect("an outbound listener");
        ask(&outbound, host, path).expect("an answer of the outbound listener")
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it never is.
    pub fn wait_until_ready(&self) {
        self.running.wait_for("\"message\":\"ready\"");
    }
}

fn read(dir: &Path, into: &mut Content) {
    for entry in fs::read_dir(dir).expect("a directory that can be read") {
        let path = entry.expect("an entry").path();
        let metadata = path
            .symlink_metadata()
            .expect("an entry that can be looked at");
        let content = match metadata.is_file() {
            true => fs::read(&path).expect("a file that can be read"),
            false => Vec::new(),
        };
        if metadata.is_dir() {
            read(&path, into);
        }
        into.insert(path, (metadata.permissions().mode(), content));
    }
}
