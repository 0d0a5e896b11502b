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
        let mut now = Timestamp::now();
        let mut aside = self.name(now);
        // A second within a millisecond must not replace the first.
        while aside.exists() {
            now += SignedDuration::from_millis(1);
            aside = self.name(now);
        }
        fs::rename(&self.path, &aside)
            .with_context(|| format!("{} to {}", self.path.display(), aside.display()))?;
        if let Err(error) = self.remove(now) {
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

    fn remove(&self, now: Timestamp) -> Result<()> {
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let mut old = Vec::new();
        for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            old.extend(self.time(&entry.file_name()).map(|time| (time, entry.path())));
        }
        // The newest first.
        old.sort_unstable_by(|a, b| b.cmp(a));
        for (number, (time, path)) in (1..).zip(&old) {
            let too_many = self.max_backups > 0 && number > self.max_backups;
            let too_old = self.max_age.is_some_and(|age| now.duration_since(*time) > age);
            if too_many || too_old {
                fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}
