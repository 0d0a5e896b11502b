//! Seats: who of a map's cells has one, where the kernel finds it without a search (see [`abi::group`]).
//!
//! A seat goes from one to another in steps, a reading of the map apart or more: its new owner's key is written, then it
//! is opened; it is closed, then everything that runs in the kernel has ended, then what is in it is put down and it is
//! emptied. So no event finds half a key, and none is counted for the next one.

use std::{collections::BTreeMap, mem, time::Instant};

use abi::group::{Key, SEATS, Seat};
use anyhow::Result;

use super::{
    grace,
    table::{Source, Table},
};

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
    /// One that has none, and what was in its cell at the last reading. While it is idle, each has a turn.
    rival: Option<(Key, Vec<u64>)>,
    /// What those counted here who had it before, and live.
    before: BTreeMap<Key, Vec<u64>>,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    /// It has an owner, and is not open yet.
    Given(Key),
    /// It is in use. What was in it at the last reading.
    Open(Key, Vec<u64>),
    /// No event is counted there but one that had begun before, since when. What was in it when its owner's cell was
    /// removed; nothing if that lives.
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
    /// Who has which seat.
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
            // Whatever step is not made, the numbers are right, and the next reading tries again.
            if let Err(error) = place.go_on(number as u32, self.seen.row(number), found, maps) {
                tracing::warn!("a seat of a cell: {error:#}");
            }
        }
        Ok((cells, all))
    }

    /// Adds what is in the seats to the cells, and finds out who wants them.
    fn add_to(&self, cells: &mut Table) -> Vec<Found> {
        let mut found: Vec<Found> = self.places.iter().map(|_| Found::default()).collect();
        let columns = cells.columns.max(1);
        for (key, row) in cells.keys.iter().zip(cells.sums.chunks_exact_mut(columns)) {
            let number = key.seat() as usize;
            let (place, found) = (&self.places[number], &mut found[number]);
            if place.state.owner() == Some(key) {
                found.owner = true;
                add(row, self.seen.row(number));
                subtract(row, place.state.taken());
            } else {
                found.wanted_by(key, row, place);
            }
            if let Some(amount) = place.before.get(key) {
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

    /// Whether a cell has a seat where events are counted, or will be.
    pub(super) fn has(&self, key: &Key) -> bool {
        let state = &self.places[key.seat() as usize].state;
        matches!(state, State::Given(owner) | State::Open(owner, _) if owner == key)
    }

    /// No more events are counted in the seat of `key`.
    pub(super) fn close(&mut self, key: &Key, seats: &Source<'_>) -> Result<()> {
        let number = key.seat();
        self.places[number as usize].state = closed(number, *key, seats)?;
        Ok(())
    }

    /// A cell has been removed from the hash, with all that it had when it was read.
    pub(super) fn removed(&mut self, key: &Key) {
        let number = key.seat() as usize;
        let place = &mut self.places[number];
        place.before.remove(key);
        if let State::Closed { owner, taken, .. } | State::Quiet { owner, taken } = &mut place.state
            && owner == key
        {
            *taken = self.seen.row(number).to_vec();
        }
    }
}

/// What a reading found out about a seat.
#[derive(Default)]
struct Found {
    /// Its owner has a cell in the hash.
    owner: bool,
    /// The rival's cell, and how busy it has been since the last reading.
    rival: Option<(Key, Vec<u64>, u32)>,
    /// Who was busiest ever since: only sought while the seat is free.
    most: Option<(Key, u32)>,
    /// Who comes after the rival, and who is first.
    next: Option<(Key, Vec<u64>)>,
    first: Option<(Key, Vec<u64>)>,
}

impl Found {
    fn wanted_by(&mut self, key: &Key, row: &[u64], place: &Place) {
        if matches!(place.state, State::Free) {
            let busy = busy(row, &[]);
            if self.most.is_none_or(|(_, most)| busy > most) {
                self.most = Some((*key, busy));
            }
        }
        let sooner = |other: &Option<(Key, Vec<u64>)>| other.as_ref().is_none_or(|(k, _)| key < k);
        match &place.rival {
            Some((rival, before)) if rival == key => {
                self.rival = Some((*key, row.to_vec(), busy(row, before)));
            }
            Some((rival, _)) if key > rival && sooner(&self.next) => {
                self.next = Some((*key, row.to_vec()));
            }
            _ if sooner(&self.first) => self.first = Some((*key, row.to_vec())),
            _ => {}
        }
    }
}

impl Place {
    /// The next step, after a reading.
    fn go_on(&mut self, number: u32, seen: &[u64], found: Found, maps: &Maps<'_>) -> Result<()> {
        let (next, wanted) = (found.next.or(found.first), found.rival.as_ref().map_or(0, |r| r.2));
        let others = found.rival.is_some() || next.is_some();
        let busiest = found.most.map(|(key, _)| key);
        let challenger = found.rival.as_ref().filter(|_| wanted > 0).map(|(key, ..)| *key);
        self.rival = match found.rival {
            Some((key, row, _)) if wanted > 0 || next.is_none() => Some((key, row)),
            _ => next,
        };
        match &mut self.state {
            State::Free => {
                if let Some(key) = challenger.or(busiest) {
                    maps.seats.set(number, &seat(&key, false))?;
                    self.state = State::Given(key);
                }
            }
            State::Given(owner) => {
                maps.seats.set(number, &seat(owner, true))?;
                self.state = State::Open(*owner, seen.to_vec());
            }
            State::Open(owner, before) => {
                let used = busy(seen, before);
                seen.clone_into(before);
                if wanted > used + used / 8 && grace::can_wait() {
                    self.state = closed(number, *owner, &maps.seats)?;
                }
            }
            State::Closed { owner, taken, .. } if taken.is_empty() && wanted == 0 => {
                maps.seats.set(number, &seat(owner, true))?;
                self.state = State::Open(*owner, seen.to_vec());
            }
            State::Closed { owner, since, taken } => {
                if others && grace::nothing_runs_since(*since) {
                    let (owner, taken) = (*owner, mem::take(taken));
                    self.state = State::Quiet { owner, taken };
                }
            }
            State::Quiet { owner, taken } => {
                let mut rest = seen.to_vec();
                subtract(&mut rest, taken);
                let empty = rest.iter().all(|value| *value == 0);
                // If its owner has no cell, whoever has been told of the rest removes it again.
                if empty || found.owner {
                    maps.all.clear(number)?;
                    if !empty {
                        let before =
                            self.before.entry(*owner).or_insert_with(|| vec![0; seen.len()]);
                        add(before, &rest);
                    }
                    self.state = State::Free;
                }
            }
        }
        Ok(())
    }
}

fn closed(number: u32, owner: Key, seats: &Source<'_>) -> Result<State> {
    seats.set(number, &seat(&owner, false))?;
    Ok(State::Closed { owner, since: Instant::now(), taken: Vec::new() })
}

fn seat(key: &Key, open: bool) -> Seat {
    Seat { group: key.group, entry: key.entry, open: open.into() }
}

/// How busy a cell has been between two readings. Its columns are numbers of events, bytes and times, and how often
/// something happened is to count, not how much or how long: so it is the binary orders of magnitude of all of them
/// together.
fn busy(row: &[u64], before: &[u64]) -> u32 {
    let before = before.iter().chain(std::iter::repeat(&0));
    row.iter()
        .zip(before)
        .map(|(now, then)| u64::BITS - now.saturating_sub(*then).leading_zeros())
        .sum()
}

fn add(row: &mut [u64], more: &[u64]) {
    row.iter_mut().zip(more).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
}

fn subtract(row: &mut [u64], less: &[u64]) {
    row.iter_mut().zip(less).for_each(|(sum, value)| *sum = sum.wrapping_sub(*value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_busier_than_what_takes_long() {
        // Calls, bytes, ns, and two buckets.
        let often = [400_000, 400_000 << 12, 400_000_000, 100_000, 300_000];
        let long = [1, 0, 1_000_000_000, 0, 1];
        assert!(busy(&often, &[]) > 2 * busy(&long, &[]));
        assert_eq!(busy(&often, &often), 0);
        assert_eq!(busy(&[5, 9], &[1, 9]), 3);
        // A group that comes back has less.
        assert_eq!(busy(&[1], &[10_000]), 0);
    }
}
