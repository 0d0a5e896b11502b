//! Limits, decisions, and what is refused.

use std::{collections::BTreeSet, time::SystemTime};

use super::*;
use crate::{
    channel::channel,
    exporters::testing::context,
    metric::{Kind, Metric, Points},
};

const METRIC: Metric = Metric {
    name: "test.points",
    unit: "1",
    kind: Kind::Gauge,
    description: "A number.",
    caveat: "None.",
    attributes: &[],
};

fn config(json: serde_json::Value) -> Config {
    serde_json::from_value(json).expect("of the right types")
}

/// A limit of 100 MiB, refusing from 80 on.
fn limiter() -> Limiter {
    let config = config(serde_json::json!({"check_interval": "1s", "limit_mib": 100}));
    let limits = config.limits(|| panic!("a fixed limit needs no total")).expect("fixed");
    Limiter::new(config, limits)
}

#[test]
fn limits_are_the_collector_s() {
    let limits = |json, total| config(json).limits(|| Ok(total)).expect("known");
    let fixed = limits(serde_json::json!({"limit_mib": 100, "limit_percentage": 1}), 0);
    assert_eq!(fixed, Limits { hard: 100 * MIB, soft: 80 * MIB });
    let spike = limits(serde_json::json!({"limit_mib": 100, "spike_limit_mib": 30}), 0);
    assert_eq!(spike, Limits { hard: 100 * MIB, soft: 70 * MIB });
    let part = serde_json::json!({"limit_percentage": 50, "spike_limit_percentage": 10});
    assert_eq!(limits(part, 1000), Limits { hard: 500, soft: 400 });
    let no_spike = serde_json::json!({"limit_percentage": 50});
    assert_eq!(limits(no_spike.clone(), 1000), Limits { hard: 500, soft: 400 });
    let unlimited = limits(no_spike, u64::MAX);
    assert_eq!(unlimited.hard, u64::MAX / 2);
}

#[test]
fn every_mistake_has_the_collector_s_text() {
    let message = |json| {
        let wrong = MemoryLimiter::new(config(json)).err().expect("a mistake");
        wrong.0.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>()
    };
    let all = message(serde_json::json!({
        "limit_percentage": 101,
        "spike_limit_percentage": 101,
        "limit_mib": 5,
        "spike_limit_mib": 5,
        "min_gc_interval_when_hard_limited": "31s",
        "max_gc_interval_when_soft_limited": "5s",
    }));
    assert_eq!(all.len(), 8, "{all:#?}");
    let none = message(serde_json::json!({}));
    assert_eq!(
        none,
        [
            "'check_interval' must be greater than zero",
            "'limit_mib' or 'limit_percentage' must be greater than zero",
        ]
    );
}

#[test]
fn it_refuses_from_the_soft_limit_on_and_until_below_it() {
    let mut limiter = limiter();
    for (used, refusing) in [(79, false), (80, true), (120, true), (80, true), (79, false)] {
        limiter.decide(used * MIB);
        assert_eq!(limiter.refusing, refusing, "{used}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_ever_more_rarely_if_that_does_not_help() {
    let mut limiter = limiter();
    let start = Instant::now();
    let mut released = Vec::new();
    for second in 0..120 {
        let now = start + Duration::from_secs(second);
        if limiter.should_release(110 * MIB, now) {
            limiter.released(110 * MIB, 109 * MIB, now);
            released.push(second);
        }
    }
    assert_eq!(released, [0, 2, 6, 14, 30, 60, 90]);

    let now = start + Duration::from_secs(120);
    assert!(!limiter.should_release(79 * MIB, now), "below the limits nothing is to do");
    assert!(limiter.should_release(110 * MIB, now), "and the next time is a first time");
    limiter.released(110 * MIB, 50 * MIB, now);
    let next = now + Duration::from_secs(1);
    assert!(limiter.should_release(110 * MIB, next), "what helped may be done again at once");
    assert!(!limiter.should_release(90 * MIB, next), "but above the soft limit every 10 s");
    assert!(limiter.should_release(90 * MIB, now + Duration::from_secs(10)));
}

/// How many points were accepted and refused of `batches` blocks of one point, and how many blocks
/// came out.
async fn passed(limit_mib: u32, batches: usize) -> (u64, u64, usize) {
    let (cx, metered) = context("memory_limiter");
    let json = serde_json::json!({"check_interval": "1s", "limit_mib": limit_mib});
    let processor = MemoryLimiter::new(config(json)).expect("valid");
    let ((to, input), (out, mut from)) = (channel(), channel());
    let (now, none) = (SystemTime::now(), BTreeSet::new());
    for _ in 0..batches {
        let mut points = Points::new(now, now, &none);
        points.gauge(&METRIC, &[], 1);
        to.send(points.into_batch(&[], "test")).await.expect("it has room");
    }
    drop(to);
    Processor::run(processor, cx, input, out).await.expect("it does not fail");
    let mut came = 0;
    while from.recv().await.is_some() {
        came += 1;
    }
    (
        metered.count("otelcol_processor_accepted_metric_points"),
        metered.count("otelcol_processor_refused_metric_points"),
        came,
    )
}

#[tokio::test]
async fn above_the_limit_everything_is_refused_and_counted() {
    // This process is larger than a megabyte, whatever is given back.
    assert_eq!(passed(1, 5).await, (0, 5, 0));
}

#[tokio::test]
async fn below_the_limit_everything_passes_and_is_counted() {
    assert_eq!(passed(1 << 20, 5).await, (5, 0, 5));
}

/// The refusal is seen before the limiter, through stages that know nothing of it, and by those alone that are
/// connected to nothing else.
#[tokio::test]
async fn whoever_sends_sees_that_data_is_refused() {
    for (limit_mib, refuses) in [(1, true), (1 << 20, false)] {
        let (cx, _metered) = context("memory_limiter");
        let json = serde_json::json!({"check_interval": "10ms", "limit_mib": limit_mib});
        let processor = MemoryLimiter::new(config(json)).expect("valid");
        let ((to, input), (out, mut from)) = (channel(), channel());
        let (stage, held) = channel();
        held.before(&to);
        let (elsewhere, _open) = channel();
        let both = Output::fan_out([stage.clone(), elsewhere]);
        assert!(!stage.refuses_any());
        let limiter = tokio::spawn(Processor::run(processor, cx, input, out));
        let (now, none) = (SystemTime::now(), BTreeSet::new());
        to.send(Points::new(now, now, &none).into_batch(&[], "test")).await.expect("it has room");
        let measured = async {
            if !refuses {
                from.recv().await.expect("it is let through");
            }
            while stage.refuses_any() != refuses {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), measured).await.expect("it measures");
        assert_eq!((stage.refuses_any(), stage.refuses_all()), (refuses, refuses));
        assert_eq!((both.refuses_any(), both.refuses_all()), (refuses, false));
        drop(to);
        while from.recv().await.is_some() {}
        limiter.await.expect("it ends").expect("it does not fail");
    }
}
