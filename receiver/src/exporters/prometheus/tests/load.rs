//! Many scrapes, scrapers that do not read, and many series.

use std::{io, path::Path};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio_rustls::TlsConnector;

use super::*;

fn text() -> Form {
    Form::negotiated(&Default::default(), false, false)
}

fn exposition(store: Store) -> Arc<Exposition> {
    let counts = Counts::new(&crate::exporters::testing::context("prometheus").0);
    Arc::new(Exposition::new(store, false, counts.hidden()))
}

/// A batch of `count` series of one gauge.
fn series(count: usize, value: i64) -> ExportMetricsServiceRequest {
    let data_points = (0..count)
        .map(|number| NumberDataPoint {
            attributes: pairs(&[("number", &number.to_string())]),
            ..point(value, 0, 1)
        })
        .collect();
    let data = Some(Data::Gauge(Gauge { data_points }));
    request(&[], Metric { name: "x".to_owned(), data, ..Default::default() })
}

fn bench() -> Store {
    Bench::new(Config::default()).0
}

async fn scrape(exposition: &Arc<Exposition>) -> Bytes {
    Arc::clone(exposition).scrape(text(), false).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_scrapes_share_one_rendering() {
    let exposition = exposition(bench());
    exposition.change(|store| store.apply(series(1000, 1), Instant::now())).await;
    let scrapes: Vec<_> = (0..1000)
        .map(|_| {
            let exposition = Arc::clone(&exposition);
            tokio::spawn(async move { scrape(&exposition).await })
        })
        .collect();
    let first = scrape(&exposition).await;
    assert_eq!(first.split(|byte| *byte == b'\n').count(), 1002);
    for scrape in scrapes {
        let body = scrape.await.expect("no panic");
        assert_eq!(body.as_ptr(), first.as_ptr());
    }
    exposition.change(|store| store.apply(series(1, 2), Instant::now())).await;
    assert_ne!(scrape(&exposition).await, first);
}

#[tokio::test]
async fn unread_answers_hold_a_few_renderings_and_no_more() {
    let exposition = exposition(bench());
    let mut held = Vec::new();
    for value in 0..20 {
        exposition.change(|store| store.apply(series(1, value), Instant::now())).await;
        held.push(scrape(&exposition).await);
    }
    let distinct: std::collections::BTreeSet<_> = held.iter().map(|body| body.as_ptr()).collect();
    assert_eq!(distinct.len(), page::RENDERINGS);
    let last = scrape(&exposition).await;
    assert_eq!(last, held[19], "an old one is better than none");
    // When some are done, the newest is shown again.
    held.truncate(3);
    drop(last);
    exposition.change(|store| store.apply(series(1, 20), Instant::now())).await;
    assert_eq!(scrape(&exposition).await, "# TYPE x gauge\nx{number=\"0\"} 20\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_that_never_reads_is_cut_off_and_its_memory_is_free() {
    let exposition = exposition(bench());
    // More than sockets hold.
    let large = Metric { description: "x".repeat(32 << 20), ..gauge("x", point(1, 0, 1)) };
    exposition.change(|store| store.apply(request(&[], large), Instant::now())).await;
    let listeners =
        serve::bind("127.0.0.1:0", "tcp", "metrics", "http", "/metrics").await.expect("a port");
    let address = listeners[0].local_addr().expect("bound");
    let stop = CancellationToken::new();
    let options = serve::Options { write: Duration::from_millis(200), ..Default::default() };
    let front = Config::default().server().front(&Default::default()).expect("nobody is asked for");
    let serving = tokio::spawn(serve::serve(
        listeners,
        options,
        front,
        Arc::clone(&exposition),
        stop.clone(),
    ));
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small one");
    let mut silent = socket.connect(address).await.expect("listening");
    silent.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("open");
    // It has begun to be sent.
    silent.readable().await.expect("open");
    exposition.change(|store| store.expire(Instant::now())).await;
    assert_eq!(exposition.free(), page::RENDERINGS - 1);
    while exposition.free() < page::RENDERINGS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    serving.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_scrapes() {
    // Two descriptors for each connection: both ends are here.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096.min(hard)), hard).expect("below the limit");
    let running = run(Config::default()).await;
    running.out.send(durations()).await.expect("running");
    let address = running.address;
    let expected = body(&scraped(address).await);
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(TcpStream::connect(address).await.expect("listening"));
    }
    // All connections are open before the first is served.
    let scrapes: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                stream.write_all(head).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                io::Result::Ok(answer)
            })
        })
        .collect();
    for scrape in scrapes {
        assert_eq!(body(&scrape.await.expect("no panic").expect("an answer")), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_series() {
    let running = run(Config { max_series: 100_000, ..Config::default() }).await;
    running.out.send(Batch::Metrics(series(100_010, 1))).await.expect("running");
    let answer = scraped(running.address).await;
    let samples = answer.lines().filter(|line| line.starts_with("x{number=")).count();
    assert_eq!(samples, 100_000);
}

fn body(answer: &str) -> String {
    answer.split_once("\r\n\r\n").expect("an end of the head").1.to_owned()
}

/// Files of an authority and of what it vouches for.
fn certificates(directory: &Path) -> io::Result<()> {
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(["localhost".to_owned()])?;
        Ok((issuer.pem(), params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (ca, cert, key) = made().map_err(io::Error::other)?;
    std::fs::write(directory.join("ca.pem"), ca)?;
    std::fs::write(directory.join("cert.pem"), cert)?;
    std::fs::write(directory.join("key.pem"), key)
}

/// The status of a scrape by a client that trusts the authority, and shows a certificate or none.
async fn status(
    address: std::net::SocketAddr,
    directory: &Path,
    shows: bool,
) -> io::Result<String> {
    let read = |name: &str| std::fs::read(directory.join(name));
    let certificate = |name| {
        rustls::pki_types::CertificateDer::from_pem_slice(&read(name)?).map_err(io::Error::other)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate("ca.pem")?).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = if shows {
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")?).map_err(io::Error::other)?;
        let made = builder.with_client_auth_cert(vec![certificate("cert.pem")?], key);
        made.map_err(io::Error::other)?
    } else {
        builder.with_no_client_auth()
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn tls_admits_whom_it_should() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    certificates(path).expect("written");
    let of = |tls: serde_json::Value| Config {
        tls: Some(serde_json::from_value(tls).expect("known keys")),
        ..Config::default()
    };
    let (cert, key) = (path.join("cert.pem"), path.join("key.pem"));
    let server = run(of(serde_json::json!({"cert_file": cert, "key_file": key}))).await;
    let ok = "HTTP/1.1 200 OK";
    assert_eq!(status(server.address, path, false).await.expect("admitted"), ok);
    // Whoever speaks plain text gets nothing, and disturbs nobody.
    let mut plain = TcpStream::connect(server.address).await.expect("listening");
    plain.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.expect("open");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    let mutual = serde_json::json!({
        "cert_file": cert, "key_file": key, "client_ca_file": path.join("ca.pem"),
        "client_ca_file_reload": true,
    });
    let server = run(of(mutual)).await;
    assert_eq!(status(server.address, path, true).await.expect("admitted"), ok);
    status(server.address, path, false).await.expect_err("no certificate");
    // Another authority, from now on.
    let other = tempfile::tempdir().expect("a directory");
    certificates(other.path()).expect("written");
    std::fs::rename(other.path().join("ca.pem"), path.join("other.pem")).expect("renamed");
    let trusted = std::fs::read(path.join("ca.pem")).expect("there");
    std::fs::rename(path.join("other.pem"), path.join("ca.pem")).expect("renamed");
    let client = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        ("ca.pem", trusted),
        ("cert.pem", std::fs::read(&cert).expect("there")),
        ("key.pem", std::fs::read(&key).expect("there")),
    ] {
        std::fs::write(client.path().join(name), text).expect("written");
    }
    status(server.address, client.path(), true).await.expect_err("signed by the one before");
}
