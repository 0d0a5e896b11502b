//! The pages as whoever asks sees them: over HTTP.

use serde_json::json;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::{
    config::Id,
    exporters::queue::testing::context,
    extensions::{
        auth,
        basicauth::BasicAuth,
        testing::{answer, ask},
    },
    status::{Flow, Probe, Reporter, Status},
};

/// The words in the cells of the row in which there is `word`.
fn row(page: &str, word: &str) -> Vec<String> {
    let line = page.lines().find(|line| line.starts_with("<tr><td>") && line.contains(word));
    let line = line.unwrap_or_else(|| panic!("no row with {word} in {page}"));
    let mut cells: Vec<_> = line.split("<td>").skip(1).collect();
    let text = |cell: &mut &str| {
        let text: Vec<_> = cell.split(['<', '>']).step_by(2).collect();
        text.concat().trim().to_owned()
    };
    cells.iter_mut().map(text).collect()
}

/// The extension at work beside a pipeline.
async fn serving() -> (String, Context, Reporter) {
    let (cx, _) = context("zpages");
    let (receiver, exporter) = (Reporter::default(), Reporter::default());
    let (group, extensions) = ("pipeline:metrics/a".to_owned(), "extensions".to_owned());
    let names = ["receiver:iomonitor", "processor:batch", "exporter:otlp_grpc/<b>"];
    let names = names.map(str::to_owned);
    let reporters = [receiver.clone(), Reporter::default(), exporter.clone()];
    reporters.iter().for_each(|reporter| reporter.set(Status::Ok, String::new()));
    let all = names.iter().zip(reporters).map(|(name, reporter)| (&group, name, reporter));
    let own = (&extensions, &"extension:zpages".to_owned(), cx.status.clone());
    cx.statuses.show(all.chain([own]));
    cx.statuses.connect(vec![Flow {
        id: "metrics/a".to_owned(),
        signal: "metrics",
        mutates: true,
        receivers: vec!["iomonitor".to_owned()],
        processors: vec!["batch".to_owned()],
        exporters: vec!["otlp_grpc/<b>".to_owned()],
    }]);
    receiver.probes(vec![
        Probe {
            name: "page_cache/adds".to_owned(),
            mode: Some("tp_btf"),
            reason: String::new(),
            missed: Some(7),
        },
        Probe {
            name: "fadvise/calls".to_owned(),
            mode: None,
            reason: "kprobe: <no>".to_owned(),
            missed: None,
        },
    ]);
    let config = serde_json::from_value(json!({"endpoint": "127.0.0.1:0"})).expect("valid");
    let mut made = ZPages::new(config).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    made.start(&cx).await.expect("it listens");
    let address = made.server.as_ref().expect("started").listeners[0]
        .local_addr()
        .expect("an address")
        .to_string();
    tokio::spawn(made.run(cx.clone()));
    (address, cx, exporter)
}

#[tokio::test]
async fn pipelines_and_their_components() {
    let (address, _cx, exporter) = serving().await;
    let (code, page) = ask(&address, "/debug/pipelinez").await;
    assert_eq!(code, 200);
    let of = |receiver, status, error| -> [&str; 8] {
        ["metrics/a", "metrics", "true", receiver, "batch", "otlp_grpc/&lt;b&gt;", status, error]
    };
    assert_eq!(row(&page, "metrics/a"), of("iomonitor", "StatusOK", ""));
    exporter.recoverable("refused <it>");
    let link = "/debug/pipelinez?zpipelinename=metrics/a&zcomponentname=otlp_grpc/%3Cb%3E&zcomponentkind=exporter";
    // As the page has it, but for the escape.
    assert!(page.contains(&link["/debug/".len()..].replace('&', "&amp;")), "{page}");

    let subscriber = tracing_subscriber::registry().with(recent::all().clone());
    tracing::subscriber::with_default(subscriber, || {
        let (id, kind) = ("otlp_grpc/<b>", "exporter");
        tracing::error_span!("component", otelcol.component.id = %id, otelcol.component.kind = kind)
            .in_scope(|| tracing::warn!("it is <away>"));
    });

    let (_, page) = ask(&address, link).await;
    let status = "StatusRecoverableError";
    assert_eq!(row(&page, "metrics/a"), of("iomonitor", status, "refused &lt;it&gt;"));
    assert!(page.contains("<h2>exporter: otlp_grpc/&lt;b&gt;</h2>"), "{page}");
    assert_eq!(row(&page, "<td>Error"), ["Error", "refused &lt;it&gt;"]);
    for path in [link, "/debug/errorz"] {
        let (_, page) = ask(&address, path).await;
        let cells = row(&page, "it is");
        let expected = ["warn", "exporter:otlp_grpc/&lt;b&gt;", "1", "it is &lt;away&gt;"];
        assert_eq!(cells[2..], expected, "{page}");
    }
    let nobody = "/debug/pipelinez?zpipelinename=x&zcomponentname=%3Cb%3E&zcomponentkind=processor";
    let (_, page) = ask(&address, nobody).await;
    assert!(page.contains("<h2>processor: x/&lt;b&gt;</h2>\n<p>There is no such"), "{page}");
}

#[tokio::test]
async fn probes_with_what_they_missed() {
    let (address, ..) = serving().await;
    let (_, page) = ask(&address, "/debug/probez").await;
    let cells = row(&page, "page_cache");
    assert_eq!(cells, ["iomonitor", "page_cache", "adds", "attached", "tp_btf", "7", ""]);
    let cells = row(&page, "fadvise");
    let expected =
        ["iomonitor", "fadvise", "calls", "not attached", "-", "?", "kprobe: &lt;no&gt;"];
    assert_eq!(cells, expected);
}

#[tokio::test]
async fn the_agent_and_its_extensions() {
    let (address, ..) = serving().await;
    let (code, page) = ask(&address, "/debug/servicez").await;
    assert_eq!(code, 200);
    assert_eq!(row(&page, "<td>Command"), ["Command", "fathom"]);
    for path in ["pipelinez", "extensionz", "featurez", "probez", "errorz"] {
        assert!(page.contains(&format!("<a href=\"{path}\">")), "{page}");
        assert_eq!(ask(&address, &format!("/debug/{path}")).await.0, 200, "{path}");
    }
    let (_, page) = ask(&address, "/debug/extensionz?zextensionname=zpages").await;
    assert_eq!(row(&page, ">zpages</a>"), ["zpages", "StatusStarting", ""]);
    assert!(page.contains("<h2>zpages</h2>"), "{page}");
    assert_eq!(ask(&address, "/debug/tracez").await.0, 404);
}

/// What the extension answers to a request with this line in its head.
async fn asked_with(auth: &str, made: auth::Auth, path: &str, line: &str) -> String {
    let (mut cx, _) = context("zpages");
    cx.authenticators.add(Id::parse("basicauth/x").expect("an id"), made);
    let auth = json!({"authenticator": auth, "request_params": ["authorization"]});
    let config = json!({"endpoint": "127.0.0.1:0", "auth": auth});
    let config = serde_json::from_value(config).expect("of the right types");
    let mut made = ZPages::new(config).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    if let Err(error) = made.start(&cx).await {
        return format!("{error:#}");
    }
    let address = made.server.as_ref().expect("started").listeners[0]
        .local_addr()
        .expect("an address")
        .to_string();
    tokio::spawn(made.run(cx.clone()));
    answer(&address, path, line).await
}

#[tokio::test]
async fn who_may_not_ask_gets_no_answer() {
    let auth = |config| {
        let config = serde_json::from_value(config).expect("of the right types");
        BasicAuth::new(config).unwrap_or_else(|wrong| panic!("{wrong:?}")).auth()
    };
    let server = || auth(json!({"htpasswd": {"inline": "ann:one"}}));
    let refused = "HTTP/1.1 401 Unauthorized\r\n";
    for (path, line, expected) in [
        ("/debug/servicez", "", refused),
        ("/no/such", "", refused),
        ("/debug/servicez", "authorization: Basic YW5uOnR3bw==\r\n", refused),
        ("/debug/servicez", "authorization: Basic YW5uOm9uZQ==\r\n", "HTTP/1.1 200 OK\r\n"),
        ("/debug/errorz?authorization=Basic%20YW5uOm9uZQ==", "", "HTTP/1.1 200 OK\r\n"),
    ] {
        let answer = asked_with("basicauth/x", server(), path, line).await;
        assert!(answer.starts_with(expected), "{path} {line}: {answer}");
        let asks = answer.contains("\r\nwww-authenticate: Basic realm=\"fathom\"");
        assert_eq!(asks, expected == refused, "{answer}");
    }
    let answer = asked_with("basicauth", server(), "", "").await;
    assert!(
        answer
            .starts_with("failed to resolve authenticator \"basicauth\": authenticator not found"),
        "{answer}"
    );
    let client = auth(json!({"client_auth": {"username": "ann"}}));
    let answer = asked_with("basicauth/x", client, "", "").await;
    assert_eq!(answer, "requested authenticator is not a server authenticator: \"basicauth/x\"");
}

#[test]
fn an_endpoint_is_needed() {
    let config = serde_json::from_value(json!({"endpoint": ""})).expect("of the right types");
    let wrong = ZPages::new(config).err().expect("a mistake");
    let expected = "\"endpoint\" is required when using the \"zpages\" extension";
    assert_eq!((wrong.0[0].path.as_str(), wrong.0[0].message.as_str()), ("endpoint", expected));
}
