//! Detector `system`: the machine.

mod platform;

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
    thread,
};

use anyhow::{Context as _, Result, bail};
use dns_lookup::{AddrInfoHints, getaddrinfo, lookup_addr, lookup_host};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::utsname::uname};
use opentelemetry_proto::tonic::common::v1::{ArrayValue, any_value::Value};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use self::platform::platform;
use super::{Detected, Switches, text};

/// What it can find, and whether it is on by default.
pub const ATTRIBUTES: &[(&str, bool)] = &[
    ("host.arch", false),
    ("host.cpu.cache.l2.size", false),
    ("host.cpu.family", false),
    ("host.cpu.model.id", false),
    ("host.cpu.model.name", false),
    ("host.cpu.stepping", false),
    ("host.cpu.vendor.id", false),
    ("host.id", false),
    ("host.interface", false),
    ("host.ip", false),
    ("host.mac", false),
    ("host.name", true),
    ("os.build.id", false),
    ("os.description", false),
    ("os.name", false),
    ("os.type", true),
    ("os.version", false),
];

/// Where the host's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The canonical name that the resolver has for the kernel's.
    Cname,
    /// The fully qualified name: the hosts file, the canonical name, the address's name.
    Dns,
    /// The name of the host's address.
    Lookup,
    /// The kernel's.
    Os,
}

impl Source {
    /// As configurations name them.
    pub const NAMES: [&'static str; 4] = ["cname", "dns", "lookup", "os"];
}

impl FromStr for Source {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "cname" => Ok(Self::Cname),
            "dns" => Ok(Self::Dns),
            "lookup" => Ok(Self::Lookup),
            "os" => Ok(Self::Os),
            _ => Err(()),
        }
    }
}

/// Asks the kernel, the files below `root`, and for the name the resolver, until the deadline.
pub async fn detect(
    root: &Path,
    sources: &[Source],
    switches: &Switches,
    deadline: Instant,
) -> Result<Detected> {
    let mut found = Detected::default();
    if switches.on("host.name") {
        found.put("host.name", name(root, sources, deadline).await?);
    }
    let release = release(root);
    let of_release = |keys: &[&str]| keys.iter().find_map(|key| release.get(*key).cloned());
    let id = if switches.on("host.id") { host_id(root) } else { None };
    if id.is_none() && switches.on("host.id") {
        warn!("failed to get host ID");
    }
    let kernel = kernel().context("failed getting OS description")?;
    let named = [of_release(&["NAME"]), of_release(&["VERSION", "VERSION_ID"])];
    let named = named.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let description = if named.is_empty() { kernel } else { format!("{named} ({kernel})") };
    let platform = platform(root, |key| of_release(&[key]));
    // Rolling distributions have one; for others it is the kernel's release, as in the Collector.
    let build = of_release(&["BUILD_ID"]);
    let build = build.or_else(|| Some(uname().ok()?.release().to_string_lossy().into_owned()));
    for (key, value) in [
        ("host.arch", Some(architecture().to_owned())),
        ("host.id", id),
        ("os.build.id", build),
        ("os.description", Some(description)),
        ("os.name", platform.name),
        ("os.type", Some("linux".to_owned())),
        ("os.version", platform.version),
    ] {
        if let Some(value) = value.filter(|_| switches.on(key)) {
            found.put(key, value);
        }
    }
    processor(root, switches, &mut found);
    network(switches, &mut found)?;
    Ok(found)
}

/// The first name that a source has.
async fn name(root: &Path, sources: &[Source], deadline: Instant) -> Result<String> {
    let hosts = fs::read(root.join("etc/hosts")).unwrap_or_default();
    let hosts = String::from_utf8_lossy(&hosts).into_owned();
    for source in sources.iter().copied() {
        let answer = if source == Source::Os {
            ask(source, &hosts)
        } else {
            let hosts = hosts.clone();
            in_time(move || ask(source, &hosts), deadline).await
        };
        match answer {
            Ok(name) => return Ok(name),
            Err(error) => debug!(?source, "{error:#}"),
        }
    }
    bail!("all hostname sources failed to get hostname")
}

/// Asks a resolver, which may hang for minutes. A thread of its own holds up neither the other sources
/// nor the end of the agent.
async fn in_time(
    lookup: impl FnOnce() -> Result<String> + Send + 'static,
    deadline: Instant,
) -> Result<String> {
    let (answer, asked) = oneshot::channel();
    let run = move || drop(answer.send(lookup()));
    thread::Builder::new().name("hostname".to_owned()).spawn(run)?;
    timeout_at(deadline, asked).await.context("no answer in time")??
}

fn ask(source: Source, hosts: &str) -> Result<String> {
    let own = nix::unistd::gethostname().context("failed getting OS hostname")?;
    let own = own.to_string_lossy().into_owned();
    match source {
        Source::Os => Ok(own),
        Source::Cname => canonical(&own).context("lookupCNAME failed to get CNAME"),
        Source::Lookup => reverse(&own).context("reverseLookupHost failed to lookup host"),
        Source::Dns => of_hosts(hosts, &own)
            .map_or_else(|| canonical(&own).or_else(|_| reverse(&own)), Ok)
            .context("getFQDN failed getting FQDN"),
    }
}

/// hosts(5): the first name of a line is the canonical one.
fn of_hosts(hosts: &str, own: &str) -> Option<String> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut names = line.split_ascii_whitespace().skip(1);
        let canonical = names.next()?;
        (canonical == own || names.any(|name| name == own)).then(|| canonical.to_owned())
    })
}

fn canonical(own: &str) -> io::Result<String> {
    let hints = AddrInfoHints { flags: nix::libc::AI_CANONNAME, ..AddrInfoHints::default() };
    let mut answers = getaddrinfo(Some(own), None, Some(hints))?;
    let name = answers.find_map(|answer| answer.ok()?.canonname);
    name.map(|name| name.trim_end_matches('.').to_owned())
        .ok_or_else(|| io::Error::other("no canonical name"))
}

fn reverse(own: &str) -> io::Result<String> {
    let mut last = io::Error::other("no address");
    for address in lookup_host(own)? {
        match lookup_addr(&address) {
            // Without a name the resolver answers with the address.
            Ok(name) if IpAddr::from_str(&name).is_err() => {
                return Ok(name.trim_end_matches('.').to_owned());
            }
            Ok(_) => {}
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// As the semantic conventions call it.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        other => other,
    }
}

/// What `uname -snrvm` says.
fn kernel() -> Result<String> {
    let name = uname()?;
    let parts = [name.sysname(), name.nodename(), name.release(), name.version(), name.machine()];
    Ok(parts.map(|part| part.to_string_lossy()).join(" "))
}

/// machine-id(5).
fn host_id(root: &Path) -> Option<String> {
    ["etc/machine-id", "var/lib/dbus/machine-id"].iter().find_map(|file| {
        let id = fs::read_to_string(root.join(file)).ok()?;
        let id = id.trim();
        // What systemd writes while the machine boots for the first time.
        (!id.is_empty() && id != "uninitialized").then(|| id.to_owned())
    })
}

/// os-release(5).
fn release(root: &Path) -> BTreeMap<String, String> {
    let file = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|file| fs::read_to_string(root.join(file)).ok())
        .unwrap_or_default();
    file.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key.to_owned(), unquoted(value)))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// A value as a shell would read it.
fn unquoted(value: &str) -> String {
    let quoted = |mark| value.strip_prefix(mark)?.strip_suffix(mark);
    if let Some(plain) = quoted('\'') {
        return plain.to_owned();
    }
    let mut out = String::new();
    let mut characters = quoted('"').unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

/// The first processor, from `/proc/cpuinfo`, whose keys differ by architecture.
fn processor(root: &Path, switches: &Switches, found: &mut Detected) {
    let info = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let first = info.split("\n\n").next().unwrap_or_default();
    let value = |key: &str| {
        first
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
    };
    for (key, name) in [
        ("host.cpu.vendor.id", "vendor_id"),
        ("host.cpu.family", "cpu family"),
        ("host.cpu.model.id", "model"),
        ("host.cpu.model.name", "model name"),
        ("host.cpu.stepping", "stepping"),
    ] {
        if let Some(value) = value(name).filter(|_| switches.on(key)) {
            found.put(key, value);
        }
    }
    // Not `cache size` of cpuinfo, which is the last level's.
    let caches = root.join("sys/devices/system/cpu/cpu0/cache");
    let second = (0..8).map(|n| caches.join(format!("index{n}"))).find(|cache| {
        fs::read_to_string(cache.join("level")).is_ok_and(|level| level.trim() == "2")
    });
    let size = second.and_then(|cache| fs::read_to_string(cache.join("size")).ok());
    let size = size.and_then(|size| size.trim().strip_suffix('K')?.parse::<i64>().ok());
    if let Some(kib) = size.filter(|_| switches.on("host.cpu.cache.l2.size")) {
        found.put_value("host.cpu.cache.l2.size", Value::IntValue(kib * 1024));
    }
}

/// The names of all interfaces, and the addresses of those that are up, without the loopback's.
fn network(switches: &Switches, found: &mut Detected) -> Result<()> {
    if !["host.interface", "host.ip", "host.mac"].iter().any(|key| switches.on(key)) {
        return Ok(());
    }
    let (mut names, mut addresses, mut macs) = (Vec::new(), Vec::new(), Vec::new());
    for interface in getifaddrs().context("failed getting host IP addresses")? {
        // There is an entry for each address.
        if !names.contains(&interface.interface_name) {
            names.push(interface.interface_name.clone());
        }
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        if !up || interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        let ip = address
            .as_sockaddr_in()
            .map(|v4| SocketAddr::from((v4.ip(), 0)))
            .or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), 0))));
        addresses
            .extend(ip.map(|ip| ip.ip()).filter(|ip| !ip.is_loopback()).map(|i| i.to_string()));
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr())
            && mac != [0; 6]
        {
            // IEEE RA hexadecimal form.
            macs.push(mac.map(|byte| format!("{byte:02X}")).join("-"));
        }
    }
    for (key, values) in [("host.interface", names), ("host.ip", addresses), ("host.mac", macs)] {
        if switches.on(key) {
            let values = values.iter().map(|value| text(value)).collect();
            found.put_value(key, Value::ArrayValue(ArrayValue { values }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
