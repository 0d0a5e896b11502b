//! One attempt: a batch becomes a request, and its answer a verdict.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request,
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
    },
};
use opentelemetry::KeyValue;
use prost::Message as _;

use super::{Config, Encoding, Urls};
use crate::{
    batch::{Batch, Signal},
    exporters::{
        http::Client,
        otlp::{
            self,
            compression::{Compression, Params},
        },
        queue::{Failure, Sender, Sent},
    },
};

/// What sends.
pub struct Http {
    client: Client,
    urls: Urls,
    headers: HeaderMap,
    encoding: Encoding,
    compression: Compression,
    params: Params,
}

impl Http {
    /// Over the connections of `client`.
    pub fn new(config: &Config, client: Client, urls: Urls, configured: HeaderMap) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(otlp::USER_AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(config.encoding.content_type()));
        if config.compression != Compression::None {
            let name = HeaderValue::from_static(config.compression.name());
            headers.insert(CONTENT_ENCODING, name);
        }
        // What is configured wins.
        headers.extend(configured);
        Self {
            client,
            urls,
            headers,
            encoding: config.encoding,
            compression: config.compression,
            params: config.compression_params.clone(),
        }
    }

    /// The request for `batch`, at its place.
    fn request(&self, batch: &Batch) -> Result<Request<Full<Bytes>>, String> {
        let signal = batch.signal();
        let url = self.urls[signal as usize].as_ref().ok_or_else(|| {
            let name = signal.name();
            format!("either endpoint or {name}_endpoint must be specified")
        })?;
        let plain = self.encoding.write(batch).map_err(|e| e.to_string())?;
        let body = self.compression.compress(&self.params, plain).map_err(|e| e.to_string())?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

impl Sender for Http {
    type Kept = ();

    fn peer(&self, signal: Signal) -> Vec<KeyValue> {
        let Some(url) = &self.urls[signal as usize] else { return Vec::new() };
        let mut attributes = otlp::server(url.host().unwrap_or_default(), url.port_u16());
        attributes.push(KeyValue::new("url.path", url.path().to_owned()));
        attributes
    }

    async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        let request = self.request(batch).map_err(|reason| Failure::Permanent { reason })?;
        let url = request.uri().clone();
        self.client.send(request).await?.verdict(batch.signal(), &url)
    }
}

impl Encoding {
    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Proto => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn write(self, batch: &Batch) -> serde_json::Result<Vec<u8>> {
        match (self, batch) {
            (Self::Proto, Batch::Metrics(request)) => Ok(request.encode_to_vec()),
            (Self::Proto, Batch::Logs(request)) => Ok(request.encode_to_vec()),
            (Self::Proto, Batch::Traces(request)) => Ok(request.encode_to_vec()),
            (Self::Json, batch) => otlp::json::write(batch),
        }
    }
}
