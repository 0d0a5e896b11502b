//! The budget of one metric: which of its series go on, and what the others add up to.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use tokio::time::{Duration, Instant};

use super::fold::{Mode, Piece};

/// What is known of a metric's series.
#[derive(Default)]
pub(super) struct Budget {
    /// The most series that go on.
    limit: usize,
    admitted: HashMap<u128, Admitted>,
    /// Admitted series of each tenant.
    tenants: HashMap<u128, usize>,
    /// Series that were folded, with their last value: only of cumulative metrics.
    folded: HashMap<u128, Folded>,
    overflows: HashMap<u128, Overflow>,
}

struct Admitted {
    seen: Instant,
    tenant: Option<u128>,
}

struct Folded {
    overflow: u128,
    last: Piece,
    mode: Mode,
    seen: Instant,
}

/// One overflow series.
pub(super) struct Overflow {
    pub(super) attributes: Vec<KeyValue>,
    /// Whether it belongs to no resource in particular.
    pub(super) shared: bool,
    /// Start, fixed once it was sent, and time of the newest point.
    pub(super) times: (u64, u64),
    pub(super) total: Option<Piece>,
    mode: Mode,
    sent: bool,
    /// Whether it changed since it was sent.
    pending: bool,
    seen: Instant,
}

/// What became of a point that was over budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is part of an overflow series, which must now be sent.
    First,
    /// It is part of an overflow series that will be sent anyway.
    Folded,
    /// It is not newer than the last of its series.
    OutOfOrder,
    /// There is no memory for the last value of one more series.
    Full,
}

/// A point that is over budget.
pub(super) struct Over {
    pub(super) series: u128,
    /// Its overflow series, and the one that takes its place if there are too many of those.
    pub(super) overflows: [u128; 2],
    pub(super) piece: Piece,
    pub(super) mode: Mode,
}

impl Budget {
    /// A budget of `limit` series.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Lets a point on if its series is, or can be, within the budget.
    pub(super) fn admit(
        &mut self,
        series: u128,
        tenant: Option<(u128, usize)>,
        now: Instant,
    ) -> bool {
        if let Some(known) = self.admitted.get_mut(&series) {
            known.seen = now;
            return true;
        }
        // What is folded stays folded: its past is in the overflow's sum.
        if self.folded.contains_key(&series) || self.admitted.len() >= self.limit {
            return false;
        }
        if let Some((tenant, limit)) = tenant {
            let used = self.tenants.get(&tenant).copied().unwrap_or_default();
            if used >= limit {
                return false;
            }
            self.tenants.insert(tenant, used + 1);
        }
        self.admitted.insert(series, Admitted { seen: now, tenant: tenant.map(|(id, _)| id) });
        true
    }

    /// Ends a series. True if it was not folded: then whoever follows must know.
    pub(super) fn end(&mut self, series: u128) -> bool {
        if let Some(ended) = self.admitted.remove(&series) {
            leave(&mut self.tenants, &ended);
            return true;
        }
        let Some(ended) = self.folded.remove(&series) else {
            return self.admitted.len() < self.limit;
        };
        forget(&mut self.overflows, &ended);
        false
    }

    /// Adds a point to its overflow series, which gets what `attributes` makes.
    pub(super) fn fold(
        &mut self,
        over: Over,
        attributes: impl FnOnce(bool) -> Vec<KeyValue>,
        room: bool,
        now: Instant,
    ) -> (Fate, u128) {
        let Over { series, overflows: [own, shared], piece, mode } = over;
        let known = self.folded.get_mut(&series);
        // As many overflow series as other ones: senders choose resources and tenants too.
        let key = match &known {
            Some(known) => known.overflow,
            None if self.overflows.contains_key(&own) => own,
            None if self.overflows.len() < self.limit.max(1) => own,
            None => shared,
        };
        let (start, time) = piece.times();
        let more = match known {
            Some(known) if time <= known.last.times().1 => {
                known.seen = now;
                return (Fate::OutOfOrder, key);
            }
            Some(known) => {
                let more = piece.since(&known.last, mode);
                (known.last, known.seen) = (piece, now);
                more
            }
            None if mode == Mode::Delta => piece,
            None if !room => return (Fate::Full, key),
            None => {
                let last = piece.clone();
                self.folded.insert(series, Folded { overflow: key, last, mode, seen: now });
                piece
            }
        };
        let overflow = self.overflows.entry(key).or_insert_with(|| Overflow {
            attributes: attributes(key == shared),
            shared: key == shared,
            times: (start, time),
            total: None,
            mode,
            sent: false,
            pending: false,
            seen: now,
        });
        overflow.seen = now;
        if !overflow.sent {
            overflow.times.0 = overflow.times.0.min(start);
        }
        overflow.times.1 = overflow.times.1.max(time);
        match &mut overflow.total {
            Some(total) => total.add(&more),
            none => *none = Some(more),
        }
        let first = !std::mem::replace(&mut overflow.pending, true);
        (if first { Fate::First } else { Fate::Folded }, key)
    }

    /// An overflow series, to be sent now.
    pub(super) fn send(&mut self, key: u128) -> Option<Overflow> {
        let overflow = self.overflows.get_mut(&key)?;
        let delta = overflow.mode == Mode::Delta;
        let sent = Overflow {
            attributes: overflow.attributes.clone(),
            total: if delta { overflow.total.take() } else { overflow.total.clone() },
            ..*overflow
        };
        // The next delta starts with its own first point.
        overflow.sent = !delta;
        overflow.pending = false;
        if delta {
            overflow.times = (u64::MAX, 0);
        }
        Some(sent)
    }

    /// Series that go on, and folded ones of which the last value is held.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.admitted.len(), self.folded.len())
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.admitted.is_empty() && self.folded.is_empty() && self.overflows.is_empty()
    }

    /// Forgets what has been silent for `max`.
    pub(super) fn sweep(&mut self, max: Duration, now: Instant) {
        let Self { admitted, tenants, folded, overflows, .. } = self;
        admitted.retain(|_, series| {
            let fresh = now - series.seen < max;
            if !fresh {
                leave(tenants, series);
            }
            fresh
        });
        folded.retain(|_, series| {
            let fresh = now - series.seen < max;
            if !fresh {
                forget(overflows, series);
            }
            fresh
        });
        overflows.retain(|_, overflow| now - overflow.seen < max);
    }
}

/// What has grown stays in the sum, which must not fall; what varies goes with its series.
fn forget(overflows: &mut HashMap<u128, Overflow>, ended: &Folded) {
    if ended.mode != Mode::Varying {
        return;
    }
    let total = overflows.get_mut(&ended.overflow).and_then(|overflow| overflow.total.as_mut());
    if let (Some(total), Some(negative)) = (total, ended.last.negative()) {
        total.add(&negative);
    }
}

fn leave(tenants: &mut HashMap<u128, usize>, ended: &Admitted) {
    let Some(tenant) = ended.tenant else { return };
    if let Some(used) = tenants.get_mut(&tenant) {
        *used -= 1;
        if *used == 0 {
            tenants.remove(&tenant);
        }
    }
}
