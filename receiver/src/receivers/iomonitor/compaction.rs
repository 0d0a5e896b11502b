//! Compaction: how long the kernel moves pages together, and what comes of it.

use abi::{
    compaction::{Counter, KINDS, RESULTS},
    duration::OCTAVES,
};
use anyhow::Result;

use super::{
    durations::by_kind,
    groups::Groups,
    own::dropped,
    signal::{Disabled, Signal, Switch},
};
use crate::{
    config::Mistakes,
    ebpf::{
        ladder::{Context, Mode, Probe, Rung, at},
        load::Loaded,
    },
    metric::{About, Attribute, Kind, Metric, Points},
};

const DURATION: Metric = Metric {
    name: "ebpf.memory.compaction_duration",
    unit: "s",
    kind: Kind::ExponentialHistogram,
    description: "Time that tasks of the scope spent moving pages together so that larger blocks become free, by the \
                  result; one for each zone. It answers whether a task waits because memory is fragmented, not short.",
    caveat: "Kernel threads (kcompactd) do most of it, in nobody's scope. `success` says that a block became free, \
             not that the task got it.",
    attributes: &[Attribute {
        name: "compaction.result",
        description: "as the kernel calls it, in lower case without `COMPACT_`: `success`, `complete`, `partial_skipped`, \
                      `contended`, … or `_OTHER`",
    }],
};

/// Runs by result.
pub struct Compaction;

impl Signal for Compaction {
    const NAME: &'static str = "compaction";
    const DESCRIPTION: &'static str = "How long free memory is moved together.";
    const QUESTION: &'static str = "Do tasks wait for large pieces of memory to come together?";
    const OBJECT: &'static [u8] =
        aya::include_bytes_aligned!("../../../../ebpf/prebuilt/compaction.o");
    const METRICS: &'static [Metric] = &[DURATION];
    type Config = Switch;

    const PROBES: &'static [Probe] = &[Probe {
        name: "runs",
        context: Context::Task,
        rungs: &[
            Rung::new(
                Mode::TpBtf,
                &[at("end_btf", "mm_compaction_end"), at("begin_btf", "mm_compaction_begin")],
                &["compact_control.order"],
            ),
            // Before Linux 5.18.
            Rung::new(
                Mode::TpBtf,
                &[at("end_six_btf", "mm_compaction_end"), at("begin_btf", "mm_compaction_begin")],
                &[],
            ),
            // This one first: where the sixth argument is missing the kernel refuses it, but nothing tells the fifth
            // of six from the last of five.
            Rung::new(
                Mode::RawTp,
                &[at("end_six_raw", "mm_compaction_end"), at("begin_raw", "mm_compaction_begin")],
                &[],
            ),
            Rung::new(
                Mode::RawTp,
                &[at("end_raw", "mm_compaction_end"), at("begin_raw", "mm_compaction_begin")],
                &[],
            ),
            Rung::new(
                Mode::Tracepoint,
                &[
                    at("end_tp", "compaction/mm_compaction_end"),
                    at("begin_tp", "compaction/mm_compaction_begin"),
                ],
                &["trace_event_raw_mm_compaction_end.status"],
            ),
        ],
    }];

    fn new(config: Switch, _: &Disabled) -> Result<Option<Self>, Mistakes> {
        Ok(config.enabled.then_some(Self))
    }

    /// A few results, each in a few octaves.
    const CELLS: u32 = 8;

    fn read(
        &mut self,
        loaded: &mut Loaded,
        groups: &mut Groups,
        points: &mut Points<'_>,
    ) -> Result<()> {
        if !loaded.has("runs") {
            return Ok(());
        }
        for (owner, cells) in groups.read(Self::NAME, "DURATIONS", loaded)?.iter() {
            points.about(groups.about(owner));
            let durations = by_kind(cells, KINDS as usize, OCTAVES);
            let results = RESULTS.into_iter().chain(["_OTHER"]);
            for (result, durations) in results.zip(&durations) {
                let attributes = [(DURATION.attributes[0].name, result)];
                // The usual ones, and whatever else there is.
                if !durations.is_empty() || (groups.is_host() && USUAL.contains(&result)) {
                    points.histogram(&DURATION, &attributes, durations.histogram());
                }
            }
        }
        points.about(About::default());
        let counters = loaded.counters("COUNTERS")?;
        let events = counters[Counter::InFlightFull as usize];
        dropped(points, "compaction/runs", &[("too many threads", events)]);
        Ok(())
    }
}

/// Results that are shown before they have happened.
const USUAL: [&str; 2] = ["complete", "success"];
