//! Ratios of what the signals count, over the last interval: what an operator would compute.
//!
//! A signal notes the quantities that it has read; when all have, each ratio comes of what two have grown by.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    block::Block,
    fadvise::Fadvise,
    groups::{Groups, Owner},
    page_cache::PageCache,
    reclaim::Reclaim,
    signal::Signal as _,
    syscalls::Syscalls,
};
use crate::metric::{About, Kind, Metric, Points};

/// Every metric in this file.
pub(super) const METRICS: &[Metric] = &[HIT_RATIO, EFFICIENCY, AMPLIFICATION, EFFECTIVENESS];

pub(super) const HIT_RATIO: Metric = Metric {
    name: "ebpf.cache.hit_ratio",
    unit: "1",
    kind: Kind::Gauge,
    description: "Of the pages that reads looked for since the last collection, the share that the page cache had because \
                  something had used them before: near 1 for a file that is read again and again, near 0 for a scan of more \
                  than memory holds.",
    caveat: "Pages that were read ahead in time are no hits (ebpf.cache.readahead), so a low ratio alone does not say that \
             reads waited. Of ebpf.cache.followed alone. Absent while nothing is read. For longer times, divide the \
             counters' increases.",
    attributes: &[],
};

const EFFICIENCY: Metric = Metric {
    name: "ebpf.memory.reclaim_efficiency",
    unit: "%",
    kind: Kind::Gauge,
    description: "Of the pages that reclaim scanned on the inactive lists since the last collection, how many per hundred it \
                  won: near 100 is easy, near 0 is trouble.",
    caveat: "Of the whole machine, whatever the scope. With the multi-generational LRU it is a little low, since pages \
             scanned again are counted again. Absent while nothing is scanned.",
    attributes: &[],
};

const AMPLIFICATION: Metric = Metric {
    name: "ebpf.block.read_amplification",
    unit: "1",
    kind: Kind::Gauge,
    description: "Bytes that block devices have read since the last collection for each byte that system calls which read \
                  returned: below 1, caches help; above 1, more is fetched than is asked for.",
    caveat: "The calls are those of read, pread64, readv, preadv and preadv2 that signals::syscalls watches, with what they \
             read from sockets and pipes. What is read for files that are mapped, by io_uring, or ahead for later, is in \
             the first alone; stacked devices are in it several times. Absent while no call returns a byte, and if \
             calls are sampled.",
    attributes: &[],
};

const EFFECTIVENESS: Metric = Metric {
    name: "ebpf.fadvise.drop_ratio",
    unit: "1",
    kind: Kind::Gauge,
    description: "Of the bytes that accepted advice of `dontneed` was about since the last collection, the share whose pages \
                  it dropped from the page cache.",
    caveat: "What was not in the page cache could not be dropped: near 0 is advice that came too late, or again, as much as \
             pages that are dirty, mapped or not whole. Absent while nobody advises so.",
    attributes: &[],
};

/// What a ratio is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Pages that reads looked for.
    Asked,
    /// Of these, those that were not there, or were for the first time.
    NotHit,
    /// Pages scanned.
    Scanned,
    /// Pages reclaimed.
    Reclaimed,
    /// Bytes that calls returned.
    Read,
    /// Bytes that devices read.
    Fetched,
    /// Bytes that were advised not to be needed.
    NotNeeded,
    /// Bytes dropped because of that.
    Dropped,
}

impl Quantity {
    /// The signal that notes it.
    fn signal(self) -> &'static str {
        match self {
            Self::Asked | Self::NotHit => PageCache::NAME,
            Self::Scanned | Self::Reclaimed => Reclaim::NAME,
            Self::Read => Syscalls::NAME,
            Self::Fetched => Block::NAME,
            Self::NotNeeded | Self::Dropped => Fadvise::NAME,
        }
    }
}

/// One more than the last.
const QUANTITIES: usize = Quantity::Dropped as usize + 1;

/// What has been noted in a collection.
#[derive(Default)]
pub struct Notes(Vec<(Owner, Quantity, u64)>);

/// An owner's quantities, those that were noted.
type Noted = [Option<u64>; QUANTITIES];

impl Notes {
    /// Adds to a quantity.
    pub fn add(&mut self, owner: Owner, quantity: Quantity, amount: u64) {
        self.0.push((owner, quantity, amount));
    }

    /// Adds what has been noted elsewhere.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// What each owner's quantities come to.
    fn by_owner(&mut self) -> impl Iterator<Item = (Owner, Noted)> {
        self.0.sort_unstable_by_key(|(owner, ..)| *owner);
        self.0.chunk_by(|a, b| a.0 == b.0).map(|notes| {
            let mut noted = Noted::default();
            for (_, quantity, amount) in notes {
                *noted[*quantity as usize].get_or_insert_default() += amount;
            }
            (notes[0].0, noted)
        })
    }
}

/// A part, what it is a part of, and how the share is emitted.
type Ratio = (Quantity, Quantity, &'static Metric, fn(f64) -> f64);

/// No quantity is in two.
const RATIOS: [Ratio; 4] = [
    (Quantity::NotHit, Quantity::Asked, &HIT_RATIO, |rest| (1.0 - rest).max(0.0)),
    (Quantity::Reclaimed, Quantity::Scanned, &EFFICIENCY, |won| 100.0 * won),
    (Quantity::Fetched, Quantity::Read, &AMPLIFICATION, |fetched| fetched),
    (Quantity::Dropped, Quantity::NotNeeded, &EFFECTIVENESS, |dropped| dropped),
];

/// The quantities as of when each ratio was last made of them.
#[derive(Default)]
pub(super) struct Derived {
    before: BTreeMap<(Owner, Quantity), u64>,
    /// The ratios that were shown then, by their parts.
    shown: BTreeSet<(Owner, Quantity)>,
}

impl Derived {
    /// Emits the ratios of quantities that have been read by now. Of two that are read at intervals of their own, when
    /// both have been.
    pub(super) fn emit(&mut self, mut notes: Notes, groups: &Groups, points: &mut Points<'_>) {
        for (owner, noted) in notes.by_owner() {
            match owner {
                // The numbers of groups that have ended are others' now, and what these grow by is no news.
                Owner::Ended(group) => {
                    let gone = Owner::Group(group);
                    for (part, whole, metric, _) in RATIOS {
                        self.before.remove(&(gone, part));
                        self.before.remove(&(gone, whole));
                        if self.shown.remove(&(gone, part)) {
                            points.about(groups.about(owner));
                            points.ratio(metric, &[], 0.0);
                        }
                    }
                }
                Owner::Other => {}
                owner => self.owner(owner, &noted, groups, points),
            }
        }
        points.about(About::default());
    }

    /// Of these signals alone, the numbers go on; all else counts from 0 again.
    pub(super) fn go_on(&mut self, signals: &BTreeSet<&'static str>) {
        self.before.retain(|(_, quantity), _| signals.contains(quantity.signal()));
        self.shown.retain(|(_, part)| signals.contains(part.signal()));
    }

    fn owner(&mut self, owner: Owner, noted: &Noted, groups: &Groups, points: &mut Points<'_>) {
        for (part, whole, metric, value) in RATIOS {
            let keys = [(owner, part), (owner, whole)];
            let [Some(part), Some(whole)] = keys.map(|(_, quantity)| noted[quantity as usize])
            else {
                continue;
            };
            let part = self.grown(keys[0], part);
            if let Some(share) = share(part, self.grown(keys[1], whole)) {
                points.about(groups.about(owner));
                points.ratio(metric, &[], value(share));
                self.shown.insert(keys[0]);
            } else if self.shown.remove(&keys[0]) {
                // There is none any more, and the last one is not to stand for it.
                points.about(groups.about(owner));
                points.ended(|points| points.ratio(metric, &[], 0.0));
            }
        }
    }

    /// What a quantity has grown by; all count from 0 on.
    fn grown(&mut self, key: (Owner, Quantity), now: u64) -> u64 {
        now.saturating_sub(self.before.insert(key, now).unwrap_or(0))
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_count_from_the_last_time_on() {
        let key = (Owner::Host, Quantity::Asked);
        let mut derived = Derived::default();
        assert_eq!(derived.grown(key, 10), 10);
        assert_eq!(derived.grown(key, 12), 2);
        assert_eq!(derived.grown(key, 12), 0);
        let mut quantities: Vec<_> = RATIOS.iter().flat_map(|r| [r.0, r.1]).collect();
        quantities.sort_unstable();
        quantities.dedup();
        assert_eq!(quantities.len(), 2 * RATIOS.len());
        assert_eq!(quantities.len(), QUANTITIES);
    }

    #[test]
    fn what_is_noted_of_an_owner_adds_up() {
        let mut notes = Notes::default();
        notes.add(Owner::Overflow, Quantity::Read, 1);
        notes.add(Owner::Host, Quantity::Read, 2);
        let mut more = Notes::default();
        more.add(Owner::Host, Quantity::Dropped, 0);
        more.add(Owner::Host, Quantity::Read, 5);
        notes.append(more);
        let found: Vec<_> = notes.by_owner().collect();
        let [(Owner::Host, host), (Owner::Overflow, overflow)] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(host[Quantity::Read as usize], Some(7));
        assert_eq!(host[Quantity::Dropped as usize], Some(0));
        assert_eq!(host[Quantity::Asked as usize], None);
        assert_eq!(overflow[Quantity::Read as usize], Some(1));
    }

    #[test]
    fn nothing_has_no_share() {
        assert_eq!(share(1, 0), None);
        assert_eq!(share(1, 4), Some(0.25));
        assert_eq!(share(0, 4), Some(0.0));
    }
}
