//! Sampling: counting some of a signal's events, for all.

use abi::sample::{BELOW, EVERY};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SIGNALS, config::Config};
use crate::{config::Mistakes, ebpf::globals::Globals};

/// `sampling`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// The signals, by name: those each of whose events stands alone.
    pub signals: Vec<String>,
    /// How events are chosen.
    pub mode: Mode,
    /// The share of the events that is counted: more than 0, at most 1.
    pub rate: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { signals: Vec::new(), mode: Mode::None, rate: 1.0 }
    }
}

/// `sampling::mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All are counted.
    None,
    /// Each with the probability `rate`, whatever the others: sums are estimated without a bias.
    Probability,
    /// One of `1 / rate`, which must be a whole number, on each CPU for itself. A workload that goes round in as
    /// many steps shows some of them always and others never.
    Nth,
}

impl Sampling {
    /// Whether anything is left out.
    pub(super) fn leaves_out(&self) -> bool {
        self.mode != Mode::None && self.rate < 1.0
    }

    fn every(&self) -> f64 {
        1.0 / self.rate
    }

    fn check(&self, key: &str, wrong: &mut Mistakes) {
        let rate = format!("{key}::rate");
        let within = self.rate > 0.0 && self.rate <= 1.0;
        wrong.require(within, &rate, "must be more than 0, and at most 1");
        match self.mode {
            Mode::None => {
                wrong.require(self.rate == 1.0, &rate, "with mode none, all events are counted");
            }
            // As 0.1 is no binary fraction, nor is its inverse quite 10.
            Mode::Nth if within => {
                let whole = (self.every() - self.every().round()).abs() < 1e-6;
                let fits = self.every() <= f64::from(u32::MAX);
                wrong.require(
                    whole && fits,
                    &rate,
                    "with mode nth, must be 1, 0.5, 0.25, 0.2, 0.1, …",
                );
            }
            Mode::Nth => {}
            Mode::Probability => {
                let some = !within || self.below() > 0;
                wrong.require(some, &rate, "is less than a random number can tell");
            }
        }
        wrong.require(!self.signals.is_empty(), &format!("{key}::signals"), "names no signal");
    }

    fn below(&self) -> u32 {
        // Past the end, it ends there: a conversion of floating point numbers saturates.
        (self.rate * (1_u64 << 32) as f64).round() as u32
    }

    /// Tells the programs.
    pub(super) fn set(&self, globals: &mut Globals) {
        match self.mode {
            _ if !self.leaves_out() => {}
            Mode::None => {}
            Mode::Probability => globals.number(BELOW, self.below()),
            Mode::Nth => globals.number(EVERY, self.every().round() as u32),
        }
    }
}

/// Checks the list as a whole.
pub(super) fn check(config: &Config, wrong: &mut Mistakes) {
    let mut named = Vec::new();
    for (i, sampling) in config.sampling.iter().enumerate() {
        let key = format!("sampling::{i}");
        sampling.check(&key, wrong);
        for (j, name) in sampling.signals.iter().enumerate() {
            let key = format!("{key}::signals::{j}");
            let sampled = SIGNALS.iter().filter(|signal| signal.sampled).map(|signal| signal.name);
            match SIGNALS.iter().find(|signal| signal.name == name) {
                None => wrong.unknown(key, format!("no signal is called {name}"), name, sampled),
                Some(signal) if !signal.sampled => {
                    let others = sampled.collect::<Vec<_>>().join(", ");
                    let text = format!(
                        "{name} cannot be sampled: its events do not stand alone ({others} can)"
                    );
                    wrong.add(key, text);
                }
                Some(_) if named.contains(&name) => {
                    wrong.add(key, format!("{name} is sampled already"));
                }
                Some(_) => named.push(name),
            }
        }
    }
}
