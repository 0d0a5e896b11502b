//! Pages that are swapped in and out. No event says so; the kernel counts it itself, and that is read with each
//! collection.

use std::{collections::BTreeMap, path::PathBuf};

use super::kept::{self, Kept, Meant, Of};
use crate::metric::{About, Attribute, Kind, Metric, Points};

/// Every metric in this file.
pub(super) const METRICS: &[Metric] = &[SWAPPED];

const DIRECTION: Attribute = Attribute {
    name: "system.paging.direction",
    description: "`in`: read back from a swap device; `out`: written to one",
};

const SWAPPED: Metric = Metric {
    name: "ebpf.memory.swapped",
    unit: "{page}",
    kind: Kind::Counter,
    description: "Pages that were read from swap devices and written to them, for the scope's cgroups, or for the host if it \
                  names none. A task that touches what is out waits as for a read.",
    caveat: "Pages of zeros and those that zswap keeps compressed are not in it: they go to no device. With the scope's \
             cgroups, points carry `cgroup.id`, and Linux before 6.12, or a memory controller of version 1, does not count \
             it for them: then it is absent. What was before the agent started, or found the cgroup, does not count.",
    attributes: &[DIRECTION],
};

/// Lines of the files with the values of the attribute.
const LINES: [(&str, &str); 2] = [("pswpin ", "in"), ("pswpout ", "out")];

/// What has been read so far.
pub(super) struct Swap(Kept<usize>);

impl Swap {
    /// Takes the first reading: what has been until now does not count.
    pub(super) fn new(meant: Meant<'_>) -> Self {
        let mut swap = Self(Kept::new());
        let totals = Self::totals(meant);
        swap.0.take(&totals);
        swap
    }

    /// Reads all files.
    pub(super) fn read(&mut self, meant: Meant<'_>, points: &mut Points<'_>) {
        let totals = Self::totals(meant);
        for (about, line, pages) in self.0.take(&totals) {
            points.about(about);
            points.counter(&SWAPPED, &[(DIRECTION.name, LINES[line].1)], pages);
        }
        points.about(About::default());
    }

    fn totals(meant: Meant<'_>) -> BTreeMap<(Of, usize), u64> {
        let files: Vec<(Of, PathBuf)> = match meant {
            None => vec![(Of::Host, PathBuf::from("/proc/vmstat"))],
            Some(cgroups) => cgroups
                .iter()
                .map(|(id, path)| (Of::Cgroup(*id), path.join("memory.stat")))
                .collect(),
        };
        let mut totals = BTreeMap::new();
        for (of, file) in files {
            let Some(text) = kept::file(&file, "swapping") else { continue };
            let found = parse(&text);
            if found.is_empty() {
                let why = format!("{} does not count it on this kernel", file.display());
                kept::missing("swapping", &why);
            }
            totals.extend(found.into_iter().map(|(line, pages)| ((of, line), pages)));
        }
        totals
    }
}

/// Lines such as `pswpin 1234`.
fn parse(text: &str) -> Vec<(usize, u64)> {
    let lines = text.lines().filter_map(|line| {
        let at = LINES.iter().position(|(name, _)| line.starts_with(name))?;
        Some((at, line[LINES[at].0.len()..].trim().parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_found() {
        let text = "pgpgin 5\npswpin 12\npswpout 34\npswpout_other 7\nzswpin 9\n";
        assert_eq!(parse(text), [(0, 12), (1, 34)]);
        assert_eq!(parse("anon 1\n"), []);
    }

    #[test]
    fn what_counts_no_swapping_is_named_once() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("memory.stat"), "anon 1\n").expect("a file");
        let cgroups = BTreeMap::from([(7, directory.path().to_owned())]);
        // A reload makes another.
        for _ in 0..2 {
            assert_eq!(Swap::new(Some(&cgroups)).0.begun(), 0);
            assert!(Swap::totals(Some(&cgroups)).is_empty());
        }
        assert_eq!(kept::said(&directory.path().display().to_string()), 1);
        assert_eq!(Swap::new(None).0.begun(), LINES.len());
    }
}
