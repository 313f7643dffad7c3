//! `outbound:` of the agent's file.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Path, Problems, root};
use crate::config::{AgentConfig, outbound::Route, value::Listen};

mod aws_web_identity;
mod oauth;
mod secret_header;
mod sigv4;
mod transport;

pub(super) fn outbound(config: &AgentConfig, problems: &mut Problems) {
    let Some(outbound) = &config.outbound else {
        return;
    };
    let at = root().key("outbound");
    problems.add_if(
        !outbound.listen.is_local(),
        at.key("listen"),
        "expected a unix socket or a loopback address: whoever reaches this listener calls as this workload",
    );
    let mut hosts: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, route) in outbound.routes.iter().enumerate() {
        let at = at.key("routes").index(index);
        if let Some(first) = hosts.insert(&route.host, index) {
            problems.add(
                at.key("host"),
                format!(
                    "{} has a route already: outbound.routes[{first}]",
                    route.host
                ),
            );
        }
        self::route(config, route, &at, problems);
    }
    for (index, tcp) in outbound.tcp.iter().enumerate() {
        let at = at.key("tcp").index(index);
        problems.add_if(
            !tcp.listen.is_local(),
            at.key("listen"),
            "expected a unix socket or a loopback address: whoever reaches this listener calls as this workload",
        );
        let there = tcp.upstream.host.parse::<IpAddr>();
        let there = there.map(|ip| Listen::Tcp((ip, tcp.upstream.port).into()));
        problems.add_if(
            there.is_ok_and(|there| tcp.listen.collides_with(&there)),
            at.key("upstream"),
            "that is this listener: connections would go in circles",
        );
    }
}

fn route(config: &AgentConfig, route: &Route, at: &Path, problems: &mut Problems) {
    let upstream = &route.upstream;
    let ip = upstream.host.parse::<IpAddr>().ok();
    if let Some(ip) = ip.filter(|_| !upstream.tls) {
        let there = Listen::Tcp((ip, upstream.port).into());
        let own = config.outbound.as_ref().map(|outbound| &outbound.listen);
        problems.add_if(
            own.is_some_and(|own| own.collides_with(&there)),
            at.key("upstream"),
            "that is this agent's own outbound listener: requests would go in circles",
        );
    }
    let ways = route.ways();
    if let [_, .., last] = ways.as_slice() {
        problems.add(
            at.key(last),
            format!(
                "a route attaches one credential; keep one of {}",
                ways.join(", ")
            ),
        );
    }
    problems.add_if(
        route.mtls.is_some() && !upstream.tls,
        at.key("upstream"),
        format!("mtls needs https://, found {upstream}"),
    );
    if let Some(oauth) = &route.oauth {
        oauth::oauth(oauth, &at.key("oauth"), problems);
    }
    if let Some(header) = &route.secret_header {
        secret_header::secret_header(header, &at.key("secret_header"), problems);
    }
    if let Some(it) = &route.aws_web_identity {
        let at = at.key("aws_web_identity");
        aws_web_identity::aws_web_identity(&config.aws, it, &at, problems);
    }
    if let Some(sigv4) = &route.sigv4 {
        sigv4::sigv4(&config.aws, sigv4, &at.key("sigv4"), problems);
    }
    transport::transport(route, at, problems);
}
