//! The keys of the extension, of both versions.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    config::Mistakes,
    exporters::tls::server as tls,
    extensions::{
        auth,
        server::{Settings, server_config},
    },
};

server_config! {
    /// The configuration of `health_check`.
    pub struct Config at "localhost:13133" {
        /// The path of version 1.
        pub path: String = "/".to_owned(),
        /// What version 1 answers, instead of JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub response_body: Option<Body> = None,
        /// Read for the sake of existing files, as in the Collector.
        pub check_collector_pipeline: Ignored = Ignored::default(),
        /// Version 2, with the status of pipelines, as `http` and `grpc` say; what is above is then without effect.
        pub use_v2: bool = false,
        /// Version 2 over HTTP.
        #[serde(deserialize_with = "present", alias = "http:null", skip_serializing_if = "Option::is_none")]
        pub http: Option<Http> = None,
        /// Version 2 as the health service of gRPC; a service is a pipeline's id, or nothing for all.
        #[serde(deserialize_with = "present", alias = "grpc:null", skip_serializing_if = "Option::is_none")]
        pub grpc: Option<Grpc> = None,
        /// Which errors of components make version 2 say that the agent is not well.
        pub component_health: Health = Health::default(),
    }
}

server_config! {
    /// `http`.
    pub struct Http at "localhost:13133" {
        /// The page of the status.
        pub status: StatusPage = StatusPage::default(),
        /// The page of the configuration, without its secrets.
        pub config: ConfigPage = ConfigPage::default(),
    }
}

/// A section that is there without a value is there with its defaults.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(|given| Some(given.unwrap_or_default()))
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

/// `http::status`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StatusPage {
    /// Whether it is there.
    pub enabled: bool,
    /// Its path.
    pub path: String,
    /// Read for the sake of existing files: statuses have no attributes.
    pub include_attributes: bool,
}

impl Default for StatusPage {
    fn default() -> Self {
        Self { enabled: true, path: "/status".to_owned(), include_attributes: false }
    }
}

/// `http::config`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigPage {
    /// Whether it is there.
    pub enabled: bool,
    /// Its path.
    pub path: String,
    /// Read for the sake of existing files, as in the Collector.
    pub include_attributes: bool,
}

impl Default for ConfigPage {
    fn default() -> Self {
        Self { enabled: false, path: "/config".to_owned(), include_attributes: false }
    }
}

/// `grpc`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where it listens: `host:port`.
    pub endpoint: String,
    /// `tcp`, `tcp4` or `tcp6`.
    pub transport: String,
    /// TLS, and whom it admits. Plain text by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<tls::Config>,
    /// Who may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<auth::ServerConfig>,
    /// Read for the sake of existing files: what asks for a status is small.
    pub max_recv_msg_size_mib: u64,
    /// The same.
    pub max_concurrent_streams: u32,
    /// The same.
    pub read_buffer_size: usize,
    /// The same.
    pub write_buffer_size: usize,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<KeepAlive>,
    /// Read for the sake of existing files: nothing goes on from here.
    pub include_metadata: bool,
}

/// `keepalive`: read for the sake of existing files.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepAlive {
    /// Without effect.
    pub server_parameters: Parameters,
    /// Without effect.
    pub enforcement_policy: Policy,
}

/// `server_parameters`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub max_connection_idle: Duration,
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub max_connection_age: Duration,
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub max_connection_age_grace: Duration,
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub time: Duration,
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
}

/// `enforcement_policy`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Without effect.
    #[serde(with = "crate::config::duration")]
    pub min_time: Duration,
    /// Without effect.
    pub permit_without_stream: bool,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            endpoint: "localhost:13132".to_owned(),
            transport: "tcp".to_owned(),
            tls: None,
            auth: None,
            max_recv_msg_size_mib: 0,
            max_concurrent_streams: 0,
            read_buffer_size: 0,
            write_buffer_size: 0,
            keepalive: None,
            include_metadata: false,
        }
    }
}

impl Grpc {
    /// What of it is about the server.
    pub(super) fn server(&self) -> Settings {
        Settings {
            endpoint: self.endpoint.clone(),
            transport: self.transport.clone(),
            tls: self.tls.clone(),
            auth: self.auth.clone(),
            ..Http::default().server()
        }
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

impl Config {
    pub(super) fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        let mut page = |given: bool, path: &str, at: &str| {
            // The router takes braces for parameters.
            let valid = path.starts_with('/') && !path.contains(['{', '}', '*', '?', '#']);
            wrong.require(!given || valid, at, "path must start with /");
        };
        if !self.use_v2 {
            page(true, &self.path, "path");
            let given = !self.endpoint.is_empty();
            wrong.require(given, "endpoint", "http endpoint required");
            wrong.nest("", self.server().check());
            return wrong;
        }
        if let Some(Http { status, config, .. }) = &self.http {
            page(status.enabled, &status.path, "http::status::path");
            page(config.enabled, &config.path, "http::config::path");
            let both = status.enabled && config.enabled && status.path == config.path;
            wrong.require(!both, "http::config::path", "must not be that of the status, too");
        }
        if let Some(http) = &self.http {
            let given = !http.endpoint.is_empty();
            wrong.require(given, "http::endpoint", "http endpoint required");
            wrong.nest("http", http.server().check());
        }
        if let Some(grpc) = &self.grpc {
            let given = !grpc.endpoint.is_empty();
            wrong.require(given, "grpc::endpoint", "grpc endpoint required");
            wrong.nest("grpc", grpc.server().check());
        }
        let some = self.http.is_some() || self.grpc.is_some();
        wrong.require(some, "", "must specify at least one protocol");
        wrong
    }

    /// The server over HTTP, if there is one, and the path that it shows first.
    pub(super) fn over_http(&self) -> Option<(Settings, &str)> {
        match &self.http {
            _ if !self.use_v2 => Some((self.server(), &self.path)),
            Some(http) => Some((http.server(), &http.status.path)),
            None => None,
        }
    }

    /// The server over gRPC, if there is one.
    pub(super) fn over_grpc(&self) -> Option<Settings> {
        self.grpc.as_ref().filter(|_| self.use_v2).map(Grpc::server)
    }
}
