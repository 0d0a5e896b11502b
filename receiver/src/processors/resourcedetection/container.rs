//! Detector `container`: the container and the pod that the agent itself runs in.
//!
//! In a cgroup namespace of its own a container does not see its path. Then the files that its runtime
//! mounts into it tell, but not in a pod: there they are those of the sandbox, which is another container.

use std::{fs, path::Path};

use super::{Detected, Switches};
use crate::cgroup::{Container, Identity, Runtime, pod_uid};

/// What it can find.
pub const ATTRIBUTES: &[(&str, bool)] = &[
    ("container.id", true),
    ("container.runtime.name", true),
    ("k8s.container.name", true),
    ("k8s.pod.qos_class", false),
    ("k8s.pod.uid", true),
];

/// Reads what the kernel says about the agent, in the procfs and the root directory below `root`.
pub fn detect(root: &Path, switches: &Switches) -> Detected {
    let read = |path: &str| {
        let bytes = fs::read(root.join(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut identity = Identity::of_process(&read("proc/self/cgroup"));
    let mountinfo = read("proc/self/mountinfo");
    let pods: Vec<_> =
        mounts(&mountinfo).filter_map(|(source, point)| pod(source, point)).collect();
    if identity.container.is_none() {
        // Version 1 shows where a hierarchy is mounted from: the container's own cgroup.
        let of_cgroups = mountinfo.lines().filter(|line| line.contains(" - cgroup cgroup "));
        let of_cgroups = of_cgroups.filter_map(|line| line.split(' ').nth(3));
        let by_cgroup = of_cgroups.map(Identity::of_path).find(|i| i.container.is_some());
        if let Some(found) = by_cgroup {
            identity = found;
        } else if pods.is_empty() && identity.pod.is_none() {
            identity.container = mounts(&mountinfo)
                .find_map(|(source, point)| container(source, point))
                .or_else(|| podman(&read("run/.containerenv")));
        }
    }
    let uid = pods.first().map(|(uid, _)| ("k8s.pod.uid", uid.as_str()));
    let name = pods.iter().find_map(|(_, name)| *name).map(|name| ("k8s.container.name", name));
    let mut found = Detected::default();
    // The cgroup's word comes last and counts.
    for (key, value) in uid.into_iter().chain(name).chain(identity.attributes()) {
        if switches.on(key) {
            found.put(key, value);
        }
    }
    found
}

/// What is mounted, by its path in its own file system, and where.
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    })
}

/// The pod's uid and the container's name, from what the kubelet mounts:
/// `…/pods/<uid>/etc-hosts` and `…/pods/<uid>/containers/<name>/<file>`.
fn pod<'a>(source: &'a str, point: &str) -> Option<(String, Option<&'a str>)> {
    let (_, rest) = source.rsplit_once("/pods/")?;
    let mut parts = rest.split('/');
    let uid = pod_uid(parts.next()?)?;
    match (parts.next()?, point) {
        ("etc-hosts", "/etc/hosts") => Some((uid, None)),
        ("containers", _) => Some((uid, Some(parts.next()?))),
        _ => None,
    }
}

/// The container's id, from the files that its runtime mounts over those of its image:
/// `…/docker/containers/<id>/hostname`, `…/overlay-containers/<id>/userdata/hostname`.
fn container(source: &str, point: &str) -> Option<Container> {
    if !["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&point) {
        return None;
    }
    let (above, id, runtime) = match source.split('/').rev().collect::<Vec<_>>()[..] {
        [_, id, "containers", above, ..] => (above, id, Runtime::Docker),
        [_, "userdata", id, above, ..] => (above, id, Runtime::Podman),
        _ => return None,
    };
    let known = matches!(above, "docker") && runtime == Runtime::Docker
        || above.ends_with("-containers") && runtime == Runtime::Podman;
    known.then(|| made(id, runtime)).flatten()
}

/// Podman's own file, which has the id if the container is privileged or was asked to have it.
fn podman(containerenv: &str) -> Option<Container> {
    let id = containerenv.lines().find_map(|line| line.strip_prefix("id="))?;
    made(id.trim_matches('"'), Runtime::Podman)
}

fn made(id: &str, runtime: Runtime) -> Option<Container> {
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| Container { id: id.to_owned(), runtime: Some(runtime) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b23dbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
    const UID: &str = "1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f";

    fn found(cgroup: &str, mountinfo: &str, containerenv: &str) -> String {
        let root = tempfile::tempdir().expect("a directory");
        let files = [
            ("proc/self/cgroup", cgroup),
            ("proc/self/mountinfo", mountinfo),
            ("run/.containerenv", containerenv),
        ];
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("can be made");
            let text = text.replace("UID", UID).replace("ID", ID);
            fs::write(path, text).expect("can be written");
        }
        let all = Switches::new(ATTRIBUTES, &Default::default());
        let lines = detect(root.path(), &all).lines().join(" ");
        lines.replace(ID, "ID").replace(UID, "UID")
    }

    #[test]
    fn every_way_to_know_it() {
        let docker = "container.id=ID container.runtime.name=docker";
        let podman = "container.id=ID container.runtime.name=podman";
        let none = "0::/\n";
        assert_eq!(found("0::/system.slice/docker-ID.scope\n", "", ""), docker);
        let mount =
            "9 8 254:1 /var/lib/docker/containers/ID/hostname /etc/hostname rw - ext4 /dev/x rw\n";
        assert_eq!(found(none, mount, ""), docker);
        let mount =
            "9 8 0:5 /containers/overlay-containers/ID/userdata/hosts /etc/hosts rw - tmpfs x rw\n";
        assert_eq!(found(none, mount, ""), podman);
        let env = "engine=\"podman-5\"\nname=\"x\"\nid=\"ID\"\n";
        assert_eq!(found(none, "", env), podman);
        let v1 = "9 8 0:30 /docker/ID /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(found("4:memory:/\n0::/\n", v1, ""), docker);
        assert_eq!(found(none, "", ""), "");
        assert_eq!(
            found(none, "9 8 254:1 /home/ID/hostname /etc/hostname rw - ext4 x rw\n", ""),
            ""
        );
        assert_eq!(
            found(none, "9 8 254:1 /var/lib/docker/containers/ID/x /data rw - ext4 x rw\n", ""),
            ""
        );
    }

    #[test]
    fn in_a_pod_the_sandbox_is_not_taken_for_the_container() {
        let mounts = "\
            9 8 254:1 /var/lib/kubelet/pods/UID/etc-hosts /etc/hosts rw - ext4 x rw\n\
            9 8 254:1 /var/lib/kubelet/pods/UID/containers/agent/1a2b /dev/termination-log rw - ext4 x rw\n\
            9 8 254:1 /var/lib/docker/containers/ID/resolv.conf /etc/resolv.conf rw - ext4 x rw\n";
        assert_eq!(found("0::/\n", mounts, ""), "k8s.container.name=agent k8s.pod.uid=UID");
        assert_eq!(
            found("0::/\n", &mounts.replace("UID", "me"), ""),
            "container.id=ID container.runtime.name=docker"
        );
        let cgroup = "0::/kubepods/besteffort/podUID/ID\n";
        assert_eq!(found(cgroup, "", ""), "container.id=ID k8s.pod.uid=UID");
    }
}
