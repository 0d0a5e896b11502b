//! The cells of a signal by group: read, named, and folded when their owner has ended.
//!
//! A sum over all series of a metric is the host's count at every moment: what finds no place is in the
//! overflow series, and what an ended group has counted moves into the series `other` in the very
//! collection in which its own ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use abi::group::{Group, Key};
use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::{
    derived::{Notes, Quantity},
    living::Living,
};
use crate::{
    ebpf::{group::GroupBy, load::Loaded, table::Table},
    metric::{About, Attribute, Points, key_value, nanos},
};

/// The attributes of points by group.
pub const ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "cgroup.id", description: "by cgroup: the inode number of its directory" },
    Attribute {
        name: "process.pid",
        description: "by process: its id in the initial pid namespace",
    },
    Attribute {
        name: "process.creation.time",
        description: "by process: when it started, which tells it from a later one with its id",
    },
    Attribute { name: "ebpf.group", description: "`other`: all groups that have ended" },
    Attribute {
        name: "otel.metric.overflow",
        description: "true: all that found no place in the map of groups (`max_groups`)",
    },
];

/// Whose cells these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// Everything.
    Host,
    /// A group.
    Group(Group),
    /// A group that has ended; its cells are in `Other` from now on.
    Ended(Group),
    /// All groups that have ended.
    Other,
    /// What found no place.
    Overflow,
}

/// A cell: its entry and its columns.
pub type Cell<'a> = (u32, &'a [u64]);

/// Where a cell is, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    owner: Owner,
    entry: u32,
    row: u32,
}

/// The cells of a map, those of each owner together.
pub struct Cells {
    /// Ascending.
    places: Vec<Place>,
    /// As they have been read: of thousands of groups, to move them would be most of what reading takes.
    table: Table,
}

impl Cells {
    /// Of a table whose rows are nobody's yet.
    fn new(table: Table) -> Self {
        Self { places: Vec::new(), table }
    }

    fn row(&self, row: usize) -> &[u64] {
        self.table.row(row)
    }

    /// Says whose cell a row is.
    fn place(&mut self, owner: Owner, entry: u32, row: usize) {
        self.places.push(Place { owner, entry, row: row as u32 });
    }

    /// Adds a cell that is not in the table.
    fn add(&mut self, owner: Owner, entry: u32, values: &[u64]) {
        self.place(owner, entry, self.table.sums.len() / self.table.columns.max(1));
        self.table.sums.extend_from_slice(values);
    }

    fn sorted(mut self) -> Self {
        self.places.sort_unstable();
        self
    }

    /// Owners with their cells.
    pub fn iter(&self) -> impl Iterator<Item = (Owner, Owned<'_>)> {
        let owners = self.places.chunk_by(|a, b| a.owner == b.owner);
        owners.map(|places| (places[0].owner, Owned { places, cells: self }))
    }

    /// One owner's.
    pub fn of(&self, owner: Owner) -> Owned<'_> {
        let places = &self.places[self.places.partition_point(|place| place.owner < owner)..];
        let end = places.partition_point(|place| place.owner == owner);
        Owned { places: &places[..end], cells: self }
    }
}

/// The cells of an owner, by their entries.
#[derive(Clone, Copy)]
pub struct Owned<'a> {
    places: &'a [Place],
    cells: &'a Cells,
}

impl<'a> Owned<'a> {
    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Cell<'a>> {
        self.places.iter().map(|place| (place.entry, self.cells.row(place.row as usize)))
    }
}

/// What a receiver counts by, and who lives.
pub struct Groups {
    by: GroupBy,
    mounts: Vec<PathBuf>,
    /// Wall clock less time since boot at the start, so that a process's start is always the same moment.
    boot: Duration,
    /// The ended groups' counts by signal, map and entry.
    folded: BTreeMap<(&'static str, &'static str, u32), Vec<u64>>,
    living: Living,
    notes: Notes,
    /// Whether what is noted counts: of a share alone, no ratio can be made.
    noting: bool,
}

impl Groups {
    /// Nothing has been read yet.
    pub fn new(by: GroupBy, mounts: Vec<PathBuf>) -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        let boot = Duration::from_nanos(nanos(SystemTime::now()))
            .saturating_sub(since_boot.unwrap_or_default());
        Self {
            by,
            mounts,
            boot,
            folded: BTreeMap::new(),
            living: Living::default(),
            notes: Notes::default(),
            noting: true,
        }
    }

    /// Whether the host is one group.
    pub fn is_host(&self) -> bool {
        self.by == GroupBy::Host
    }

    /// Reads the cells of a map and takes those of ended groups out of it.
    pub fn read(
        &mut self,
        signal: &'static str,
        map: &'static str,
        loaded: &Loaded,
    ) -> Result<Cells> {
        if !self.is_host() {
            return self.read_sparse(signal, map, loaded);
        }
        // Every entry of the host is there from the start, and counts.
        let mut cells = Cells::new(loaded.cells(map)?);
        for row in 0..cells.table.keys.len() {
            cells.place(Owner::Host, cells.table.keys[row].entry, row);
        }
        Ok(cells.sorted())
    }

    /// Reads a map that has one cell for each group, and has `emit` tell its numbers.
    pub fn each<const NUMBERS: usize>(
        &mut self,
        signal: &'static str,
        map: &'static str,
        loaded: &Loaded,
        points: &mut Points<'_>,
        emit: impl Fn(&mut Points<'_>, [u64; NUMBERS]),
    ) -> Result<()> {
        for (owner, cells) in self.read(signal, map, loaded)?.iter() {
            points.about(self.about(owner));
            for (_, cell) in cells.iter() {
                let numbers = cell.try_into();
                emit(points, numbers.with_context(|| format!("a cell of {} numbers", cell.len()))?);
            }
        }
        points.about(About::default());
        Ok(())
    }

    /// Reads the map of a signal whose programs use sparse cells: the array has those of the overflow alone.
    pub fn read_sparse(
        &mut self,
        signal: &'static str,
        map: &'static str,
        loaded: &Loaded,
    ) -> Result<Cells> {
        let host = self.is_host();
        let (by_group, overflow) = loaded.cells_by_group(map)?;
        let mut cells = Cells::new(by_group);
        cells.places.reserve(cells.table.keys.len());
        for row in 0..cells.table.keys.len() {
            let key = cells.table.keys[row];
            let owner = if host { Owner::Host } else { self.living.owner(key.group) };
            if !matches!(owner, Owner::Group(_) | Owner::Host) {
                self.fold(signal, map, loaded, &key, cells.row(row))?;
            }
            if owner != Owner::Other {
                cells.place(owner, key.entry, row);
            }
        }
        let folded = self.folded.iter().filter(|((s, m, _), _)| (*s, *m) == (signal, map));
        for ((_, _, entry), values) in folded {
            cells.add(Owner::Other, *entry, values);
        }
        // Of the overflow, only what happened.
        for (key, values) in overflow.rows() {
            if values.iter().any(|value| *value > 0) {
                cells.add(Owner::Overflow, key.entry, values);
            }
        }
        Ok(cells.sorted())
    }

    fn fold(
        &mut self,
        signal: &'static str,
        map: &'static str,
        loaded: &Loaded,
        key: &Key,
        values: &[u64],
    ) -> Result<()> {
        loaded.remove_cell(map, key)?;
        let sums = self.folded.entry((signal, map, key.entry)).or_default();
        sums.resize(values.len(), 0);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        Ok(())
    }

    /// Begins a collection: finds out which of the known groups have ended. They were known before it is
    /// asked who lives, so none of them is new; and who has ended counts no more.
    pub fn begin(&mut self) {
        self.living.begin(self.by, &self.mounts);
    }

    /// Goes on where another left off with who has ended; with `signals`, also with what those counted.
    pub fn go_on(&mut self, from: &mut Self, signals: &BTreeSet<&'static str>) {
        self.boot = from.boot;
        let folded = mem::take(&mut from.folded).into_iter();
        let (mine, others) = folded.partition(|((signal, ..), _)| signals.contains(signal));
        from.folded = others;
        self.folded.extend::<BTreeMap<_, _>>(mine);
        if self.by == from.by {
            self.living.go_on(&from.living);
        }
    }

    /// Adds to a quantity that ratios are made of, of this collection.
    pub fn note(&mut self, owner: Owner, quantity: Quantity, amount: u64) {
        if self.noting {
            self.notes.add(owner, quantity, amount);
        }
    }

    /// Whether what is noted from now on counts, or is a share of something.
    pub fn notes(&mut self, whole: bool) {
        self.noting = whole;
    }

    /// Takes what this collection has noted.
    pub fn noted(&mut self) -> Notes {
        mem::take(&mut self.notes)
    }

    /// How the points of an owner's cells are marked.
    pub fn about(&self, owner: Owner) -> About {
        match owner {
            Owner::Host => About::default(),
            Owner::Group(group) => self.of_group(group, false),
            Owner::Ended(group) => self.of_group(group, true),
            Owner::Other => marked("ebpf.group", Value::StringValue("other".to_owned())),
            Owner::Overflow => marked("otel.metric.overflow", Value::BoolValue(true)),
        }
    }

    /// The time since the epoch of a moment that is so many ns after the boot.
    pub fn moment(&self, since_boot: u64) -> Duration {
        self.boot + Duration::from_nanos(since_boot)
    }

    /// The same, as RFC 3339 has it.
    pub fn date(&self, since_boot: u64) -> String {
        let time = SystemTime::UNIX_EPOCH + self.moment(since_boot);
        humantime::format_rfc3339_millis(time).to_string()
    }

    fn of_group(&self, group: Group, ended: bool) -> About {
        let id = Value::IntValue(i64::try_from(group.id).unwrap_or(i64::MAX));
        if self.by == GroupBy::Cgroup {
            return About { attributes: vec![key_value("cgroup.id", id)], start: 0, ended };
        }
        let started = self.moment(group.start);
        let time = self.date(group.start);
        About {
            attributes: vec![
                key_value("process.pid", id),
                key_value("process.creation.time", Value::StringValue(time)),
            ],
            start: u64::try_from(started.as_nanos()).unwrap_or(0),
            ended,
        }
    }
}

fn marked(name: &str, value: Value) -> About {
    About { attributes: vec![key_value(name, value)], ..About::default() }
}
