//! Paths as the runtimes and managers make them.

use super::*;

const ID: &str = "4b23dbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const NODE: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const UID: &str = "1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f";
const STATIC: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// Puts the names above into a path: `ID`, `NODE`, `UID`, `U_I_D` (escaped), `STATIC`.
fn filled(text: &str) -> String {
    text.replace("U_I_D", &UID.replace('-', "_"))
        .replace("UID", UID)
        .replace("NODE", NODE)
        .replace("STATIC", STATIC)
        .replace("ID", ID)
}

/// What a path says, in one line: container runtime pod qos unit user_unit, `-` for what is absent.
fn said(identity: &Identity) -> String {
    [
        "container.id",
        "container.runtime.name",
        "k8s.pod.uid",
        "k8s.pod.qos_class",
        "systemd.unit.name",
        "systemd.user_unit.name",
    ]
    .map(|wanted| identity.attributes().find(|(key, _)| *key == wanted).map_or("-", |(_, v)| v))
    .join(" ")
}

fn check(cases: &[(&str, &str)]) {
    for (path, expected) in cases {
        let identity = Identity::of_path(&filled(path));
        assert_eq!(said(&identity), filled(expected), "{path}");
    }
}

#[test]
fn kubernetes_with_the_systemd_driver() {
    check(&[
        (
            "/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-ID.scope",
            "ID containerd UID Guaranteed cri-containerd-ID.scope -",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
            "ID containerd UID Burstable cri-containerd-ID.scope -",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/crio-ID.scope",
            "ID cri-o UID BestEffort crio-ID.scope -",
        ),
        // crun makes a cgroup of its own in the scope.
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/crio-ID.scope/container",
            "ID cri-o UID BestEffort crio-ID.scope -",
        ),
        (
            "/kubepods.slice/kubepods-podU_I_D.slice/docker-ID.scope",
            "ID docker UID Guaranteed docker-ID.scope -",
        ),
        // The monitor is the pod's, but not in the container.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/crio-conmon-ID.scope",
            "- - UID Burstable crio-conmon-ID.scope -",
        ),
        // The pod itself, and its class.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice",
            "- - UID Burstable kubepods-burstable-podU_I_D.slice -",
        ),
        ("/kubepods.slice/kubepods-burstable.slice", "- - - - kubepods-burstable.slice -"),
        // A static pod, whose uid is a hash.
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/cri-containerd-ID.scope",
            "ID containerd STATIC Burstable cri-containerd-ID.scope -",
        ),
        // kubelet --cgroup-root
        (
            "/my.slice/my-kubepods.slice/my-kubepods-besteffort.slice/my-kubepods-besteffort-podU_I_D.slice/crio-ID.scope",
            "ID cri-o UID BestEffort crio-ID.scope -",
        ),
        // containerd with cgroupfs below a kubelet with systemd.
        (
            "/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
            "ID containerd UID Burstable containerd.service -",
        ),
        ("/kubepods-podU_I_D.slice:cri-containerd:ID", "ID containerd UID Guaranteed - -"),
    ]);
}

#[test]
fn kubernetes_with_the_cgroupfs_driver() {
    check(&[
        ("/kubepods/podUID/ID", "ID - UID Guaranteed - -"),
        ("/kubepods/burstable/podUID/ID", "ID - UID Burstable - -"),
        ("/kubepods/besteffort/podUID/ID", "ID - UID BestEffort - -"),
        ("/kubepods/burstable/podSTATIC/ID", "ID - STATIC Burstable - -"),
        ("/kubepods/burstable/podUID/crio-ID", "ID cri-o UID Burstable - -"),
        ("/kubepods/burstable/podUID/crio-conmon-ID", "- - UID Burstable - -"),
        ("/kubepods/besteffort/podUID", "- - UID BestEffort - -"),
        ("/mine/kubepods/besteffort/podUID/ID/inner", "ID - UID BestEffort - -"),
        // k3s, with and without root
        ("/k3s/kubepods/burstable/podUID/ID", "ID - UID Burstable - -"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/k3s-rootless.service/kubepods/podUID/ID",
            "ID - UID Guaranteed user@1000.service k3s-rootless.service",
        ),
    ]);
}

#[test]
fn clusters_inside_containers() {
    check(&[
        // kind, minikube
        (
            "/system.slice/docker-NODE.scope/kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
            "ID containerd UID Burstable docker-NODE.scope -",
        ),
        ("/docker/NODE/kubelet/kubepods/besteffort/podUID/ID", "ID - UID BestEffort - -"),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
            "ID containerd UID Guaranteed cri-containerd-ID.scope -",
        ),
        ("/kubelet/kubepods/podUID/ID", "ID - UID Guaranteed - -"),
        ("/docker/NODE/docker/ID", "ID docker - - - -"),
        // The node's own processes; a pod of it, which is not the node's container.
        (
            "/system.slice/docker-NODE.scope/system.slice/kubelet.service",
            "NODE docker - - docker-NODE.scope -",
        ),
        (
            "/system.slice/docker-NODE.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice",
            "- - UID Guaranteed docker-NODE.scope -",
        ),
        // Docker in a pod
        ("/kubepods/burstable/podUID/NODE/docker/ID", "ID docker UID Burstable - -"),
    ]);
}

#[test]
fn containers_outside_of_kubernetes() {
    check(&[
        ("/docker/ID", "ID docker - - - -"),
        ("/docker/ID/sub", "ID docker - - - -"),
        ("/system.slice/docker-ID.scope", "ID docker - - docker-ID.scope -"),
        ("/mine.slice/docker-ID.scope", "ID docker - - docker-ID.scope -"),
        ("/parent/ID", "ID - - - - -"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "ID docker - - user@1000.service docker-ID.scope",
        ),
        ("/system.slice/nerdctl-ID.scope", "ID containerd - - nerdctl-ID.scope -"),
        ("/k8s.io/ID", "ID - - - - -"),
        ("/machine.slice/libpod-ID.scope", "ID podman - - libpod-ID.scope -"),
        ("/machine.slice/libpod-ID.scope/container", "ID podman - - libpod-ID.scope -"),
        ("/machine.slice/libpod-conmon-ID.scope", "- - - - libpod-conmon-ID.scope -"),
        (
            "/machine.slice/machine-libpod_pod_NODE.slice/libpod-ID.scope",
            "ID podman - - libpod-ID.scope -",
        ),
        ("/libpod_parent/libpod-ID", "ID podman - - - -"),
        ("/libpod_parent/conmon", "- - - - - -"),
        // --cgroups=split, as quadlets have it
        ("/system.slice/web.service/libpod-payload-ID", "ID podman - - web.service -"),
        ("/system.slice/web.service/supervisor", "- - - - web.service -"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "ID podman - - user@1000.service libpod-ID.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_NODE.slice/libpod-ID.scope",
            "ID podman - - user@1000.service libpod-ID.scope",
        ),
        ("/ecs/STATIC/ID", "ID - - - - -"),
        ("/ecs/STATIC/STATIC-2531612879", "STATIC-2531612879 - - - - -"),
        ("/lxc/web", "web lxc - - - -"),
        ("/lxc/101/ns/system.slice/nginx.service", "101 lxc - - - -"),
        ("/lxc.payload.web/init.scope", "web lxc - - - -"),
        ("/lxc.payload/web", "web lxc - - - -"),
        ("/lxc.monitor.web", "- - - - - -"),
        ("/lxc.monitor/web", "- - - - - -"),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "web systemd-nspawn - - systemd-nspawn@web.service -",
        ),
        (
            "/machine.slice/machine-my\\x2dweb.scope/payload",
            "my-web systemd-nspawn - - machine-my\\x2dweb.scope -",
        ),
        (
            "/machine.slice/systemd-nspawn@web.service/supervisor",
            "- - - - systemd-nspawn@web.service -",
        ),
        // A virtual machine
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
            "- - - - machine-qemu\\x2d1\\x2dvm.scope -",
        ),
    ]);
}

#[test]
fn units() {
    check(&[
        ("/", "- - - - - -"),
        ("", "- - - - - -"),
        ("/init.scope", "- - - - init.scope -"),
        ("/system.slice", "- - - - system.slice -"),
        ("/system.slice/nginx.service", "- - - - nginx.service -"),
        ("/system.slice/nginx.service/worker", "- - - - nginx.service -"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "- - - - getty@tty1.service -"),
        ("/system.slice/_cpu.service", "- - - - cpu.service -"),
        ("/user.slice/user-1000.slice/session-3.scope", "- - - - session-3.scope -"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
            "- - - - user@1000.service vte-spawn-1.scope",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "- - - - user@1000.service init.scope",
        ),
        ("/mine/nginx.service", "- - - - - -"),
        ("/system.slice/mine", "- - - - - -"),
    ]);
}

#[test]
fn paths_from_inside_a_cgroup_namespace() {
    check(&[
        ("/../cri-containerd-ID.scope", "ID containerd - - - -"),
        ("/../../kubepods-burstable-podU_I_D.slice/crio-ID.scope", "ID cri-o UID Burstable - -"),
        ("/../ID", "ID - - - - -"),
        ("/../../podUID/ID", "ID - UID - - -"),
        ("/../../../besteffort/podUID/ID", "ID - UID BestEffort - -"),
        ("/../../../../kubepods/podUID/ID", "ID - UID Guaranteed - -"),
        ("/podUID/ID", "ID - UID - - -"),
        ("/burstable/podUID/ID", "ID - UID Burstable - -"),
        ("/../../../system.slice/nginx.service", "- - - - - -"),
        ("/../lxc/web", "web lxc - - - -"),
    ]);
}

/// Names that look like something and are not.
#[test]
fn what_a_path_does_not_say_is_absent() {
    check(&[
        ("/kubepods", "- - - - - -"),
        // Not a uid; not below kubepods; not an id.
        ("/kubepods/burstable/pod1234/x", "- - - - - -"),
        ("/mine/podUID/x", "- - - - - -"),
        ("/mine/burstable/podUID", "- - - - - -"),
        ("/docker/0123456789ab", "- - - - - -"),
        ("/docker/buildkit/x1y2z3", "- - - - - -"),
        ("/podcast/ID0", "- - - - - -"),
        ("/system.slice/docker.service", "- - - - docker.service -"),
        ("/system.slice/foo-ID.scope", "- - - - foo-ID.scope -"),
        ("/my-podU_I_D.slice", "- - - - my-podU_I_D.slice -"),
        ("/kubepods/kata_overhead/ID", "- - - - - -"),
        ("/mine/lxc/web", "- - - - - -"),
        ("/a:b:c/d:e", "- - - - - -"),
    ]);
}

#[test]
fn the_hierarchies_of_a_process_are_weighed() {
    let of = |text: &str| said(&Identity::of_process(&filled(text)));
    assert_eq!(of("0::/system.slice/docker-ID.scope\n"), filled("ID docker - - docker-ID.scope -"));
    // Version 1: the unified hierarchy exists and says nothing.
    let v1 = "\
        12:pids:/docker/ID\n\
        4:memory:/docker/ID\n\
        1:name=systemd:/docker/ID\n\
        0::/\n";
    assert_eq!(of(v1), filled("ID docker - - - -"));
    // A unit is less than a container.
    let mixed =
        "4:memory:/kubepods/burstable/podUID/ID\n1:name=systemd:/system.slice/x.service\n0::/\n";
    assert_eq!(of(mixed), filled("ID - UID Burstable - -"));
    let unit = "4:memory:/mine\n1:name=systemd:/system.slice/x.service\n0::/\n";
    assert_eq!(of(unit), filled("- - - - x.service -"));
    assert_eq!(of("0::/docker/ID (deleted)\n"), filled("ID docker - - - -"));
    assert_eq!(of(""), filled("- - - - - -"));
}

#[test]
fn no_path_is_too_odd() {
    for path in [
        "//",
        "/..",
        "/../..",
        "/\\x",
        "/machine.slice/machine-\\x2.scope/payload",
        "/é:ü:ö",
        "pod",
    ] {
        let _ = Identity::of_path(path);
        let _ = Identity::of_process(&format!("0::{path}"));
    }
    assert_eq!(unescape("\\x2d\\x\\xzz\\x4"), "-\\x\\xzz\\x4");
}
