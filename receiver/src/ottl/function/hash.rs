//! Hashes of texts, as hexadecimal digits.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::Digest;
use twox_hash::{XxHash3_64, XxHash3_128};

use super::{
    super::{compare::Any, hex},
    Arguments, expected, made, text,
};

type Value<'a> = Result<Any<'a>, String>;

fn hashed_with(mut arguments: Arguments<'_>, hash: impl Fn(&[u8]) -> String) -> Value<'_> {
    arguments.text().map(|text| made(hash(text.as_bytes())))
}

fn hashed<D: Digest>(arguments: Arguments<'_>) -> Value<'_> {
    hashed_with(arguments, |text| hex(&D::digest(text)))
}

pub(super) fn md5(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<md5::Md5>(arguments)
}

pub(super) fn sha1(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha1::Sha1>(arguments)
}

pub(super) fn sha256(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha2::Sha256>(arguments)
}

pub(super) fn sha512(arguments: Arguments<'_>) -> Value<'_> {
    hashed::<sha2::Sha512>(arguments)
}

/// FNV-1a of 64 bits.
pub(super) fn fnv(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(Any::Int(hash.cast_signed()))
}

pub(super) fn xxh3(arguments: Arguments<'_>) -> Value<'_> {
    hashed_with(arguments, |text| hex(&XxHash3_64::oneshot(text).to_be_bytes()))
}

pub(super) fn xxh128(arguments: Arguments<'_>) -> Value<'_> {
    hashed_with(arguments, |text| hex(&XxHash3_128::oneshot(text).to_be_bytes()))
}

/// Of 32 bits; the lowest byte comes first.
pub(super) fn murmur3(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let hash = murmur3::murmur3_32(&mut text.as_bytes(), 0).map_err(|error| error.to_string())?;
    Ok(made(hex(&hash.to_le_bytes())))
}

/// Of 128 bits; the lowest byte comes first.
pub(super) fn murmur3_128(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let hash = murmur3::murmur3_x64_128(&mut text.as_bytes(), 0);
    Ok(made(hex(&hash.map_err(|error| error.to_string())?.to_le_bytes())))
}

/// What names a flow between two ends, whichever of them is said to be the source.
pub(super) fn community_id(mut arguments: Arguments<'_>) -> Value<'_> {
    let mut end = |which: &str| -> Result<(Vec<u8>, u16), String> {
        let address = arguments.text()?;
        let port = arguments.int()?;
        let address = match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.octets().to_vec(),
            Ok(IpAddr::V6(address)) => address.octets().to_vec(),
            Err(_) => return Err(format!("invalid {which} IP: {address}")),
        };
        let port = u16::try_from(port)
            .map_err(|_| format!("{which} port must be between 0 and 65535, got {port}"))?;
        Ok((address, port))
    };
    let mut ends = [end("source")?, end("destination")?];
    ends.sort_by(|(a, a_port), (b, b_port)| (a.len(), a, a_port).cmp(&(b.len(), b, b_port)));
    let protocol: u8 = match arguments.given().map(text).transpose()?.as_deref() {
        None | Some("TCP") => 6,
        Some("UDP") => 17,
        Some("ICMP") => 1,
        Some("ICMP6") => 58,
        Some("RSVP") => 46,
        Some("SCTP") => 132,
        Some(other) => return Err(format!("unsupported protocol: {other}")),
    };
    let seed = match arguments.given() {
        None => 0,
        Some(Any::Int(seed)) => u16::try_from(seed)
            .map_err(|_| format!("seed must be between 0 and 65535, got {seed}"))?,
        Some(other) => return Err(expected("int64", &other)),
    };
    let mut hash = sha1::Sha1::new().chain_update(seed.to_be_bytes());
    for (address, _) in &ends {
        hash.update(address);
    }
    hash.update([protocol, 0]);
    for (_, port) in &ends {
        hash.update(port.to_be_bytes());
    }
    Ok(made(format!("1:{}", STANDARD.encode(hash.finalize()))))
}
