//! Exponential histograms as the explicit cumulative buckets that text formats can say.
//!
//! Scales above 0 are merged down to scale 0, whose bounds, the powers of two, are bounds of every
//! finer scale too: the cumulative counts stay exact. Scales below 0 show the bounds they have.

use std::collections::BTreeMap;

use super::value::{Exponential, coarser};

/// The exponents of the bounds shown, the same for all series of a metric and never narrowed:
/// `sum by (le)` and `rate` are wrong when bounds differ between series or come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Window {
    positive: Option<(i32, i32)>,
    negative: Option<(i32, i32)>,
}

impl Window {
    /// For durations, from 1 µs to 64 s in the metric's unit; for anything else what is observed.
    pub(super) fn of_unit(unit: &str) -> Self {
        let positive = match unit {
            "s" => Some((-20, 6)),
            "ms" => Some((-10, 16)),
            "us" => Some((0, 26)),
            "ns" => Some((10, 36)),
            _ => None,
        };
        Self { positive, negative: None }
    }

    /// Widens it to show every observation of `histogram`.
    pub(super) fn show(&mut self, histogram: &Exponential) {
        if histogram.scale < 0 {
            return;
        }
        for (index, _) in ends(&histogram.positive) {
            widen(&mut self.positive, upper(index, histogram.scale));
        }
        for (index, _) in ends(&histogram.negative) {
            widen(&mut self.negative, lower(index, histogram.scale));
        }
    }
}

/// Upper bounds in ascending order, each with the count of observations at or below it; `+Inf`,
/// which is the histogram's count, is left out.
pub(super) fn cumulative(histogram: &Exponential, window: Window) -> Vec<(f64, u64)> {
    let scale = histogram.scale.min(0);
    let positive = coarser(&histogram.positive, histogram.scale, scale);
    let negative = coarser(&histogram.negative, histogram.scale, scale);
    let mut window = window;
    if scale < 0 {
        window = Window::default();
        for (index, _) in ends(&positive) {
            widen(&mut window.positive, upper(index, scale));
        }
        for (index, _) in ends(&negative) {
            widen(&mut window.negative, lower(index, scale));
        }
    }
    // Exponents at the ends of what an f64 holds are clamped, hence not multiples of the step.
    let step = 1_i32 << scale.unsigned_abs().min(COARSEST);
    let shown = |counts: &BTreeMap<i32, u64>, e: i32| e % step == 0 || counts.contains_key(&e);

    let mut bounds = Vec::new();
    if let Some((low, high)) = window.negative {
        // `[-2^(i+1), -2^i)` ends at -2^i. An observation of exactly -2^i lies in the bucket above
        // and is counted there: OTLP does not say enough to do better.
        let counts = by_exponent(&negative, |index| lower(index, scale));
        for exponent in (low..=high).rev().filter(|e| shown(&counts, *e)) {
            bounds.push((-power_of_two(exponent), at(&counts, exponent)));
        }
        bounds.push((0.0, 0));
    }
    if let Some((low, high)) = window.positive {
        let counts = by_exponent(&positive, |index| upper(index, scale));
        for exponent in (low..=high.min(1023)).filter(|e| shown(&counts, *e)) {
            bounds.push((power_of_two(exponent), at(&counts, exponent)));
        }
    }

    let (mut sum, mut zeros) = (0_u64, histogram.zero_count);
    for (bound, count) in &mut bounds {
        // The zero bucket reaches up to its threshold: below that a bound may not claim it.
        if *bound >= histogram.zero_threshold {
            sum = sum.saturating_add(std::mem::take(&mut zeros));
        }
        sum = sum.saturating_add(*count);
        *count = sum;
    }
    bounds
}

/// At this scale a bucket spans all that an `f64` can hold.
const COARSEST: u32 = 11;

/// The exponent of a bucket's upper bound, rounded up to a power of two; 1024 is infinity.
fn upper(index: i64, scale: i32) -> i32 {
    let exponent = if scale >= 0 {
        (index >> scale.min(63)) + 1
    } else {
        (index + 1) << scale.unsigned_abs().min(COARSEST)
    };
    exponent.clamp(-1074, 1024) as i32
}

/// The exponent of a bucket's lower bound, rounded down to a power of two.
fn lower(index: i64, scale: i32) -> i32 {
    let exponent = if scale >= 0 {
        index >> scale.min(63)
    } else {
        index << scale.unsigned_abs().min(COARSEST)
    };
    exponent.clamp(-1074, 1023) as i32
}

fn ends(buckets: &BTreeMap<i64, u64>) -> impl Iterator<Item = (i64, u64)> {
    let ends = [buckets.first_key_value(), buckets.last_key_value()];
    ends.into_iter().flatten().map(|(index, count)| (*index, *count))
}

fn widen(range: &mut Option<(i32, i32)>, exponent: i32) {
    let (low, high) = range.unwrap_or((exponent, exponent));
    *range = Some((low.min(exponent), high.max(exponent)));
}

fn by_exponent(buckets: &BTreeMap<i64, u64>, exponent: impl Fn(i64) -> i32) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::<_, u64>::new();
    for (index, count) in buckets {
        let at = counts.entry(exponent(*index)).or_default();
        *at = at.saturating_add(*count);
    }
    counts
}

fn at(counts: &BTreeMap<i32, u64>, exponent: i32) -> u64 {
    counts.get(&exponent).copied().unwrap_or_default()
}

/// `2^exponent` to the bit, from -1074 to 1023; mathematical libraries differ on such bounds.
fn power_of_two(exponent: i32) -> f64 {
    if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (exponent + 1074))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(scale: i32, values: &[f64]) -> Exponential {
        let mut histogram =
            Exponential { scale, count: values.len() as u64, sum: Some(0.0), ..Default::default() };
        for value in values {
            if *value == 0.0 {
                histogram.zero_count += 1;
                continue;
            }
            // The index by definition: the greatest i with base^i < |value|.
            let index = (value.abs().log2() * 2_f64.powi(scale)).ceil() as i64 - 1;
            let side = if *value > 0.0 { &mut histogram.positive } else { &mut histogram.negative };
            *side.entry(index).or_default() += 1;
        }
        histogram
    }

    #[test]
    fn every_bound_counts_exactly_what_is_at_or_below_it() {
        let values =
            [5e-9, 1e-6, 4e-6, 5e-6, 2_f64.powi(-18), 0.25, 0.2500001, 0.0, 3.0, 100.0, 1e4];
        for scale in [-1, 0, 1, 3, 8, 20] {
            let histogram = observed(scale, &values);
            let mut window = Window::of_unit("s");
            window.show(&histogram);
            let bounds = cumulative(&histogram, window);
            for (bound, count) in &bounds {
                let truth = values.iter().filter(|v| *v <= bound).count() as u64;
                assert_eq!(*count, truth, "scale {scale}, le {bound}");
            }
            assert_eq!(bounds.last().map(|b| b.1), Some(11), "scale {scale}: all are shown");
        }
    }

    #[test]
    fn five_microseconds_are_not_at_most_four() {
        let histogram = observed(3, &[5e-6]);
        for (bound, count) in cumulative(&histogram, Window::of_unit("s")) {
            assert_eq!(count, u64::from(bound >= 5e-6), "le {bound}");
        }
    }

    #[test]
    fn the_bounds_do_not_move_with_the_data() {
        let mut window = Window::of_unit("s");
        window.show(&observed(3, &[0.001]));
        let bounds = cumulative(&observed(3, &[0.001]), window);
        assert_eq!(bounds.len(), 27);
        assert_eq!((bounds[0].0, bounds[26].0), (2_f64.powi(-20), 64.0));
        window.show(&observed(3, &[65.0]));
        assert_eq!(cumulative(&observed(3, &[0.001]), window).len(), 28);
    }

    #[test]
    fn below_zero() {
        let values = [-5.0, -3.0, -0.3, 0.0, 0.7];
        let histogram = observed(2, &values);
        let mut window = Window::default();
        window.show(&histogram);
        let bounds = cumulative(&histogram, window);
        assert_eq!(bounds[0].0, -4.0);
        for (bound, count) in bounds {
            let truth = values.iter().filter(|v| **v <= bound).count() as u64;
            assert_eq!(count, truth, "le {bound}");
        }
    }

    #[test]
    fn zeros_are_not_claimed_below_their_threshold() {
        let histogram = Exponential { zero_threshold: 0.5, ..observed(0, &[0.0, 2.5]) };
        let window = Window { positive: Some((-2, 2)), negative: None };
        let expected = [(0.25, 0), (0.5, 1), (1.0, 1), (2.0, 1), (4.0, 2)];
        assert_eq!(cumulative(&histogram, window), expected);
    }

    #[test]
    fn indexes_at_the_ends_of_their_range_stay_within_f64() {
        for scale in [i32::MIN, -11, 0, 20] {
            let buckets = BTreeMap::from([(i64::from(i32::MIN), 1), (i64::from(i32::MAX) + 9, 1)]);
            let histogram = Exponential {
                scale,
                count: 4,
                positive: buckets.clone(),
                negative: buckets,
                ..Default::default()
            };
            let mut window = Window::default();
            window.show(&histogram);
            let bounds = cumulative(&histogram, window);
            assert!(bounds.len() < 4300 && bounds.is_sorted_by(|a, b| a.0 < b.0), "scale {scale}");
        }
    }
}
