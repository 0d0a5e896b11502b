//! `http:` and `https:` sources: one GET, by the libraries that exporters use anyway.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode, Uri, body::Incoming, client::conn::http1, header,
    http::uri::Scheme,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::source::{MAX_BYTES, too_large};

/// From the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;

/// What stands behind `uri`.
pub fn get(uri: &str) -> Result<Vec<u8>, String> {
    // A thread of its own: configurations are also read where a runtime is running already.
    let fetch = || -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
        runtime.block_on(async {
            timeout(TIMEOUT, follow(uri)).await.unwrap_or_else(|_| {
                Err(failed(uri, &format!("no whole answer within {}s", TIMEOUT.as_secs())))
            })
        })
    };
    thread::scope(|scope| scope.spawn(fetch).join().unwrap_or_else(|_| Err(failed(uri, &"panic"))))
}

fn failed(uri: &str, why: &dyn std::fmt::Display) -> String {
    format!("unable to download the file via HTTP GET for uri {uri:?}: {why:#}")
}

async fn follow(uri: &str) -> Result<Vec<u8>, String> {
    let mut target: Uri = uri.parse().map_err(|e| format!("invalid uri {uri:?}: {e}"))?;
    for _ in 0..=MAX_REDIRECTS {
        let response = request(&target).await.map_err(|e| failed(uri, &format!("{e:#}")))?;
        if let Some(next) = redirect(&target, &response).map_err(|e| failed(uri, &e))? {
            target = next;
            continue;
        }
        let status = response.status();
        if status != StatusCode::OK {
            return Err(format!(
                "failed to load resource from uri {uri:?}. status code: {}",
                status.as_u16()
            ));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        return match body {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(too_large(uri)),
            Err(e) => Err(format!("fail to read the response body from uri {uri:?}: {e}")),
        };
    }
    Err(failed(uri, &format!("stopped after {MAX_REDIRECTS} redirects")))
}

/// Where the response sends us, if it does.
fn redirect<B>(from: &Uri, response: &Response<B>) -> Result<Option<Uri>> {
    let moved = [301, 302, 303, 307, 308].contains(&response.status().as_u16());
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| moved) else {
        return Ok(None);
    };
    let to: Uri = location.to_str().ok().and_then(|l| l.parse().ok()).context("a bad redirect")?;
    let mut parts = from.clone().into_parts();
    match to.scheme() {
        // Never from https to http; and what is no web address is none of ours.
        Some(scheme) => {
            let allowed = *scheme == Scheme::HTTPS || Some(scheme) == from.scheme();
            ensure!(allowed, "a redirect to another scheme: {scheme}");
            Ok(Some(to))
        }
        None => {
            parts.path_and_query = to.into_parts().path_and_query;
            Ok(Some(Uri::from_parts(parts)?))
        }
    }
}

async fn request(uri: &Uri) -> Result<Response<Incoming>> {
    let authority = uri.authority().context("no Host in request URL")?;
    ensure!(!authority.as_str().contains('@'), "credentials in a URI are not supported");
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    ensure!(!host.is_empty(), "no Host in request URL");
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("unsupported protocol scheme"),
    };
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !tls {
        return exchange(stream, uri, authority.as_str()).await;
    }
    let name = ServerName::try_from(host.to_owned())?;
    exchange(connector()?.connect(name, stream).await?, uri, authority.as_str()).await
}

/// TLS, with the system's authorities.
fn connector() -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    uri: &Uri,
    host: &str,
) -> Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors are those of the request.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("fathom/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<bytes::Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_https_but_not_away_from_it() {
        let to = |from: &'static str, location: &str| {
            let response = Response::builder().status(301).header(header::LOCATION, location);
            let uri = redirect(&Uri::from_static(from), &response.body(()).expect("a response"));
            uri.map(|uri| uri.map(|uri| uri.to_string()).unwrap_or_default()).ok()
        };
        for (from, location, expected) in [
            ("http://a/x", "https://b/y", Some("https://b/y")),
            ("http://a/x", "http://b/y", Some("http://b/y")),
            ("https://a/x", "https://b/y", Some("https://b/y")),
            ("https://a/x", "/y?z", Some("https://a/y?z")),
            ("https://a/x", "http://a/x", None),
            ("http://a/x", "file:///etc/passwd", None),
        ] {
            assert_eq!(to(from, location).as_deref(), expected, "{from} to {location}");
        }
    }
}
