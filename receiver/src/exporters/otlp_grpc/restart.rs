//! A server that dies and comes back while it is being sent to.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use tokio::{runtime::Runtime, task::spawn_blocking};
use tokio_stream::wrappers::TcpListenerStream;

use super::peer::*;
use crate::batch::Batch;

const BATCHES: u64 = 400;

/// A batch of one point, which says which one it is.
fn numbered(number: u64) -> Batch {
    let mut batch = batch(1);
    *times(&mut batch)[0] = number;
    batch
}

fn times(batch: &mut Batch) -> Vec<&mut u64> {
    let Batch::Metrics(request) = batch else { unreachable!() };
    let metrics = request.resource_metrics.iter_mut().flat_map(|r| &mut r.scope_metrics);
    let data = metrics.flat_map(|s| &mut s.metrics).flat_map(|m| &mut m.data);
    let points = data.flat_map(|data| match data {
        Data::Gauge(gauge) => &mut gauge.data_points,
        other => panic!("{other:?}"),
    });
    points.map(|point| &mut point.time_unix_nano).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_under_load_misses_nothing() {
    let (address, _holder) = reserve();
    let peer = Peer::default();
    let (out, metered, task) = start(config(&address.to_string())).await;
    let sending = tokio::spawn(async move {
        for number in 0..BATCHES {
            out.send(numbered(number)).await.unwrap();
        }
        out
    });
    for life in 1..=4 {
        // With its runtime, all connections and calls of a server end on the spot.
        let server = Runtime::new().unwrap();
        let _guard = server.enter();
        let serving =
            peer.router(None).serve_with_incoming(TcpListenerStream::new(listen(address)));
        server.spawn(serving);
        metered.wait_for("otelcol_exporter_sent", life * BATCHES / 5).await;
        drop(_guard);
        spawn_blocking(move || server.shutdown_background()).await.unwrap();
    }
    peer.serve_on(listen(address), None);
    metered.wait_for("otelcol_exporter_s", BATCHES).await;
    drop(sending.await.unwrap());
    task.await.unwrap().unwrap();
    assert_eq!(metered.count("otelcol_exporter_sent"), BATCHES);
    assert_eq!(metered.count("otelcol_exporter_enqueue_failed"), 0);
    let mut accepted = peer.accepted.lock().unwrap().clone();
    // One whose answer was lost comes again.
    let arrived: BTreeSet<_> =
        accepted.iter_mut().flat_map(|batch| times(batch).into_iter().map(|time| *time)).collect();
    assert!(arrived.into_iter().eq(0..BATCHES));
}
