//! Trees of `/proc` and cgroups as each layout makes them, and cgroups of the live kernel.

use super::*;

const ID_A: &str = "aaaadbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const ID_B: &str = "bbbbdbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const UID: &str = "1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f";

/// The agent's own number in the trees.
const OWN: u32 = 7;

/// A machine in a directory: `proc`, and `cgroup` with the whole hierarchy.
struct Machine(tempfile::TempDir);

impl Machine {
    /// With the agent in this cgroup (its own view of it), and the hierarchy mounted so: pairs of
    /// the mount's root in the agent's view, and the directory below `cgroup` that it shows.
    fn new(own: &str, mounts: &[(&str, &str)]) -> Self {
        let this = Self(tempfile::tempdir().expect("a directory"));
        this.process(OWN, "fathom", own);
        let mountinfo: String = mounts
            .iter()
            .map(|(root, shown)| {
                let point = this.cgroup(shown);
                format!("31 30 0:27 {root} {} rw - cgroup2 cgroup2 rw\n", point.display())
            })
            .collect();
        let proc = this.0.path().join("proc");
        fs::write(proc.join(format!("{OWN}/mountinfo")), mountinfo).expect("can be written");
        std::os::unix::fs::symlink(OWN.to_string(), proc.join("self")).expect("can be made");
        this
    }

    fn process(&self, pid: u32, comm: &str, cgroup: &str) {
        let directory = self.0.path().join(format!("proc/{pid}"));
        fs::create_dir_all(&directory).expect("can be made");
        fs::write(directory.join("comm"), format!("{comm}\n")).expect("can be written");
        fs::write(directory.join("cgroup"), format!("1:name=systemd:/x\n0::{cgroup}\n"))
            .expect("can be written");
    }

    /// The directory of a cgroup, made if need be with all above it.
    fn cgroup(&self, path: &str) -> PathBuf {
        let root = self.0.path().join("cgroup");
        fs::create_dir_all(&root).expect("can be made");
        let mut directory = root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            directory.push(name);
            fs::create_dir_all(&directory).expect("can be made");
            fs::write(directory.join("cgroup.type"), "domain\n").expect("can be written");
        }
        directory
    }

    /// Lists the agent in a cgroup, as the kernel does.
    fn agent_in(&self, path: &str) {
        fs::write(self.cgroup(path).join("cgroup.procs"), format!("1\n{OWN}\n")).expect("written");
    }

    fn view(&self) -> View {
        View { proc: self.0.path().join("proc"), pid: OWN }
    }

    fn find(&self, comm: &str) -> Result<Vec<PathBuf>, String> {
        let found = self.view().find(&[Rule::Comm(comm.to_owned())]);
        found.map(|found| found.directories).map_err(|reason| reason.to_string())
    }
}

#[test]
fn rules_choose_by_pid_and_command() {
    let machine = Machine::new("/agent", &[("/", "")]);
    for (pid, comm) in [(10, "postgres"), (11, "postgres: wal"), (12, "a-very-long-com"), (13, "x")]
    {
        machine.process(pid, comm, &format!("/c{pid}"));
        machine.cgroup(&format!("c{pid}"));
    }
    let pids =
        |rule: Rule| machine.view().find(&[rule]).map(|found| found.pids).unwrap_or_default();
    assert_eq!(pids(Rule::Pid(13)), [13]);
    assert_eq!(pids(Rule::Comm("postgres".into())), [10]);
    // The kernel keeps 15 bytes.
    assert_eq!(pids(Rule::Comm("a-very-long-command".into())), [12]);
    assert_eq!(pids(Rule::Comm("a-very-long-co".into())), [0u32; 0]);
    assert_eq!(pids(Rule::Prefix("postgres".into())), [10, 11]);
    assert_eq!(pids(Rule::Prefix("a-very-long-command".into())), [12]);
    assert_eq!(pids(Rule::Regex(Regex::new("^x$|wal").expect("valid"))), [11, 13]);
    let rules = [Rule::Pid(13), Rule::Comm("postgres".into())];
    assert_eq!(machine.view().find(&rules).map(|found| found.pids).ok(), Some(vec![10, 13]));
    let reason = machine.view().find(&[Rule::Pid(1), Rule::Prefix("z".into())]).expect_err("none");
    assert!(reason.to_string().contains("with pid 1 or with command z… among"), "{reason}");
    // The agent is no target.
    assert_eq!(pids(Rule::Comm("fathom".into())), [0u32; 0]);
    assert_eq!(pids(Rule::Pid(OWN)), [0u32; 0]);
}

#[test]
fn on_a_host() {
    let machine = Machine::new("/system.slice/fathom.service", &[("/", "")]);
    let directory = machine.cgroup("system.slice/db.service");
    machine.process(20, "db", "/system.slice/db.service");
    assert_eq!(machine.find("db"), Ok(vec![directory.clone()]));
    // A second one deeper down needs no directory of its own; one elsewhere does.
    machine.cgroup("system.slice/db.service/worker");
    machine.process(21, "db", "/system.slice/db.service/worker");
    assert_eq!(machine.find("db"), Ok(vec![directory.clone()]));
    let other = machine.cgroup("system.slice/db@2.service");
    machine.process(22, "db", "/system.slice/db@2.service");
    assert_eq!(machine.find("db"), Ok(vec![directory, other]));
}

#[test]
fn a_mount_elsewhere_or_of_a_part() {
    let machine =
        Machine::new("/system.slice/fathom.service", &[("/system.slice", "system.slice")]);
    let directory = machine.cgroup("system.slice/db.service");
    machine.process(20, "db", "/system.slice/db.service");
    assert_eq!(machine.find("db"), Ok(vec![directory]));
    machine.process(21, "other", "/user.slice/other.service");
    machine.cgroup("user.slice/other.service");
    let reason = machine.find("other").expect_err("is not mounted");
    assert!(reason.contains("is in cgroup /user.slice/other.service, which no mount"), "{reason}");
}

/// `shareProcessNamespace`: the agent sees its siblings, from inside its own cgroup namespace.
#[test]
fn a_sidecar_that_sees_the_whole_hierarchy() {
    let pod = format!("kubepods/burstable/pod{UID}");
    // The host's hierarchy at one place, the container's own at the other.
    let own = format!("{pod}/{ID_A}");
    let machine = Machine::new("/", &[("/", &own), ("/../../../..", "")]);
    machine.agent_in(&own);
    let sibling = machine.cgroup(&format!("{pod}/{ID_B}"));
    machine.process(20, "db", &format!("/../{ID_B}"));
    assert_eq!(machine.find("db"), Ok(vec![sibling]));
    let service = machine.cgroup("system.slice/sshd.service");
    machine.process(21, "sshd", "/../../../../system.slice/sshd.service");
    assert_eq!(machine.find("sshd"), Ok(vec![service]));
    // In the agent's own container.
    machine.process(22, "helper", "/");
    assert_eq!(machine.find("helper"), Ok(vec![machine.cgroup(&own)]));
    // The pod, without a process to look for.
    let machine = Machine::new("/", &[("/../../../..", "")]);
    machine.agent_in(&own);
    assert_eq!(machine.view().pod().expect("it is in one"), machine.cgroup(&pod));
}

#[test]
fn a_sidecar_under_the_systemd_driver() {
    let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
    for above in ["", "system.slice/docker-c0ffee.scope/kubelet.slice/"] {
        let pod = format!("{above}kubepods.slice/kubepods-besteffort.slice/{slice}");
        let own = format!("{pod}/cri-containerd-{ID_A}.scope");
        let up = "/..".repeat(own.split('/').count());
        // The agent is below the root of its namespace, in a cgroup that it made itself.
        let machine = Machine::new("/inner", &[(&up, "")]);
        machine.agent_in(&format!("{own}/inner"));
        let sibling = machine.cgroup(&format!("{pod}/cri-containerd-{ID_B}.scope"));
        machine.process(20, "db", &format!("/../cri-containerd-{ID_B}.scope"));
        assert_eq!(machine.find("db"), Ok(vec![sibling]));
        assert_eq!(machine.view().pod().expect("it is in one"), machine.cgroup(&pod));
    }
}

#[test]
fn a_sidecar_without_the_hosts_hierarchy_is_told_why() {
    let own = format!("kubepods/burstable/pod{UID}/{ID_A}");
    let machine = Machine::new("/", &[("/", &own)]);
    machine.process(20, "db", &format!("/../{ID_B}"));
    let reason = machine.find("db").expect_err("cannot be reached");
    assert!(reason.contains("mount the host's /sys/fs/cgroup"), "{reason}");
    // Its own container it may scope to.
    machine.process(21, "helper", "/");
    assert_eq!(machine.find("helper"), Ok(vec![machine.cgroup(&own)]));
    // The pod's directory is above what is mounted.
    let reason = machine.view().pod().expect_err("is not to be seen").to_string();
    assert!(reason.contains("is in no Kubernetes pod, as far as mounts"), "{reason}");
    let reason = machine.find("nobody").expect_err("there is none");
    assert!(reason.contains("no process with command nobody among the 2 in"), "{reason}");
    assert!(reason.contains("shareProcessNamespace"), "{reason}");
}

/// `hostPID` and the host's cgroup namespace: paths are whole.
#[test]
fn an_agent_on_every_node() {
    let own = format!("/kubepods/besteffort/pod{UID}/{ID_A}");
    let machine = Machine::new(&own, &[("/", "")]);
    machine.cgroup(&own);
    let target = machine.cgroup(&format!("kubepods/burstable/pod{UID}/{ID_B}"));
    machine.process(20, "db", &format!("/kubepods/burstable/pod{UID}/{ID_B}"));
    assert_eq!(machine.find("db"), Ok(vec![target]));
    let pod = machine.cgroup(&format!("kubepods/besteffort/pod{UID}"));
    assert_eq!(machine.view().pod().expect("it is in one"), pod);
}

#[test]
fn what_cannot_be_scoped_to_is_said() {
    let machine = Machine::new("/agent", &[("/", "")]);
    machine.process(20, "root", "/");
    let reason = machine.find("root").expect_err("the root is everything");
    assert_eq!(reason, "process 20 is in the root cgroup, and a scope to that would be every task");
    // Others of the same command can be.
    machine.process(21, "root", "/in");
    let directory = machine.cgroup("in");
    let found = machine.view().find(&[Rule::Comm("root".into())]).expect("one is found");
    assert_eq!((found.directories, found.pids), (vec![directory], vec![21]));
    assert!(matches!(found.missed[..], [NotFound::Root(20)]));

    machine.cgroup("agent");
    let reason = machine.view().pod().expect_err("it is in none").to_string();
    assert!(reason.contains("/cgroup/agent is in no Kubernetes pod"), "{reason}");

    let none = Machine::new("/agent", &[]);
    assert_eq!(none.find("x"), Err(NotFound::Hierarchy.to_string()));
    let unreadable = View::new("/no/such/proc").find(&[Rule::Pid(1)]).expect_err("is not there");
    assert_eq!(unreadable.to_string(), "cannot read /no/such/proc");
}
