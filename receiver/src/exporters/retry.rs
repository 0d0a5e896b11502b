//! `retry_on_failure`: how long an exporter waits between attempts, and when it gives up.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::{Mistakes, Signed};

/// `retry_on_failure`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether a failed send is tried again at all.
    pub enabled: bool,
    /// The wait after the first failure.
    pub initial_interval: Signed,
    /// Each wait is drawn from the interval ± this share of it, so that agents do not return in step.
    pub randomization_factor: f64,
    /// What the interval grows by after each failure.
    pub multiplier: f64,
    /// What the interval does not grow past.
    pub max_interval: Signed,
    /// When to give up, counted from the first attempt; 0 means never.
    pub max_elapsed_time: Signed,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5).into(),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30).into(),
            max_elapsed_time: Duration::from_secs(300).into(),
        }
    }
}

impl Config {
    /// Checks what types cannot say, if retrying is on, as in the Collector.
    pub fn check(&self) -> Mistakes {
        let mut wrong = Mistakes::default();
        if !self.enabled {
            return wrong;
        }
        for (key, given) in [
            ("initial_interval", self.initial_interval),
            ("max_interval", self.max_interval),
            ("max_elapsed_time", self.max_elapsed_time),
        ] {
            wrong.require(!given.is_negative(), key, &format!("'{key}' must be non-negative"));
        }
        wrong.require(
            (0.0..=1.0).contains(&self.randomization_factor),
            "randomization_factor",
            "'randomization_factor' must be within [0, 1]",
        );
        wrong.require(
            self.multiplier >= 0.0 && self.multiplier.is_finite(),
            "multiplier",
            "'multiplier' must be non-negative",
        );
        if !self.max_elapsed_time.or_zero().is_zero() {
            wrong.require(
                self.max_elapsed_time >= self.initial_interval,
                "max_elapsed_time",
                "'max_elapsed_time' must not be less than 'initial_interval'",
            );
            wrong.require(
                self.max_elapsed_time >= self.max_interval,
                "max_elapsed_time",
                "'max_elapsed_time' must not be less than 'max_interval'",
            );
        }
        wrong
    }
}

/// The waits of one batch.
pub struct Backoff<'a> {
    config: &'a Config,
    interval: Duration,
    give_up: Option<Instant>,
}

impl<'a> Backoff<'a> {
    /// Starts the clock: call it at the first attempt.
    pub fn new(config: &'a Config) -> Self {
        let limit = config.max_elapsed_time.or_zero();
        let give_up = (!limit.is_zero()).then(|| Instant::now() + limit);
        let interval = config.initial_interval.min(config.max_interval).or_zero();
        Self { config, interval, give_up }
    }

    /// How long to wait now, at least as long as the server asked for; `None` if that would end
    /// after the time to give up.
    pub fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        // ± the factor, evenly.
        let spread = self.config.randomization_factor * (2.0 * fastrand::f64() - 1.0);
        let wait = self.interval.mul_f64(1.0 + spread).max(asked.unwrap_or_default());
        let most = self.config.max_interval.or_zero();
        self.interval =
            Duration::try_from_secs_f64(self.interval.as_secs_f64() * self.config.multiplier)
                .map_or(most, |grown| grown.min(most));
        let until = Instant::now().checked_add(wait)?;
        (self.give_up.is_none_or(|end| until <= end)).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_the_maximum_and_end_in_time() {
        let config = Config { randomization_factor: 0.0, ..Config::default() };
        let mut backoff = Backoff::new(&config);
        let mut waits = Vec::new();
        while let Some(wait) = backoff.next(None) {
            tokio::time::sleep(wait).await;
            waits.push(wait.as_secs_f64());
        }
        assert_eq!(waits[..6], [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0]);
        // 65.9375 s of growth, then 30 s each: 7 more fit into 300 s, the 8th would end at 305.9 s.
        assert_eq!(waits.len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_can_only_lengthen_a_wait() {
        let config = Config { randomization_factor: 0.0, ..Config::default() };
        let mut backoff = Backoff::new(&config);
        assert_eq!(backoff.next(Some(Duration::from_secs(1))), Some(Duration::from_secs(5)));
        assert_eq!(backoff.next(Some(Duration::from_secs(60))), Some(Duration::from_secs(60)));
        assert_eq!(backoff.next(Some(Duration::from_secs(301))), None);
    }

    #[test]
    fn waits_are_spread_evenly_around_the_interval() {
        let config = Config {
            multiplier: 1.0,
            max_elapsed_time: Duration::ZERO.into(),
            ..Config::default()
        };
        let mut backoff = Backoff::new(&config);
        let waits: Vec<_> =
            (0..2000).map(|_| backoff.next(None).expect("never gives up").as_secs_f64()).collect();
        assert!(waits.iter().all(|w| (2.5..=7.5).contains(w)));
        assert!(waits.iter().any(|w| *w < 3.0) && waits.iter().any(|w| *w > 7.0));
    }

    #[test]
    fn every_mistake_is_reported_if_it_is_on() {
        let config = Config {
            randomization_factor: 1.5,
            multiplier: -1.0,
            max_elapsed_time: Duration::from_secs(1).into(),
            ..Config::default()
        };
        assert_eq!(config.check().0.len(), 4);
        assert_eq!(Config { enabled: false, ..config }.check(), Mistakes::default());
        assert_eq!(Config::default().check(), Mistakes::default());

        for key in ["initial_interval", "max_interval", "max_elapsed_time"] {
            let read = |enabled: bool| {
                let text = format!("{{enabled: {enabled}, {key}: -1s}}");
                let section = crate::config::Section::of_text(&text).expect("YAML");
                section.parse::<Config>().expect("of the right types").check().0
            };
            let wrong = read(true);
            assert_eq!((wrong.len(), wrong[0].path.as_str()), (1, key));
            assert_eq!(wrong[0].message, format!("'{key}' must be non-negative"));
            assert_eq!(read(false), []);
        }
    }
}
