//! The keys of `file`, and what is wrong with them.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    config::{Mistakes, Signed},
    exporters::otlp::compression::{self, Params},
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
    #[serde(
        deserialize_with = "named",
        alias = "rotation:null",
        skip_serializing_if = "Option::is_none"
    )]
    pub rotation: Option<Rotation>,
    /// How a block is written.
    pub format: Format,
    /// An extension that would write blocks in some other form. There is none: see `format`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// How a block is compressed.
    pub compression: Compression,
    /// How hard it is compressed.
    pub compression_params: Params,
    /// Read for the sake of existing files: everything is written at once.
    pub flush_interval: Signed,
    /// A file for each value of an attribute, which stands for the `*` in `path`.
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
            encoding: None,
            compression: Compression::None,
            compression_params: Params::default(),
            flush_interval: Duration::from_secs(1).into(),
            group_by: GroupBy::default(),
            create_directory: false,
            directory_permissions: String::new(),
        }
    }
}

/// On as soon as it is named.
fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rotation>, D::Error> {
    Option::deserialize(deserializer).map(|given| Some(given.unwrap_or_default()))
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
    /// The attribute of resources. What comes from one without it is dropped.
    pub resource_attribute: String,
    /// Files that are open at once.
    pub max_open_files: i64,
}

impl Default for GroupBy {
    fn default() -> Self {
        let resource_attribute = "fileexporter.path_segment".to_owned();
        Self { enabled: false, resource_attribute, max_open_files: 100 }
    }
}

impl Config {
    /// Checks what types cannot say, and reads the permissions of directories.
    pub fn check(&self) -> Result<u32, Mistakes> {
        let mut wrong = Mistakes::default();
        wrong.require(!self.path.as_os_str().is_empty(), "path", "path must be non-empty");
        wrong.require(
            !self.append || self.rotation.is_none(),
            "append",
            "append and rotation enabled at the same time is not supported",
        );
        let message = "flush_interval must be larger than zero";
        wrong.require(!self.flush_interval.is_negative(), "flush_interval", message);
        if let Some(id) = &self.encoding {
            wrong.add(
                "encoding",
                format!(
                    "unknown encoding extension {id:?}: there are no such extensions; leave the key \
                     out, and choose the form by `format`, json or proto"
                ),
            );
        }
        if self.compression == Compression::Zstd {
            wrong.nest("", compression::Compression::Zstd.check_params(&self.compression_params));
        }
        wrong.nest("", self.group_by.check(&self.path.to_string_lossy()));
        let permissions = match self.directory_permissions.as_str() {
            "" => Some(0o755),
            text => u32::from_str_radix(text, 8).ok(),
        };
        let key = "directory_permissions";
        match permissions {
            None => {
                wrong.add(key, "directory_permissions value must be a valid octal representation");
            }
            Some(bits) if bits > 0o777 => {
                wrong.add(key, "directory_permissions contain invalid bits for file access");
            }
            Some(_) => wrong.require(
                self.create_directory || self.directory_permissions.is_empty(),
                key,
                "directory_permissions requires create_directory to be true",
            ),
        }
        wrong.or(permissions.unwrap_or_default())
    }

    /// Whether a block is a line of text, and not something after its length.
    pub fn is_lines(&self) -> bool {
        (self.format, self.compression) == (Format::Json, Compression::None)
    }
}

impl GroupBy {
    fn check(&self, path: &str) -> Mistakes {
        let mut wrong = Mistakes::default();
        if !self.enabled {
            return wrong;
        }
        if path.matches('*').count() != 1 {
            wrong.add("path", "path must contain exactly one * when group_by is enabled");
        } else {
            let message = "path must not start with * when group_by is enabled";
            wrong.require(!path.starts_with('*'), "path", message);
        }
        wrong.require(
            !self.resource_attribute.is_empty(),
            "group_by::resource_attribute",
            "resource_attribute must not be empty when group_by is enabled",
        );
        wrong.require(
            self.max_open_files > 0,
            "group_by::max_open_files",
            "max_open_files must provide a positive size when group_by is enabled",
        );
        wrong
    }
}
