//! `memory_limiter`: refuses data while the agent uses more memory than it may, before the kernel
//! ends it. It belongs first in a pipeline.

mod memory;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{debug, info, warn};

use self::memory::Usage;
use crate::{
    batch::Signal,
    channel::{Input, Output},
    component::{Component, Context, Processor, Stability},
    config::{Mistakes, Signed},
    ebpf::memory::release,
    telemetry::Items,
};

const MIB: u64 = 1024 * 1024;

/// The configuration of `memory_limiter`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two measurements. Required.
    pub check_interval: Signed,
    /// The most memory that the agent may use, in MiB: the hard limit.
    pub limit_mib: u32,
    /// How much it may grow between two measurements, in MiB. Data is refused from this far below
    /// the hard limit on. 0 is a fifth of the limit.
    pub spike_limit_mib: u32,
    /// The hard limit in percent of the memory there is: of the cgroup's limit, or of the machine.
    /// `limit_mib` is taken if both are given.
    pub limit_percentage: u32,
    /// `spike_limit_mib` in percent of the memory there is.
    pub spike_limit_percentage: u32,
    /// The least time between two attempts to give memory back, above the soft limit.
    #[serde(with = "crate::config::duration")]
    pub min_gc_interval_when_soft_limited: Duration,
    /// The same, above the hard limit.
    #[serde(with = "crate::config::duration")]
    pub min_gc_interval_when_hard_limited: Duration,
    /// Attempts that gave little back follow ever more rarely, up to this interval; 0 turns that
    /// off.
    #[serde(with = "crate::config::duration")]
    pub max_gc_interval_when_soft_limited: Duration,
    /// The same, above the hard limit.
    #[serde(with = "crate::config::duration")]
    pub max_gc_interval_when_hard_limited: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            check_interval: Duration::ZERO.into(),
            limit_mib: 0,
            spike_limit_mib: 0,
            limit_percentage: 0,
            spike_limit_percentage: 0,
            min_gc_interval_when_soft_limited: Duration::from_secs(10),
            min_gc_interval_when_hard_limited: Duration::ZERO,
            max_gc_interval_when_soft_limited: Duration::from_secs(30),
            max_gc_interval_when_hard_limited: Duration::from_secs(30),
        }
    }
}

impl Config {
    fn check(&self) -> Result<(), Mistakes> {
        let mut wrong = Mistakes::default();
        let Self { limit_mib, limit_percentage, .. } = *self;
        let (min_soft, max_soft) =
            (self.min_gc_interval_when_soft_limited, self.max_gc_interval_when_soft_limited);
        let (min_hard, max_hard) =
            (self.min_gc_interval_when_hard_limited, self.max_gc_interval_when_hard_limited);
        wrong.require(
            !self.check_interval.or_zero().is_zero(),
            "check_interval",
            "'check_interval' must be greater than zero",
        );
        wrong.require(
            min_soft >= min_hard,
            "min_gc_interval_when_soft_limited",
            "'min_gc_interval_when_soft_limited' should be larger than \
             'min_gc_interval_when_hard_limited'",
        );
        wrong.require(
            max_soft.is_zero() || max_soft >= min_soft,
            "max_gc_interval_when_soft_limited",
            "'max_gc_interval_when_soft_limited' must be greater than or equal to \
             'min_gc_interval_when_soft_limited' (or 0 to disable)",
        );
        wrong.require(
            max_hard.is_zero() || max_hard >= min_hard,
            "max_gc_interval_when_hard_limited",
            "'max_gc_interval_when_hard_limited' must be greater than or equal to \
             'min_gc_interval_when_hard_limited' (or 0 to disable)",
        );
        wrong.require(
            max_soft.is_zero() || max_hard.is_zero() || max_soft >= max_hard,
            "max_gc_interval_when_soft_limited",
            "'max_gc_interval_when_soft_limited' should be larger than or equal to \
             'max_gc_interval_when_hard_limited' (when both are set)",
        );
        wrong.require(
            limit_mib > 0 || limit_percentage > 0,
            "limit_mib",
            "'limit_mib' or 'limit_percentage' must be greater than zero",
        );
        wrong.require(
            limit_percentage <= 100 && self.spike_limit_percentage <= 100,
            "limit_percentage",
            "'limit_percentage' and 'spike_limit_percentage' must be greater than zero and less \
             than or equal to hundred",
        );
        wrong.require(
            limit_mib == 0 || self.spike_limit_mib < limit_mib,
            "spike_limit_mib",
            "'spike_limit_mib' must be smaller than 'limit_mib'",
        );
        wrong.require(
            limit_percentage == 0 || self.spike_limit_percentage < limit_percentage,
            "spike_limit_percentage",
            "'spike_limit_percentage' must be smaller than 'limit_percentage'",
        );
        wrong.or(())
    }

    /// The limits in bytes; `total` says how much memory there is.
    fn limits(&self, total: impl FnOnce() -> anyhow::Result<u64>) -> anyhow::Result<Limits> {
        let (hard, spike) = match self.limit_mib {
            0 => {
                let total = total()
                    .context("failed to get total memory, use fixed memory settings (limit_mib)")?;
                info!(
                    total_memory_mib = total / MIB,
                    limit_percentage = self.limit_percentage,
                    spike_limit_percentage = self.spike_limit_percentage,
                    "Using percentage memory limiter"
                );
                let part = |percent| {
                    // Limits that no memory reaches are larger than u64 holds a hundred times.
                    (u128::from(total) * u128::from(percent) / 100) as u64
                };
                (part(self.limit_percentage), part(self.spike_limit_percentage))
            }
            mib => (u64::from(mib) * MIB, u64::from(self.spike_limit_mib) * MIB),
        };
        let spike = if spike == 0 { hard / 5 } else { spike };
        Ok(Limits { hard, soft: hard - spike })
    }
}

/// The limits in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    hard: u64,
    soft: u64,
}

/// The processor.
pub struct MemoryLimiter(Config);

impl Component for MemoryLimiter {
    const NAME: &'static str = "memory_limiter";
    const DESCRIPTION: &'static str =
        "Refuses data while the agent uses more memory than it may. Put it first.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const STABILITY: Stability = Stability::Beta;
    const EXAMPLE: &'static str =
        "check_interval: 1s\nlimit_percentage: 80\nspike_limit_percentage: 20";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        config.check()?;
        Ok(Self(config))
    }
}

impl Processor for MemoryLimiter {
    const MUTATES_DATA: bool = false;

    async fn run(self, cx: Context, mut input: Input, out: Output) -> anyhow::Result<()> {
        let limits = self.0.limits(memory::total)?;
        info!(
            limit_mib = limits.hard / MIB,
            spike_limit_mib = (limits.hard - limits.soft) / MIB,
            check_interval = %self.0.check_interval,
            "Memory limiter configured"
        );
        let attributes = [KeyValue::new("processor", cx.id.to_string())];
        let accepted = Items::new(&cx.meter, "otelcol_processor_accepted", &attributes);
        let refused = Items::new(&cx.meter, "otelcol_processor_refused", &attributes);
        let usage = Usage::open()?;
        let mut limiter = Limiter::new(self.0, limits);
        let every = limiter.config.check_interval.or_zero();
        let mut ticks = interval_at(Instant::now() + every, every);
        // Ticks that passed while the next stage made this one wait have nothing to add.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        limiter.check(&usage).await?;
        input.refuse(limiter.refusing);
        loop {
            tokio::select! {
                // What was measured long ago says nothing about the batch that comes now.
                biased;
                _ = ticks.tick() => {
                    limiter.check(&usage).await?;
                    input.refuse(limiter.refusing);
                }
                batch = input.recv() => {
                    let Some(batch) = batch else { return Ok(()) };
                    if limiter.refusing {
                        debug!("data refused due to high memory usage");
                        refused.add(batch.signal(), batch.items());
                    } else {
                        accepted.add(batch.signal(), batch.items());
                        out.send(batch).await?;
                    }
                }
            }
        }
    }
}

/// What was measured and decided.
struct Limiter {
    config: Config,
    limits: Limits,
    refusing: bool,
    /// When memory was last given back, and how long to wait before it is tried again.
    last: Option<Instant>,
    /// How much longer than the least interval to wait; none after an attempt that helped.
    backoff: Option<Duration>,
}

impl Limiter {
    fn new(config: Config, limits: Limits) -> Self {
        Self { config, limits, refusing: false, last: None, backoff: None }
    }

    /// Measures, gives memory back if there is need to, and decides.
    async fn check(&mut self, usage: &Usage) -> anyhow::Result<()> {
        let mut used = usage.read()?;
        if self.should_release(used, Instant::now()) {
            // It takes the allocator's locks, one after the other.
            spawn_blocking(release).await?;
            let before = std::mem::replace(&mut used, usage.read()?);
            self.released(before, used, Instant::now());
        }
        self.decide(used);
        Ok(())
    }

    /// Whether so much is used that memory should be given back now.
    fn should_release(&mut self, used: u64, now: Instant) -> bool {
        debug!(cur_mem_mib = used / MIB, "Currently used memory.");
        if used < self.limits.soft {
            self.backoff = None;
            return false;
        }
        let hard = used >= self.limits.hard;
        let wait = self.wait(hard);
        if self.last.is_some_and(|last| now.duration_since(last) < wait) {
            return false;
        }
        match hard {
            true => {
                warn!(cur_mem_mib = used / MIB, "Memory usage is above hard limit. Forcing a GC.")
            }
            false => {
                info!(cur_mem_mib = used / MIB, "Memory usage is above soft limit. Forcing a GC.")
            }
        }
        true
    }

    /// How long after an attempt the next one may follow.
    fn wait(&self, hard: bool) -> Duration {
        let config = &self.config;
        let (min, max) = match hard {
            true => {
                (config.min_gc_interval_when_hard_limited, config.max_gc_interval_when_hard_limited)
            }
            false => {
                (config.min_gc_interval_when_soft_limited, config.max_gc_interval_when_soft_limited)
            }
        };
        self.backoff.map_or(min, |backoff| backoff.min(max).max(min))
    }

    /// Notes that memory was given back, and whether it helped.
    fn released(&mut self, before: u64, after: u64, now: Instant) {
        info!(cur_mem_mib = after / MIB, "Memory usage after GC.");
        // Less than a twentieth is what queues hold, which no attempt gives back.
        let helped = before.saturating_sub(after) >= before / 20;
        self.backoff = match (helped, self.backoff) {
            (true, _) => None,
            (false, Some(backoff)) => Some(backoff.saturating_mul(2)),
            (false, None) => {
                let hard = before >= self.limits.hard;
                Some(self.wait(hard).max(self.config.check_interval.or_zero()).saturating_mul(2))
            }
        };
        self.last = Some(now);
    }

    /// Decides whether to refuse.
    fn decide(&mut self, used: u64) {
        let refuse = used >= self.limits.soft;
        match (self.refusing, refuse) {
            (false, true) => {
                warn!(cur_mem_mib = used / MIB, "Memory usage is above soft limit. Refusing data.")
            }
            (true, false) => info!(
                cur_mem_mib = used / MIB,
                "Memory usage back within limits. Resuming normal operation."
            ),
            _ => {}
        }
        self.refusing = refuse;
    }
}

#[cfg(test)]
mod tests;
