//! Pressure stall information: how long tasks waited for a resource. The kernel counts it itself
//! (Documentation/accounting/psi.rst); it is read with each collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tracing::warn;

use crate::metric::{About, Attribute, Kind, Metric, Points, key_value, nanos};

/// Every metric in this file.
pub(super) const METRICS: &[Metric] = &[STALL];

const RESOURCE: Attribute =
    Attribute { name: "ebpf.pressure.resource", description: "`cpu`, `memory` or `io`" };
const SHARE: Attribute = Attribute {
    name: "ebpf.pressure.share",
    description: "`some`: time in which at least one task waited; `full`: in which none that was not idle could run",
};

const STALL: Metric = Metric {
    name: "ebpf.pressure.stall.time",
    unit: "s",
    kind: Kind::Counter,
    description: "Time in which tasks of the scope's cgroups, or of the host if it names none, waited for a resource \
                  (pressure stall information).",
    caveat: "Time, not the sum of the tasks' waiting: two that wait at once count once. The kernel does not define \
             `full` of the host's cpu, and shows 0. With the scope's cgroups, points carry `cgroup.id`. What \
             was before the agent started, or found the cgroup, does not count.",
    attributes: &[RESOURCE, SHARE],
};

const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
const SHARES: [&str; 2] = ["some", "full"];

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Host,
    Cgroup(u64),
}

/// A series: whose, the resource and the share by their places.
type Series = (Of, usize, usize);

/// Where a series began.
struct Begin {
    total: Duration,
    at: u64,
}

/// The cgroups that are meant at the moment, by their ids; `None`: the host.
pub(super) type Meant<'a> = Option<&'a BTreeMap<u64, PathBuf>>;

/// What has been read so far.
#[derive(Default)]
pub(super) struct Pressure {
    begins: BTreeMap<Series, Begin>,
    reported: BTreeSet<PathBuf>,
}

impl Pressure {
    /// Takes the first reading: what has been until now does not count.
    pub(super) fn new(meant: Meant<'_>) -> Self {
        let mut pressure = Self::default();
        pressure.totals(meant);
        pressure
    }

    /// Reads all files.
    pub(super) fn read(&mut self, meant: Meant<'_>, points: &mut Points<'_>) {
        let totals = self.totals(meant);
        let begins = &mut self.begins;
        begins.retain(|series, begin| {
            let total = totals.get(series);
            let (of, resource, share) = *series;
            points.about(about(of, begin.at, total.is_none()));
            let attributes = [(RESOURCE.name, RESOURCES[resource]), (SHARE.name, SHARES[share])];
            let stalled = total.map(|total| total.saturating_sub(begin.total));
            points.seconds(&STALL, &attributes, stalled.unwrap_or_default());
            total.is_some()
        });
        points.about(About::default());
    }

    /// What the files say, those that are read for the first time being remembered.
    fn totals(&mut self, meant: Meant<'_>) -> BTreeMap<Series, Duration> {
        let mut totals = BTreeMap::new();
        let targets: Vec<(Of, &Path, &str)> = match meant {
            None => vec![(Of::Host, Path::new("/proc/pressure"), "")],
            Some(cgroups) => cgroups
                .iter()
                .map(|(id, path)| (Of::Cgroup(*id), path.as_path(), ".pressure"))
                .collect(),
        };
        let at = nanos(SystemTime::now());
        for (of, directory, suffix) in targets {
            for (resource, name) in RESOURCES.iter().enumerate() {
                let file = directory.join(format!("{name}{suffix}"));
                for (share, total) in self.file(&file) {
                    let series = (of, resource, share);
                    self.begins.entry(series).or_insert(Begin { total, at });
                    totals.insert(series, total);
                }
            }
        }
        totals
    }

    /// The totals in a file; says once why there are none.
    fn file(&mut self, path: &Path) -> Vec<(usize, Duration)> {
        match fs::read_to_string(path) {
            Ok(text) => parse(&text),
            Err(error) => {
                if self.reported.insert(path.to_owned()) {
                    warn!("No pressure of this: cannot read {}: {error}.", path.display());
                }
                Vec::new()
            }
        }
    }
}

fn about(of: Of, start: u64, ended: bool) -> About {
    match of {
        Of::Host => About { ended, ..About::default() },
        Of::Cgroup(id) => {
            let id = Value::IntValue(i64::try_from(id).unwrap_or(i64::MAX));
            About { attributes: vec![key_value("cgroup.id", id)], start, ended }
        }
    }
}

/// Lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`, in µs.
fn parse(text: &str) -> Vec<(usize, Duration)> {
    let lines = text.lines().filter_map(|line| {
        let (share, numbers) = line.split_once(' ')?;
        let share = SHARES.iter().position(|known| *known == share)?;
        let total = numbers.split(' ').find_map(|number| number.strip_prefix("total="))?;
        Some((share, Duration::from_micros(total.parse().ok()?)))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found() {
        let text = "some avg10=1.23 avg60=0.10 avg300=0.00 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(parse(text), [(0, Duration::from_millis(1_500)), (1, Duration::from_micros(7))]);
        // Kernels before 5.13 have no second line for the CPU.
        assert_eq!(parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=0"), [(0, Duration::ZERO)]);
    }

    #[test]
    fn what_has_no_pressure_is_named_once() {
        let cgroups = BTreeMap::from([(7, PathBuf::from("/proc/self"))]);
        let mut pressure = Pressure::new(Some(&cgroups));
        assert!(pressure.totals(Some(&cgroups)).is_empty());
        assert_eq!(pressure.reported.len(), RESOURCES.len());
        assert!(Pressure::new(Some(&BTreeMap::new())).begins.is_empty());
    }
}
