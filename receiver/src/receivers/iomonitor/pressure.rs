//! Pressure stall information: how long tasks waited for a resource. The kernel counts it itself
//! (Documentation/accounting/psi.rst); it is read with each collection.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::kept::{self, Kept, Meant, Of};
use crate::metric::{About, Attribute, Kind, Metric, Points};

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

/// A resource and a share by their places.
type Series = (usize, usize);

/// What has been read so far.
pub(super) struct Pressure(Kept<Series>);

impl Pressure {
    /// Takes the first reading: what has been until now does not count.
    pub(super) fn new(meant: Meant<'_>) -> Self {
        let mut pressure = Self(Kept::new());
        let totals = Self::totals(meant);
        pressure.0.take(&totals);
        pressure
    }

    /// Reads all files.
    pub(super) fn read(&mut self, meant: Meant<'_>, points: &mut Points<'_>) {
        let totals = Self::totals(meant);
        for (about, (resource, share), micros) in self.0.take(&totals) {
            points.about(about);
            let attributes = [(RESOURCE.name, RESOURCES[resource]), (SHARE.name, SHARES[share])];
            points.seconds(&STALL, &attributes, Duration::from_micros(micros));
        }
        points.about(About::default());
    }

    /// What the files say, in µs.
    fn totals(meant: Meant<'_>) -> BTreeMap<(Of, Series), u64> {
        let mut totals = BTreeMap::new();
        let targets: Vec<(Of, &Path, &str)> = match meant {
            None => vec![(Of::Host, Path::new("/proc/pressure"), "")],
            Some(cgroups) => cgroups
                .iter()
                .map(|(id, path)| (Of::Cgroup(*id), path.as_path(), ".pressure"))
                .collect(),
        };
        for (of, directory, suffix) in targets {
            for (resource, name) in RESOURCES.iter().enumerate() {
                let file = directory.join(format!("{name}{suffix}"));
                let text = kept::file(&file, "pressure").unwrap_or_default();
                for (share, total) in parse(&text) {
                    totals.insert((of, (resource, share)), total);
                }
            }
        }
        totals
    }
}

/// Lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`, in µs.
fn parse(text: &str) -> Vec<(usize, u64)> {
    let lines = text.lines().filter_map(|line| {
        let (share, numbers) = line.split_once(' ')?;
        let share = SHARES.iter().position(|known| *known == share)?;
        let total = numbers.split(' ').find_map(|number| number.strip_prefix("total="))?;
        Some((share, total.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn totals_are_found() {
        let text = "some avg10=1.23 avg60=0.10 avg300=0.00 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(parse(text), [(0, 1_500_000), (1, 7)]);
        // Kernels before 5.13 have no second line for the CPU.
        assert_eq!(parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=0"), [(0, 0)]);
    }

    #[test]
    fn what_has_no_pressure_is_named_once() {
        let cgroups = BTreeMap::from([(7, PathBuf::from("/proc/self"))]);
        // A reload makes another.
        for _ in 0..2 {
            assert_eq!(Pressure::new(Some(&cgroups)).0.begun(), 0);
            assert!(Pressure::totals(Some(&cgroups)).is_empty());
        }
        assert_eq!(kept::said("cannot read /proc/self/"), RESOURCES.len());
        assert_eq!(Pressure::new(Some(&BTreeMap::new())).0.begun(), 0);
    }
}
