//! What a server's answer means: the OTLP specification's tables, and the Collector's texts.

use std::time::{Duration, SystemTime};

use http_body_util::BodyExt as _;
use hyper::{
    Response, StatusCode, Uri,
    body::Incoming,
    http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
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
        otlp::Partial,
        queue::{Failure, Sent},
    },
};

/// As much of a body as is read, like the Collector: no message needs more.
const MAX_BODY: usize = 64 * 1024;

/// As much of a line as is logged.
const MAX_LINE: usize = 200;

/// An answer that has come in.
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Reads it, up to the limit.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while body.len() < MAX_BODY
            && let Some(frame) = incoming.frame().await
        {
            if let Ok(data) = frame?.into_data() {
                let room = MAX_BODY - body.len();
                body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(Self { status: parts.status, headers: parts.headers, body })
    }

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

    /// What a server says that is none of OTLP's, such as a proxy's error.
    fn first_line(&self) -> Option<String> {
        let text = self.headers.get(CONTENT_TYPE)?.to_str().ok()?.starts_with("text/plain");
        let line = String::from_utf8_lossy(&self.body).lines().next()?.to_owned();
        text.then(|| line.chars().take(MAX_LINE).filter(|c| !c.is_control()).collect())
    }

    /// How long the server asks to be left alone: seconds, or a date.
    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        // What has passed is now.
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    }
}
