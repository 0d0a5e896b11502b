//! `compression` of requests.

use std::io::{Error, Result as IoResult, Write as _};

use flate2::write::{GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// How requests over HTTP are compressed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from, extend("also" = [""]))]
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
    /// snappy, as one block.
    Snappy,
    /// snappy, as a stream.
    #[serde(rename = "x-snappy-framed")]
    SnappyFramed,
    /// lz4.
    Lz4,
    /// Not at all.
    None,
}

/// How requests over gRPC are compressed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", rename_all = "lowercase")]
#[schemars(!try_from, extend("also" = [""]))]
pub enum GrpcCompression {
    /// gzip.
    #[default]
    Gzip,
    /// snappy, as a stream.
    Snappy,
    /// zstd.
    Zstd,
    /// Not at all.
    None,
}

fn unsupported(name: &str, valid: impl Iterator<Item = &'static str>) -> String {
    let valid: Vec<_> = valid.collect();
    format!("unsupported compression type {name:?}, valid are: {}", valid.join(", "))
}

impl TryFrom<String> for Compression {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let known = || Self::ALL.into_iter();
        match name.as_str() {
            "" => Ok(Self::None),
            name => known()
                .find(|one| one.name() == name)
                .ok_or_else(|| unsupported(name, known().map(Self::name))),
        }
    }
}

impl TryFrom<String> for GrpcCompression {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.as_str() {
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "zstd" => Self::Zstd,
            "none" | "" => Self::None,
            name => return Err(unsupported(name, ["gzip", "snappy", "zstd", "none"].into_iter())),
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
    const ALL: [Self; 8] = [
        Self::Gzip,
        Self::Zstd,
        Self::Zlib,
        Self::Deflate,
        Self::Snappy,
        Self::SnappyFramed,
        Self::Lz4,
        Self::None,
    ];

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

    /// Refuses a level that the algorithm does not have.
    pub fn check_params(self, params: &Params) -> Mistakes {
        let mut wrong = Mistakes::default();
        let has_it = match self {
            Self::Gzip | Self::Zlib | Self::Deflate => (-2..=9).contains(&params.level),
            Self::Zstd | Self::None => true,
            Self::Snappy | Self::SnappyFramed | Self::Lz4 => params.level == 0,
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
    pub fn compress(self, params: &Params, plain: Vec<u8>) -> IoResult<Vec<u8>> {
        let level = match params.level {
            // Go's name for Huffman's codes alone, which is the least effort.
            -2 => flate2::Compression::fast(),
            level => match u32::try_from(level) {
                Ok(level @ 1..) => flate2::Compression::new(level),
                _ => flate2::Compression::default(),
            },
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
            Self::Snappy => Ok(snap::raw::Encoder::new().compress_vec(&plain)?),
            Self::SnappyFramed => snappy_framed(&plain),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&plain)?;
                encoder.finish().map_err(Error::other)
            }
            Self::None => Ok(plain),
        }
    }
}

/// `plain` as a stream of snappy.
pub fn snappy_framed(plain: &[u8]) -> IoResult<Vec<u8>> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(plain)?;
    encoder.into_inner().map_err(|error| Error::other(error.to_string()))
}
