//! Shared by the exporters that speak OTLP: compression, headers, what a peer says of what it took.

pub mod compression;
pub mod headers;
pub mod json;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsPartialSuccess, metrics::v1::ExportMetricsPartialSuccess,
    trace::v1::ExportTracePartialSuccess,
};
use serde::{Deserialize, de::Error as _};
use serde_json::Value;
use tracing::warn;

use super::queue::Sent;

/// How this agent names itself to peers.
pub const USER_AGENT: &str = concat!("fathom/", env!("CARGO_PKG_VERSION"));

/// A server in the agent's own metrics.
pub fn server(host: &str, port: Option<u16>) -> Vec<KeyValue> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = port.map(|port| KeyValue::new("server.port", i64::from(port)));
    [KeyValue::new("server.address", host)].into_iter().chain(port).collect()
}

/// `partial_success` of a response.
#[derive(Default)]
pub struct Partial {
    rejected: i64,
    message: String,
}

impl Partial {
    /// Reads a response that is JSON. A 64-bit integer is text there, or a number.
    pub fn from_json(body: &[u8]) -> serde_json::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Response {
            partial_success: Option<Json>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Json {
            #[serde(alias = "rejectedDataPoints", alias = "rejectedLogRecords")]
            rejected_spans: Value,
            error_message: String,
        }
        let Response { partial_success } = serde_json::from_slice(body)?;
        let Some(partial) = partial_success else { return Ok(Self::default()) };
        let rejected = match &partial.rejected_spans {
            Value::String(text) => text.parse().ok(),
            Value::Null => Some(0),
            number => number.as_i64(),
        };
        let rejected = rejected.ok_or_else(|| {
            serde_json::Error::custom(format!("not a whole number: {}", partial.rejected_spans))
        })?;
        Ok(Self { rejected, message: partial.error_message })
    }

    /// What the queue needs to know. The rest is logged.
    pub fn sent(self) -> Sent {
        let rejected = usize::try_from(self.rejected).unwrap_or_default();
        if rejected > 0 || !self.message.is_empty() {
            warn!(message = self.message, dropped_items = rejected, "Partial success response");
        }
        Sent { rejected }
    }
}

macro_rules! partial {
    ($($type:ident $rejected:ident;)*) => {$(
        impl From<Option<$type>> for Partial {
            fn from(partial: Option<$type>) -> Self {
                let partial = partial.unwrap_or_default();
                Self { rejected: partial.$rejected, message: partial.error_message }
            }
        }
    )*};
}

partial! {
    ExportMetricsPartialSuccess rejected_data_points;
    ExportLogsPartialSuccess rejected_log_records;
    ExportTracePartialSuccess rejected_spans;
}

#[cfg(test)]
pub mod sample;
