//! SIGHUP while a workload runs: what is counted goes on, whatever changes behind the receiver.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tests::{
    agent::{Agent, Mode, Setup, free_address},
    cgroup::Cgroup,
    deadline::wait_for,
    file,
    otlp::{OtlpServer, Point, Reading},
    plan::{Call, Open, Plan, Step},
    random,
    scrape::{Scrape, get},
    worker::Worker,
};

use crate::{WORKLOAD, lifecycle::programs, syscalls::equal};

const RELOADED: &str = "Configuration reloaded";
const REFUSED: &str = "Configuration not reloaded, the previous one stays in effect: ";

fn site(value: &str) -> Value {
    json!({"actions": [{"key": "site", "value": value, "action": "upsert"}]})
}

/// The points of the calls that the workload makes, as they came.
fn preads(server: &OtlpServer) -> Result<Vec<Point>> {
    let mut points = server.points("ebpf.syscall.calls")?;
    points.retain(|point| point.attributes["syscall"] == "pread64");
    Ok(points)
}

#[test]
fn counters_go_on_while_exporters_and_processors_change() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let server = OtlpServer::start()?;
    let cgroup = Cgroup::new()?;
    let lines = directory.path().join("lines.json");
    let base = || Setup::new(Mode::Auto, &cgroup).with("collection_interval", json!("20ms"));
    let otlp = json!({
        "endpoint": server.address(),
        "tls": {"insecure": true},
        // Several would overtake each other.
        "sending_queue": {"num_consumers": 1},
    });
    let mut other = otlp.clone();
    other["headers"] = json!({"x-reload": "1"});
    let setups = [
        base().export(otlp.clone()).process("attributes", site("a")),
        base().export(otlp.clone()).process("attributes", site("b")),
        base().export(other.clone()).process("attributes", site("b")),
        base().export(other.clone()).process("attributes", site("c")).process("batch", json!({})),
        base()
            .export(other.clone())
            .process("deltatocumulative", json!({}))
            .process("attributes", site("c"))
            .and("file", json!({"path": lines})),
        base().export(other).and("prometheus/2", json!({"endpoint": "127.0.0.1:0"})),
        base().export(otlp.clone()),
    ];

    let agent = Agent::start(&base().export(otlp))?;
    let loaded = programs(agent.pid())?;
    let path = file::cold(&directory, &mut rng, 1 << 20)?;
    let phases: Vec<_> = setups
        .iter()
        .map(|_| vec![Step::new(Call::Pread64, 0, 512).times(rng.u64(10_000..50_000))])
        .collect();
    let plan = Plan { threads: 2, files: vec![Open::Read(path)], phases };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    for setup in &setups {
        worker.begin()?;
        let said = agent.reload(setup)?;
        ensure!(said.contains(RELOADED) && !said.contains("receiver iomonitor"), "{said}");
        worker.stopped()?;
        // Some collections pass by what is new.
        let seen = preads(&server)?.len();
        wait_for("collections", || Ok((preads(&server)?.len() > seen + 2).then_some(())))?;
    }
    let report = worker.finish()?;
    // Series that no longer come are shown for some time.
    equal(&agent.settled()?.newest(), &report)?;
    ensure!(programs(agent.pid())? == loaded, "other programs are loaded now");
    ensure!(lines.metadata()?.len() > 0, "nothing in the file");
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());

    let points = preads(&server)?;
    let last = points.last().context("no points")?;
    let made = report.of(Call::Pread64).calls;
    ensure!(matches!(last.value, Reading::Counter(calls) if calls == made), "{last:?}, not {made}");
    for pair in points.windows(2) {
        let (Reading::Counter(before), Reading::Counter(after)) = (&pair[0].value, &pair[1].value)
        else {
            panic!("no counters: {pair:?}")
        };
        ensure!(pair[0].start == pair[1].start && before <= after, "it began anew: {pair:?}");
        ensure!(pair[0].time < pair[1].time, "twice, or overtaken: {pair:?}");
    }
    let sites: BTreeSet<_> =
        points.iter().map(|point| point.attributes.get("site").map(String::as_str)).collect();
    ensure!(sites == BTreeSet::from([None, Some("a"), Some("b"), Some("c")]), "{sites:?}");
    let with_header =
        server.received().iter().filter(|r| r.header.contains_key("x-reload")).count();
    ensure!(
        with_header > 0 && with_header < server.received().len(),
        "{with_header} with a header"
    );
    Ok(())
}

/// What the lines of a file say of the calls that the workload makes: since when, until when, how many.
fn preads_in(lines: &str) -> Result<Vec<(String, String, u64)>> {
    let mut points = Vec::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line)?;
        let metrics = line["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array();
        let calls = metrics.into_iter().flatten().filter(|m| m["name"] == "ebpf.syscall.calls");
        let all = calls.filter_map(|m| m["sum"]["dataPoints"].as_array()).flatten();
        for point in all.filter(|p| p["attributes"][0]["value"]["stringValue"] == "pread64") {
            let text = |key: &str| point[key].as_str().map(str::to_owned);
            // One that says that its series has ended has no value.
            let Some(value) = text("asInt") else { continue };
            let times = ["startTimeUnixNano", "timeUnixNano"].map(text);
            let [Some(start), Some(time)] = times else { bail!("no times: {point}") };
            points.push((start, time, value.parse()?));
        }
    }
    Ok(points)
}

#[test]
fn signals_go_on_while_the_receiver_changes() -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let server = OtlpServer::start()?;
    let (cgroup, elsewhere) = (Cgroup::new()?, Cgroup::new()?);
    let lines = directory.path().join("lines.json");
    let otlp = json!({
        "endpoint": server.address(),
        "tls": {"insecure": true},
        "sending_queue": {"num_consumers": 1},
    });
    let of = |cgroup: &Cgroup| {
        let setup = Setup::new(Mode::Auto, cgroup).with("collection_interval", json!("20ms"));
        setup.export(otlp.clone()).and("file", json!({"path": lines}))
    };
    let base = || of(&cgroup);
    let off = json!({"enabled": false});
    let setups = [
        base().with("collection_interval", json!("35ms")),
        base().signal("faults", json!({"enabled": true})),
        base().with("signals", json!({"page_cache": off})),
        base()
            .with("metrics", json!({"ebpf.syscall.errors": off}))
            .signal("faults", json!({"enabled": true})),
        base().with("overrides", json!([{"signals": ["syscalls"], "collection_interval": "50ms"}])),
        base().with("pressure", off.clone()).with("memory_budget_mib", json!(999)),
        base().with("align", json!({"enabled": true})),
        base(),
    ];

    let agent = Agent::start(&base())?;
    let mut loaded = programs(agent.pid())?;
    let path = file::cold(&directory, &mut rng, 1 << 20)?;
    let phase = || vec![Step::new(Call::Pread64, 0, 512).times(rng.u64(10_000..50_000))];
    let phases: Vec<_> = std::iter::repeat_with(phase).take(setups.len() + 2).collect();
    let of_phase = |i: usize| 2 * phases[i][0].count;
    let plan = Plan { threads: 2, files: vec![Open::Read(path)], phases: phases.clone() };
    let mut worker = Worker::start(WORKLOAD, &plan)?;
    worker.join(&cgroup)?;
    let until_now = |phases: usize| (0..phases).map(of_phase).sum::<u64>();
    let pread = [("syscall", "pread64")];
    for (i, setup) in setups.iter().enumerate() {
        worker.begin()?;
        let said = agent.reload(setup)?;
        ensure!(said.contains(RELOADED) && said.contains("receiver iomonitor"), "{said}");
        worker.stopped()?;
        let shown = agent.settled()?;
        let (calls, made) = (shown.count("ebpf_syscall_calls_total", &pread)?, until_now(i + 1));
        ensure!(calls == made, "{i}: {calls} shown, {made} made");
        // What is not configured any more is not shown, as if it went on.
        let adds = shown.all("ebpf_page_cache_adds_total", &[]).count();
        ensure!(adds == usize::from(i != 2), "{i}: {adds} series of the page cache");
        let stalls = shown.all("ebpf_pressure_stall_time_seconds_total", &[]).count();
        ensure!((stalls > 0) == (i != 5), "{i}: {stalls} series of pressure");
        let now = programs(agent.pid())?;
        let stay = now.intersection(&loaded).count();
        ensure!(stay == now.len().min(loaded.len()), "{i}: {stay} of {loaded:?} in {now:?}");
        loaded = now;
    }
    let points = preads(&server)?;
    for pair in points.windows(2) {
        ensure!(pair[0].start == pair[1].start && pair[0].time < pair[1].time, "{pair:?}");
        let (Reading::Counter(before), Reading::Counter(after)) = (&pair[0].value, &pair[1].value)
        else {
            panic!("no counters: {pair:?}")
        };
        ensure!(before <= after, "it began anew: {pair:?}");
    }

    // Of other groups, and of other tasks, counters are others; those before are not shown beside them.
    for (phase, setup, counted) in [
        (setups.len(), base().with("group_by", json!("process")), true),
        (setups.len() + 1, of(&elsewhere), false),
    ] {
        ensure!(agent.reload(&setup)?.contains(RELOADED));
        worker.begin()?;
        worker.stopped()?;
        let shown = agent.settled()?.sum("ebpf_syscall_calls_total", &pread)?;
        let made = if counted { of_phase(phase) } else { 0 };
        ensure!(shown == made, "{phase}: {shown} shown, {made} made");
    }
    worker.finish()?;
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    let points = preads_in(&std::fs::read_to_string(&lines)?)?;
    let first: Vec<_> = points.iter().take_while(|point| point.0 == points[0].0).collect();
    ensure!(first.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].2 <= pair[1].2));
    let made = until_now(setups.len());
    ensure!(first.last().is_some_and(|last| last.2 == made), "{:?}, not {made}", first.last());
    Ok(())
}

/// How often reloads have ended so, by the agent's own metrics.
fn reloads(own: SocketAddr, outcome: &str) -> Result<u64> {
    Scrape::parse(&get(own, "/metrics")?)?.count("otelcol_config_reloads", &[("outcome", outcome)])
}

#[test]
fn what_is_wrong_changes_nothing_and_is_said_and_counted() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let own = free_address()?;
    let reader = |host: &str, port: u16| json!([{"pull": {"exporter": {"prometheus": {"host": host, "port": port}}}}]);
    let telemetry = json!({"metrics": {"readers": reader("127.0.0.1", own.port())}});
    let base = || Setup::new(Mode::Auto, &cgroup).telemetry(telemetry.clone());
    let agent = Agent::start(&base())?;
    let loaded = programs(agent.pid())?;
    ensure!((reloads(own, "success")?, reloads(own, "failure")?) == (0, 0));

    // No YAML, a mistake, and what only its start can show.
    let taken = base().and("prometheus/2", json!({"endpoint": own}));
    let port = format!("cannot start exporter \"prometheus/2\": endpoint: cannot listen at {own}");
    for (said, expected) in [
        (agent.reload_text("receivers:\n  iomonitor: a: b")?, ".yaml:2:"),
        (
            agent.reload(&base().and("debug", json!({"verbose": true})))?,
            "has invalid keys: verbose",
        ),
        (agent.reload(&base().with("mode", json!("fast")))?, "receivers::iomonitor::mode"),
        (agent.reload(&taken)?, &*port),
    ] {
        ensure!(said.contains(REFUSED), "{said}");
        // The place is in a line of its own.
        wait_for(expected, || Ok(agent.log().contains(expected).then_some(())))?;
    }
    agent.settled()?;
    ensure!((reloads(own, "success")?, reloads(own, "failure")?) == (0, 4));
    ensure!(programs(agent.pid())? == loaded, "other programs are loaded now");

    // What takes effect only at the start is said; the level of the logs does so at once.
    let debug =
        base().process("memory_limiter", json!({"check_interval": "10ms", "limit_mib": 4000}));
    let debug = debug.telemetry(json!({
        "logs": {"level": "debug"},
        "metrics": {"readers": reader("localhost", own.port())},
    }));
    let said = agent.reload(&debug)?;
    ensure!(said.contains(RELOADED), "{said}");
    wait_for("a message of that level", || {
        Ok(agent.log().contains("Currently used memory").then_some(()))
    })?;
    let fixed = "service::telemetry::metrics has changed: that takes effect at the next start";
    ensure!(agent.log().contains(fixed), "{}", agent.log());

    // Another receiver is one of its own.
    let said = agent.reload(&base().with("max_groups", json!(100)))?;
    ensure!(said.contains("receiver iomonitor"), "{said}");
    agent.settled()?;
    ensure!(programs(agent.pid())?.is_disjoint(&loaded), "the old programs are still loaded");
    ensure!((reloads(own, "success")?, reloads(own, "failure")?) == (2, 4));
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    Ok(())
}

/// The probes that have attached.
fn attached(agent: &Agent) -> Result<BTreeSet<String>> {
    let shown = agent.settled()?;
    let all = shown.all("ebpf_probe_status", &[]).filter(|sample| sample.value == 1.0);
    Ok(all.map(|sample| sample.labels["probe"].clone()).collect())
}

#[test]
fn a_storm_of_signals_keeps_no_probe_from_attaching() -> Result<()> {
    let cgroup = Cgroup::new()?;
    let base = || Setup::new(Mode::Auto, &cgroup);
    let agent = Agent::start(&base())?;
    let before = attached(&agent)?;
    for groups in [100, 101] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let storm = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    kill(agent.pid(), Signal::SIGHUP)?;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            let reload = || -> Result<()> {
                let seen = agent.log().len();
                agent.reload(&base().with("max_groups", json!(groups)))?;
                wait_for("another receiver", || {
                    let log = agent.log();
                    let mut said = log[seen..].lines().filter(|line| line.contains(RELOADED));
                    Ok(said.any(|line| line.contains("receiver iomonitor")).then_some(()))
                })
            };
            let reloaded = reload();
            over.store(true, Ordering::Relaxed);
            storm.join().expect("the storm does not panic")?;
            reloaded
        })?;
        let now = attached(&agent)?;
        ensure!(now == before, "not attached: {:?}", before.difference(&now));
    }
    ensure!(agent.stop(Signal::SIGTERM)?.status.success());
    Ok(())
}
