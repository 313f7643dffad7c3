//! Whether the app can be reached around the agent, which is then no wall.
//!
//! The kernel's lists of listening sockets say so: of this network namespace, which is the pod's or the task's, and
//! without a connection that the app would notice. What is open on the port of `forward` beside loopback is taken for the
//! app: a namespace does not say whose socket it is. Ours are known, and are none.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs::{self, File},
    io::{self, BufReader},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::{inbound as config, value::Listen},
    telemetry::ready::Condition,
};
use sockets::{Listening, listening};

mod sockets;

/// How often: an app opens its port when it likes, and a look is two short files of the kernel's.
const LOOK: Duration = Duration::from_secs(2);

/// The kernel's lists, of IPv4 and of IPv6. Without IPv6 there is no second.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Looks for as long as it is held.
#[derive(Debug, Default)]
pub struct AppPorts {
    guarded: Vec<Guarded>,
    /// There once anybody has wanted to know.
    condition: Option<Condition>,
    looking: Option<JoinHandle<()>>,
}

/// The app's port of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guarded {
    /// `inbound[0]`.
    setting: String,
    address: SocketAddr,
}

impl AppPorts {
    /// From now on keeps `condition` unmet while the app behind one of `listeners` can be reached around it. Where
    /// nobody wants to know there is none.
    pub fn watch(
        &mut self,
        listeners: &[config::Inbound],
        condition: impl FnOnce(&str) -> Condition,
    ) {
        let guarded = guarded(listeners);
        if guarded == self.guarded {
            return;
        }
        self.guarded.clone_from(&guarded);
        self.stop();
        if guarded.is_empty() {
            self.condition.iter().for_each(Condition::met);
            return;
        }
        let make = || condition("not looked at yet");
        let condition = self.condition.get_or_insert_with(make).clone();
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut blind = false;
        // The first look is before anybody can ask whether we are ready.
        look(&guarded, &condition, &mut blind);
        self.looking = Some(tokio::spawn(async move {
            tick.tick().await;
            loop {
                tick.tick().await;
                look(&guarded, &condition, &mut blind);
            }
        }));
    }

    fn stop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }
}

impl Drop for AppPorts {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The ports to look for.
fn guarded(listeners: &[config::Inbound]) -> Vec<Guarded> {
    let listeners = listeners.iter().enumerate();
    let wanted = listeners.filter(|(_, listener)| listener.app_port_check);
    let over_tcp = wanted.filter_map(|(index, listener)| match listener.forward.as_ref()?.at() {
        Listen::Tcp(address) => Some(Guarded {
            setting: format!("inbound[{index}]"),
            address,
        }),
        Listen::Unix(_) => None,
    });
    over_tcp.collect()
}

fn look(guarded: &[Guarded], condition: &Condition, blind: &mut bool) {
    match open_sockets() {
        Ok(open) => match exposed(guarded, &open, own_sockets) {
            Some(why) => condition.unmet(&why),
            None => condition.met(),
        },
        // Somebody who keeps us from looking would rather have us not serve; so would a kernel that is none of Linux's.
        Err(error) => {
            if !*blind {
                tracing::warn!(
                    %error,
                    "whether the app can be reached around this agent can't be told: /proc/net is not there"
                );
                *blind = true;
            }
            condition.met();
        }
    }
}

/// What is open beside loopback on a port that is the app's, in words; `None` where nothing is.
fn exposed(
    guarded: &[Guarded],
    open: &[Listening],
    own: impl FnOnce() -> BTreeSet<u64>,
) -> Option<String> {
    let mut found: Vec<(&Guarded, &Listening)> = Vec::new();
    for app in guarded {
        let beside = |it: &&Listening| {
            it.address.port() == app.address.port() && !it.address.ip().to_canonical().is_loopback()
        };
        found.extend(open.iter().filter(beside).map(|it| (app, it)));
    }
    if found.is_empty() {
        return None;
    }
    let own = own();
    found.retain(|(_, it)| !own.contains(&it.socket));
    let mut why = String::new();
    for (app, it) in found {
        let Guarded { setting, address } = app;
        let open = SocketAddr::new(it.address.ip().to_canonical(), it.address.port());
        let all = match open.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => ", all addresses",
            IpAddr::V6(ip) if ip.is_unspecified() => ", all addresses",
            _ => "",
        };
        let separator = if why.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(
            why,
            "{separator}the app of {setting} ({address}) can be reached around the agent: its port is open on {open}{all}"
        );
    }
    if why.is_empty() {
        return None;
    }
    why.push_str(
        "; bind the app to 127.0.0.1 alone, or to a unix socket, and forward there. If it is another program's port, set \
         app_port_check: false",
    );
    Some(why)
}

fn open_sockets() -> io::Result<Vec<Listening>> {
    let mut all = Vec::new();
    for table in TABLES {
        match File::open(table) {
            Ok(file) => all.extend(listening(BufReader::new(file))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && table != TABLES[0] => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The sockets of this process, by inode. Asked for only when one may be ours.
fn own_sockets() -> BTreeSet<u64> {
    let Ok(open) = fs::read_dir("/proc/self/fd") else {
        return BTreeSet::new();
    };
    let target = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    let inode = |target: std::path::PathBuf| {
        let number = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        number.parse().ok()
    };
    open.filter_map(target).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::telemetry::ready::Readiness;

    fn app(address: &str) -> Guarded {
        Guarded {
            setting: "inbound[0]".to_owned(),
            address: address.parse().unwrap(),
        }
    }

    fn why(app_at: &str, open: &[&str]) -> Option<String> {
        let open: Vec<_> = open
            .iter()
            .zip(1..)
            .map(|(address, socket)| Listening {
                address: address.parse().unwrap(),
                socket,
            })
            .collect();
        exposed(&[app(app_at)], &open, || BTreeSet::from([7]))
    }

    #[test]
    fn an_app_on_loopback_alone_is_behind_the_agent() {
        for open in [
            &[][..],
            &["127.0.0.1:8080"],
            &["127.0.0.1:8080", "[::1]:8080", "127.0.0.9:8080"],
            // As a socket of IPv6 for both shows it.
            &["[::ffff:127.0.0.1]:8080"],
            // Other ports are other programs'.
            &["127.0.0.1:8080", "0.0.0.0:8443", "[::]:80"],
        ] {
            assert_eq!(why("127.0.0.1:8080", open), None, "{open:?}");
        }
    }

    #[test]
    fn an_app_on_any_other_address_is_told_of_with_the_address_and_what_to_do() {
        for (open, shown) in [
            ("0.0.0.0:8080", "0.0.0.0:8080, all addresses;"),
            ("[::]:8080", "[::]:8080, all addresses;"),
            ("10.1.2.3:8080", "10.1.2.3:8080;"),
            ("[::ffff:10.1.2.3]:8080", "10.1.2.3:8080;"),
            ("[fe80::1]:8080", "[fe80::1]:8080;"),
        ] {
            for app in ["127.0.0.1:8080", "[::1]:8080"] {
                let why = why(app, &["127.0.0.1:8080", open]).expect(open);
                assert!(
                    why.contains(&format!("its port is open on {shown}")),
                    "{why}"
                );
                assert!(why.contains(&format!("inbound[0] ({app})")), "{why}");
                assert!(why.contains("bind the app to 127.0.0.1"), "{why}");
                assert!(why.contains("app_port_check: false"), "{why}");
            }
        }
    }

    #[test]
    fn the_agents_own_sockets_are_not_the_apps() {
        let others = ["1.1.1.1:1"; 6];
        let mut open = others.to_vec();
        open.push("10.1.2.3:8080");
        assert_eq!(why("127.0.0.1:8080", &open), None);
        open.push("10.1.2.4:8080");
        let why = why("127.0.0.1:8080", &open).unwrap();
        assert!(
            !why.contains("10.1.2.3") && why.contains("10.1.2.4"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn the_kernel_says_what_is_open_and_which_sockets_are_ours() {
        // Nobody connects to it: what is open is looked up.
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let open = open_sockets().unwrap();
        let found = |it: &Listening| it.address.port() == port && it.address.ip().is_unspecified();
        assert!(open.iter().any(found), "{port}: {open:?}");
        let app = app(&format!("127.0.0.1:{port}"));
        assert!(exposed(std::slice::from_ref(&app), &open, BTreeSet::new).is_some());
        assert_eq!(
            exposed(std::slice::from_ref(&app), &open, own_sockets),
            None
        );

        let condition = Readiness::default().condition("app-port", "starting");
        look(&[app], &condition, &mut false);
    }
}
