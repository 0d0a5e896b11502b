//! Seats: who of a map's cells has one, where the kernel finds it without a search (see [`abi::group`]).
//!
//! A seat goes from one to another in steps, a reading of the map apart or more: its new owner's key is written, then it
//! is opened; it is closed, then everything that runs in the kernel has ended, then what is in it is put down and it is
//! emptied. So no event finds half a key, and none is counted for the next one.

use std::{
    io, mem,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use abi::group::{Key, SEATS, Seat};
use anyhow::Result;
use nix::libc;

use super::table::{Source, Table};

/// The time between two waits for what runs in the kernel, which take some ten milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The seats of a map.
pub(super) struct Seats {
    places: Vec<Place>,
    /// What was in each at the last reading.
    seen: Table,
}

/// A seat.
#[derive(Default)]
struct Place {
    state: State,
    /// One that has none and counts more than others, and how much that was at the last reading.
    rival: Option<(Key, u64)>,
    /// What those counted here who had it before, and live.
    before: Vec<(Key, Vec<u64>)>,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    /// It has an owner, and is not open yet.
    Given(Key),
    /// It was in use, with so much at the last reading.
    Open(Key, u64),
    /// No event is counted there but one that had begun before, since when. What had been taken out of it as its
    /// owner's cell was removed.
    Closed { owner: Key, since: Instant, taken: Vec<u64> },
    /// The same, and nothing will be counted there any more.
    Quiet { owner: Key, taken: Vec<u64> },
}

impl State {
    fn owner(&self) -> Option<&Key> {
        match self {
            Self::Free => None,
            Self::Given(owner) | Self::Open(owner, _) => Some(owner),
            Self::Closed { owner, .. } | Self::Quiet { owner, .. } => Some(owner),
        }
    }

    fn taken(&self) -> &[u64] {
        match self {
            Self::Closed { taken, .. } | Self::Quiet { taken, .. } => taken,
            _ => &[],
        }
    }
}

/// The maps of a signal's cells.
pub(super) struct Maps<'a> {
    /// Of the seats, and behind them of the overflow.
    pub(super) all: Source<'a>,
    pub(super) by_group: Source<'a>,
    pub(super) seats: Source<'a>,
}

impl Seats {
    pub(super) fn new() -> Self {
        let places = (0..SEATS).map(|_| Place::default()).collect();
        Self { places, seen: Table::default() }
    }

    /// Reads the cells of the groups, and those of the overflow; and gives seats.
    pub(super) fn read(&mut self, maps: &Maps<'_>) -> Result<(Table, Table)> {
        let mut all = maps.all.array()?;
        self.seen = all.split_front(SEATS as usize);
        let mut cells = maps.by_group.hash()?;
        let found = self.add_to(&mut cells);
        for (number, (place, found)) in self.places.iter_mut().zip(found).enumerate() {
            place.go_on(number as u32, self.seen.row(number), &found, maps)?;
        }
        Ok((cells, all))
    }

    /// Adds what is in the seats to the cells, and finds out who wants them.
    fn add_to(&mut self, cells: &mut Table) -> Vec<Found> {
        let mut found: Vec<Found> = self.places.iter().map(|_| Found::default()).collect();
        let columns = cells.columns.max(1);
        for (key, row) in cells.keys.iter().zip(cells.sums.chunks_exact_mut(columns)) {
            let number = key.seat() as usize;
            let (place, found) = (&self.places[number], &mut found[number]);
            found.wants(key, row, place);
            if place.state.owner() == Some(key) {
                found.owner = true;
                add(row, self.seen.row(number));
                subtract(row, place.state.taken());
            }
            for (_, amount) in place.before.iter().filter(|(of, _)| of == key) {
                add(row, amount);
            }
        }
        // Something happened to what a removed group had left behind.
        for (number, (place, found)) in self.places.iter().zip(&found).enumerate() {
            if let Some(owner) = place.state.owner().filter(|_| !found.owner) {
                let mut row = self.seen.row(number).to_vec();
                subtract(&mut row, place.state.taken());
                if row.iter().any(|value| *value > 0) {
                    cells.keys.push(*owner);
                    cells.sums.extend(row);
                }
            }
        }
        found
    }

    /// A cell has been removed from the hash, with all that it had when it was read.
    pub(super) fn remove(&mut self, key: &Key, maps: &Maps<'_>) -> Result<()> {
        let number = key.seat();
        let place = &mut self.places[number as usize];
        place.before.retain(|(of, _)| of != key);
        let taken = self.seen.row(number as usize).to_vec();
        match &mut place.state {
            State::Given(owner) | State::Open(owner, _) if owner == key => {
                place.state = State::closed(number, *key, taken, maps)?;
            }
            State::Closed { owner, taken: before, .. } | State::Quiet { owner, taken: before }
                if owner == key =>
            {
                *before = taken;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a reading found out about a seat.
#[derive(Default)]
struct Found {
    /// Its owner has a cell in the hash.
    owner: bool,
    /// Who of the others counts most, and how much.
    most: Option<(Key, u64)>,
    /// By how much the rival's cell has grown since the last reading.
    rival: u64,
}

impl Found {
    fn wants(&mut self, key: &Key, row: &[u64], place: &Place) {
        if place.state.owner() == Some(key) {
            return;
        }
        let count = total(row);
        if let Some((_, before)) = place.rival.filter(|(rival, _)| rival == key) {
            self.rival = count.wrapping_sub(before);
            if self.rival == 0 {
                // It is idle, however much it counted once.
                return;
            }
        }
        if self.most.is_none_or(|(_, most)| count > most) {
            self.most = Some((*key, count));
        }
    }
}

impl Place {
    /// The next step, after a reading.
    fn go_on(&mut self, number: u32, seen: &[u64], found: &Found, maps: &Maps<'_>) -> Result<()> {
        match &mut self.state {
            State::Free => {
                if let Some((key, _)) = found.most {
                    maps.seats.set(number, &seat(&key, false))?;
                    self.state = State::Given(key);
                }
            }
            State::Given(owner) => {
                maps.seats.set(number, &seat(owner, true))?;
                self.state = State::Open(*owner, total(seen));
            }
            State::Open(owner, before) => {
                let grown = total(seen).wrapping_sub(*before);
                *before = total(seen);
                if found.rival / 2 > grown {
                    self.state = State::closed(number, *owner, Vec::new(), maps)?;
                }
            }
            State::Closed { owner, since, taken } => {
                if found.most.is_some() && nothing_runs_since(*since) {
                    let (owner, taken) = (*owner, mem::take(taken));
                    self.state = State::Quiet { owner, taken };
                }
            }
            State::Quiet { owner, taken } => {
                let mut rest = seen.to_vec();
                subtract(&mut rest, taken);
                if rest.iter().any(|value| *value > 0) {
                    if !found.owner {
                        // Who has been told of it removes the cell again.
                        return Ok(());
                    }
                    self.before.push((*owner, rest));
                }
                maps.all.clear(number)?;
                self.state = State::Free;
            }
        }
        self.rival = found.most;
        Ok(())
    }
}

impl State {
    /// Closes a seat.
    fn closed(number: u32, owner: Key, taken: Vec<u64>, maps: &Maps<'_>) -> Result<Self> {
        maps.seats.set(number, &seat(&owner, false))?;
        Ok(Self::Closed { owner, since: Instant::now(), taken })
    }
}

fn seat(key: &Key, open: bool) -> Seat {
    Seat { group: key.group, entry: key.entry, open: open.into() }
}

fn total(row: &[u64]) -> u64 {
    row.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}

fn add(row: &mut [u64], more: &[u64]) {
    row.iter_mut().zip(more).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
}

fn subtract(row: &mut [u64], less: &[u64]) {
    row.iter_mut().zip(less).for_each(|(sum, value)| *sum = sum.wrapping_sub(*value));
}

/// Whether every program that ran at a moment has ended. Waits for it now and then: programs run within what RCU calls
/// a critical section, and `MEMBARRIER_CMD_GLOBAL` waits for all of those (kernel/sched/membarrier.c).
fn nothing_runs_since(moment: Instant) -> bool {
    static WAITED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut waited = WAITED.lock().unwrap_or_else(PoisonError::into_inner);
    if waited.is_some_and(|last| last > moment) {
        return true;
    }
    let now = Instant::now();
    if waited.is_some_and(|last| now < last + PATIENCE) {
        return false;
    }
    let done = wait().is_ok();
    // A kernel that cannot wait leaves seats to those who had them.
    *waited = done.then_some(now).or(*waited);
    done
}

#[expect(unsafe_code, reason = "a system call that no library has")]
fn wait() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
