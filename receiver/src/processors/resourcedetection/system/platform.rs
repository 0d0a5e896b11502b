//! Which distribution it is, by the files that each has: as the Collector's library names them, so that
//! `os.name` and `os.version` stay what they are when this agent takes a Collector's place.

use std::{fs, path::Path};

/// The distribution's name and version, as far as a file says them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Such as `debian`.
    pub name: Option<String>,
    /// Such as `12.11`.
    pub version: Option<String>,
}

/// Files and who writes them, in the order in which they are looked for. Derived distributions keep the
/// files of what they are derived from.
const FILES: [(&str, Family); 11] = [
    ("oracle-release", Family::RedHat("oracle")),
    ("enterprise-release", Family::RedHat("oracle")),
    ("slackware-version", Family::Slackware),
    ("debian_version", Family::Debian),
    ("neokylin-release", Family::RedHat("")),
    ("redhat-release", Family::RedHat("")),
    ("system-release", Family::RedHat("")),
    ("gentoo-release", Family::RedHat("gentoo")),
    ("SuSE-release", Family::Suse),
    ("arch-release", Family::Arch),
    ("alpine-release", Family::Alpine),
];

#[derive(Clone, Copy)]
enum Family {
    /// `NAME release VERSION`, of this name or the one that stands there.
    RedHat(&'static str),
    Slackware,
    Debian,
    Suse,
    Arch,
    Alpine,
}

/// What the files below `root` say; `release` looks into os-release(5).
pub fn platform(root: &Path, release: impl Fn(&str) -> Option<String>) -> Platform {
    let etc = |name: &str| fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
    let lsb = etc("lsb-release");
    let lsb = |key: &str| {
        let found = lsb.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.map(|value| value.replace('"', ""))
    };
    // The library takes shorter ones for empty.
    let found = FILES.iter().map(|(file, family)| (etc(file), *family)).find(|f| f.0.len() > 4);
    let (name, version) = match found {
        Some((text, Family::RedHat(name))) => {
            let text = text.to_lowercase().replace('\n', "");
            let name = match name {
                "" if text.contains("red hat") => "redhat",
                "" => text.split(' ').next().unwrap_or_default(),
                name => name,
            };
            let version = match text.contains("rawhide") {
                true => "rawhide",
                false => text.split_once("release ").map_or("", |(_, rest)| number(rest)),
            };
            (Some(name.to_owned()), Some(version.to_owned()))
        }
        Some((text, Family::Slackware)) => {
            let version = text.to_lowercase().replacen("slackware ", "", 1);
            (Some("slackware".to_owned()), Some(version.trim().to_owned()))
        }
        Some((text, Family::Debian)) => match lsb("DISTRIB_ID").as_deref() {
            Some(id @ ("Ubuntu" | "LinuxMint")) => {
                (Some(id.to_lowercase()), lsb("DISTRIB_RELEASE"))
            }
            Some(id @ ("Kylin" | "uos" | "Deepin")) => {
                (Some(id.to_owned()), lsb("DISTRIB_RELEASE"))
            }
            _ => {
                let raspbian = root.join("usr/bin/raspi-config").exists();
                let name = if raspbian { "raspbian" } else { "debian" };
                (Some(name.to_owned()), text.lines().next().map(str::to_owned))
            }
        },
        Some((text, Family::Suse)) => {
            let open = text.to_lowercase().contains("opensuse");
            let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
            let parts = [value("VERSION = "), value("PATCHLEVEL = ")];
            let version = parts.into_iter().flatten().collect::<Vec<_>>().join(".");
            (Some(if open { "opensuse" } else { "suse" }.to_owned()), Some(version))
        }
        Some((_, Family::Arch)) => (Some("arch".to_owned()), lsb("DISTRIB_RELEASE")),
        Some((text, Family::Alpine)) => {
            (Some("alpine".to_owned()), text.lines().next().map(str::to_owned))
        }
        None => match release("ID") {
            Some(id) if id == "amzn" => (Some("amazon".to_owned()), release("VERSION_ID")),
            id => (id, release("VERSION_ID")),
        },
    };
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    Platform { name: some(name), version: some(version) }
}

/// The version that a text begins with.
fn number(text: &str) -> &str {
    let mut first = true;
    let end = text.find(|c: char| {
        let letter = std::mem::take(&mut first) && (c.is_ascii_alphabetic() || c == '_');
        !letter && !c.is_ascii_digit() && c != '.'
    });
    &text[..end.unwrap_or(text.len())]
}
