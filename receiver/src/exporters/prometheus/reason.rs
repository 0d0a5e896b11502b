//! Why points are dropped, and how many.

use std::collections::BTreeMap;

/// Why a point was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    /// Older than what is held.
    OldTimestamp,
    /// A delta that begins before the last one ended.
    DeltaOverlap,
    /// A delta of something that is no counter.
    DeltaNonMonotonic,
    /// The sender does not say how points add up.
    TemporalityUnspecified,
    /// Another metric of this name has another type.
    TypeConflict,
    /// Another series of the batch, or a newer one, has the same name and labels.
    LabelCollision,
    /// Nothing in the name can stand in a Prometheus name.
    InvalidName,
    /// The point contradicts itself.
    Malformed,
    /// There are as many series as there may be.
    SeriesLimit,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OldTimestamp => "old_timestamp",
            Self::DeltaOverlap => "delta_overlap",
            Self::DeltaNonMonotonic => "delta_non_monotonic",
            Self::TemporalityUnspecified => "temporality_unspecified",
            Self::TypeConflict => "type_conflict",
            Self::LabelCollision => "label_collision",
            Self::InvalidName => "invalid_name",
            Self::Malformed => "malformed",
            Self::SeriesLimit => "series_limit",
        }
    }
}

/// What became of a batch's points.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) taken: usize,
    pub(super) dropped: BTreeMap<Reason, usize>,
}

impl Tally {
    pub(super) fn drop(&mut self, reason: Reason, points: usize) {
        *self.dropped.entry(reason).or_default() += points;
    }
}
