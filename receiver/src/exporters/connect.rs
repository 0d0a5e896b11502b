//! How an exporter reaches its peer: over TCP or a Unix socket, through a proxy or not, with TLS or
//! not. Shared, so that HTTP and gRPC mean the same by the same keys.

use std::{
    future::Future,
    io::{IoSlice, Result as IoResult},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context as Waker, Poll},
    time::Duration,
};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use hyper::{
    Uri,
    http::{HeaderValue, uri::Scheme},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::connect::{
        Connected, Connection, HttpConnector,
        proxy::{SocksV5, Tunnel},
    },
    client::proxy::matcher::Intercept,
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{proxy::Proxy, tls::Tls};

/// Time without traffic after which the kernel asks the peer's kernel: Go's default, so the Collector's.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// What HTTP/2 is called in a TLS handshake.
pub const HTTP2: &str = "h2";

/// Makes connections.
#[derive(Clone)]
pub struct Connector {
    tcp: HttpConnector,
    tls: Option<Arc<Tls>>,
    proxy: Arc<Proxy>,
    /// Covers everything up to the end of the TLS handshake; zero is no limit.
    timeout: Duration,
    /// Requests without TLS may be handed to a proxy as they are.
    forward: bool,
}

impl Connector {
    /// Uses `tls` where the URI says `https`.
    pub fn new(tls: Option<Tls>, proxy: Proxy, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        // The scheme is looked at here.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A host that has gone without a word must not hold the next attempts up.
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        Self { tcp, tls: tls.map(Arc::new), proxy: Arc::new(proxy), timeout, forward: true }
    }

    /// A connector to one target, whatever is asked for, that speaks to it directly or through a tunnel.
    pub fn to(mut self, target: Target) -> To {
        self.forward = false;
        To { connector: self, target }
    }

    /// The password to show with a request to `uri` that a proxy forwards.
    pub fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        self.proxy.authorization(uri)
    }

    async fn connect(self, target: Target) -> Result<Stream> {
        if self.timeout.is_zero() {
            return self.open(target).await;
        }
        match tokio::time::timeout(self.timeout, self.open(target)).await {
            Ok(result) => result,
            Err(_) => bail!("no connection within {:?}", self.timeout),
        }
    }

    async fn open(&self, target: Target) -> Result<Stream> {
        let (stream, host, secure) = match target {
            Target::Unix { path, secure } => {
                let stream = UnixStream::connect(&path).await?;
                (Stream::plain(stream), "localhost".to_owned(), secure)
            }
            Target::Uri(uri) => {
                let host = uri.host().context("an address without a host")?.to_owned();
                let secure = uri.scheme() == Some(&Scheme::HTTPS);
                let stream = match self.proxied(&uri) {
                    None => self.tcp(&uri).await?,
                    Some(proxy) => self.through(&proxy, &uri, secure).await?,
                };
                (stream, host, secure)
            }
        };
        match secure {
            true => self.secure(stream, &host).await,
            false => Ok(stream),
        }
    }

    /// The proxy on the way to `uri`.
    fn proxied(&self, uri: &Uri) -> Option<Intercept> {
        if self.forward {
            return self.proxy.before(uri);
        }
        // gRPC needs a tunnel, so the proxy for what is tunnelled is asked for, as in Go.
        let uri = format!("https://{}", uri.authority()?).parse().ok()?;
        self.proxy.before(&uri)
    }

    async fn tcp(&self, uri: &Uri) -> Result<Stream> {
        let stream = self.tcp.clone().call(uri.clone()).await?;
        Ok(Stream::plain(stream.into_inner()))
    }

    async fn through(&self, proxy: &Intercept, uri: &Uri, secure: bool) -> Result<Stream> {
        let address = proxy.uri();
        let context = || format!("proxy {address}");
        if matches!(address.scheme_str(), Some("socks5" | "socks5h")) {
            let mut socks = SocksV5::new(address.clone(), self.tcp.clone());
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            let stream = socks.call(uri.clone()).await.map_err(|e| anyhow!("{e}"));
            return Ok(Stream::plain(stream.with_context(context)?.into_inner()));
        }
        let hop = Hop(self.clone());
        if self.forward && !secure {
            let mut stream = hop.connect(address.clone()).await.with_context(context)?;
            stream.forwarded = true;
            return Ok(stream);
        }
        let mut tunnel = Tunnel::new(address.clone(), hop);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        tunnel.call(uri.clone()).await.map_err(|e| anyhow!(causes(&e))).with_context(context)
    }

    async fn secure(&self, stream: Stream, host: &str) -> Result<Stream> {
        let tls = self.tls.as_ref().context("no TLS is configured")?;
        handshake(tls, stream, host).await
    }
}

/// Speaks TLS on a connection to `host`.
async fn handshake(tls: &Tls, stream: Stream, host: &str) -> Result<Stream> {
    let (name, config) = (tls.server_name(host)?, tls.current());
    let only_http2 = config.alpn_protocols == [HTTP2.as_bytes()];
    let secured = TlsConnector::from(config)
        .connect(name, stream.io.into_inner())
        .await
        .context("TLS handshake")?;
    let http2 = secured.get_ref().1.alpn_protocol() == Some(HTTP2.as_bytes());
    ensure!(http2 || !only_http2, "TLS handshake: the server does not offer HTTP/2");
    Ok(Stream { http2, ..Stream::plain(secured) })
}

/// An error with everything that caused it, in one line.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, with TLS if the scheme is `https`.
    Uri(Uri),
    /// A socket in the file system.
    Unix {
        /// Its place.
        path: PathBuf,
        /// Whether TLS is spoken on it.
        secure: bool,
    },
}

type Connecting = Pin<Box<dyn Future<Output = Result<Stream>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Connecting;
    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, uri: Uri) -> Connecting {
        Box::pin(self.clone().connect(Target::Uri(uri)))
    }
}

/// See [`Connector::to`].
#[derive(Clone)]
pub struct To {
    connector: Connector,
    target: Target,
}

impl Service<Uri> for To {
    type Response = Stream;
    type Error = Error;
    type Future = Connecting;
    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Uri) -> Connecting {
        Box::pin(self.connector.clone().connect(self.target.clone()))
    }
}

/// The way to a proxy itself.
struct Hop(Connector);

impl Hop {
    async fn connect(&self, proxy: Uri) -> Result<Stream> {
        let stream = self.0.tcp(&proxy).await?;
        match (&self.0.proxy.tls, proxy.host()) {
            (Some(tls), Some(host)) if proxy.scheme() == Some(&Scheme::HTTPS) => {
                handshake(tls, stream, host).await
            }
            _ => Ok(stream),
        }
    }
}

impl Service<Uri> for Hop {
    type Response = Stream;
    type Error = Error;
    type Future = Connecting;
    fn poll_ready(&mut self, _: &mut Waker<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, proxy: Uri) -> Connecting {
        let hop = Self(self.0.clone());
        Box::pin(async move { hop.connect(proxy).await })
    }
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection.
pub struct Stream {
    io: TokioIo<Box<dyn Transport>>,
    /// The handshake settled on HTTP/2.
    http2: bool,
    /// The peer is a proxy that takes requests for others.
    forwarded: bool,
}

impl Stream {
    fn plain(io: impl Transport + 'static) -> Self {
        Self { io: TokioIo::new(Box::new(io)), http2: false, forwarded: false }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.forwarded);
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Waker<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Waker<'_>,
        bytes: &[u8],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Waker<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
