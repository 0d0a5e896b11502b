//! One attempt: what is left of a batch is sent, request by request, and each answer is a verdict.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request as HttpRequest, Uri,
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, USER_AGENT},
    },
};
use opentelemetry::{KeyValue, metrics::Counter};
use tokio::task::JoinSet;
use tracing::{Instrument as _, error};

use super::{
    Version,
    labels::Rules,
    requests::{Holds, Request, requests},
    translate::{Reason, Translated},
};
use crate::{
    batch::Batch,
    component::Context,
    exporters::{
        http::{Answer, Client},
        otlp,
        queue::{Failure, Sender, Sent},
    },
};

/// Warnings are logged once per metric, up to this many metrics: names come from outside.
const WARNED: usize = 1000;

/// What sends.
pub struct RemoteWrite {
    pub rules: Rules,
    pub version: Version,
    pub max_bytes: usize,
    pub metadata: bool,
    /// The most requests of one batch that are under way at once.
    pub parallel: usize,
    pub peer: Arc<Peer>,
    pub counts: Counts,
    warned: Mutex<HashSet<(Reason, String)>>,
}

/// Where requests go.
pub struct Peer {
    pub client: Client,
    pub url: Uri,
    pub headers: HeaderMap,
    pub version: Version,
}

/// The exporter's own metrics, but for those of its queue.
#[derive(Clone)]
pub struct Counts {
    exporter: KeyValue,
    failed: Counter<u64>,
    dropped: Counter<u64>,
    series: Counter<u64>,
    requests: Counter<u64>,
    written: [Counter<u64>; 3],
}

impl Counts {
    /// Those of the exporter of `cx`.
    pub fn new(cx: &Context) -> Self {
        let counter = |name: &str| {
            cx.meter.u64_counter(format!("otelcol_exporter_prometheusremotewrite_{name}")).build()
        };
        Self {
            exporter: KeyValue::new("exporter", cx.id.to_string()),
            failed: counter("failed_translations"),
            dropped: counter("dropped_points"),
            series: counter("translated_time_series"),
            requests: counter("sent_batches"),
            written: WRITTEN.map(|(name, _)| counter(&format!("written_{name}"))),
        }
    }

    fn add(&self, counter: &Counter<u64>, count: usize) {
        counter.add(count as u64, std::slice::from_ref(&self.exporter));
    }
}

/// How a receiver of version 2 says what it has written.
const WRITTEN: [(&str, HeaderName); 3] = [
    ("samples", HeaderName::from_static("x-prometheus-remote-write-samples-written")),
    ("histograms", HeaderName::from_static("x-prometheus-remote-write-histograms-written")),
    ("exemplars", HeaderName::from_static("x-prometheus-remote-write-exemplars-written")),
];

/// The headers of every request. Those of the protocol are not for others to set.
pub fn headers(configured: HeaderMap, version: Version) -> HeaderMap {
    let mut headers = configured;
    let (kind, number) = match version {
        Version::V1 => ("application/x-protobuf", "0.1.0"),
        Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    headers.insert(USER_AGENT, HeaderValue::from_static(otlp::USER_AGENT));
    let name = HeaderName::from_static("x-prometheus-remote-write-version");
    headers.insert(name, HeaderValue::from_static(number));
    headers
}

/// A batch on its way.
#[derive(Default)]
pub struct Kept {
    /// None before the first attempt.
    rest: Option<VecDeque<Request>>,
    taken: usize,
    rejected: usize,
}

impl RemoteWrite {
    /// See the fields.
    pub fn new(
        rules: Rules,
        peer: Peer,
        max_bytes: usize,
        metadata: bool,
        parallel: usize,
        counts: Counts,
    ) -> Self {
        let (version, peer) = (peer.version, Arc::new(peer));
        let warned = Mutex::default();
        Self { rules, version, max_bytes, metadata, parallel, peer, counts, warned }
    }

    /// The requests for a batch. What cannot be said in them is counted, and rejected.
    fn translate(&self, batch: &Batch, kept: &mut Kept) -> Result<VecDeque<Request>, Failure> {
        // The pipeline checks signals before it starts.
        let Batch::Metrics(request) = batch else { return Ok(VecDeque::new()) };
        let translated = Translated::of(&self.rules, request, self.version == Version::V2);
        let counts = &self.counts;
        if !translated.dropped.is_empty() {
            counts.add(&counts.failed, 1);
        }
        for ((reason, metric), points) in &translated.dropped {
            let attributes = [counts.exporter.clone(), KeyValue::new("reason", reason.name())];
            counts.dropped.add(*points as u64, &attributes);
            kept.rejected += points;
            self.warn(*reason, metric);
        }
        let series = translated.groups.iter().map(|group| group.series.len()).sum();
        counts.add(&counts.series, series);
        requests(self.version, translated, self.max_bytes, self.metadata)
            .map(VecDeque::from)
            .map_err(|e| Failure::Permanent { reason: e.to_string() })
    }

    fn warn(&self, reason: Reason, metric: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNED && warned.insert((reason, metric.to_owned())) {
            error!(
                metric,
                reason = reason.text(),
                "dropping points; logged once, counted in otelcol_exporter_prometheusremotewrite_dropped_points"
            );
        }
    }
}

impl Sender for RemoteWrite {
    type Kept = Kept;

    async fn send(&self, batch: &Batch, kept: &mut Kept) -> Result<Sent, Failure> {
        let mut waiting = match kept.rest.take() {
            Some(rest) => rest,
            None => self.translate(batch, kept)?,
        };
        let mut under_way = JoinSet::new();
        // What comes after a failure that may pass waits for the next attempt.
        let mut later: Option<(String, Option<Duration>)> = None;
        let mut refused = None;
        let mut left = VecDeque::new();
        loop {
            while later.is_none() && under_way.len() < self.parallel {
                let Some(request) = waiting.pop_front() else { break };
                let peer = self.peer.clone();
                let counts = self.counts.clone();
                let attempt = async move {
                    let verdict = peer.attempt(&request, &counts).await;
                    (request, verdict)
                };
                under_way.spawn(attempt.in_current_span());
            }
            let Some(ended) = under_way.join_next().await else { break };
            let (request, verdict) = match ended {
                Ok(ended) => ended,
                Err(e) => std::panic::resume_unwind(e.into_panic()),
            };
            match verdict {
                Ok(lost) => {
                    kept.taken += request.holds.points - lost;
                    kept.rejected += lost;
                }
                Err(Failure::Permanent { reason }) => {
                    kept.rejected += request.holds.points;
                    error!(
                        error = reason,
                        dropped_items = request.holds.points,
                        "Exporting failed. Dropping data."
                    );
                    refused = Some(reason);
                }
                Err(Failure::Retryable { reason, after }) => {
                    left.push_back(request);
                    let after = after.max(later.and_then(|(_, after)| after));
                    later = Some((reason, after));
                }
            }
        }
        if let Some((reason, after)) = later {
            left.extend(waiting);
            kept.rest = Some(left);
            return Err(Failure::Retryable { reason, after });
        }
        kept.rest = Some(VecDeque::new());
        match refused {
            Some(reason) if kept.taken == 0 => Err(Failure::Permanent { reason }),
            _ => Ok(Sent { rejected: kept.rejected }),
        }
    }

    fn taken(kept: &Kept) -> usize {
        kept.taken
    }
}

impl Peer {
    /// Sends one request; the points of it that the peer did not write.
    async fn attempt(&self, request: &Request, counts: &Counts) -> Result<usize, Failure> {
        let mut http = HttpRequest::new(Full::new(request.body.clone()));
        *http.method_mut() = Method::POST;
        *http.uri_mut() = self.url.clone();
        *http.headers_mut() = self.headers.clone();
        counts.add(&counts.requests, 1);
        let answer = self.client.send(http).await?;
        let written = match self.version {
            Version::V1 => None,
            Version::V2 => written(&answer.headers),
        };
        if let Some(written) = written {
            // Not more than there was: a counter that a peer could make overflow would go back.
            let Holds { samples, histograms, exemplars, .. } = request.holds;
            for ((counter, count), most) in
                counts.written.iter().zip(written).zip([samples, histograms, exemplars])
            {
                counts.add(counter, count.min(most));
            }
        }
        verdict(&answer, self.version, &request.holds, written)
    }
}

/// What a receiver of version 2 says that it has written; `None` if it says nothing of the kind.
fn written(headers: &HeaderMap) -> Option<[usize; 3]> {
    let said = WRITTEN.map(|(_, name)| headers.get(name)?.to_str().ok()?.trim().parse().ok());
    said.iter().any(Option::is_some).then(|| said.map(Option::unwrap_or_default))
}

/// What Prometheus answers to native histograms where they are not switched on.
const NATIVE_OFF: &str = "native histograms are disabled";

/// What an answer means: the points that were not written, or that none was.
pub(super) fn verdict(
    answer: &Answer,
    version: Version,
    holds: &Holds,
    written: Option<[usize; 3]>,
) -> Result<usize, Failure> {
    let status = answer.status;
    let said = answer.first_line().map(|line| format!(": {line}")).unwrap_or_default();
    let reason = format!("remote write returned HTTP status {status}{said}");
    // Prometheus says 500 to what will not pass before somebody restarts it.
    if holds.histograms > 0 && String::from_utf8_lossy(&answer.body).contains(NATIVE_OFF) {
        let reason = format!("{reason} (it needs --enable-feature=native-histograms)");
        return Err(Failure::Permanent { reason });
    }
    if status.is_server_error() || status.as_u16() == 429 {
        return Err(Failure::Retryable { reason, after: answer.retry_after() });
    }
    let lost = match (written, status.is_success()) {
        (None, true) if version == Version::V1 => return Ok(0),
        // A receiver of version 1 takes the message for an empty one of its own.
        (None, true) => {
            let reason = format!(
                "{reason}, but not what was written: the endpoint does not support remote write 2.0, and \
                 may have dropped the data"
            );
            return Err(Failure::Permanent { reason });
        }
        (None, false) => return Err(Failure::Permanent { reason }),
        (Some([samples, histograms, _]), _) => {
            // A point without one of its samples counts as lost; at most so many are.
            let missing =
                holds.samples.saturating_sub(samples) + holds.histograms.saturating_sub(histograms);
            missing.min(holds.points)
        }
    };
    match (lost, status.is_success()) {
        (0, true) => Ok(0),
        (lost, false) if lost == holds.points => Err(Failure::Permanent { reason }),
        (lost, _) => {
            error!(
                error = reason,
                dropped_items = lost,
                "A part of a request was not written. Dropping it."
            );
            Ok(lost)
        }
    }
}
