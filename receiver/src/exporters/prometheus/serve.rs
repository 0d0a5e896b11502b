//! The HTTP side, for scrapes and for what extensions serve.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{format::Form, page::Exposition, patience::Patience};
use crate::{descriptors, exporters::tls::server::Tls, extensions::server::Front};

/// How long responses in flight may take once the exporter stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Open connections per address; further ones wait in the listener's backlog.
const CONNECTIONS: u64 = 1024;
/// The part of the file descriptors that are left which they may take: others have to read files and to connect.
const SHARE: u64 = 4;
/// The most that a request's head may have, and so what a connection may take of memory.
const HEAD: usize = 16 << 10;
/// What the kernel keeps of a response that the peer does not read, which would grow to megabytes; it takes twice that.
const SEND_BUFFER: usize = 128 << 10;
/// Wait after a failed `accept`, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections are served.
pub(crate) struct Options {
    /// How long a connection may take to send the head of a request, or stay idle.
    pub(crate) read: Option<Duration>,
    /// How long the peer may take to read a response; 0 is no limit.
    pub(crate) write: Duration,
    /// Whether a connection is open for more than one request.
    pub(crate) keep_alive: bool,
    /// Encrypts.
    pub(crate) tls: Option<Tls>,
    /// HTTP/2 alone.
    pub(crate) http2: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read: Some(Duration::from_secs(60)),
            write: Duration::from_secs(30),
            keep_alive: true,
            tls: None,
            http2: false,
        }
    }
}

/// Whether one could listen at `endpoint`, by its form alone; the errors are Go's.
pub(crate) fn check(endpoint: &str) -> Result<(), String> {
    let (_, port) = endpoint
        .rsplit_once(':')
        // The last colon of `[::1]` belongs to the host.
        .filter(|(host, port)| !port.contains(']') && (!host.contains(':') || host.ends_with(']')))
        .ok_or_else(|| match endpoint.matches(':').count() > 1 && !endpoint.starts_with('[') {
            true => format!("address {endpoint}: too many colons in address"),
            false => format!("address {endpoint}: missing port in address"),
        })?;
    match port.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("address {port}: invalid port")),
    }
}

/// Listens at `endpoint`: at every address of its host, of which the first must be free; with `tcp4` or `tcp6` for
/// `transport`, at those of that kind. `what` is served at `scheme` and `path`, for the log.
pub(crate) async fn bind(
    endpoint: &str,
    transport: &str,
    what: &str,
    scheme: &str,
    path: &str,
) -> anyhow::Result<Vec<TcpListener>> {
    let failed = || format!("endpoint: cannot listen at {endpoint}");
    // As in Go, no host means every address.
    let target = match (endpoint.starts_with(':'), transport) {
        (true, "tcp4") => format!("0.0.0.0{endpoint}"),
        (true, _) => format!("[::]{endpoint}"),
        (false, _) => endpoint.to_owned(),
    };
    let mut addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(&target).await.with_context(failed)?.collect();
    addresses.retain(|address| match transport {
        "tcp4" => address.is_ipv4(),
        "tcp6" => address.is_ipv6(),
        _ => true,
    });
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
                tracing::info!(%address, "serving {what} at {scheme}://{address}{path}");
                listeners.push(listener);
            }
            Err(error) if listeners.is_empty() => return Err(error).with_context(failed),
            Err(error) => tracing::debug!(%address, %error, "not listening at a further address"),
        }
    }
    if listeners.is_empty() {
        bail!("endpoint: {endpoint} has no address for {transport}");
    }
    Ok(listeners)
}

/// Serves until `stop`, then lets responses in flight end.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    options: Options,
    front: Front,
    exposition: Arc<Exposition>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found: metrics are at /metrics\n") })
        .with_state(exposition);
    accept(listeners, options, front.before(router), stop).await;
}

/// Serves what comes in on all of them until `stop`, then lets responses in flight end.
pub(crate) async fn accept(
    listeners: Vec<TcpListener>,
    options: Options,
    router: Router,
    stop: CancellationToken,
) {
    let options = Arc::new(options);
    let mut listening = JoinSet::new();
    for listener in listeners {
        listening.spawn(accept_from(listener, Arc::clone(&options), router.clone(), stop.clone()));
    }
    listening.join_all().await;
}

async fn accept_from(
    listener: TcpListener,
    options: Arc<Options>,
    router: Router,
    stop: CancellationToken,
) {
    let (left, _) = descriptors::left().unwrap_or((u64::MAX, u64::MAX));
    let connections = (left / SHARE).clamp(1, CONNECTIONS);
    let limit = Arc::new(Semaphore::new(connections as usize));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
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
        let connection =
            connection(stream, router.clone(), Arc::clone(&options), graceful.watcher());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a request ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    // Whoever has not read by then is cut off when `connections` is dropped.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::debug!("requests were cut off at shutdown");
    }
}

async fn next(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(limit).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

/// Serves one connection until its end.
async fn connection(
    stream: TcpStream,
    router: Router,
    options: Arc<Options>,
    watcher: Watcher,
) -> anyhow::Result<()> {
    // What was sent when the connection was cut off is not kept by the kernel for longer, either.
    let socket = socket2::SockRef::from(&stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(options.write)) {
        tracing::debug!(%error, "cannot limit how long a peer may take to read");
    }
    if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER) {
        tracing::debug!(%error, "cannot limit what the kernel keeps for a peer that does not read");
    }
    let stream = Patience::new(stream, options.write);
    match &options.tls {
        None => requests(stream, router, &options, watcher).await,
        Some(tls) => {
            let handshake = TlsAcceptor::from(tls.current()).accept(stream);
            let stream = match options.read {
                Some(limit) => tokio::time::timeout(limit, handshake).await??,
                None => handshake.await?,
            };
            requests(stream, router, &options, watcher).await
        }
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    options: &Options,
    watcher: Watcher,
) -> anyhow::Result<()> {
    let service = TowerToHyperService::new(router);
    if options.http2 {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new());
        return Ok(watcher.watch(server.serve_connection(TokioIo::new(stream), service)).await?);
    }
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(options.read)
        .max_buf_size(HEAD)
        .keep_alive(options.keep_alive);
    Ok(watcher.watch(server.serve_connection(TokioIo::new(stream), service)).await?)
}

async fn metrics(State(exposition): State<Arc<Exposition>>, headers: HeaderMap) -> Response {
    let gzip = accepts_gzip(&headers);
    let form = Form::negotiated(&headers, exposition.openmetrics, exposition.utf8);
    let vary = (header::VARY, "accept, accept-encoding");
    let content = (header::CONTENT_TYPE, form.content_type());
    match exposition.scrape(form, gzip).await {
        Ok(body) if gzip => {
            ([content, (header::CONTENT_ENCODING, "gzip"), vary], body).into_response()
        }
        Ok(body) => ([content, vary], body).into_response(),
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
        let bind = async |at: &str, transport| bind(at, transport, "it", "http", "/").await;
        let listeners = bind("localhost:0", "tcp").await.expect("a free port");
        let address = listeners[0].local_addr().expect("bound");
        assert!(address.is_ipv4());
        let error = bind(&address.to_string(), "").await.expect_err("taken");
        let text = format!("{error:#}");
        assert!(text.contains("endpoint") && text.contains(&address.to_string()), "{text}");

        for endpoint in ["localhost:0", ":0"] {
            for listener in bind(endpoint, "tcp4").await.expect("a free port") {
                assert!(listener.local_addr().expect("bound").is_ipv4(), "{endpoint}");
            }
        }
        let error = bind("127.0.0.1:0", "tcp6").await.expect_err("it is none of that kind");
        assert_eq!(error.to_string(), "endpoint: 127.0.0.1:0 has no address for tcp6");
    }
}
