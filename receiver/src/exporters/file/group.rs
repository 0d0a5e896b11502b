//! `group_by`: a file for each value of an attribute of resources.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::any_value::Value,
    resource::v1::Resource,
};

use super::{
    Config,
    writer::{Writer, create_directory},
};
use crate::batch::Batch;

/// What the kernel's clock for files may be behind that of programs.
const COARSE: Duration = Duration::from_millis(20);

/// The files of all groups, of which a few are open.
pub struct Groups {
    config: Config,
    permissions: u32,
    /// The path up to the group's own part, and from there on.
    prefix: String,
    suffix: String,
    /// Those that are open, the one that was used last at the end.
    open: VecDeque<(PathBuf, Writer)>,
    /// A file that is older is from a run before this one.
    began: SystemTime,
}

impl Groups {
    /// None is opened before there is something to be written.
    pub fn new(config: &Config, permissions: u32) -> Self {
        let path = config.path.to_string_lossy();
        let (prefix, suffix) = path.split_once('*').unwrap_or((&path, ""));
        let slash = if prefix.ends_with('/') && prefix != "/" { "/" } else { "" };
        Self {
            prefix: clean(prefix) + slash,
            suffix: suffix.to_owned(),
            config: config.clone(),
            permissions,
            open: VecDeque::new(),
            began: SystemTime::now() - COARSE,
        }
    }

    /// The parts of a block by their groups. What belongs to none is in none.
    pub fn parts(&self, batch: &Batch) -> BTreeMap<String, Batch> {
        let segment = |resource: &Option<Resource>| {
            let attributes = resource.iter().flat_map(|resource| &resource.attributes);
            let wanted = |key: &str| key == self.config.group_by.resource_attribute;
            let found = attributes.into_iter().find(|attribute| wanted(&attribute.key))?;
            match found.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.clone()),
                _ => None,
            }
        };
        let mut parts = BTreeMap::<String, Batch>::new();
        let mut add = |segment: Option<String>, part: Batch| {
            let Some(segment) = segment else {
                tracing::debug!(
                    dropped_items = part.items(),
                    "Resource does not contain {} attribute, dropping it",
                    self.config.group_by.resource_attribute
                );
                return;
            };
            match parts.get_mut(&segment) {
                Some(held) => held.join(part),
                None => drop(parts.insert(segment, part)),
            }
        };
        match batch {
            Batch::Metrics(request) => request.resource_metrics.iter().for_each(|one| {
                let resource_metrics = vec![one.clone()];
                let part = Batch::Metrics(ExportMetricsServiceRequest { resource_metrics });
                add(segment(&one.resource), part);
            }),
            Batch::Logs(request) => request.resource_logs.iter().for_each(|one| {
                let resource_logs = vec![one.clone()];
                let part = Batch::Logs(ExportLogsServiceRequest { resource_logs });
                add(segment(&one.resource), part);
            }),
            Batch::Traces(request) => request.resource_spans.iter().for_each(|one| {
                let resource_spans = vec![one.clone()];
                let part = Batch::Traces(ExportTraceServiceRequest { resource_spans });
                add(segment(&one.resource), part);
            }),
        }
        parts
    }

    /// The file of a group.
    pub fn writer(&mut self, segment: &str) -> Result<&mut Writer> {
        let path = PathBuf::from(self.path(segment));
        let known = self.open.iter().position(|(open, _)| *open == path);
        let file = match known.and_then(|at| self.open.remove(at)) {
            Some(file) => file,
            None => {
                let writer = self.opened(&path)?;
                let most = usize::try_from(self.config.group_by.max_open_files).unwrap_or(1);
                while self.open.len() >= most.max(1) {
                    self.open.pop_front();
                }
                (path, writer)
            }
        };
        self.open.push_back(file);
        self.open.back_mut().map(|(_, writer)| writer).context("no file is open")
    }

    fn opened(&self, path: &Path) -> Result<Writer> {
        if let Some(directory) = path.parent() {
            create_directory(directory, self.permissions)
                .with_context(|| format!("create_directory: {}", directory.display()))?;
        }
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        let mut writer = Writer::open(&self.config, path)?;
        // One that was closed to make room for others goes on where it ended.
        if modified.is_ok_and(|modified| modified >= self.began) {
            writer.keep();
        }
        writer.begin()?;
        Ok(writer)
    }

    /// Where a group's file is: as in the Collector, nowhere that the configured path does not lead to.
    fn path(&self, segment: &str) -> String {
        let segment = match segment {
            text if text.starts_with("./") => &text[1..],
            text if text.starts_with("../") => &text[2..],
            text => text,
        };
        let Self { prefix, suffix, .. } = self;
        let path = clean(&format!("{prefix}{segment}{suffix}"));
        if path.starts_with(prefix.as_str()) {
            return path;
        }
        clean(&format!("{prefix}/{}", clean(&format!("/{segment}{suffix}"))))
    }
}

/// A path without `.`, `..` and empty parts, as far as they can be resolved without looking.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, parts) => format!("/{parts}"),
        (false, parts) if parts.is_empty() => ".".to_owned(),
        (false, parts) => parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_leads_out_of_the_configured_place() {
        for (path, segment, expected) in [
            ("./group/*.json", "one", "group/one.json"),
            ("./group/*.json", "a/b", "group/a/b.json"),
            ("./group/*.json", "./one", "group/one.json"),
            ("/logs/*.json", "../one", "/logs/one.json"),
            ("/logs/*.json", "../../etc/one", "/logs/etc/one.json"),
            ("/logs/*.json", "a/../../b", "/logs/b.json"),
            ("/logs/x-*.json", "/../../etc/one", "/logs/x-/etc/one.json"),
            ("/logs/*/all.json", "..", "/logs/all.json"),
            ("/logs/*.json", "", "/logs/.json"),
            ("/*", "../etc", "/etc"),
        ] {
            let config = Config { path: path.into(), ..Config::default() };
            assert_eq!(Groups::new(&config, 0).path(segment), expected, "{path} {segment}");
        }
    }
}
