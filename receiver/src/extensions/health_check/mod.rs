//! `health_check`: whether the agent is ready and how its pipelines are, over HTTP or gRPC, in the words of
//! the Collector's health check extension, version 1 or 2.

mod config;
mod grpc;

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use anyhow::Result;
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use humantime_serde::re::humantime::format_rfc3339_nanos;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;

use self::{config::Config, grpc::Checks};
use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::{Mistakes, duration_text},
    extensions::{auth::Authenticators, server::Server},
    status::{Event, Group, Status, Statuses},
};

/// The extension.
pub struct HealthCheck {
    config: Config,
    http: Option<Server>,
    grpc: Option<Server>,
}

impl Component for HealthCheck {
    const NAME: &'static str = "health_check";
    const ALIASES: &'static [&'static str] = &["healthcheckv2"];
    const DESCRIPTION: &'static str =
        "Answers over HTTP or gRPC whether the agent and its pipelines are well.";
    const SIGNALS: &'static [Signal] = &[];
    const EXAMPLE: &'static str = "use_v2: true\nhttp:\n  status:\n    path: /health";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        config.check().or(Self { config, http: None, grpc: None })
    }

    fn warnings(&self) -> Vec<String> {
        let asked = self.config.check_collector_pipeline.enabled;
        let text = "check_collector_pipeline has no effect: use_v2 answers for pipelines";
        asked.then(|| text.to_owned()).into_iter().collect()
    }
}

impl Extension for HealthCheck {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some((settings, _)) = self.config.over_http() {
            wrong.nest(if self.config.use_v2 { "http" } else { "" }, settings.secured(known));
        }
        if let Some(settings) = self.config.over_grpc() {
            wrong.nest("grpc", settings.secured(known));
        }
        wrong
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        let known = &cx.authenticators;
        if let Some((settings, path)) = self.config.over_http() {
            self.http = Some(settings.start(known, "health", path, &["http/1.1"]).await?);
        }
        if let Some(settings) = self.config.over_grpc() {
            let server = settings.start(known, "health over gRPC", "", &["h2"]).await?;
            self.grpc = Some(server.http2());
        }
        Ok(())
    }

    async fn run(self, cx: Context) -> Result<()> {
        let Self { config, http, grpc } = self;
        let asked = Arc::new(Asked {
            config,
            started: SystemTime::now(),
            statuses: cx.statuses.clone(),
            stop: cx.stop.clone(),
        });
        let over_http = async {
            if let Some(server) = http {
                server.run(pages(&asked), cx.stop.clone()).await;
            }
        };
        let over_grpc = async {
            if let Some(server) = grpc {
                let service = HealthServer::new(Checks(Arc::clone(&asked)));
                let router =
                    Router::new().route_service("/grpc.health.v1.Health/{method}", service);
                server.run(router, cx.stop.clone()).await;
            }
        };
        tokio::join!(over_http, over_grpc);
        Ok(())
    }
}

/// What is served over HTTP.
fn pages(asked: &Arc<Asked>) -> Router {
    let mut router = Router::new();
    match &asked.config.http {
        Some(http) if asked.config.use_v2 => {
            if http.status.enabled {
                router = router.route(&http.status.path, get(status));
            }
            if http.config.enabled {
                router = router.route(&http.config.path, get(configuration));
            }
        }
        _ => router = router.route(&asked.config.path, get(legacy)),
    }
    router.with_state(Arc::clone(asked))
}

struct Asked {
    config: Config,
    started: SystemTime,
    statuses: Statuses,
    stop: CancellationToken,
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

/// The configuration.
async fn configuration(State(asked): State<Arc<Asked>>) -> Response {
    match asked.statuses.configuration() {
        none if none.is_empty() => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        text => ([(CONTENT_TYPE, "application/json")], text.to_string()).into_response(),
    }
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
    /// How a pipeline is, or all are; `None` if there is no such pipeline.
    fn of(&self, pipeline: Option<&str>) -> Option<Option<Event>> {
        let groups = self.statuses.groups();
        match pipeline {
            None => Some(all(groups.values())),
            Some(name) => Some(Event::of_all(groups.get(&format!("pipeline:{name}"))?.values())),
        }
    }

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
