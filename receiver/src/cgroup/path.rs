//! What the path of a cgroup says: container, pod, systemd unit.
//!
//! The path is read component by component, never as one pattern, because layouts nest: a pod of a
//! kind cluster is below the container that is the cluster's node. The innermost container and the
//! innermost pod win. What a path does not say stays absent.

use std::borrow::Cow;

use super::mount;

/// What a cgroup stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The container that it is, or is in.
    pub container: Option<Container>,
    /// The Kubernetes pod that it is, or is in.
    pub pod: Option<Pod>,
    /// The unit of the host's systemd: service, scope, or the slice if there is nothing more exact.
    pub unit: Option<String>,
    /// The unit of a user's systemd, which is itself a unit of the host's.
    pub user_unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// As its runtime calls it; LXC and systemd-nspawn know names alone.
    pub id: String,
    /// Absent where several runtimes use the same layout.
    pub runtime: Option<Runtime>,
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, also by way of nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// LXC, LXD, Incus.
    Lxc,
    /// Podman.
    Podman,
    /// systemd-nspawn.
    SystemdNspawn,
}

impl Runtime {
    /// The value of `container.runtime.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Lxc => "lxc",
            Self::Podman => "podman",
            Self::SystemdNspawn => "systemd-nspawn",
        }
    }
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its uid with dashes; of a static pod, the hash of its manifest: 32 digits.
    pub uid: String,
    /// Absent if the path begins below the directory that says it.
    pub qos: Option<Qos>,
}

/// The quality-of-service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Limits equal requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

impl Qos {
    /// As Kubernetes spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "burstable" => Some(Self::Burstable),
            "besteffort" => Some(Self::BestEffort),
            _ => None,
        }
    }
}

impl Identity {
    /// What the path of one cgroup says. It may be relative to a cgroup namespace: `/../x`.
    pub fn of_path(path: &str) -> Self {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut this = Self::default();
        for (at, name) in parts.iter().enumerate() {
            if let Some(pod) = pod(&parts[..at], name) {
                // What is outside of a pod is its node, which may be a container too.
                this.container = None;
                this.pod = Some(pod);
            } else if let Some(container) = container(&parts[..at], name) {
                this.container = Some(container);
            }
            // containerd with its own driver below a kubelet with systemd's: "<slice>:<prefix>:<id>".
            if let Some((slice, id)) = name.split_once(':') {
                this.pod = slice_pod(slice).or(this.pod);
                this.container = id
                    .split_once(':')
                    .and_then(|(prefix, id)| prefixed(prefix, id))
                    .or(this.container);
            }
        }
        (this.unit, this.user_unit) = units(&parts);
        this
    }

    /// What `/proc/<pid>/cgroup` says. Where version 1 is mounted, the hierarchies may disagree: the
    /// first that names a container or a pod is believed, the unified one before all others.
    pub fn of_process(cgroup: &str) -> Self {
        let all: Vec<_> = mount::memberships(cgroup).map(|m| Self::of_path(m.path)).collect();
        let best = |says: fn(&Self) -> bool| all.iter().find(|identity| says(identity));
        best(|i| i.container.is_some())
            .or_else(|| best(|i| i.pod.is_some()))
            .or_else(|| best(|i| i.unit.is_some()))
            .cloned()
            .unwrap_or_default()
    }

    /// As attributes.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let container = self.container.as_ref();
        let pod = self.pod.as_ref();
        [
            ("container.id", container.map(|c| c.id.as_str())),
            ("container.runtime.name", container.and_then(|c| c.runtime).map(Runtime::name)),
            ("k8s.pod.uid", pod.map(|p| p.uid.as_str())),
            ("k8s.pod.qos_class", pod.and_then(|p| p.qos).map(Qos::name)),
            ("systemd.unit.name", self.unit.as_deref()),
            ("systemd.user_unit.name", self.user_unit.as_deref()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

/// The pod that a directory is for, under either of kubelet's cgroup drivers.
fn pod(above: &[&str], name: &str) -> Option<Pod> {
    if let Some(pod) = slice_pod(name) {
        return Some(pod);
    }
    // cgroupfs: kubepods/pod<uid>, kubepods/burstable/pod<uid>.
    let uid = pod_uid(name.strip_prefix("pod")?)?;
    let qos = match above {
        [.., "kubepods"] => Some(Qos::Guaranteed),
        [.., "kubepods", class] | [.., "..", class] | [class] if Qos::parse(class).is_some() => {
            Qos::parse(class)
        }
        // Seen from inside a cgroup namespace, what is above cannot be named.
        [] | [.., ".."] => None,
        _ => return None,
    };
    Some(Pod { uid, qos })
}

/// `kubepods-burstable-pod<uid>.slice`, with the kubelet's root before it if it has one.
fn slice_pod(name: &str) -> Option<Pod> {
    let name = name.strip_suffix(".slice")?;
    let (parent, escaped) = name.rsplit_once("-pod")?;
    let uid = pod_uid(escaped)?;
    let below = |root: &str| parent == root || parent.ends_with(&format!("-{root}"));
    let qos = if below("kubepods") {
        Qos::Guaranteed
    } else if below("kubepods-burstable") {
        Qos::Burstable
    } else if below("kubepods-besteffort") {
        Qos::BestEffort
    } else {
        return None;
    };
    Some(Pod { uid, qos: Some(qos) })
}

/// A pod's uid: 8-4-4-4-12 hexadecimal digits (in names of slices with `_` for `-`), or the 32 of
/// a static pod.
pub fn pod_uid(text: &str) -> Option<String> {
    let uid = text.replace('_', "-");
    let uuid = uid.len() == 36
        && uid.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => is_hex(c),
        });
    (uuid || is_hex_of(&uid, 32)).then_some(uid)
}

/// The container that a directory is for.
fn container(above: &[&str], name: &str) -> Option<Container> {
    let of = |id: &str, runtime| Some(Container { id: id.to_owned(), runtime });
    match (above, name) {
        // LXC. What monitors a container is outside of it.
        (_, name) if name.starts_with("lxc.payload.") => {
            return of(&name["lxc.payload.".len()..], Some(Runtime::Lxc));
        }
        ([] | [.., ".."], "lxc" | "lxc.payload" | "lxc.monitor") => return None,
        (["lxc" | "lxc.payload"] | [.., "..", "lxc" | "lxc.payload"], name) => {
            return of(name, Some(Runtime::Lxc));
        }
        // systemd-nspawn, whose own processes are in `supervisor`. Virtual machines and what else
        // registers with machined has no `payload`.
        ([.., unit], "payload") => {
            let name = unit
                .strip_prefix("systemd-nspawn@")
                .and_then(|name| name.strip_suffix(".service"))
                .or_else(|| unit.strip_prefix("machine-")?.strip_suffix(".scope"))?;
            return of(&unescape(name), Some(Runtime::SystemdNspawn));
        }
        _ => {}
    }
    let name = name.strip_suffix(".scope").unwrap_or(name);
    if let Some((prefix, id)) = name.rsplit_once('-')
        && let Some(container) = prefixed(prefix, id)
    {
        return Some(container);
    }
    match above {
        [.., "docker"] if is_id(name) => of(name, Some(Runtime::Docker)),
        // Fargate: the task's id and a number.
        [.., "ecs", task] if name.strip_prefix(task).is_some_and(is_fargate) => of(name, None),
        // Several runtimes call a cgroup by the id alone: below a pod with the cgroupfs driver, or
        // below the parent that a user asked for. Kata's overhead is the host's part of a sandbox.
        [.., "kata_overhead"] => None,
        _ if is_id(name) => of(name, None),
        _ => None,
    }
}

/// A container whose name is `<prefix>-<id>`, where each runtime has its own prefix.
fn prefixed(prefix: &str, id: &str) -> Option<Container> {
    let runtime = match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" | "containerd" | "nerdctl" => Runtime::Containerd,
        // Not `crio-conmon` and `libpod-conmon`: they watch the container from outside.
        "crio" => Runtime::CriO,
        "libpod" | "libpod-payload" => Runtime::Podman,
        _ => return None,
    };
    is_id(id).then(|| Container { id: id.to_owned(), runtime: Some(runtime) })
}

/// The unit of the host's systemd and, inside `user@<uid>.service`, that of the user's: what
/// `sd_pid_get_unit(3)` and `sd_pid_get_user_unit(3)` say, but for a cgroup that is a slice.
fn units(parts: &[&str]) -> (Option<String>, Option<String>) {
    // Above a namespace's root nothing is known, so nothing below it is known to be the host's.
    if parts.first() == Some(&"..") {
        return (None, None);
    }
    let (unit, rest) = unit(parts);
    let user = unit.as_deref().is_some_and(|u| u.starts_with("user@") && u.ends_with(".service"));
    let user_unit = if user { self::unit(rest).0 } else { None };
    (unit, user_unit)
}

/// The unit at the start of a path, and the rest.
fn unit<'a, 'b>(parts: &'a [&'b str]) -> (Option<String>, &'a [&'b str]) {
    let slices = parts.iter().take_while(|part| part.ends_with(".slice")).count();
    let (slices, rest) = parts.split_at(slices);
    let is_unit = |name: &&str| {
        [".service", ".scope", ".socket", ".mount", ".swap"].iter().any(|s| name.ends_with(s))
    };
    match rest.split_first() {
        // systemd puts `_` before what would collide with a file of the kernel's.
        Some((name, rest)) if is_unit(name) => {
            (Some(name.strip_prefix('_').unwrap_or(name).to_owned()), rest)
        }
        Some(_) => (None, rest),
        None => (slices.last().map(|&name| name.to_owned()), rest),
    }
}

/// `\x2d` and its like, as systemd escapes what a unit's name may not hold.
fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest
            .strip_prefix(b"\\x")
            .and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &rest[4..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn is_hex(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

fn is_hex_of(text: &str, length: usize) -> bool {
    text.len() == length && text.chars().all(is_hex)
}

/// A container's id, as all but LXC and systemd-nspawn make it.
fn is_id(text: &str) -> bool {
    is_hex_of(text, 64)
}

fn is_fargate(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
