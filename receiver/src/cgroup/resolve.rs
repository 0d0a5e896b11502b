//! Which cgroup has an id.
//!
//! The id is the inode number of the cgroup's directory, and a 64-bit kernel never gives one twice
//! (`kernfs_new_node` counts up for ever), so what is known of an id stays true when its cgroup has
//! been removed. Directories are read only when an id is asked for that nobody has asked for before.

use std::{
    fs, io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Cache, Identity};

/// The shortest time between two readings of the whole tree.
const BETWEEN: Duration = Duration::from_secs(1);

/// What is known of a cgroup.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Below the mount, beginning with `/`.
    pub path: String,
    /// What the path says.
    pub identity: Identity,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers from memory.
    pub hits: u64,
    /// Questions that memory could not answer.
    pub misses: u64,
    /// Cgroups forgotten for want of room.
    pub evicted: u64,
    /// Readings of the tree.
    pub walks: u64,
}

/// Finds the cgroup of an id, and remembers.
pub struct Resolver {
    root: PathBuf,
    /// `None`: the id is of no cgroup below the mount, and since ids do not come back, never will be.
    known: Cache<u64, Option<Arc<Known>>>,
    walked: Option<Instant>,
    counts: Counts,
}

impl Resolver {
    /// For the hierarchy mounted at `root`. Remembers at most `capacity` cgroups, and each for
    /// `stale_after` since it was last seen or asked for.
    pub fn new(root: impl Into<PathBuf>, capacity: usize, stale_after: Duration) -> Self {
        Self {
            root: root.into(),
            known: Cache::new(capacity, stale_after),
            walked: None,
            counts: Counts::default(),
        }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        Counts { evicted: self.known.evicted(), ..self.counts }
    }

    /// The cgroup with this id; `None` if there is none below the mount, or none was found yet. An
    /// error is about the mount as a whole.
    pub fn get(&mut self, id: u64, now: Instant) -> io::Result<Option<Arc<Known>>> {
        if let Some(known) = self.known.get(id, now) {
            self.counts.hits += 1;
            return Ok(known.clone());
        }
        self.counts.misses += 1;
        if self.walked.is_some_and(|walked| now.saturating_duration_since(walked) < BETWEEN) {
            return Ok(None);
        }
        self.walked = Some(now);
        self.walk(id, now)
    }

    fn walk(&mut self, wanted: u64, now: Instant) -> io::Result<Option<Arc<Known>>> {
        self.counts.walks += 1;
        let mut found = None;
        let complete = tree(&self.root, |id, path| {
            let full = self.known.is_full();
            match self.known.get(id, now) {
                // Version 1 lets a cgroup be renamed.
                Some(Some(known)) if known.path == path => return,
                None if full && id != wanted => return,
                _ => {}
            }
            let known = Known { path: path.to_owned(), identity: Identity::of_path(path) };
            let known = Some(Arc::new(known));
            if id == wanted {
                // Kept last, so that the rest of the tree cannot push it out.
                found = known;
            } else {
                self.known.insert(id, known, now);
            }
        })?;
        self.known.expire(now);
        if complete || found.is_some() {
            self.known.insert(wanted, found.clone(), now);
        }
        Ok(found)
    }
}

/// Calls `visit` with the id and the path of every cgroup. False if a part could not be read.
fn tree(root: &Path, mut visit: impl FnMut(u64, &str)) -> io::Result<bool> {
    visit(fs::metadata(root)?.ino(), "/");
    let mut complete = true;
    let mut left = vec![String::new()];
    while let Some(above) = left.pop() {
        let entries = match fs::read_dir(root.join(above.trim_start_matches('/'))) {
            Ok(entries) => entries,
            // Cgroups come and go while their tree is read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !above.is_empty() => continue,
            Err(error) if above.is_empty() => return Err(error),
            Err(_) => {
                complete = false;
                continue;
            }
        };
        for entry in entries {
            let Ok(entry) = entry else {
                complete = false;
                break;
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // kernfs reports in the directory what stat would say: no call per cgroup.
                let path = format!("{above}/{}", entry.file_name().to_string_lossy());
                visit(entry.ino(), &path);
                left.push(path);
            }
        }
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn directory(root: &Path, path: &str) -> u64 {
        let path = root.join(path);
        fs::create_dir_all(&path).expect("can be made");
        fs::metadata(path).expect("is there").ino()
    }

    fn path(resolver: &mut Resolver, id: u64, now: Instant) -> Option<String> {
        resolver.get(id, now).expect("the mount can be read").map(|known| known.path.clone())
    }

    #[test]
    fn one_walk_answers_for_every_cgroup() {
        let root = tempfile::tempdir().expect("a directory");
        let a = directory(root.path(), "a");
        let b = directory(root.path(), "a/b.service");
        let mut resolver = Resolver::new(root.path(), 10, GRACE);
        let now = Instant::now();
        assert_eq!(path(&mut resolver, b, now).as_deref(), Some("/a/b.service"));
        assert_eq!(path(&mut resolver, a, now).as_deref(), Some("/a"));
        let top = fs::metadata(root.path()).expect("is there").ino();
        assert_eq!(path(&mut resolver, top, now).as_deref(), Some("/"));
        let expected = Counts { hits: 2, misses: 1, evicted: 0, walks: 1 };
        assert_eq!(resolver.counts(), expected);
    }

    #[test]
    fn walks_are_rare_however_many_ids_are_unknown() {
        let root = tempfile::tempdir().expect("a directory");
        let mut resolver = Resolver::new(root.path(), 10, GRACE);
        let now = Instant::now();
        // No directory has these numbers.
        for id in u64::MAX - 100..u64::MAX {
            assert_eq!(path(&mut resolver, id, now), None);
        }
        assert_eq!(resolver.counts().walks, 1);
        // Created after the walk: known when the next is allowed.
        let late = directory(root.path(), "late");
        assert_eq!(path(&mut resolver, late, now), None);
        assert_eq!(path(&mut resolver, late, now + BETWEEN).as_deref(), Some("/late"));
        // An id that a whole walk did not find is not looked for again.
        let later = now + 2 * BETWEEN;
        assert_eq!(path(&mut resolver, u64::MAX - 100, later), None);
        assert_eq!(resolver.counts().walks, 2);
    }

    #[test]
    fn a_removed_cgroup_is_remembered_for_a_while() {
        let root = tempfile::tempdir().expect("a directory");
        let (old, now) = (directory(root.path(), "old"), Instant::now());
        let mut resolver = Resolver::new(root.path(), 10, GRACE);
        assert_eq!(path(&mut resolver, old, now).as_deref(), Some("/old"));
        fs::remove_dir(root.path().join("old")).expect("can be removed");
        let later = now + GRACE / 2;
        assert_eq!(path(&mut resolver, u64::MAX, later), None, "this walk sees it gone");
        assert_eq!(path(&mut resolver, old, later).as_deref(), Some("/old"));
        assert_eq!(path(&mut resolver, u64::MAX - 1, later + GRACE), None, "this walk forgets it");
        assert_eq!(path(&mut resolver, old, later + GRACE), None);
    }

    #[test]
    fn no_more_is_remembered_than_was_allowed() {
        let root = tempfile::tempdir().expect("a directory");
        let ids: Vec<_> = (0..5).map(|n| directory(root.path(), &n.to_string())).collect();
        let mut resolver = Resolver::new(root.path(), 3, GRACE);
        let mut now = Instant::now();
        for (n, id) in ids.iter().enumerate().cycle().take(20) {
            now += BETWEEN;
            assert_eq!(path(&mut resolver, *id, now), Some(format!("/{n}")));
        }
        assert!(resolver.counts().evicted > 0);
    }

    #[test]
    fn a_mount_that_is_not_there_is_an_error() {
        assert!(Resolver::new("/no/such/mount", 1, GRACE).get(1, Instant::now()).is_err());
    }
}
