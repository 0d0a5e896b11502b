//! Old files: how they are named, and when they go. As the Collector's library for it does:
//! `metrics.json` becomes `metrics-2026-01-31T12-30-00.000-size.json`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use super::Rotation;

/// How a file's name says when it was put aside.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
/// Why it was: it had its size.
const REASON: &str = "-size";
const MIB: u64 = 1024 * 1024;
const DEFAULT_MEGABYTES: u32 = 100;

/// The old files of one that is rotated.
pub struct Backups {
    /// What a file does not grow past.
    pub max_bytes: u64,
    path: PathBuf,
    /// The name up to the time, and what comes after it.
    stem: String,
    extension: String,
    max_age: Option<SignedDuration>,
    max_backups: usize,
    zone: TimeZone,
}

impl Backups {
    /// Those of the file at `path`.
    pub fn new(path: &Path, rotation: &Rotation) -> Self {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let megabytes = match rotation.max_megabytes {
            0 => DEFAULT_MEGABYTES,
            given => given,
        };
        let extension = match text(path.extension()) {
            extension if extension.is_empty() => extension,
            extension => format!(".{extension}"),
        };
        Self {
            max_bytes: u64::from(megabytes) * MIB,
            path: path.to_owned(),
            stem: format!("{}-", text(path.file_stem())),
            extension,
            max_age: (rotation.max_days > 0)
                .then(|| SignedDuration::from_hours(24 * i64::from(rotation.max_days))),
            max_backups: usize::try_from(rotation.max_backups).unwrap_or(usize::MAX),
            zone: if rotation.localtime { TimeZone::system() } else { TimeZone::UTC },
        }
    }

    /// Puts the file aside, and removes the old ones that are too many or too old.
    pub fn rotate(&self) -> Result<()> {
        let old = self.old();
        let mut now = Timestamp::now();
        // What comes within the same millisecond, or after the clock was set back, is the newest nevertheless.
        if let Ok([(newest, _), ..]) = old.as_deref() {
            now = now.max(*newest + SignedDuration::from_millis(1));
        }
        let aside = self.name(now);
        fs::rename(&self.path, &aside)
            .with_context(|| format!("{} to {}", self.path.display(), aside.display()))?;
        if let Err(error) = old.and_then(|old| self.remove(old, now)) {
            tracing::error!("rotation: {error:#}");
        }
        Ok(())
    }

    fn name(&self, time: Timestamp) -> PathBuf {
        let time = time.to_zoned(self.zone.clone()).strftime(TIME).to_string();
        self.path.with_file_name(format!("{}{time}{REASON}{}", self.stem, self.extension))
    }

    /// When the file of that name was put aside, if it is one of these.
    fn time(&self, name: &OsString) -> Option<Timestamp> {
        let name = name.to_str()?.strip_prefix(&self.stem)?.strip_suffix(&self.extension)?;
        let time = DateTime::strptime(TIME, name.strip_suffix(REASON)?).ok()?;
        Some(time.to_zoned(self.zone.clone()).ok()?.timestamp())
    }

    /// Those that there are, the newest first.
    fn old(&self) -> Result<Vec<(Timestamp, PathBuf)>> {
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let mut old = Vec::new();
        for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            old.extend(self.time(&entry.file_name()).map(|time| (time, entry.path())));
        }
        old.sort_unstable_by(|a, b| b.cmp(a));
        Ok(old)
    }

    /// Removes those of `old` that are too many beside the one that has just come, or too old.
    fn remove(&self, old: Vec<(Timestamp, PathBuf)>, now: Timestamp) -> Result<()> {
        for (number, (time, path)) in (2..).zip(old) {
            let too_many = self.max_backups > 0 && number > self.max_backups;
            let too_old = self.max_age.is_some_and(|age| now.duration_since(time) > age);
            if too_many || too_old {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_aside_last_stays_whatever_the_clock_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out.json");
        let rotation = Rotation { max_backups: 2, ..Rotation::default() };
        let backups = Backups::new(&path, &rotation);
        // The clock was an hour ahead, or more rotations than there are milliseconds.
        let ahead = Timestamp::now() + SignedDuration::from_hours(1);
        fs::write(backups.name(ahead), "0").expect("written");
        for number in 1..9 {
            fs::write(&path, number.to_string()).expect("written");
            backups.rotate().expect("rotated");
        }
        let old = backups.old().expect("listed");
        let held: Vec<_> = old.iter().filter_map(|(_, at)| fs::read_to_string(at).ok()).collect();
        assert_eq!(held, ["8", "7"]);
    }
}
