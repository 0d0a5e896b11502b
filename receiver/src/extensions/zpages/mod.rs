//! `zpages`: pages about the agent at work: the Collector's, and Fathom's probes and recent errors.

mod html;
mod pages;

use std::{sync::Arc, time::SystemTime};

use anyhow::Result;
use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::Html,
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::Mistakes,
    exporters::prometheus::serve,
    extensions::auth::{self, Authenticators, Guard},
    status::Statuses,
    telemetry::recent,
};

/// The configuration of `zpages`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub endpoint: String,
    /// Who may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<auth::ServerConfig>,
    /// Read for the sake of existing files: there are no variables of Go to show.
    pub expvar: Expvar,
}

/// `expvar`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expvar {
    /// Without effect.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: "localhost:55679".to_owned(), auth: None, expvar: Expvar::default() }
    }
}

/// The extension.
pub struct ZPages {
    config: Config,
    guard: Option<Guard>,
    listeners: Vec<TcpListener>,
}

impl Component for ZPages {
    const NAME: &'static str = "zpages";
    const DESCRIPTION: &'static str =
        "Shows pipelines, probes and recent errors of the running agent, over HTTP.";
    const SIGNALS: &'static [Signal] = &[];
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let endpoint = config.endpoint.as_str();
        let checked = match endpoint {
            "" => Err("\"endpoint\" is required when using the \"zpages\" extension".to_owned()),
            _ => serve::check(endpoint),
        };
        checked.unwrap_or_else(|message| wrong.add("endpoint", message));
        if let Some(auth) = &config.auth {
            wrong.nest("auth", auth.check());
        }
        wrong.or(Self { config, guard: None, listeners: Vec::new() })
    }
}

impl Extension for ZPages {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        let mut wrong = Mistakes::default();
        if let Some(auth) = &self.config.auth {
            wrong.nest("auth", auth.resolve(known));
        }
        wrong
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        let auth = self.config.auth.as_ref();
        self.guard = auth.map(|auth| auth.guard(&cx.authenticators)).transpose()?;
        self.listeners = serve::bind(&self.config.endpoint, "zPages", "/debug/servicez").await?;
        Ok(())
    }

    async fn run(self, cx: Context) -> Result<()> {
        let about = About { started: SystemTime::now(), statuses: cx.statuses.clone() };
        let mut router = router(Arc::new(about));
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

/// What the pages are about.
struct About {
    started: SystemTime,
    statuses: Statuses,
}

fn router(about: Arc<About>) -> Router {
    Router::new()
        .route(
            "/debug/servicez",
            get(async |State(about): State<Arc<About>>| Html(pages::service(about.started))),
        )
        .route(
            "/debug/pipelinez",
            get(async |State(about): State<Arc<About>>, Query(asked)| {
                Html(pages::pipelines(&about.statuses, &recent::all().records(), &asked))
            }),
        )
        .route(
            "/debug/extensionz",
            get(async |State(about): State<Arc<About>>, Query(asked)| {
                Html(pages::extensions(&about.statuses, &recent::all().records(), &asked))
            }),
        )
        .route("/debug/featurez", get(async || Html(pages::features())))
        .route(
            "/debug/probez",
            get(async |State(about): State<Arc<About>>| Html(pages::probes(&about.statuses))),
        )
        .route("/debug/errorz", get(async || Html(pages::errors(&recent::all().records()))))
        .fallback(async || (StatusCode::NOT_FOUND, "not found: /debug/servicez names the pages\n"))
        .with_state(about)
}

#[cfg(test)]
mod tests;
