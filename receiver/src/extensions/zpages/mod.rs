//! `zpages`: pages about the agent at work: the Collector's, and Fathom's probes and recent errors.

mod html;
mod pages;

use std::{sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::Html,
    routing::get,
};
use serde::{Deserialize, Serialize};

use crate::{
    batch::Signal,
    component::{Component, Context, Extension},
    config::Mistakes,
    extensions::{
        auth::Authenticators,
        server::{Server, server_config},
    },
    status::Statuses,
    telemetry::recent,
};

server_config! {
    /// The configuration of `zpages`.
    pub struct Config at "localhost:55679" {
        /// Read for the sake of existing files: there are no variables of Go to show.
        pub expvar: Expvar = Expvar::default(),
    }
}

/// `expvar`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expvar {
    /// Without effect.
    pub enabled: bool,
}

/// The extension.
pub struct ZPages {
    config: Config,
    server: Option<Server>,
}

impl Component for ZPages {
    const NAME: &'static str = "zpages";
    const DESCRIPTION: &'static str =
        "Shows pipelines, probes and recent errors of the running agent, over HTTP.";
    const SIGNALS: &'static [Signal] = &[];
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        let given = !config.endpoint.is_empty();
        wrong.require(
            given,
            "endpoint",
            "\"endpoint\" is required when using the \"zpages\" extension",
        );
        wrong.nest("", config.server().check());
        wrong.or(Self { config, server: None })
    }

    fn warnings(&self) -> Vec<String> {
        let asked = self.config.expvar.enabled;
        asked
            .then(|| "expvar: there are no variables of Go to show".to_owned())
            .into_iter()
            .collect()
    }
}

impl Extension for ZPages {
    fn secured(&self, known: &Authenticators) -> Mistakes {
        self.config.server().secured(known)
    }

    async fn start(&mut self, cx: &Context) -> Result<()> {
        let settings = self.config.server();
        let server = settings.start(&cx.authenticators, "zPages", "/debug/servicez", &["http/1.1"]);
        self.server = Some(server.await?);
        Ok(())
    }

    async fn run(self, cx: Context) -> Result<()> {
        let about = About { started: SystemTime::now(), statuses: cx.statuses.clone() };
        let server = self.server.context("it was not started")?;
        server.run(router(Arc::new(about)), cx.stop.clone()).await;
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
