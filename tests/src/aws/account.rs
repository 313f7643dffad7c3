//! An account in ministack, with a user whose keys are an agent's base credentials.

use serde_json::{Value, json};

use super::{Agent, Keys, Wire, Workload};
use crate::peers::{Ministack, UserKeys};

/// What calling the API takes.
pub const API_ACTION: &str = "execute-api:Invoke";

/// An account: an API that demands signatures, and a user who may assume any role that lets him.
#[derive(Debug)]
pub struct Account {
    /// Between agents and the services, but for STS when it is asked for role sessions.
    pub wire: Wire,
    /// Whose keys agents have.
    pub user: UserKeys,
    api: String,
    ministack: Ministack,
    workload: Workload,
}

impl Account {
    /// A new one.
    pub async fn open() -> Self {
        Self::open_for(Workload::new()).await
    }

    /// A new one, for a workload whose authority's JWT-SVIDs have this issuer.
    pub async fn open_with_issuer(issuer: &str) -> Self {
        Self::open_for(Workload::with_issuer(issuer)).await
    }

    async fn open_for(workload: Workload) -> Self {
        let ministack = Ministack::start().await.unwrap();
        let may = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"];
        let may = json!([{"Effect": "Allow", "Action": may, "Resource": "*"}]);
        let user = ministack.create_user("agent", may).await.unwrap();
        Self {
            wire: Wire::to(ministack.address()).await,
            api: ministack.create_iam_api("charges").await.unwrap(),
            user,
            ministack,
            workload,
        }
    }

    /// A role whose trust policy trusts the user under `condition`, and that may do `action`.
    pub async fn role(&self, name: &str, condition: Value, action: &str) -> String {
        self.role_trusting(&self.user.arn, name, condition, action)
            .await
    }

    /// A role whose trust policy trusts `principal`.
    pub async fn role_trusting(
        &self,
        principal: &str,
        name: &str,
        condition: Value,
        action: &str,
    ) -> String {
        let assume = json!("sts:AssumeRole");
        self.role_for(principal, name, assume, condition, action)
            .await
    }

    /// A role whose trust policy lets `principal` do `actions` under `condition`.
    pub async fn role_for(
        &self,
        principal: &str,
        name: &str,
        actions: Value,
        condition: Value,
        action: &str,
    ) -> String {
        let trust = json!([{
            "Effect": "Allow",
            "Action": actions,
            "Principal": {"AWS": principal},
            "Condition": condition,
        }]);
        self.role_with(name, trust, action).await
    }

    /// A role that is assumed with tokens of `provider`.
    pub async fn role_by_token(
        &self,
        provider: &str,
        name: &str,
        condition: Value,
        action: &str,
    ) -> String {
        let trust = json!([{
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": provider},
            "Condition": condition,
        }]);
        self.role_with(name, trust, action).await
    }

    async fn role_with(&self, name: &str, trust: Value, action: &str) -> String {
        let may = json!([{"Effect": "Allow", "Action": action, "Resource": "*"}]);
        let made = self.ministack.create_role(name, trust, may).await;
        made.unwrap()
    }

    /// A route to the API; `sigv4` are keys beside `service`.
    pub fn api_route(&self, host: &str, sigv4: &str) -> String {
        self.route(host, &self.api, "execute-api", sigv4)
    }

    /// A route to STS.
    pub fn sts_route(&self, host: &str, sigv4: &str) -> String {
        self.route(host, "", "sts", sigv4)
    }

    /// A route to any service.
    pub fn service_route(&self, host: &str, service: &str, sigv4: &str) -> String {
        self.route(host, "", service, sigv4)
    }

    /// A call that prepares something: nobody's signature is checked.
    pub async fn set_up(&self, service: &str, operation: &str, parameters: Value) -> Value {
        let done = self.ministack.call(service, operation, parameters).await;
        done.unwrap_or_else(|why| panic!("{service} {operation}: {why}"))
    }

    /// Where the services are, without the wire.
    pub fn services(&self) -> std::net::SocketAddr {
        self.ministack.address()
    }

    fn route(&self, host: &str, base: &str, service: &str, sigv4: &str) -> String {
        let wire = self.wire.address();
        format!(
            "- {{host: {host}, upstream: \"http://{wire}{base}\", sigv4: {{service: {service}, {sigv4}}}}}\n"
        )
    }

    /// The API's path on its host: what stands before the app's own.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// An agent with the user's keys and these routes, ready.
    pub fn agent(&self, routes: &[String]) -> Agent {
        self.agent_with_secret(&self.user.secret_access_key, routes)
    }

    /// An agent with the user's keys, these routes, and these named roles (lines of a YAML mapping), ready.
    pub fn agent_of_roles(&self, roles: &[String], routes: &[String]) -> Agent {
        let roles = format!("roles:\n  {}", roles.join("\n  "));
        self.agent_with(&roles, &routes.concat())
    }

    /// An agent with the user's keys, more of `aws` (lines of a YAML mapping), and these routes (lines of a list), ready.
    pub fn agent_with(&self, aws: &str, routes: &str) -> Agent {
        let sts = self.ministack.endpoint();
        let keys = Keys {
            id: &self.user.access_key_id,
            secret: &self.user.secret_access_key,
        };
        self.workload.agent_of_roles(keys, sts, aws, routes)
    }

    /// An agent with another secret.
    pub fn agent_with_secret(&self, secret: &str, routes: &[String]) -> Agent {
        let keys = Keys {
            id: &self.user.access_key_id,
            secret,
        };
        let sts = self.ministack.endpoint();
        self.workload.agent(keys, sts, &routes.concat())
    }
}
