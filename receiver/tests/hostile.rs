//! Configurations that nobody writes for use. Each ends soon, in bounded memory, with an error that says
//! what it is and where.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use fathom::{KINDS, config::load};

/// Without optimization, on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(2);
const SIZE: usize = 5 << 20;

/// What this thread has had of the processor: waiting for others is not our time.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("fields after the name").split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|t| t.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(10 * ticks)
}

/// What is said of a file with this in it.
fn report(bytes: &[u8]) -> String {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    file.write_all(bytes).expect("a file can be written");
    let path = file.path().to_str().expect("a path that is text").to_owned();
    let begun = cpu();
    let report = load(std::slice::from_ref(&path), &[], &KINDS).err().map(|r| r.to_string());
    let took = cpu() - begun;
    let report = report.expect("it is wrong").replace(&path, "FILE");
    let start: String = report.chars().take(300).collect();
    assert!(took < SOON, "{took:?}: {start}");
    assert!(report.len() < 1 << 20, "{} bytes of report: {start}", report.len());
    report
}

fn refused(text: &str, message: &str, place: &str) {
    let report = report(text.as_bytes());
    let start: String = report.chars().take(1000).collect();
    assert!(report.contains(message), "no «{message}» in {start}");
    assert!(report.contains(&format!("at FILE:{place}")), "no {place} in {start}");
}

fn aliases() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1.. {
        if bomb.len() > SIZE {
            break;
        }
        bomb += &format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(10));
    }
    refused(&bomb, "more than 200000 values", "5:5");
    let mut flat = "a: &a [x, x, x, x]\nb:\n  [\n".to_owned();
    flat += &"  *a,\n".repeat(SIZE / 6);
    refused(&(flat + "  ]\n"), "more than 200000 values", "4000");
    refused("a: &a [*a]\n", "an alias to a value that contains it", "1:8");
    refused("a: *b\n", "invalid YAML", "1:");
}

fn depth() {
    // The parser has a limit of its own for these.
    refused(&"[".repeat(SIZE), "recursion limit exceeded", "1:256");
    refused(&"{a: ".repeat(SIZE / 4), "invalid YAML", "1:");
    refused(&"[".repeat(101), "deeper than 100 levels", "1:101");
    refused(&"- ".repeat(SIZE / 2), "deeper than 100 levels", "1:201");
    refused(&"? ".repeat(SIZE / 2), "deeper than 100 levels", "1:201");
    let indented: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    refused(&indented, "deeper than 100 levels", "101:101");
    refused(&format!("a{}: 1\n", "::a".repeat(300)), "deeper than 100 levels", "1:1");
    refused(&format!("? a{}\n: 1\n", "::a".repeat(SIZE / 3)), "deeper than 100 levels", "1:3");
    let both = format!("{}a{}: 1\n", "- ".repeat(60), "::b".repeat(60));
    refused(&format!("a:\n  {both}"), "deeper than 100 levels", "2:123");
}

fn keys() {
    let lines = |line: fn(usize) -> String| -> String { (0..90_000).map(line).collect() };
    refused(
        &(0..400_000).map(|i| format!("k{i}: 1\n")).collect::<String>(),
        "more than 200000 values",
        "100001:",
    );
    refused(&lines(|i| format!("k{i}:\n")), "(200 mistakes, and no more are looked for)", "1:1");
    let twice = lines(|i| format!("k{i}:\n")) + "k7:\n";
    refused(&twice, "mapping key \"k7\" already defined at line 8", "90001:1");
    let unknown = "receivers:\n".to_owned() + &lines(|i| format!("  nop/{i}:\n"));
    refused(&unknown, "unknown type: \"nop\" for id: \"nop/0\"", "2:3");
    let unknown = "receivers:\n  iomonitor:\n".to_owned() + &lines(|i| format!("    k{i}:\n"));
    refused(&unknown, "'' has invalid keys: k0", "3:5");
    let wrong = "exporters:\n  otlp:\n    headers:\n".to_owned()
        + &lines(|i| format!("      h{i}: [1]\n"))[..SIZE / 8];
    refused(&wrong, "expected type 'string', got unconvertible type '[]interface {}'", "4:");
}

fn many_components_that_are_right() {
    let mut text = "receivers: {iomonitor: }\nexporters:\n".to_owned();
    text += &(0..20_000).map(|i| format!("  debug/{i}:\n")).collect::<String>();
    text += "service:\n  pipelines:\n";
    for i in 0..10_000 {
        text += &format!("    metrics/{i}: {{receivers: [iomonitor], exporters: [debug/{i}]}}\n");
    }
    text += "    metrics: {receivers: [iomonitor], exporters: [\n";
    text += &(0..20_000).map(|i| format!("      debugs/{i},\n")).collect::<String>();
    refused(
        &(text + "      ]}\n"),
        "references exporter \"debugs/0\" which is not configured",
        "30006:",
    );
}

/// As many mistakes as there are keys, found by a component: each has to be given its place.
fn maps_that_are_wrong_in_every_key() {
    let lines = |line: fn(usize) -> String| -> String { (0..20_000).map(line).collect() };
    let labels = "exporters:\n  prometheus:\n    endpoint: x:1\n    const_labels:\n".to_owned()
        + &lines(|i| format!("      \"{i:015b}\": x\n").replace('0', "-").replace("1", "."));
    refused(&labels, "not a label", "5:");
    let headers = "exporters:\n  otlp_http:\n    endpoint: http://x\n    headers:\n".to_owned()
        + &lines(|i| format!("      h{i}: \"x\\ny\"\n"));
    refused(&headers, "header", "5:");
    let metrics = "receivers:\n  iomonitor:\n    metrics:\n".to_owned()
        + &lines(|i| format!("      m{i}: {{enabled: false}}\n"));
    refused(&metrics, "no metric is called m0", "4:");
    let signals = "receivers:\n  iomonitor:\n    signals:\n".to_owned()
        + &lines(|i| format!("      s{i}: {{}}\n"));
    refused(&signals, "no signal is called s0", "4:");
    let actions = "processors:\n  attributes:\n    actions:\n".to_owned()
        + &lines(|i| format!("      - {{key: k{i}, action: no}}\n"));
    refused(&actions, "action", "4:");
    let ids = "service:\n  extensions:\n".to_owned() + &lines(|i| format!("    - x/{i}\n"));
    refused(&ids, "references extension \"x/0\" which is not configured", "3:");
}

/// What is right is read as quickly as what is wrong.
fn large_maps_that_are_right() {
    let lines = |line: fn(usize) -> String| -> String { (0..20_000).map(line).collect() };
    let mut text =
        "receivers: {iomonitor: }\nexporters:\n  otlp_http:\n    endpoint: http://x\n".to_owned();
    text += "    headers:\n";
    text += &lines(|i| format!("      h{i}: x\n"));
    text += "  prometheus:\n    endpoint: x:1\n    const_labels:\n";
    text += &lines(|i| format!("      l{i}: x\n"));
    text += "processors:\n  attributes:\n    actions:\n";
    let actions = (0..5_000).map(|i| format!("      - {{key: k{i}, value: x, action: upsert}}\n"));
    text += &actions.collect::<String>();
    text += "service:\n  telemetry:\n    resource:\n";
    text += &lines(|i| format!("      r{i}: x\n"));
    text += "  pipelines:\n    metrics: {receivers: [iomonitor], processors: [attributes], exporters: [otlp_http, prometheus, no]}\n";
    refused(&text, "references exporter \"no\" which is not configured", "");
}

fn no_text() {
    let mut bytes = b"a: 1\nb: ".to_vec();
    bytes.extend(vec![0xff; SIZE]);
    let said = report(&bytes);
    assert!(said.contains("invalid UTF-8") && said.contains("at FILE:2:4"), "{said}");
    refused("a: \0\n", "", "1:");
    assert_eq!(report("#".repeat(SIZE).as_bytes()), "empty configuration file");
}

fn expressions() {
    let valid = "receivers: {iomonitor: }\nexporters: {debug: {verbosity: \"X\"}}\n";
    let with = |text: &str| valid.replace('X', text);
    refused(&with(&"${".repeat(SIZE / 2)), "may have 1048576 bytes", "2:32");
    refused(&with(&"$".repeat(SIZE)), "may have 1048576 bytes", "2:32");
    refused(&with(&"${env:FATHOM_NOT_SET:-".repeat(900)), "unknown metrics level", "2:32");
    let nested = "${env:FATHOM_NOT_SET:-".repeat(1100) + &"}".repeat(1100);
    refused(&with(&nested), "too many recursive expansions", "2:32");
    // A file that names itself: as a value, in text, in a list, many times.
    for itself in
        ["${file:F}", "x${file:F}", "[[[[[[[['${file:F}']]]]]]]]", "['${file:F}', '${file:F}']"]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let fragment = folder.path().join("f").display().to_string();
        fs::write(&fragment, itself.replace('F', &fragment)).expect("a file can be written");
        let report = report(with(&format!("${{file:{fragment}}}")).as_bytes());
        let ended =
            ["too many recursive expansions", "deeper than 100 levels", "more than 200000 values"];
        assert!(ended.iter().any(|end| report.contains(end)), "{itself}: {report}");
        let places = ["at FILE:2:32", &format!("at {fragment}:1:")];
        assert!(places.iter().any(|place| report.contains(place)), "{itself}: {report}");
    }
    // Many large ones.
    let mut large = tempfile::NamedTempFile::new().expect("a file");
    large.write_all(&b"x".repeat(900_000)).expect("a file can be written");
    let name = format!("${{file:{}}}", large.path().display());
    refused(&with(&name.repeat(2)), "expands to more than 1048576 bytes", "2:32");
    let list = format!("a:\n{}", format!("  - \"{name}\"\n").repeat(100));
    refused(&list, "expressions stand for more than 200000 values or 16 MiB", "20:5");
    refused("a: \"${file:/dev/zero}\"\n", "/dev/zero is larger than 16 MiB", "1:4");
}

/// Sources that do not end, and that say that they will not.
fn sources_without_end() {
    let said = load(&["/dev/zero".to_owned()], &[], &KINDS).err().map(|r| r.to_string());
    assert!(
        said.as_ref().is_some_and(|s| s.contains("/dev/zero is larger than 16 MiB")),
        "{said:?}"
    );
    for head in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"]
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let uri = format!("http://{}/", listener.local_addr().expect("bound"));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it comes");
            let _ = stream.read(&mut [0; 4096]).expect("it asks");
            let mut sent = 0;
            stream.write_all(head.as_bytes()).expect("it reads");
            while let Ok(count) = stream.write(&[b'#'; 64 << 10]) {
                sent += count;
            }
            sent
        });
        let said = load(std::slice::from_ref(&uri), &[], &KINDS).err().map(|r| r.to_string());
        let said = said.expect("it does not end");
        assert!(said.contains(&format!("{uri} is larger than 16 MiB")), "{said}");
        let sent = server.join().expect("it was hung up on");
        assert!(sent < 64 << 20, "{sent}");
    }
}

/// One after the other, for the peak is the process's.
#[test]
fn all_end_soon_in_bounded_memory() {
    for test in [
        aliases,
        depth,
        keys,
        maps_that_are_wrong_in_every_key,
        large_maps_that_are_right,
        many_components_that_are_right,
        no_text,
        expressions,
        sources_without_end,
    ] {
        test();
    }
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 512 << 10, "{peak} KiB");
}
