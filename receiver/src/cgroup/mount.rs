//! `/proc/<pid>/cgroup` and `/proc/<pid>/mountinfo`, as far as they are about cgroups.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// One line of `/proc/<pid>/cgroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership<'a> {
    /// The controllers of a hierarchy of version 1; empty for the unified one.
    pub controllers: &'a str,
    /// Relative to the root of the reader's cgroup namespace: it may begin with `/..`.
    pub path: &'a str,
}

/// The lines of `/proc/<pid>/cgroup`: the unified hierarchy first, then systemd's own, then memory's
/// and the others in their order.
pub fn memberships(cgroup: &str) -> impl Iterator<Item = Membership<'_>> {
    let mut all: Vec<_> = cgroup
        .lines()
        .filter_map(|line| {
            // hierarchy-ID:controller-list:path; a path may hold colons.
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            // The kernel marks a cgroup that was removed while its last task was still dying.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            (id.parse::<u32>().is_ok() && path.starts_with('/'))
                .then_some(Membership { controllers, path })
        })
        .collect();
    all.sort_by_key(|m| match m.controllers {
        "" => 0,
        "name=systemd" => 1,
        list if list.split(',').any(|name| name == "memory") => 2,
        _ => 3,
    });
    all.into_iter()
}

/// The path in the unified hierarchy, from `/proc/<pid>/cgroup`.
pub fn unified(cgroup: &str) -> Option<&str> {
    memberships(cgroup).find(|m| m.controllers.is_empty()).map(|m| m.path)
}

/// A mount of the cgroup v2 hierarchy, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The cgroup that is its root, relative to the root of the reader's cgroup namespace.
    pub root: String,
    /// Where it is.
    pub point: PathBuf,
}

/// The mounts of the cgroup v2 hierarchy, from `/proc/self/mountinfo`.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            // proc_pid_mountinfo(5): root and mount point are the fourth and fifth field, the type
            // is the first after the separator.
            let (mount, kind) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup2 ").then(|| Mount {
                root: plain(root).to_string_lossy().into_owned(),
                point: PathBuf::from(plain(point)),
            })
        })
        .collect()
}

/// Takes back the octal escapes of blanks and backslashes.
fn plain(field: &str) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest
            .strip_prefix(b"\\")
            .and_then(|octal| std::str::from_utf8(octal.get(..3)?).ok())
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &rest[4..] } else { after };
    }
    OsString::from_vec(out)
}

/// A path relative to a cgroup namespace: so many levels up from its root, then down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative<'a> {
    /// Levels up.
    pub up: usize,
    /// Names down.
    pub down: Vec<&'a str>,
}

impl<'a> Relative<'a> {
    /// `/../../a/b`.
    pub fn new(path: &'a str) -> Self {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let up = parts.iter().take_while(|&&part| part == "..").count();
        Self { up, down: parts[up..].to_vec() }
    }

    /// The names that lead from a mount's root to it; `None` if it is not below that root, or if
    /// that cannot be told. `base` leads from the mount's root to the namespace's.
    pub fn below(&self, mount: &Relative<'_>, base: Option<&Path>) -> Option<PathBuf> {
        if self.up == mount.up {
            return self.down.strip_prefix(mount.down.as_slice()).map(|rest| rest.iter().collect());
        }
        let base: Vec<_> = base?.components().collect();
        let kept = base.len().checked_sub(self.up)?;
        Some(base[..kept].iter().collect::<PathBuf>().join(self.down.iter().collect::<PathBuf>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_of_a_process_come_in_the_order_of_trust() {
        let hybrid = "\
            12:pids:/docker/a\n\
            4:memory,hugetlb:/m:x\n\
            1:name=systemd:/init.scope\n\
            0::/gone (deleted)\n\
            nonsense\n\
            7:cpu\n";
        let all: Vec<_> = memberships(hybrid).map(|m| (m.controllers, m.path)).collect();
        let expected = [
            ("", "/gone"),
            ("name=systemd", "/init.scope"),
            ("memory,hugetlb", "/m:x"),
            ("pids", "/docker/a"),
        ];
        assert_eq!(all, expected);
        assert_eq!(unified(hybrid), Some("/gone"));
        assert_eq!(unified("1:name=systemd:/\n"), None);
    }

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let mountinfo = "\
            30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            33 30 0:27 /../../.. /host/a\\040b\\134x rw - cgroup2 none rw,nsdelegate\n";
        let mount = |root: &str, point: &str| Mount { root: root.into(), point: point.into() };
        let expected = [mount("/", "/sys/fs/cgroup/unified"), mount("/../../..", "/host/a b\\x")];
        assert_eq!(mounts(mountinfo), expected);
    }

    #[test]
    fn a_path_leads_from_a_mount() {
        // path, root of the mount, from there to the namespace's root, result
        let cases = [
            ("/a/b", "/", None, Some("a/b")),
            ("/", "/", None, Some("")),
            ("/a/b", "/a", None, Some("b")),
            ("/b", "/a", None, None),
            ("/ab", "/a", None, None),
            ("/../b", "/", None, None),
            ("/../b", "/", Some(""), None),
            ("/../../x/y", "/../..", None, Some("x/y")),
            ("/../b", "/../..", None, None),
            ("/../b", "/../..", Some("pod/own"), Some("pod/b")),
            ("/", "/../..", Some("pod/own"), Some("pod/own")),
            ("/c", "/../..", Some("pod/own"), Some("pod/own/c")),
            ("/../../../b", "/../..", Some("pod/own"), None),
        ];
        for (path, root, base, expected) in cases {
            let below = Relative::new(path).below(&Relative::new(root), base.map(Path::new));
            assert_eq!(below, expected.map(PathBuf::from), "{path} below {root}");
        }
    }
}
