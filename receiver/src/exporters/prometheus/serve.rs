//! The HTTP side. A scrape holds the store only while it is rendered into memory: a scraper that
//! reads slowly, or never, holds nothing but that copy, which all scrapes between two changes share.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, net::TcpStream, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{lock, store::Store, text};

/// How long a connection may take to send the head of a request, or stay idle.
const READ_HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the peer may leave what was sent to it unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long responses in flight may take once the exporter stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Open connections per address; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 1024;
/// Wait after a failed `accept`, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The store and its last rendering.
pub(super) struct Exposition {
    state: Mutex<(Store, Option<Arc<Page>>)>,
    timestamps: bool,
}

/// One rendering.
struct Page {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Exposition {
    pub(super) fn new(store: Store, timestamps: bool) -> Self {
        Self { state: Mutex::new((store, None)), timestamps }
    }

    /// Changes the store.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let (store, page) = &mut *lock(&self.state);
        *page = None;
        change(store)
    }

    fn page(&self) -> Arc<Page> {
        let (store, page) = &mut *lock(&self.state);
        let page = page.get_or_insert_with(|| {
            let plain = text::render(store, self.timestamps).into();
            Arc::new(Page { plain, gzip: OnceLock::new() })
        });
        Arc::clone(page)
    }
}

impl Page {
    fn gzip(&self) -> Bytes {
        let compress = || {
            // The fastest level: a scrape mostly stays in the machine or the rack.
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&self.plain).and_then(|()| encoder.finish()).expect("a Vec grows")
        };
        self.gzip.get_or_init(|| compress().into()).clone()
    }
}

/// Listens at `endpoint`: at every address of its host, of which the first must be free.
pub(crate) async fn bind(
    endpoint: &str,
    what: &str,
    path: &str,
) -> anyhow::Result<Vec<TcpListener>> {
    let failed = || format!("endpoint: cannot listen at {endpoint}");
    // As in Go, no host means every address.
    let target =
        if endpoint.starts_with(':') { format!("[::]{endpoint}") } else { endpoint.to_owned() };
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(&target).await.with_context(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    let mut listeners: Vec<TcpListener> = Vec::new();
    for mut address in addresses {
        // With port 0 all addresses share the port that the first was given.
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr()?;
                tracing::info!(%address, "serving {what} at http://{address}{path}");
                listeners.push(listener);
            }
            Err(error) if listeners.is_empty() => return Err(error).with_context(failed),
            Err(error) => tracing::debug!(%address, %error, "not listening at a further address"),
        }
    }
    if listeners.is_empty() {
        bail!("endpoint: {endpoint} has no address");
    }
    Ok(listeners)
}

/// Serves until `stop`, then lets responses in flight end.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    exposition: Arc<Exposition>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found: metrics are at /metrics\n") })
        .with_state(exposition);
    let mut listening = JoinSet::new();
    for listener in listeners {
        listening.spawn(accept(listener, router.clone(), stop.clone()));
    }
    listening.join_all().await;
}

/// Serves what comes in on one listener until `stop`, then lets responses in flight end.
pub(crate) async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READ_HEADER_TIMEOUT);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            // What has ended is taken out, so that the set does not grow.
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &limit) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // The kernel closes connections whose peer does not read: no timer of our own per write.
        if let Err(error) =
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT))
        {
            tracing::debug!(%error, "cannot limit how long a scraper may take to read");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a scrape ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    // Whoever has not read by then is cut off when `connections` is dropped.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("scrapes were cut off at shutdown");
    }
}

async fn next(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(limit).acquire_owned().await.map_err(std::io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

async fn metrics(State(exposition): State<Arc<Exposition>>, headers: HeaderMap) -> Response {
    let gzip = accepts_gzip(&headers);
    // Rendering and compressing take milliseconds: too long for the threads that serve others.
    let rendered = tokio::task::spawn_blocking(move || {
        let page = exposition.page();
        if gzip { page.gzip() } else { page.plain.clone() }
    });
    let vary = (header::VARY, "accept-encoding");
    match rendered.await {
        Ok(body) if gzip => {
            let encoding = (header::CONTENT_ENCODING, "gzip");
            ([(header::CONTENT_TYPE, CONTENT_TYPE), encoding, vary], body).into_response()
        }
        Ok(body) => ([(header::CONTENT_TYPE, CONTENT_TYPE), vary], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
            let refused = parts
                .filter_map(|p| p.strip_prefix("q="))
                .any(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0));
            gzip && !refused
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_only_for_those_who_ask() {
        for (value, expected) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("identity", false)]
        {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().expect("ascii"))]);
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
    }

    #[tokio::test]
    async fn localhost_includes_v4_and_a_taken_port_is_named() {
        let listeners = bind("localhost:0", "metrics", "/metrics").await.expect("a free port");
        let address = listeners[0].local_addr().expect("bound");
        assert!(address.is_ipv4());
        let error = bind(&address.to_string(), "metrics", "/metrics").await.expect_err("taken");
        let text = format!("{error:#}");
        assert!(text.contains("endpoint") && text.contains(&address.to_string()), "{text}");
    }
}
