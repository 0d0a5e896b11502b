//! `file`: writes OTLP into a file, a block a line, as the Collector's exporter of that name does and
//! its `otlpjsonfile` receiver reads.
//!
//! A block goes to the kernel in one piece as soon as it comes: a process that dies leaves whole
//! lines, and what is counted as sent is in the file.

mod config;
mod group;
mod rotate;
mod writer;

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use prost::Message as _;

pub use self::config::{Compression, Config, Format, Rotation};
use self::{group::Groups, writer::Writer};
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

/// The exporter.
pub struct File {
    config: Config,
    permissions: u32,
    files: Option<Files>,
}

/// Where blocks go.
enum Files {
    /// Into this file.
    One(Writer),
    /// Into a file for each value of an attribute.
    Groups(Groups),
}

impl Component for File {
    const NAME: &'static str = "file";
    const DESCRIPTION: &'static str = "Writes OTLP into a file.";
    const SIGNALS: &'static [Signal] = &Signal::ALL;
    const EXAMPLE: &'static str =
        "path: /var/lib/fathom/telemetry.jsonl\nrotation:\n  max_megabytes: 100";
    type Config = Config;

    fn new(config: Config) -> Result<Self, Mistakes> {
        let permissions = config.check()?;
        Ok(Self { config, permissions, files: None })
    }
}

impl Exporter for File {
    async fn start(&mut self, cx: &Context) -> Result<()> {
        let config = &self.config;
        if config.group_by.enabled {
            self.files = Some(Files::Groups(Groups::new(config, self.permissions)));
            return Ok(());
        }
        if config.create_directory
            && let Some(directory) = config.path.parent()
        {
            writer::create_directory(directory, self.permissions)
                .with_context(|| format!("create_directory: {}", directory.display()))?;
        }
        let mut writer = Writer::open(config, &config.path)?;
        // What the one wrote that a reload puts this in the place of is no file of an earlier run.
        if cx.heritage.promised::<Written>().is_some_and(|before| *before == self.written()) {
            writer.keep();
        }
        self.files = Some(Files::One(writer));
        Ok(())
    }

    fn run(self, cx: Context, input: Input) -> impl Future<Output = Result<()>> + Send {
        cx.heritage.promise(self.written());
        self.work(cx, input)
    }
}

/// A file, and the form of what is in it.
type Written = (PathBuf, Format, Compression);

impl File {
    fn written(&self) -> Written {
        (self.config.path.clone(), self.config.format, self.config.compression)
    }

    async fn work(self, cx: Context, input: Input) -> Result<()> {
        let mut files = self.files.context("it was not started")?;
        if let Files::One(writer) = &mut files {
            writer.begin()?;
        }
        let to = ToFile {
            files: Arc::new(Mutex::new(files)),
            form: Form {
                format: self.config.format,
                compression: self.config.compression,
                level: self.config.compression_params.level,
            },
        };
        // A block that cannot be written is given up: the next may have better luck.
        let queue = queue::Config { enabled: false, ..Default::default() };
        let retry = retry::Config { enabled: false, ..Default::default() };
        queue::run(&cx, input, &queue, &retry, to).await;
        Ok(())
    }
}

/// Writes blocks.
struct ToFile {
    files: Arc<Mutex<Files>>,
    form: Form,
}

/// How a block is written.
#[derive(Clone, Copy)]
struct Form {
    format: Format,
    compression: Compression,
    level: i32,
}

impl Form {
    /// A block as it stands in the file.
    fn record(self, batch: &Batch) -> Result<Vec<u8>> {
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
            // 0 is the algorithm's own default.
            block = zstd::bulk::compress(&block, self.level.clamp(0, 22))?;
        }
        let length = u32::try_from(block.len()).context("a block of 4 GiB or more")?;
        let mut record = length.to_be_bytes().to_vec();
        record.append(&mut block);
        Ok(record)
    }
}

impl Files {
    /// Writes a block; what of it has no place is rejected.
    fn write(&mut self, batch: &Batch, form: Form) -> Result<Sent> {
        match self {
            Self::One(writer) => writer.write(&form.record(batch)?).map(|()| Sent::default()),
            Self::Groups(groups) => {
                let items = batch.items();
                let (mut written, mut failed) = (0, None);
                for (segment, part) in groups.parts(batch) {
                    let mut write = || groups.writer(&segment)?.write(&form.record(&part)?);
                    match write() {
                        Ok(()) => written += part.items(),
                        Err(error) => failed = Some(error),
                    }
                }
                match failed {
                    Some(error) if written == 0 => Err(error),
                    failed => {
                        if let Some(error) = failed {
                            tracing::error!("{error:#}");
                        }
                        Ok(Sent { rejected: items - written })
                    }
                }
            }
        }
    }
}

impl Sender for ToFile {
    type Kept = ();

    async fn send(&self, batch: &Batch, _: &mut ()) -> Result<Sent, Failure> {
        let failed = |error: anyhow::Error| Failure::Permanent { reason: format!("{error:#}") };
        let (files, form, batch) = (self.files.clone(), self.form, batch.clone());
        // A disk may make its callers wait.
        let write = tokio::task::spawn_blocking(move || {
            files.lock().unwrap_or_else(PoisonError::into_inner).write(&batch, form)
        });
        write.await.context("writing").and_then(|result| result).map_err(failed)
    }
}

#[cfg(test)]
mod tests;
