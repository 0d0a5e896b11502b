//! `compression` of requests.

use std::io::Write as _;

use flate2::write::{GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// How requests are compressed. All names that the Collector knows are read; which of them an
/// exporter can speak is its own to check.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum Compression {
    /// gzip.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// zlib.
    Zlib,
    /// zlib, under HTTP's misleading name for it.
    Deflate,
    /// snappy, block by block.
    Snappy,
    /// snappy, as a stream.
    #[serde(rename = "x-snappy-framed")]
    SnappyFramed,
    /// lz4.
    Lz4,
    /// Not at all.
    None,
}

impl TryFrom<String> for Compression {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.as_str() {
            "gzip" => Self::Gzip,
            "zstd" => Self::Zstd,
            "zlib" => Self::Zlib,
            "deflate" => Self::Deflate,
            "snappy" => Self::Snappy,
            "x-snappy-framed" => Self::SnappyFramed,
            "lz4" => Self::Lz4,
            "none" | "" => Self::None,
            _ => {
                return Err(format!(
                    "unsupported compression type {name:?}, valid are: gzip, zstd, zlib, deflate, none"
                ));
            }
        })
    }
}

/// `compression_params`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The effort; 0 is the algorithm's own default.
    pub level: i32,
}

impl Compression {
    /// The name, in configurations and in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Zlib => "zlib",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::SnappyFramed => "x-snappy-framed",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }

    /// Refuses what is not among the `spoken`.
    pub fn check(self, spoken: &[Self]) -> Mistakes {
        let mut wrong = Mistakes::default();
        if !spoken.contains(&self) {
            let spoken: Vec<_> = spoken.iter().map(|one| one.name()).collect();
            wrong.add(
                "compression",
                format!(
                    "unsupported compression type {:?}, valid are: {}",
                    self.name(),
                    spoken.join(", ")
                ),
            );
        }
        wrong
    }

    /// Refuses a level that the algorithm does not have.
    pub fn check_params(self, params: &Params) -> Mistakes {
        let mut wrong = Mistakes::default();
        let has_it = match self {
            Self::Gzip | Self::Zlib | Self::Deflate => (-1..=9).contains(&params.level),
            Self::Zstd => true,
            _ => params.level == 0,
        };
        if !has_it {
            wrong.add(
                "compression_params::level",
                format!(
                    "unsupported parameters {{Level:{}}} for compression type {:?}",
                    params.level,
                    self.name()
                ),
            );
        }
        wrong
    }

    /// `plain`, compressed.
    pub fn compress(self, params: &Params, plain: Vec<u8>) -> std::io::Result<Vec<u8>> {
        let level = match u32::try_from(params.level) {
            Ok(level @ 1..) => flate2::Compression::new(level),
            _ => flate2::Compression::default(),
        };
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(&plain)?;
                encoder.finish()
            }
            Self::Zlib | Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(&plain)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(&plain, params.level.clamp(0, 22)),
            Self::None => Ok(plain),
            // Refused when the configuration was read.
            Self::Snappy | Self::SnappyFramed | Self::Lz4 => {
                Err(std::io::Error::other(format!("no {} compression", self.name())))
            }
        }
    }
}
