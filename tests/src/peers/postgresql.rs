//! PostgreSQL, as Debian installs it.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Ended, Tied, Unavailable, run};
use crate::ports::free_port;

/// Its programs are in no directory of `PATH`.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A cluster of databases, and who owns its files. Everybody may connect as `postgres` whom its `pg_hba.conf` lets.
#[derive(Debug)]
pub struct Postgresql {
    /// The user it runs as: it refuses to be root.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Where it keeps everything, `postmaster.pid` too.
    pub data: String,
    /// Where it listens on 127.0.0.1, once it runs.
    pub port: u16,
    /// What becomes the user, and runs the command that comes after this.
    becomes: PathBuf,
    before: Vec<OsString>,
}

impl Postgresql {
    /// Makes a cluster in `dir`, which must be the test's own, and which its user can reach from then on.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or refuses.
    pub fn init(dir: &Path) -> Result<Self, Unavailable> {
        let mut new = Self::of_this_machine(dir.join("data").display().to_string())?;
        let io = |why: std::io::Error| fail(why.to_string());
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).map_err(io)?;
        fs::create_dir(&new.data).map_err(io)?;
        new.own(Path::new(&new.data))?;
        fs::set_permissions(&new.data, fs::Permissions::from_mode(0o700)).map_err(io)?;
        let args = [
            "-D",
            &new.data,
            "-U",
            "postgres",
            "--no-sync",
            "-A",
            "trust",
        ];
        let made = Command::new(&new.becomes)
            .args(new.args("initdb", &args)?)
            .current_dir("/")
            .output()
            .map_err(io)?;
        if !made.status.success() {
            return Err(fail(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        new.port = free_port().port();
        Ok(new)
    }

    /// Gives a file or directory to its user.
    ///
    /// # Errors
    /// Of the system.
    pub fn own(&self, path: &Path) -> Result<(), Unavailable> {
        let given = chown(path, Some(self.uid), Some(self.gid));
        given.map_err(|why| fail(format!("{}: {why}", path.display())))
    }

    /// Starts it, with this `pg_hba.conf` and these settings beside its own.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, hba: &str, settings: &[&str]) -> Result<Tied, Unavailable> {
        let written = fs::write(format!("{}/pg_hba.conf", self.data), hba);
        written.map_err(|why| fail(why.to_string()))?;
        let port = format!("port={}", self.port);
        let own = [
            &*port,
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ];
        let mut args = vec!["-D", &*self.data];
        args.extend(
            own.iter()
                .chain(settings)
                .flat_map(|setting| ["-c", *setting]),
        );
        let args = self.args("postgres", &args)?;
        Tied::run("postgres", &self.becomes, &args, &[])
    }

    /// One query over a connection of its own, and what came of it.
    ///
    /// # Errors
    /// When psql is not installed.
    pub async fn psql(query: &str, connection: &str) -> Result<Ended, Unavailable> {
        let args = ["-XAtc", query, connection];
        run("psql", &program("psql")?, &args, "").await
    }

    /// psql itself.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn client() -> Result<PathBuf, Unavailable> {
        program("psql")
    }

    fn of_this_machine(data: String) -> Result<Self, Unavailable> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let mut new = Self {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            data,
            port: 0,
            becomes: "/usr/bin/env".into(),
            before: Vec::new(),
        };
        if !uid.is_root() {
            return Ok(new);
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(|why| fail(why.to_string()))?;
        let line = passwd
            .lines()
            .find_map(|line| line.strip_prefix("postgres:"));
        let mut fields = line.unwrap_or_default().split(':').skip(1);
        let mut number = || fields.next()?.parse::<u32>().ok();
        let (Some(uid), Some(gid)) = (number(), number()) else {
            return Err(fail("there is no user postgres".to_owned()));
        };
        (new.uid, new.gid) = (uid, gid);
        let before = [
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
        ];
        new.becomes = "/usr/bin/setpriv".into();
        new.before = before.map(OsString::from).to_vec();
        Ok(new)
    }

    /// The arguments of the command that becomes the user.
    fn args(&self, name: &'static str, args: &[&str]) -> Result<Vec<OsString>, Unavailable> {
        let before = self.before.iter().cloned();
        let command = std::iter::once(program(name)?.into_os_string());
        let args = args.iter().map(OsString::from);
        Ok(before.chain(command).chain(args).collect())
    }
}

fn program(name: &'static str) -> Result<PathBuf, Unavailable> {
    let path = Path::new(PROGRAMS).join(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(fail(format!(
            "{} is missing: apt-get install postgresql-15",
            path.display()
        ))),
    }
}

fn fail(why: String) -> Unavailable {
    Unavailable::new("PostgreSQL", why)
}
