//! What a reload that changes the receiver does not change: signals whose programs would be loaded as they are go on
//! counting, and the receiver that takes this one's place reads them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tracing::info;

use super::{attached::Attached, config::Config};
use crate::{
    batch::Batch,
    ebpf::{ladder::Status, load::Blueprint},
};

/// What an instance will leave.
#[derive(Clone, Default)]
pub(super) struct Will {
    /// What the scope's section says: of other tasks, a count is another one.
    scope: Value,
    signals: BTreeMap<&'static str, Promised>,
}

/// A signal that will be left.
#[derive(Clone)]
pub(super) struct Promised {
    blueprint: Blueprint,
    pub(super) statuses: Vec<Status>,
}

/// A signal that is going to be taken over.
pub(super) struct Awaited {
    pub(super) name: &'static str,
    /// By what interval it is to be read.
    pub(super) tier: usize,
}

impl Awaited {
    /// Whether a probe is one of its own.
    pub(super) fn has(&self, status: &Status) -> bool {
        status.probe.split('/').next() == Some(self.name)
    }
}

/// What an instance has left.
pub(super) struct Left {
    pub(super) attached: Attached,
    /// Its last collection, of everything; `None` if nobody wanted metrics.
    pub(super) last: Option<Batch>,
}

impl Will {
    /// Of a receiver that has no signals yet.
    pub(super) fn new(config: &Config) -> Self {
        let scope = serde_json::to_value(&config.scope).expect("a configuration serialises");
        Self { scope, signals: BTreeMap::new() }
    }

    pub(super) fn add(
        &mut self,
        signal: &'static str,
        blueprint: Blueprint,
        statuses: Vec<Status>,
    ) {
        self.signals.insert(signal, Promised { blueprint, statuses });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.signals.is_empty()
    }

    /// What it promises of a signal for a receiver with the scope of `other`, if that is what is to be loaded.
    pub(super) fn of(&self, other: &Self, signal: &str, to_load: &Blueprint) -> Option<&Promised> {
        let promised = self.signals.get(signal).filter(|_| self.scope == other.scope)?;
        (promised.blueprint == *to_load).then_some(promised)
    }
}

impl Attached {
    /// Takes over what was promised, and what is known of groups, ratios and the kernel's own counts. False if
    /// something is not there.
    pub(super) fn inherit(&mut self, mut from: Self) -> bool {
        let mut reads = BTreeMap::new();
        for tier in &mut from.tiers {
            reads.extend(tier.signals.drain(..).map(|read| (read.signal.name(), read)));
        }
        let mut names = BTreeSet::new();
        for Awaited { name, tier } in std::mem::take(&mut self.awaited) {
            let Some(mut read) = reads.remove(name) else { return false };
            let Self { resolved, .. } = &self;
            // What the scope means may have changed while this one started.
            if *resolved != from.resolved
                && read.loaded.set_scope(&resolved.cgroups, &resolved.processes).is_err()
            {
                return false;
            }
            self.tiers[tier].signals.push(read);
            names.insert(name);
        }
        if !names.is_empty() {
            let signals = names.iter().copied().collect::<Vec<_>>().join(", ");
            info!(signals, "What is configured as before counts on.");
        }
        for tier in &mut self.tiers {
            let of_tier: BTreeSet<_> = tier.signals.iter().map(|read| read.signal.name()).collect();
            for before in &mut from.tiers {
                tier.groups.go_on(&mut before.groups, &(&of_tier & &names));
            }
        }
        self.derived = from.derived;
        self.derived.go_on(&names);
        if self.will.scope == from.will.scope {
            self.pressure = self.pressure.take().and_then(|new| from.pressure.or(Some(new)));
            self.swap = self.swap.take().and_then(|new| from.swap.or(Some(new)));
        }
        true
    }
}
