//! Servers that are none, or mean no good.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    OtlpHttp,
    live::{config, deliver, start},
};
use crate::{
    component::Component as _,
    exporters::{
        otlp::sample,
        queue::{Failure, Sender as _},
    },
};

/// How a connection is treated.
#[derive(Debug)]
enum Treat {
    /// It reads this, and then the end.
    Says(Vec<u8>),
    /// It reads this, and then nothing, and no end.
    Stalls(Vec<u8>),
    /// It reads this, and then zeros without end.
    Floods(Vec<u8>),
}

/// Treats one connection after another as scripted, and answers the rest; its address, and the bytes
/// that floods could get rid of.
async fn hostile(script: impl IntoIterator<Item = Treat>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let script: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(script.into_iter().collect()));
    let flooded = Arc::new(AtomicUsize::new(0));
    let counted = flooded.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let treat = script.lock().unwrap().pop_front();
            tokio::spawn(treated(stream, treat, counted.clone()));
        }
    });
    (address, flooded)
}

async fn treated(mut stream: TcpStream, treat: Option<Treat>, flooded: Arc<AtomicUsize>) {
    let mut request = [0; 64 * 1024];
    let _ = stream.read(&mut request).await.unwrap();
    let says = match &treat {
        Some(Treat::Says(bytes) | Treat::Stalls(bytes) | Treat::Floods(bytes)) => bytes,
        None => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice(),
    };
    stream.write_all(says).await.unwrap();
    match treat {
        Some(Treat::Stalls(_)) => std::future::pending().await,
        Some(Treat::Floods(_)) => {
            let zeros = [0; 64 * 1024];
            while stream.write_all(&zeros).await.is_ok() {
                flooded.fetch_add(zeros.len(), Ordering::SeqCst);
            }
        }
        Some(Treat::Says(_)) | None => {}
    }
}

fn says(text: &str) -> Treat {
    Treat::Says(text.as_bytes().to_vec())
}

fn stalls(text: &str) -> Treat {
    Treat::Stalls(text.as_bytes().to_vec())
}

#[tokio::test]
async fn what_is_no_answer_is_asked_again() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n";
    for treat in [
        says(""),
        says("\u{7f}\u{0}rubbish\r\n\r\n"),
        says("HTTP/1.1 200"),
        says(&format!("{head}content-length: 100\r\n\r\nhalf of it")),
        says(&format!("{head}transfer-encoding: chunked\r\n\r\nffff\r\nhalf of it")),
        says(&format!("{head}content-length: many\r\n\r\n")),
        stalls(""),
        stalls("HTTP/1.1 "),
        stalls(&format!("{head}content-length: 100\r\n\r\n")),
        Treat::Floods(b"HTTP/1.1 200 OK\r\nx: ".to_vec()),
    ] {
        let shown = format!("{treat:?}");
        let (address, _) = hostile([treat]).await;
        let config = config(&address, json!({"timeout": "200ms"}));
        assert_eq!(deliver(config, sample::logs()).await, (2, 0), "{shown}");
    }
}

#[tokio::test]
async fn why_an_attempt_failed_says_where_and_once() {
    let reason = async |endpoint: &str| {
        let exporter = OtlpHttp::new(config(endpoint, json!({"timeout": "1s"}))).unwrap();
        match exporter.sender().unwrap().send(&sample::logs(), &mut ()).await {
            Err(Failure::Retryable { reason, .. }) => reason,
            Err(Failure::Permanent { reason }) => panic!("{reason}"),
            Ok(_) => panic!("it was sent"),
        }
    };
    let begin = "failed to make an HTTP request: Post";
    assert_eq!(
        reason("http://me:secret@127.0.0.1:1").await,
        format!(
            "{begin} \"http://me:***@127.0.0.1:1/v1/logs\": tcp connect error: Connection refused \
             (os error 111)"
        )
    );
    let (address, _) = hostile([stalls("")]).await;
    let url = format!("{address}/v1/logs");
    assert_eq!(reason(&address).await, format!("{begin} {url:?}: no answer in 1s"));
    let (address, _) = hostile([says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")]).await;
    let said = reason(&address).await;
    let url = format!("{address}/v1/logs");
    assert!(said.starts_with(&format!("{begin} {url:?}: the answer broke off: ")), "{said}");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    for (status, expected) in [("200 OK", (2, 0)), ("400 No", (0, 2))] {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: 1000000000000\r\n\r\n");
        let (address, flooded) = hostile([Treat::Floods(head.into_bytes())]).await;
        assert_eq!(deliver(config(&address, json!({})), sample::logs()).await, expected);
        // What the sockets' buffers took is in it.
        let flooded = flooded.load(Ordering::SeqCst);
        assert!(flooded < 16 << 20, "{flooded} bytes");
    }
}

#[tokio::test]
async fn rubbish_in_a_success_is_final() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n";
    for kind in ["application/x-protobuf", "application/json"] {
        let answer = says(&format!("{head}content-type: {kind}\r\n\r\nrubbish"));
        let (address, _) = hostile([answer]).await;
        assert_eq!(deliver(config(&address, json!({})), sample::logs()).await, (0, 2), "{kind}");
    }
}

#[tokio::test]
async fn what_waits_for_a_silent_server_is_bounded_and_counted() {
    let (address, _) = hostile((0..100).map(|_| stalls(""))).await;
    let keys = json!({
        "timeout": "200ms", "sending_queue": {"queue_size": 3, "num_consumers": 1},
    });
    let (out, metered, task) = start(config(&address, keys)).await;
    for _ in 0..20 {
        out.send(sample::logs()).await.unwrap();
    }
    metered.wait_for("otelcol_exporter_enqueue_failed", 17 * 2).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(metered.count("otelcol_exporter_enqueue_failed"), 17 * 2);
    assert_eq!(metered.count("otelcol_exporter_send_failed"), 3 * 2);
}
