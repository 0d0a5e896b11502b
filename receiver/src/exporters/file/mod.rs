//! `file`: writes OTLP into a file, a block a line, as the Collector's exporter of that name does and
//! its `otlpjsonfile` receiver reads.
//!
//! A block goes to the kernel in one piece as soon as it comes: a process that dies leaves whole
//! lines, and what is counted as sent is in the file.

mod rotate;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use self::writer::Writer;
use super::{
    otlp::json,
    queue::{self, Failure, Sender, Sent},
    retry,
};
use crate::{
    batch::{Batch, Signal},
    channel::Input,
    component::{Component, Context, Exporter},
    config::Mistakes,
};

/// The configuration of `file`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Writes at the end of what is there already, instead of starting with an empty file.
    pub append: bool,
    /// When a new file is begun, and what becomes of the old ones. Without it there is one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How a block is written.
    pub format: Format,
    /// How a block is compressed.
    pub compression: Compression,
    /// Read for the sake of existing files: everything is written at once.
    #[serde(with = "crate::config::duration")]
    pub flush_interval: Duration,
    /// A file for each value of an attribute. There is none of that yet.
    pub group_by: GroupBy,
    /// Makes the directory of the file, if there is none.
    pub create_directory: bool,
    /// Who may do what with that directory, in octal.
    pub directory_permissions: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            append: false,
            rotation: None,
            format: Format::Json,
            compression: Compression::None,
            flush_interval: Duration::from_secs(1),
            group_by: GroupBy::default(),
            create_directory: false,
            directory_permissions: String::new(),
        }
    }
}

/// `rotation`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// The size, in MiB, that a file does not grow past; zero is 100.
    pub max_megabytes: u32,
    /// Days after which an old file is removed; zero is never.
    pub max_days: u32,
    /// Old files that are kept; zero is all.
    pub max_backups: u32,
    /// Names old files by this host's time, instead of UTC.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 0, max_days: 0, max_backups: 100, localtime: false }
    }
}

/// How a block is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum Format {
    /// A line of JSON.
    Json,
    /// Its length in four bytes, the highest first, then protobuf.
    Proto,
}

impl TryFrom<String> for Format {
    type Error = &'static str;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "json" => Ok(Self::Json),
            "proto" => Ok(Self::Proto),
            _ => Err("format type is not supported"),
        }
    }
}

/// How a block is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
pub enum Compression {
    /// With zstd, each block on its own, after its length in four bytes.
    #[serde(rename = "zstd")]
    Zstd,
    /// Not at all.
    #[serde(rename = "")]
    None,
}

impl TryFrom<String> for Compression {
    type Error = &'static str;
    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "zstd" => Ok(Self::Zstd),
            "" => Ok(Self::None),
            _ => Err("compression is not supported"),
        }
    }
}

/// `group_by`.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupBy {
    /// Turns it on.
    pub enabled: bool,
    /// The attribute.
    pub resource_attribute: String,
    /// Files that are open at once.
    pub max_open_files: u32,
}

impl Default for GroupBy {
    fn default() -> Self {
        let resource_attribute = "fileexporter.path_segment".to_owned();
        Self { enabled: false, resource_attribute, max_open_files: 100 }
    }
}

/// The exporter.
pub struct File {
    config: Config,
    permissions: u32,
    writer: Option<Writer>,
}

impl Component for File {
    const NAME: &'static str = "file";
    const DESCRIPTION: &'static str = "Writes OTLP into a file.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str =
        "path: /var/lib/fathom/telemetry.jsonl\nrotation:\n  max_megabytes: 100";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(!config.path.as_os_str().is_empty(), "path", "path must be non-empty");
        wrong.require(
            !config.append || config.compression == Compression::None,
            "append",
            "append and compression enabled at the same time is not supported",
        );
        wrong.require(
            !config.append || config.rotation.is_none(),
            "append",
            "append and rotation enabled at the same time is not supported",
        );
        wrong.require(!config.group_by.enabled, "group_by", "group_by is not supported");
        let permissions = match config.directory_permissions.as_str() {
            "" => Some(0o755),
            text => u32::from_str_radix(text, 8).ok(),
        };
        let key = "directory_permissions";
        match permissions {
            None => {
                wrong.add(key, "directory_permissions value must be a valid octal representation")
            }
            Some(bits) if bits > 0o777 => {
                wrong.add(key, "directory_permissions contain invalid bits for file access");
            }
            Some(_) => wrong.require(
                config.create_directory || config.directory_permissions.is_empty(),
                key,
                "directory_permissions requires create_directory to be true",
            ),
        }
        wrong.or(Self { config, permissions: permissions.unwrap_or_default(), writer: None })
    }
}

impl Exporter for File {
    async fn start(&mut self, _: &Context) -> Result<()> {
        let config = &self.config;
        if config.create_directory
            && let Some(directory) = config.path.parent()
        {
            writer::create_directory(directory, self.permissions)
                .with_context(|| format!("create_directory: {}", directory.display()))?;
        }
        self.writer = Some(Writer::open(config)?);
        Ok(())
    }

    async fn run(self, cx: Context, input: Input) -> Result<()> {
        let mut writer = self.writer.context("it was not started")?;
        writer.begin()?;
        let writer = Arc::new(Mutex::new(writer));
        let to =
            ToFile { writer, format: self.config.format, compression: self.config.compression };
        // A block that cannot be written is given up: the next may have better luck.
        let queue = queue::Config { enabled: false, ..Default::default() };
        let retry = retry::Config { enabled: false, ..Default::default() };
        queue::run(&cx, input, &queue, &retry, to).await;
        Ok(())
    }
}

/// Writes one block.
struct ToFile {
    writer: Arc<Mutex<Writer>>,
    format: Format,
    compression: Compression,
}

impl ToFile {
    /// A block as it stands in the file.
    fn record(&self, batch: &Batch) -> Result<Vec<u8>> {
        let mut block = match (self.format, batch) {
            (Format::Json, _) => json::write(batch)?,
            (Format::Proto, Batch::Metrics(request)) => request.encode_to_vec(),
            (Format::Proto, Batch::Logs(request)) => request.encode_to_vec(),
            (Format::Proto, Batch::Traces(request)) => request.encode_to_vec(),
        };
        if (self.format, self.compression) == (Format::Json, Compression::None) {
            block.push(b'\n');
            return Ok(block);
        }
        if self.compression == Compression::Zstd {
            block = zstd::bulk::compress(&block, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        }
        let length = u32::try_from(block.len()).context("a block of 4 GiB or more")?;
        let mut record = length.to_be_bytes().to_vec();
        record.append(&mut block);
        Ok(record)
    }
}

impl Sender for ToFile {
    type Kept = ();

    async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        let failed = |error: anyhow::Error| Failure::Permanent { reason: format!("{error:#}") };
        let record = self.record(batch).map_err(failed)?;
        let writer = self.writer.clone();
        // A disk may make its callers wait.
        let write = tokio::task::spawn_blocking(move || {
            writer.lock().unwrap_or_else(PoisonError::into_inner).write(&record)
        });
        write.await.context("writing").and_then(|result| result).map_err(failed)?;
        Ok(Sent::default())
    }
}

#[cfg(test)]
mod tests;
