//! Which groups live, and which have ended since they were last seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use abi::{group::Group, scope::NANOS_PER_TICK};

use super::groups::Owner;
use crate::ebpf::{group::GroupBy, process};

/// How often it is asked which cgroups exist.
const ASKED: Duration = Duration::from_secs(10);
/// Processes whose start is looked at in each collection, in turn: a number that is in use may be that of
/// a later process.
const CHECKED: usize = 128;
/// Ended cgroups that are remembered.
const REMEMBERED: usize = 65_536;

/// Who lives, as of this collection.
#[derive(Default)]
pub(super) struct Living {
    /// The groups that the last collection found in any map, ascending.
    known: Vec<Group>,
    /// Those that this one has found, some of them more than once.
    found: Vec<Group>,
    /// The known ones that have ended since.
    ended: BTreeSet<Group>,
    /// Cgroups that have ended; something may still happen to the pages that they leave behind.
    gone: BTreeSet<Group>,
    /// Where the directories of cgroups are that were known when all were listed.
    directories: BTreeMap<u64, PathBuf>,
    cgroups_asked: Option<Instant>,
    /// The last process whose start was looked at.
    checked: Option<Group>,
}

impl Living {
    /// Begins a collection: finds out which of the known groups have ended. They were known before it is
    /// asked who lives, so none of them is new; and who has ended counts no more.
    pub(super) fn begin(&mut self, by: GroupBy, mounts: &[PathBuf]) {
        self.known = mem::take(&mut self.found);
        self.known.sort_unstable();
        self.known.dedup();
        self.known.shrink_to_fit();
        self.ended.clear();
        if self.known.is_empty() {
            return;
        }
        match by {
            GroupBy::Host => {}
            GroupBy::Process => self.processes(),
            GroupBy::Cgroup => self.cgroups(mounts),
        }
    }

    /// Whose a group's cells are.
    pub(super) fn owner(&mut self, group: Group) -> Owner {
        if self.ended.contains(&group) {
            Owner::Ended(group)
        } else if self.gone.contains(&group) {
            Owner::Other
        } else {
            self.found.push(group);
            Owner::Group(group)
        }
    }

    /// Goes on where another left off.
    pub(super) fn go_on(&mut self, from: &Self) {
        self.gone.extend(&from.gone);
        // They are looked at before the next reading, as if there had been no change.
        self.found.extend(&from.found);
    }

    fn processes(&mut self) {
        let ids = process::all();
        let after = self.checked.map_or(0, |g| g.id + 1);
        let mut replaced = BTreeSet::new();
        let last = self.known.last().copied();
        for group in self.known.iter().filter(|g| g.id >= after).take(CHECKED) {
            let ticks = process::start_ticks(group.id as u32);
            if ticks.is_some_and(|ticks| ticks != group.start / NANOS_PER_TICK) {
                replaced.insert(*group);
            }
            self.checked = Some(*group);
        }
        if self.checked >= last {
            self.checked = None;
        }
        let next = self.known.iter().skip(1).map(Some).chain([None]);
        self.ended = self
            .known
            .iter()
            .zip(next)
            // Of two with one number, the earlier has ended.
            .filter(|(g, next)| {
                !ids.contains(&(g.id as u32))
                    || replaced.contains(g)
                    || next.is_some_and(|next| next.id == g.id)
            })
            .map(|(g, _)| *g)
            .collect();
    }

    fn cgroups(&mut self, mounts: &[PathBuf]) {
        if self.cgroups_asked.is_some_and(|at| at.elapsed() < ASKED) {
            return;
        }
        self.cgroups_asked = Some(Instant::now());
        // Most are where they were. To list all takes some microseconds for each that the machine has.
        if self.known.iter().all(|group| self.is_where_it_was(group.id)) {
            return;
        }
        let wanted = self.known.iter().map(|group| group.id).collect();
        self.directories.clear();
        for mount in mounts {
            if let Ok(root) = fs::metadata(mount) {
                self.directories.insert(root.ino(), mount.clone());
            }
            list(mount, &wanted, &mut self.directories);
        }
        let lives = |group: &Group| self.directories.contains_key(&group.id);
        self.ended = self.known.iter().filter(|group| !lives(group)).copied().collect();
        self.gone.extend(&self.ended);
        while self.gone.len() > REMEMBERED {
            self.gone.pop_first();
        }
    }

    fn is_where_it_was(&self, id: u64) -> bool {
        let directory = self.directories.get(&id).map(fs::metadata);
        directory.is_some_and(|found| found.is_ok_and(|found| found.ino() == id))
    }
}

/// Finds the directories of cgroups below one: an entry's inode number is the cgroup's id.
fn list(directory: &Path, wanted: &BTreeSet<u64>, found: &mut BTreeMap<u64, PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if wanted.contains(&entry.ino()) {
                found.insert(entry.ino(), entry.path());
            }
            // Most have no directories, and dozens of files, which take long to list. One that is without has two links:
            // its name and its own `.` (kernfs_refresh_inode in fs/kernfs/inode.c).
            if entry.metadata().is_ok_and(|directory| directory.nlink() != 2) {
                list(&entry.path(), wanted, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_found_and_missed() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir(&path).expect("a directory");
            Group { id: fs::metadata(path).expect("it is there").ino(), start: 0 }
        };
        let (one, other) = (make("one"), make("one/other"));
        let mut living = Living::default();
        let mut ended = |seen: &[Group]| {
            living.cgroups_asked = None;
            living.found = seen.to_vec();
            living.begin(GroupBy::Cgroup, &[root.path().to_owned()]);
            living.ended.iter().copied().collect::<Vec<_>>()
        };
        assert_eq!(ended(&[other, one]), []);
        let late = make("late");
        assert_eq!(ended(&[one, other, late]), []);
        assert_eq!(ended(&[one, other, late]), []);
        fs::remove_dir(root.path().join("one/other")).expect("removed");
        assert_eq!(ended(&[one, other, late]), [other]);
        assert_eq!(living.owner(other), Owner::Ended(other));
        assert_eq!(living.owner(one), Owner::Group(one));
        living.begin(GroupBy::Cgroup, &[]);
        assert_eq!(living.owner(other), Owner::Other);
    }
}
