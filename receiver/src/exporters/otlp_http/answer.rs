//! What a server's answer means: the OTLP specification's tables, and the Collector's texts.

use hyper::{Uri, http::header::CONTENT_TYPE};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
    trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use serde::Deserialize;

use super::Encoding;
use crate::{
    batch::Signal,
    exporters::{
        http::Answer,
        otlp::Partial,
        queue::{Failure, Sent},
    },
};

impl Answer {
    /// What becomes of the batch of `signal` that was sent to `url`.
    pub fn verdict(self, signal: Signal, url: &Uri) -> Result<Sent, Failure> {
        if self.status.is_success() {
            let partial = self.partial(signal);
            return partial.map(Partial::sent).map_err(|reason| Failure::Permanent { reason });
        }
        let code = self.status.as_u16();
        let said = match self.message() {
            Some(message) if !message.is_empty() => format!(", Message={message}"),
            _ => String::new(),
        };
        let reason = format!(
            "error exporting items, request to {url} responded with HTTP Status Code {code}{said}"
        );
        match code {
            429 | 503 => Err(Failure::Retryable { reason, after: self.retry_after() }),
            502 | 504 => Err(Failure::Retryable { reason, after: None }),
            _ => Err(Failure::Permanent { reason }),
        }
    }

    fn encoding(&self) -> Option<Encoding> {
        let value = self.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let kind = value.split(';').next().unwrap_or_default().trim();
        [Encoding::Proto, Encoding::Json].into_iter().find(|e| e.content_type() == kind)
    }

    /// What a success says. One that is of no known type says nothing.
    fn partial(&self, signal: Signal) -> Result<Partial, String> {
        let body = self.body.as_slice();
        match self.encoding() {
            _ if body.is_empty() => Ok(Partial::default()),
            Some(Encoding::Proto) => {
                let partial = match signal {
                    Signal::Metrics => ExportMetricsServiceResponse::decode(body)
                        .map(|response| Partial::from(response.partial_success)),
                    Signal::Logs => ExportLogsServiceResponse::decode(body)
                        .map(|response| Partial::from(response.partial_success)),
                    Signal::Traces => ExportTraceServiceResponse::decode(body)
                        .map(|response| Partial::from(response.partial_success)),
                };
                partial.map_err(|e| format!("error parsing protobuf response: {e}"))
            }
            Some(Encoding::Json) => {
                Partial::from_json(body).map_err(|e| format!("error parsing json response: {e}"))
            }
            None => Ok(Partial::default()),
        }
    }

    /// The message of a refusal, which is a `google.rpc.Status`.
    fn message(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            message: String,
        }
        let Some(encoding) = self.encoding() else { return self.first_line() };
        match encoding {
            Encoding::Proto => {
                tonic_types::Status::decode(self.body.as_slice()).ok().map(|status| status.message)
            }
            Encoding::Json => {
                serde_json::from_slice::<Status>(&self.body).ok().map(|status| status.message)
            }
        }
    }
}
