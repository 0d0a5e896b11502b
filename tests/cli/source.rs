//! Configurations that come over HTTP and HTTPS, from a server of the standard library.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
};

use anyhow::{Result, ensure};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
use tests::agent::binary;

const CONFIG: &str = "receivers: {iomonitor: }\nexporters: {debug: }\nservice: {pipelines: {metrics: \
                      {receivers: [iomonitor], exporters: [debug]}}}\n";

/// Answers every request, each on a connection of its own, by its path. Returns its `host:port`.
fn serve(tls: Option<Arc<ServerConfig>>) -> Result<String> {
    let listener = TcpListener::bind("localhost:0")?;
    let address = format!("localhost:{}", listener.local_addr()?.port());
    let own = address.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that hangs up is what some tests are about.
            let _ = match &tls {
                Some(tls) => ServerConnection::new(tls.clone())
                    .map_err(Into::into)
                    .and_then(|c| answer(StreamOwned::new(c, stream), &own)),
                None => answer::<TcpStream>(stream, &own),
            };
        }
    });
    Ok(address)
}

fn answer<S: Read + Write>(mut stream: S, own: &str) -> Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(&mut stream);
    while lines.read_line(&mut request)? > 2 {}
    ensure!(request.contains(&format!("host: {own}\r\n")), "{request}");
    let path = request.split(' ').nth(1).unwrap_or_default();
    let moved = |to: &str| format!("302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let body = |text: &str| format!("200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let response = match path {
        "/config?a=b" => body(CONFIG),
        "/debug" => body("{debug: {verbosity: detailed}}"),
        "/wrong" => body("receivers: [\n"),
        "/endless" => body(&"# endless\n".repeat(2 << 20)),
        "/here" => moved("/config?a=b"),
        "/round" => moved("/round"),
        "/elsewhere" => moved("ftp://localhost/config"),
        "/down" => moved(&format!("http://{own}/config?a=b")),
        _ => "404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    write!(stream, "HTTP/1.1 {response}")?;
    Ok(stream.flush()?)
}

/// What `validate` says, and whether it is content.
fn validate(uri: &str, roots: &str) -> Result<(bool, String)> {
    let mut command = Command::new(binary()?);
    let output =
        command.args(["validate", "--config", uri]).env("SSL_CERT_FILE", roots).output()?;
    Ok((output.status.success(), String::from_utf8(output.stderr)?))
}

#[test]
fn a_configuration_comes_over_http() -> Result<()> {
    let at = format!("http://{}", serve(None)?);
    for good in ["/config?a=b", "/here"] {
        let (ok, said) = validate(&format!("{at}{good}"), "")?;
        ensure!(ok && said.is_empty(), "{good}: {said}");
    }
    for (path, error) in [
        ("/none", format!("failed to load resource from uri \"{at}/none\". status code: 404")),
        ("/round", "stopped after 10 redirects".to_owned()),
        ("/elsewhere", "a redirect to another scheme: ftp".to_owned()),
        ("/endless", format!("{at}/endless is larger than 16 MiB")),
        ("/wrong", format!("at {at}/wrong:2:1")),
    ] {
        let (ok, said) = validate(&format!("{at}{path}"), "")?;
        ensure!(!ok && said.contains(&error), "{path}: {said}");
    }
    for (uri, error) in [
        ("http://", "invalid uri \"http://\""),
        ("http://{}", "invalid uri \"http://{}\""),
        ("http:x", "unable to download the file via HTTP GET for uri \"http:x\""),
        ("http://a:b@localhost/", "credentials in a URI are not supported"),
        // The discard port, where nobody listens.
        ("http://localhost:9/", "unable to download the file via HTTP GET"),
        ("gopher://x", "unsupported scheme on URI \"gopher://x\""),
    ] {
        let (ok, said) = validate(uri, "")?;
        ensure!(!ok && said.contains(error), "{uri}: {said}");
    }
    // In an expression, too.
    let (ok, said) = validate(&format!("yaml:exporters: ${{{at}/debug}}"), "")?;
    ensure!(
        !ok && said.contains("no receiver configuration") && !said.contains("no exporter"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_configuration_comes_over_https_from_whom_the_system_trusts() -> Result<()> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = signed.signing_key.serialize_der().try_into().map_err(anyhow::Error::msg)?;
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)?;
    let address = serve(Some(Arc::new(tls)))?;
    let mut roots = tempfile::NamedTempFile::new()?;
    roots.write_all(signed.cert.pem().as_bytes())?;
    let roots = roots.path().to_str().unwrap_or_default();

    let (ok, said) = validate(&format!("https://{address}/here"), roots)?;
    ensure!(ok && said.is_empty(), "{said}");
    let (ok, said) = validate(&format!("https://{address}/here"), "/dev/null")?;
    ensure!(!ok && said.contains("invalid peer certificate"), "{said}");
    let other = address.replace("localhost", "127.0.0.1");
    let (ok, said) = validate(&format!("https://{other}/here"), roots)?;
    ensure!(!ok && said.contains("invalid peer certificate"), "{said}");
    // What was asked for in secret does not come in the clear.
    let (ok, said) = validate(&format!("https://{address}/down"), roots)?;
    ensure!(!ok && said.contains("a redirect to another scheme: http"), "{said}");
    Ok(())
}
