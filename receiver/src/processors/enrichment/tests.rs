//! A machine in a directory, whose processes come and go, and this machine's own processes.

use std::process::{Child, Command};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    resource::v1::Resource,
};

use super::*;

const ID: &str = "4b23dbb1e1d04b3d6a0d0ecb4ec2ae4e31ac6bf5ac3dd3e9ac5eb1c5b3c3a001";
const UID: &str = "1f0c6d2a-7b9e-4c55-9d3e-0a1b2c3d4e5f";

/// Seconds that the machine has been up.
const UPTIME: u64 = 1000;

struct Machine {
    root: tempfile::TempDir,
    now: Instant,
}

impl Machine {
    fn new() -> Self {
        let this = Self { root: tempfile::tempdir().expect("a directory"), now: Instant::now() };
        this.write("proc/uptime", &format!("{UPTIME}.00 1.00\n"));
        this.write("etc/passwd", "root:x:0:0::/:/bin/sh\npostgres:x:999:999::/:/bin/sh\n");
        this.process(1, "init", 0, "/init.scope");
        fs::create_dir_all(this.root.path().join("cgroup")).expect("can be made");
        this
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("can be made");
        fs::write(path, text).expect("can be written");
    }

    fn link(&self, path: &str, to: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("can be made");
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(to, path).expect("can be made");
    }

    /// A process of the user 999 that started so many seconds after the boot.
    fn process(&self, pid: u32, comm: &str, start: u64, cgroup: &str) {
        let ticks = start * 100;
        let stat =
            format!("{pid} ({comm}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 1 1\n");
        self.write(&format!("proc/{pid}/stat"), &stat);
        self.write(&format!("proc/{pid}/cgroup"), &format!("0::{cgroup}\n"));
        self.write(&format!("proc/{pid}/cmdline"), &format!("{comm}\0--token=abc\0-D\0/data\0"));
        self.write(&format!("proc/{pid}/status"), "Name:\tx\nUid:\t1\t999\t1\t1\n");
        self.link(&format!("proc/{pid}/exe"), &format!("/usr/bin/{comm}"));
        self.link(&format!("proc/{pid}/ns/user"), "user:[4026531837]");
        self.link(&format!("proc/{pid}/ns/cgroup"), "cgroup:[4026531835]");
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.root.path().join(format!("proc/{pid}"))).expect("it is there");
    }

    fn cgroup(&self, path: &str) -> u64 {
        let directory = self.root.path().join("cgroup").join(path);
        fs::create_dir_all(&directory).expect("can be made");
        fs::metadata(directory).expect("is there").ino()
    }

    fn names(&self, config: serde_json::Value) -> Names {
        let mut config: Config = serde_json::from_value(config).expect("of the right types");
        config.root_path = self.root.path().to_owned();
        let processor = Enrichment::new(config).expect("valid");
        Names::new(processor, Some(&self.root.path().join("cgroup")))
    }
}

/// When a process that started so many seconds after the boot was created, as a receiver says it.
fn created(start: u64) -> (&'static str, Value) {
    let time = SystemTime::now() - Duration::from_secs(UPTIME - start);
    (
        "process.creation.time",
        Value::StringValue(humantime::format_rfc3339_millis(time).to_string()),
    )
}

fn int(key: &'static str, number: u64) -> (&'static str, Value) {
    (key, Value::IntValue(number.cast_signed()))
}

fn attribute((key, value): (&str, Value)) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

/// What was added, as lines in order of the keys.
fn added(names: &mut Names, given: &[(&'static str, Value)], now: Instant) -> Vec<String> {
    let mut attributes: Vec<_> = given.iter().cloned().map(attribute).collect();
    names.add(&mut attributes, now);
    let mut lines: Vec<_> = attributes[given.len()..]
        .iter()
        .map(|a| match a.value.as_ref().and_then(|v| v.value.as_ref()) {
            Some(Value::StringValue(text)) => format!("{}={text}", a.key),
            other => panic!("{}: {other:?}", a.key),
        })
        .collect();
    lines.sort();
    lines
}

fn command(names: &mut Names, given: &[(&'static str, Value)], now: Instant) -> Option<String> {
    let lines = added(names, given, now);
    lines.iter().find_map(|line| line.strip_prefix("process.command=").map(str::to_owned))
}

#[test]
fn a_cgroup_gets_the_names_of_its_container_pod_and_unit() {
    let machine = Machine::new();
    let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
    let path = format!("kubepods.slice/kubepods-besteffort.slice/{slice}/crio-{ID}.scope");
    let id = machine.cgroup(&path);
    let mut names = machine.names(serde_json::json!({}));
    let expected = [
        format!("cgroup.path=/{path}"),
        format!("container.id={ID}"),
        "container.runtime.name=cri-o".into(),
        "k8s.pod.qos_class=BestEffort".into(),
        format!("k8s.pod.uid={UID}"),
        format!("systemd.unit.name=crio-{ID}.scope"),
    ];
    assert_eq!(added(&mut names, &[int("cgroup.id", id)], machine.now), expected);
    // As text too; and never over what is there.
    let text = ("cgroup.id", Value::StringValue(id.to_string()));
    let there = ("container.id", Value::StringValue("mine".into()));
    let lines = added(&mut names, &[text, there], machine.now);
    assert_eq!(lines.len(), 5, "{lines:?}");
    // Of no cgroup; of no number.
    assert!(added(&mut names, &[int("cgroup.id", u64::MAX)], machine.now).is_empty());
    let odd = ("cgroup.id", Value::StringValue("/a".into()));
    assert!(added(&mut names, &[odd], machine.now).is_empty());
}

#[test]
fn a_process_gets_its_names() {
    let machine = Machine::new();
    machine.process(70, "postgres", 10, "/system.slice/pg.service");
    let mut names = machine.names(serde_json::json!({}));
    let expected = [
        "process.command=postgres",
        "process.executable.name=postgres",
        "process.executable.path=/usr/bin/postgres",
        "process.owner=postgres",
        "systemd.unit.name=pg.service",
    ];
    assert_eq!(added(&mut names, &[int("process.pid", 70)], machine.now), expected);
    // The cgroup that is named says which container, not the process that happens to be in another.
    let id = machine.cgroup(&format!("docker/{ID}"));
    let both = [int("process.pid", 70), int("cgroup.id", id)];
    let lines = added(&mut names, &both, machine.now);
    assert!(lines.contains(&format!("container.id={ID}")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("systemd.unit")), "{lines:?}");
    assert!(added(&mut names, &[int("process.pid", 71)], machine.now).is_empty());
    assert!(added(&mut names, &[int("process.pid", u64::MAX)], machine.now).is_empty());
}

#[test]
fn what_cannot_be_read_is_absent() {
    let machine = Machine::new();
    // A kernel thread has neither executable nor arguments.
    machine.process(2, "kthreadd", 0, "/");
    fs::remove_file(machine.root.path().join("proc/2/exe")).expect("is there");
    machine.write("proc/2/cmdline", "");
    let mut names = machine.names(serde_json::json!({}));
    assert_eq!(
        added(&mut names, &[int("process.pid", 2)], machine.now),
        ["process.owner=postgres"]
    );
    // A container has users of its own, and so has another user namespace.
    machine.process(3, "a", 0, &format!("/docker/{ID}"));
    machine.process(4, "b", 0, "/b");
    machine.link("proc/4/ns/user", "user:[1]");
    machine.process(5, "c) (d", 0, "/c");
    machine.write("proc/5/status", "Uid:\t1\t12345\t1\t1\n");
    for pid in [3, 4, 5] {
        let lines = added(&mut names, &[int("process.pid", pid)], machine.now);
        assert!(!lines.is_empty());
        assert!(!lines.iter().any(|line| line.starts_with("process.owner")), "{lines:?}");
    }
}

#[test]
fn a_number_that_is_given_again_is_another_process() {
    let machine = Machine::new();
    machine.process(70, "old", 10, "/a");
    let mut names = machine.names(serde_json::json!({}));
    let (by_number, mut now) = ([int("process.pid", 70)], machine.now);
    let old = [int("process.pid", 70), created(10)];
    assert_eq!(command(&mut names, &by_number, now).as_deref(), Some("old"));
    assert_eq!(command(&mut names, &old, now).as_deref(), Some("old"));
    // Dead: it keeps its name.
    machine.end(70);
    now += Duration::from_secs(60);
    assert_eq!(command(&mut names, &by_number, now).as_deref(), Some("old"));
    assert_eq!(command(&mut names, &old, now).as_deref(), Some("old"));
    // Its number is another's: late points of the old one are told apart by the creation time.
    machine.process(70, "new", 500, "/b");
    now += Duration::from_secs(60);
    let new = [int("process.pid", 70), created(500)];
    assert_eq!(command(&mut names, &by_number, now).as_deref(), Some("new"));
    assert_eq!(command(&mut names, &old, now).as_deref(), Some("old"));
    assert_eq!(command(&mut names, &new, now).as_deref(), Some("new"));
    // One that nobody has seen alive, and a time that is none.
    assert_eq!(command(&mut names, &[int("process.pid", 70), created(300)], now), None);
    let odd = ("process.creation.time", Value::StringValue("yesterday".into()));
    assert_eq!(command(&mut names, &[int("process.pid", 70), odd], now), None);
}

#[test]
fn a_program_that_becomes_another_is_read_again() {
    let machine = Machine::new();
    machine.process(70, "sh", 10, "/a");
    let mut names = machine.names(serde_json::json!({}));
    let by_time = [int("process.pid", 70), created(10)];
    let by_number = [int("process.pid", 70)];
    assert_eq!(command(&mut names, &by_time, machine.now).as_deref(), Some("sh"));
    assert_eq!(command(&mut names, &by_number, machine.now).as_deref(), Some("sh"));
    machine.process(70, "java", 10, "/a");
    let soon = machine.now + Duration::from_secs(10);
    assert_eq!(command(&mut names, &by_number, soon).as_deref(), Some("java"));
    assert_eq!(command(&mut names, &by_time, soon).as_deref(), Some("sh"), "not read yet");
    let later = machine.now + Duration::from_secs(30);
    assert_eq!(command(&mut names, &by_time, later).as_deref(), Some("java"));
}

#[test]
fn nothing_is_read_twice() {
    let machine = Machine::new();
    machine.process(70, "old", 10, "/a");
    let id = machine.cgroup("a");
    let mut names = machine.names(serde_json::json!({}));
    let given = [int("process.pid", 70), created(10), int("cgroup.id", id)];
    let first = added(&mut names, &given, machine.now);
    // With the files gone, only memory can answer.
    fs::remove_dir_all(machine.root.path().join("proc")).expect("is there");
    fs::remove_dir_all(machine.root.path().join("cgroup")).expect("is there");
    for seconds in 0..1000 {
        let now = machine.now + Duration::from_millis(seconds * 29);
        assert_eq!(added(&mut names, &given, now), first);
    }
    assert_eq!(names.processes.counts(), [1000, 1, 0]);
    assert_eq!(
        names.cgroups.as_ref().map(|c| (c.counts().hits, c.counts().misses)),
        Some((1000, 1))
    );
}

#[test]
fn memory_is_bounded_and_forgets() {
    let machine = Machine::new();
    for pid in 10..20 {
        machine.process(pid, "x", 10, "/a");
    }
    let mut names = machine.names(serde_json::json!({"cache_size": 4, "stale_after": "1m"}));
    for pid in 10..20 {
        assert!(command(&mut names, &[int("process.pid", pid)], machine.now).is_some());
    }
    assert_eq!(names.processes.counts(), [0, 10, 6]);
    machine.end(19);
    let given = [int("process.pid", 19)];
    let later = machine.now + Duration::from_secs(59);
    assert!(command(&mut names, &given, later).is_some());
    let stale = later + Duration::from_secs(60);
    names.enrich(&mut Batch::Metrics(Default::default()), stale);
    assert_eq!(command(&mut names, &given, stale), None);
}

#[test]
fn arguments_are_given_only_if_asked_for_and_without_secrets() {
    let machine = Machine::new();
    machine.process(70, "db", 10, "/a");
    let line = |config| {
        let lines = added(&mut machine.names(config), &[int("process.pid", 70)], machine.now);
        lines.iter().find_map(|l| l.strip_prefix("process.command_line=").map(str::to_owned))
    };
    assert_eq!(line(serde_json::json!({})), None);
    let on = serde_json::json!({"command_line": {"enabled": true}});
    assert_eq!(line(on.clone()).as_deref(), Some("db **** -D /data"));
    let own = serde_json::json!({"command_line": {"enabled": true, "redact": ["/d\\w+", "^db"]}});
    assert_eq!(line(own).as_deref(), Some("**** --token=abc -D ****"));
    machine.write("proc/70/cmdline", "db\0--Password\0hunter2\0MYSQL_PASSWD=x\0-v\0\0\0");
    assert_eq!(line(on).as_deref(), Some("db **** **** -v"));
}

#[test]
fn the_list_of_attributes_is_obeyed_and_checked() {
    let machine = Machine::new();
    machine.process(70, "db", 10, "/system.slice/db.service");
    let config = serde_json::json!({"attributes": ["systemd.unit.name", "process.command"]});
    let lines = added(&mut machine.names(config), &[int("process.pid", 70)], machine.now);
    assert_eq!(lines, ["process.command=db", "systemd.unit.name=db.service"]);

    let config = serde_json::json!({
        "attributes": ["container.Id", "process.command_line"],
        "cache_size": 0,
        "stale_after": "0s",
        "root_path": "host",
        "command_line": {"redact": ["("]},
    });
    let config = serde_json::from_value(config).expect("of the right types");
    let wrong = Enrichment::new(config).err().expect("all are wrong");
    let paths: Vec<_> = wrong.0.iter().map(|mistake| mistake.path.as_str()).collect();
    let expected = [
        "cache_size",
        "stale_after",
        "root_path",
        "attributes::0",
        "attributes::1",
        "command_line::redact::0",
    ];
    assert_eq!(paths, expected);
    assert_eq!(wrong.0[3].hint.as_deref(), Some("did you mean `container.id`?"));
}

#[test]
fn resources_and_points_are_named() {
    let machine = Machine::new();
    machine.process(70, "db", 10, "/a");
    machine.process(71, "web", 10, "/a");
    let attributes = |pid| vec![attribute(int("process.pid", pid))];
    let point = NumberDataPoint { attributes: attributes(71), ..Default::default() };
    let metric = Metric {
        data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
        ..Default::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: attributes(70), ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }],
            ..Default::default()
        }],
    };
    let mut batch = Batch::Metrics(request);
    machine.names(serde_json::json!({})).enrich(&mut batch, machine.now);
    let Batch::Metrics(request) = batch else { unreachable!() };
    let block = &request.resource_metrics[0];
    let name = |attributes: &[KeyValue]| {
        let found = attributes.iter().find(|a| a.key == "process.command");
        found.and_then(|a| a.value.clone()).and_then(|v| v.value)
    };
    let of_resource = block.resource.as_ref().expect("is there");
    assert_eq!(name(&of_resource.attributes), Some(Value::StringValue("db".into())));
    let Some(Data::Gauge(gauge)) = &block.scope_metrics[0].metrics[0].data else { unreachable!() };
    assert_eq!(name(&gauge.data_points[0].attributes), Some(Value::StringValue("web".into())));
}

struct Sleeping(Child);

impl Drop for Sleeping {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's own files, where the ones above are only like them.
#[test]
fn a_process_of_this_machine_gets_its_names() {
    let started = SystemTime::now();
    let child = Sleeping(Command::new("sleep").arg("600").spawn().expect("it can sleep"));
    let pid = child.0.id();
    let processor = Enrichment::new(Config::default()).expect("valid");
    let mut names = Names::new(processor, None);
    // Until it has called execve it runs this test.
    let deadline = Instant::now() + Duration::from_secs(60);
    let lines = std::iter::from_fn(|| {
        std::thread::sleep(Duration::from_millis(1));
        let now = Instant::now();
        (now < deadline).then(|| added(&mut names, &[int("process.pid", pid.into())], now))
    })
    .find(|lines| lines.iter().any(|line| line == "process.command=sleep"))
    .expect("it runs within a minute");
    assert!(lines.iter().any(|l| l.starts_with("process.executable.path=/")), "{lines:?}");
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("can be read");
    let owner = format!("process.owner={}", own.expect("this user has a name").name);
    assert!(lines.contains(&owner), "{lines:?}");
    let at = |time| {
        let text = humantime::format_rfc3339_millis(time).to_string();
        [int("process.pid", pid.into()), ("process.creation.time", Value::StringValue(text))]
    };
    let mut by_time = |time| command(&mut names, &at(time), Instant::now());
    assert_eq!(by_time(started).as_deref(), Some("sleep"));
    assert_eq!(by_time(started - Duration::from_secs(3)), None);
}
