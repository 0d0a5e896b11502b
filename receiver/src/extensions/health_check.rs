//! `health_check`: whether the agent is ready and how its pipelines are, over HTTP, in the words of the
//! Collector's health check extension, version 1 or 2.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use humantime_serde::re::humantime::format_rfc3339_nanos;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::{Mistakes, duration_text},
    exporters::prometheus::serve,
    extensions::auth::{self, Authenticators, Guard},
    status::{Event, Group, Status, Statuses},
};

/// The configuration of `health_check`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where version 1 listens.
    pub endpoint: String,
    /// Its path.
    pub path: String,
    /// Who may ask version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<auth::ServerConfig>,
    /// What it answers, instead of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<Body>,
    /// Read for the sake of existing files, as in the Collector.
    pub check_collector_pipeline: Ignored,
    /// Version 2, with the status of pipelines, as `http` says.
    pub use_v2: bool,
    /// Where version 2 listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Which errors of components make version 2 answer 500.
    pub component_health: Health,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: "localhost:13133".to_owned(),
            path: "/".to_owned(),
            auth: None,
            response_body: None,
            check_collector_pipeline: Ignored::default(),
            use_v2: false,
            http: None,
            component_health: Health::default(),
        }
    }
}

/// `response_body`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Body {
    /// While all is well.
    pub healthy: String,
    /// While it is not.
    pub unhealthy: String,
}

/// `check_collector_pipeline`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ignored {
    /// Without effect.
    pub enabled: bool,
    /// Without effect.
    pub interval: String,
    /// Without effect.
    pub exporter_failure_threshold: i64,
}

impl Default for Ignored {
    fn default() -> Self {
        Self { enabled: false, interval: "5m".to_owned(), exporter_failure_threshold: 5 }
    }
}

/// `http`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where it listens.
    pub endpoint: String,
    /// Who may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<auth::ServerConfig>,
    /// The page of the status.
    pub status: Page,
}

impl Default for Http {
    fn default() -> Self {
        Self { endpoint: "localhost:13133".to_owned(), auth: None, status: Page::default() }
    }
}

/// `http::status`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// Whether it is there.
    pub enabled: bool,
    /// Its path.
    pub path: String,
}

impl Default for Page {
    fn default() -> Self {
        Self { enabled: true, path: "/status".to_owned() }
    }
}

/// `component_health`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Read for the sake of existing files: what fails for good ends the agent.
    pub include_permanent_errors: bool,
    /// Whether an error that may pass counts when it has lasted `recovery_duration`.
    pub include_recoverable_errors: bool,
    /// The time in which it may pass.
    #[serde(with = "crate::config::duration")]
    pub recovery_duration: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            include_permanent_errors: false,
            include_recoverable_errors: false,
            recovery_duration: Duration::from_secs(5 * 60),
        }
    }
}

/// The extension.
pub struct HealthCheck {
    config: Config,
    guard: Option<Guard>,
    listeners: Vec<TcpListener>,
}

impl Component for HealthCheck {
    const NAME: &'static str = "health_check";
    const ALIASES: &'static [&'static str] = &["healthcheckv2"];
    const DESCRIPTION: &'static str =
        "Answers over HTTP whether the agent and its pipelines are well.";
    const SIGNALS: &'static [Signal] = &[];
    const EXAMPLE: &'static str = "use_v2: true\nhttp:\n  status:\n    path: /health";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let mut check = |at: &str, endpoint: &str, path: &str, path_at: &str| {
            match endpoint {
                "" => wrong.add(at, "http endpoint required"),
                _ => serve::check(endpoint).unwrap_or_else(|message| wrong.add(at, message)),
            }
            // The router takes braces for parameters.
            let valid = path.starts_with('/') && !path.contains(['{', '}', '*', '?', '#']);
            wrong.require(valid, path_at, "path must start with /");
        };
        match (config.use_v2, &config.http) {
            (false, _) => check("endpoint", &config.endpoint, &config.path, "path"),
            (true, Some(http)) => {
                let path = if http.status.enabled { &http.status.path } else { "/" };
                check("http::endpoint", &http.endpoint, path, "http::status::path");
            }
            (true, None) => wrong.add("", "must specify at least one protocol"),
        }
        if let Some((path, auth)) = config.auth() {
            wrong.nest(path, auth.check());
        }
        wrong.or(Self { config, guard: None, listeners: Vec::new() })
    }
}

impl Config {
    fn endpoint(&self) -> &str {
        match &self.http {
            Some(http) if self.use_v2 => &http.endpoint,
            _ => &self.endpoint,
        }
    }

    /// Who may ask, with its key.
    fn auth(&self) -> Option<(&'static str, &auth::ServerConfig)> {
        match &self.http {
            Some(http) if self.use_v2 => Some(("http::auth", http.auth.as_ref()?)),
            _ => Some(("auth", self.auth.as_ref()?)),
        }
    }
}

impl Extension for HealthCheck {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some((path, auth)) = self.config.auth() {
            wrong.nest(path, auth.resolve(known));
        }
        wrong
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        let auth = self.config.auth();
        self.guard = auth.map(|(_, auth)| auth.guard(&cx.authenticators)).transpose()?;
        let path = match &self.config.http {
            Some(http) if self.config.use_v2 => &http.status.path,
            _ => &self.config.path,
        };
        self.listeners = serve::bind(self.config.endpoint(), "health", path).await?;
        Ok(())
    }

    async fn run(self, cx: Context) -> Result<()> {
        let started = SystemTime::now();
        let config = self.config;
        let path = match &config.http {
            Some(http) if config.use_v2 => http.status.enabled.then(|| http.status.path.clone()),
            _ => Some(config.path.clone()),
        };
        let answer = if config.use_v2 { get(status) } else { get(legacy) };
        let mut router = Router::new();
        if let Some(path) = path {
            router = router.route(&path, answer);
        }
        let mut router =
            router.with_state(Arc::new(Asked { config, started, statuses: cx.statuses.clone() }));
        if let Some(guard) = self.guard {
            router = guard.before(router);
        }
        let mut listening = JoinSet::new();
        for listener in self.listeners {
            listening.spawn(serve::accept(listener, router.clone(), cx.stop.clone()));
        }
        listening.join_all().await;
        Ok(())
    }
}

struct Asked {
    config: Config,
    started: SystemTime,
    statuses: Statuses,
}

fn all<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Option<Event> {
    let events: Vec<Event> = groups.into_iter().filter_map(|g| Event::of_all(g.values())).collect();
    Event::of_all(&events)
}

fn answer(code: StatusCode, body: &Value) -> Response {
    (code, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Version 1.
async fn legacy(State(asked): State<Arc<Asked>>) -> Response {
    let event = all(asked.statuses.groups().values());
    let well = event.is_some_and(|e| matches!(e.status, Status::Ok | Status::RecoverableError));
    let code = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if let Some(body) = &asked.config.response_body {
        return (code, if well { &body.healthy } else { &body.unhealthy }.clone()).into_response();
    }
    let body = match well {
        true => json!({
            "status": "Server available",
            "upSince": format_rfc3339_nanos(asked.started).to_string(),
            "uptime": duration_text(asked.started.elapsed().unwrap_or_default()),
        }),
        // Go's zero time.
        false => json!({
            "status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": "",
        }),
    };
    answer(code, &body)
}

/// Version 2.
async fn status(
    State(asked): State<Arc<Asked>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let verbose = query.get("verbose").is_some_and(|value| value != "false");
    let groups = asked.statuses.groups();
    let pipeline = query.get("pipeline").filter(|name| !name.is_empty());
    let (event, components) = match pipeline {
        Some(name) => {
            let Some(group) = groups.get(&format!("pipeline:{name}")) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            (Event::of_all(group.values()), asked.components(group))
        }
        None => {
            let group = |(name, group): (&String, &Group)| {
                let mut one = asked.event(&Event::of_all(group.values())?);
                one.insert("components".to_owned(), asked.components(group).into());
                Some((name.clone(), one.into()))
            };
            (all(groups.values()), groups.iter().filter_map(group).collect())
        }
    };
    let Some(event) = event else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut body = asked.event(&event);
    body.insert("start_time".to_owned(), format_rfc3339_nanos(asked.started).to_string().into());
    if verbose {
        body.insert("components".to_owned(), components.into());
    }
    let code = match event.status {
        _ if !asked.healthy(&event) => StatusCode::INTERNAL_SERVER_ERROR,
        Status::Ok | Status::RecoverableError => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(code, &body.into())
}

impl Asked {
    fn healthy(&self, event: &Event) -> bool {
        let health = &self.config.component_health;
        match event.status {
            Status::FatalError => false,
            Status::RecoverableError if health.include_recoverable_errors => {
                // A clock that was set back has seen no time pass.
                event.time.elapsed().unwrap_or_default() < health.recovery_duration
            }
            _ => true,
        }
    }

    fn event(&self, event: &Event) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("healthy".to_owned(), self.healthy(event).into());
        body.insert("status".to_owned(), event.status.name().into());
        if !event.error.is_empty() {
            body.insert("error".to_owned(), event.error.clone().into());
        }
        body.insert("status_time".to_owned(), format_rfc3339_nanos(event.time).to_string().into());
        body
    }

    fn components(&self, group: &Group) -> Map<String, Value> {
        group.iter().map(|(name, event)| (name.clone(), self.event(event).into())).collect()
    }
}

#[cfg(test)]
mod tests;
