//! Servers that are none, or mean no good.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{peer::*, *};
use crate::exporters::queue::Sender as _;

/// The frame that a server of HTTP/2 begins with: empty settings.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Treats every connection alike; the address.
async fn hostile<F: Future<Output = ()> + Send>(
    treat: impl Fn(TcpStream) -> F + Copy + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { treat(stream).await });
        }
    });
    address
}

async fn write(mut stream: TcpStream, bytes: &[u8]) {
    let mut request = [0; 1024];
    // It may be gone already.
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(bytes).await;
}

/// Sends 7 points with little patience, all of which must be lost, soon.
async fn all_lost(address: String) {
    let mut config = config(&address);
    config.timeout = Duration::from_millis(200);
    config.retry_on_failure.max_elapsed_time = Duration::from_millis(100).into();
    config.retry_on_failure.max_interval = Duration::from_millis(10).into();
    let begun = Instant::now();
    let (out, metered, task) = start(config).await;
    out.send(batch(7)).await.unwrap();
    metered.wait_for("otelcol_exporter_s", 7).await;
    assert_eq!(metered.count("otelcol_exporter_send_failed"), 7);
    drop(out);
    task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_hangs_up_or_talks_rubbish_or_does_not_talk_is_given_up_in_time() {
    all_lost(hostile(async |stream| drop(stream)).await).await;
    all_lost(hostile(async |stream| write(stream, b"HTTP/1.1 400 No\r\n\r\n").await).await).await;
    all_lost(hostile(async |stream| write(stream, &[0xff; 100_000]).await).await).await;
    let half =
        |stream| async { write(stream, &[SETTINGS, b"\xff\xff\xff\xff rubbish"].concat()).await };
    all_lost(hostile(half).await).await;
    let never = |stream: TcpStream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    };
    all_lost(hostile(never).await).await;
    let idle = |mut stream: TcpStream| async move {
        stream.write_all(SETTINGS).await.unwrap();
        std::future::pending::<()>().await;
    };
    all_lost(hostile(idle).await).await;
}

/// Why one attempt at `address` failed, which another may not.
async fn reason(address: &str, tls: bool) -> String {
    let mut config = config(address);
    config.timeout = Duration::from_secs(2);
    config.tls = serde_json::from_value(match tls {
        true => serde_json::json!({"insecure_skip_verify": true}),
        false => serde_json::json!({"insecure": true}),
    })
    .unwrap();
    let sender = OtlpGrpc::new(config).unwrap().sender().unwrap();
    match sender.send(&batch(7), &mut ()).await {
        Err(queue::Failure::Retryable { reason, .. }) => reason,
        Err(queue::Failure::Permanent { reason }) => panic!("{reason}"),
        Ok(_) => panic!("it was sent"),
    }
}

#[tokio::test]
async fn why_an_attempt_failed_says_where_and_once() {
    let (address, _holder) = reserve();
    let address = address.to_string();
    assert_eq!(
        reason(&address, false).await,
        format!("Unavailable: {address}: tcp connect error: Connection refused (os error 111)")
    );
    // It does not hang up: what had been said by then would be lost, or not.
    let web = hostile(async |mut stream| {
        stream.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    for (tls, hint) in [(false, "(it does not speak gRPC"), (true, "is tls::insecure wanted?)")] {
        let said = reason(&web, tls).await;
        assert!(said.starts_with(&format!("Unavailable: {web}: ")), "{said}");
        assert!(said.contains(hint), "{said}");
    }
    let mute = hostile(async |stream| {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let said = reason(&mute, false).await;
    assert_eq!(said, format!("DeadlineExceeded: {mute}: no answer in 2s"));
}

#[tokio::test]
async fn what_waits_for_a_silent_server_is_bounded_and_counted() {
    let peer = Peer::scripted((0..100).map(|_| Answer::Never));
    let mut config = config(&peer.serve(None).await);
    config.timeout = Duration::from_millis(200);
    config.sending_queue.queue_size = 3;
    config.sending_queue.num_consumers = 1;
    let (out, metered, task) = start(config).await;
    for _ in 0..20 {
        out.send(batch(7)).await.unwrap();
    }
    metered.wait_for("otelcol_exporter_enqueue_failed", 17 * 7).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(metered.count("otelcol_exporter_enqueue_failed"), 17 * 7);
    assert_eq!(metered.count("otelcol_exporter_send_failed"), 3 * 7);
    assert_eq!(metered.count("otelcol_exporter_sent"), 0);
}
