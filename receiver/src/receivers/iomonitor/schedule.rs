//! When what is to be read.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

/// The readings of several tiers, each at an interval of its own.
pub(super) struct Schedule {
    tiers: Vec<Tier>,
    epoch: Option<SystemTime>,
}

struct Tier {
    interval: Duration,
    /// If readings are not aligned.
    next: Instant,
    /// If they are.
    boundary: SystemTime,
}

impl Schedule {
    /// Readings at these intervals, the first after `delay`; with an `epoch`, at whole multiples of the intervals
    /// since then.
    pub(super) fn new(
        intervals: impl IntoIterator<Item = Duration>,
        delay: Duration,
        epoch: Option<SystemTime>,
    ) -> Self {
        let (next, earliest) = (Instant::now() + delay, SystemTime::now() + delay);
        let tiers = intervals.into_iter().map(|interval| {
            let boundary = epoch.map_or(earliest, |epoch| after(epoch, interval, earliest));
            Tier { interval, next, boundary }
        });
        Self { tiers: tiers.collect(), epoch }
    }

    /// Waits for the next reading; says of each tier whether it is one of its own. One that comes late by an
    /// interval or more is not made up for: counters lose nothing by it.
    pub(super) async fn next(&mut self) -> Vec<bool> {
        match self.epoch {
            Some(epoch) => self.next_boundary(epoch).await,
            None => self.next_interval().await,
        }
    }

    async fn next_interval(&mut self) -> Vec<bool> {
        if let Some(next) = self.tiers.iter().map(|tier| tier.next).min() {
            sleep_until(next).await;
        }
        let now = Instant::now();
        let due = |tier: &mut Tier| {
            let due = tier.next <= now;
            if due {
                tier.next += tier.interval;
            }
            if tier.next <= now {
                tier.next = now + tier.interval;
            }
            due
        };
        self.tiers.iter_mut().map(due).collect()
    }

    async fn next_boundary(&mut self, epoch: SystemTime) -> Vec<bool> {
        loop {
            let now = SystemTime::now();
            for tier in &mut self.tiers {
                // Someone has set the clock back.
                if tier.boundary.duration_since(now).is_ok_and(|wait| wait > tier.interval * 2) {
                    tier.boundary = after(epoch, tier.interval, now);
                }
            }
            if self.tiers.iter().any(|tier| tier.boundary <= now) {
                let due = |tier: &mut Tier| {
                    let due = tier.boundary <= now;
                    if due {
                        tier.boundary = after(epoch, tier.interval, now);
                    }
                    due
                };
                return self.tiers.iter_mut().map(due).collect();
            }
            // The clock that is slept by and the one that tells the time differ a little: asked again.
            let waits = self.tiers.iter().map(|tier| tier.boundary.duration_since(now));
            sleep(waits.flatten().min().unwrap_or_default()).await;
        }
    }
}

/// The first boundary after `now`.
fn after(epoch: SystemTime, interval: Duration, now: SystemTime) -> SystemTime {
    let interval_nanos = interval.as_nanos().max(1);
    // Whether the epoch is over or not, `into` is how far into an interval `now` is.
    let into = match now.duration_since(epoch) {
        Ok(since) => since.as_nanos() % interval_nanos,
        Err(until) => {
            (interval_nanos - until.duration().as_nanos() % interval_nanos) % interval_nanos
        }
    };
    let left = u64::try_from(interval_nanos - into).unwrap_or(u64::MAX);
    now.checked_add(Duration::from_nanos(left)).unwrap_or(now + interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn boundaries_are_whole_intervals_from_the_epoch() {
        let slot = Duration::from_nanos(12);
        for (now, boundary) in [(23, 35), (24, 35), (34, 35), (35, 47), (11, 23), (12, 23), (0, 11)]
        {
            assert_eq!(after(at(23), slot, at(now)), at(boundary), "{now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_tier_has_its_interval() {
        let seconds = |n| Duration::from_secs(n);
        let mut schedule = Schedule::new([seconds(3), seconds(1)], seconds(1), None);
        let began = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..5 {
            let due = schedule.next().await;
            seen.push((began.elapsed().as_secs(), due));
        }
        let both = vec![true, true];
        let second = vec![false, true];
        let expected = [both.clone(), second.clone(), second.clone(), both, second];
        assert_eq!(seen, (1..).zip(expected).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_not_made_up_for() {
        let mut schedule = Schedule::new([Duration::from_secs(1)], Duration::ZERO, None);
        schedule.next().await;
        tokio::time::advance(Duration::from_millis(3_500)).await;
        schedule.next().await;
        let late = Instant::now();
        schedule.next().await;
        assert_eq!(late.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_reading_is_just_after_its_boundary_and_each_boundary_has_one() {
        let interval = Duration::from_millis(40);
        let mut schedule = Schedule::new([interval], Duration::ZERO, Some(at(7_000_000)));
        let mut boundaries = Vec::new();
        for _ in 0..10 {
            schedule.next().await;
            let since = SystemTime::now().duration_since(at(7_000_000)).unwrap_or_default();
            boundaries.push(since.as_nanos() / interval.as_nanos());
        }
        assert!(boundaries.windows(2).all(|pair| pair[0] < pair[1]), "{boundaries:?}");
    }
}
