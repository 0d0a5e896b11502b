//! Against real files, a full disk, and directories that come and go.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::json;
use tempfile::tempdir;
use tokio::task::JoinHandle;

use super::*;
use crate::{
    channel::{Output, channel},
    exporters::{
        otlp::sample,
        queue::testing::{Metered, context},
    },
};

fn made(config: serde_json::Value) -> File {
    File::new(serde_json::from_value(config).unwrap()).unwrap()
}

async fn start(config: serde_json::Value) -> (Output, Metered, JoinHandle<Result<()>>) {
    let (cx, metered) = context("file");
    let (out, input) = channel();
    let mut exporter = made(config);
    exporter.start(&cx).await.unwrap();
    (out, metered, tokio::spawn(exporter.run(cx, input)))
}

/// Writes the batches; the items counted as written and as lost.
async fn write(config: serde_json::Value, batches: &[Batch]) -> (u64, u64) {
    let (out, metered, task) = start(config).await;
    for batch in batches {
        out.send(batch.clone()).await.unwrap();
    }
    drop(out);
    task.await.unwrap().unwrap();
    (metered.count("otelcol_exporter_sent"), metered.count("otelcol_exporter_send_failed"))
}

fn lines(batches: &[Batch]) -> Vec<u8> {
    batches
        .iter()
        .flat_map(|batch| [json::write(batch).unwrap(), b"\n".to_vec()].concat())
        .collect()
}

/// The records of a file whose records begin with their lengths.
fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk() {
        let (record, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        records.push(record);
        file = rest;
    }
    records
}

#[tokio::test]
async fn a_block_is_a_line_and_a_new_file_is_begun_or_the_old_continued() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out.json");
    let all = sample::all();
    assert_eq!(write(json!({"path": path}), &all).await, (13, 0));
    assert_eq!(fs::read(&path).unwrap(), lines(&all));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(write(json!({"path": path}), &all[..1]).await, (9, 0));
    assert_eq!(fs::read(&path).unwrap(), lines(&all[..1]), "it is begun anew");
    assert_eq!(write(json!({"path": path, "append": true}), &all[1..]).await, (4, 0));
    assert_eq!(fs::read(&path).unwrap(), lines(&all), "it is continued");
}

#[tokio::test]
async fn protobuf_and_compressed_blocks_follow_their_lengths() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out");
    let [_, logs, _] = sample::all();
    let Batch::Logs(request) = &logs else { unreachable!() };
    let batches = [logs.clone(), logs.clone()];
    write(json!({"path": path, "format": "proto"}), &batches).await;
    let plain = request.encode_to_vec();
    assert_eq!(records(&fs::read(&path).unwrap()), [plain.as_slice(); 2]);
    for (format, expected) in [("proto", plain), ("json", json::write(&logs).unwrap())] {
        write(json!({"path": path, "format": format, "compression": "zstd"}), &batches).await;
        let file = fs::read(&path).unwrap();
        let records = records(&file);
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| zstd::decode_all(*record).unwrap() == expected));
    }
}

#[tokio::test]
async fn what_finds_no_room_is_counted() {
    // Every write to it fails as on a full disk.
    assert_eq!(write(json!({"path": "/dev/full"}), &sample::all()).await, (0, 13));
}

#[tokio::test]
async fn a_file_that_goes_away_is_made_again() {
    let directory = tempdir().unwrap();
    let home = directory.path().join("home");
    let path = home.join("out.json");
    fs::create_dir(&home).unwrap();
    let (out, metered, task) = start(json!({"path": path})).await;
    let [_, logs, _] = sample::all();
    out.send(logs.clone()).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", 2).await;
    // Log rotation from outside.
    fs::rename(&path, home.join("old.json")).unwrap();
    out.send(logs.clone()).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", 4).await;
    assert_eq!(fs::read(&path).unwrap(), lines(std::slice::from_ref(&logs)));
    // The whole directory.
    fs::remove_dir_all(&home).unwrap();
    out.send(logs.clone()).await.unwrap();
    metered.wait_for("otelcol_exporter_send_failed", 2).await;
    fs::create_dir(&home).unwrap();
    out.send(logs.clone()).await.unwrap();
    metered.wait_for("otelcol_exporter_sent", 6).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), lines(&[logs]));
    assert_eq!(metered.count("otelcol_exporter_send_failed"), 2);
}

#[tokio::test]
async fn only_what_runs_empties_the_file() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out.json");
    fs::write(&path, "before\n").unwrap();
    let (cx, _) = context("file");
    let mut exporter = made(json!({"path": path}));
    exporter.start(&cx).await.unwrap();
    drop(exporter);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
    let (out, _, task) = start(json!({"path": path})).await;
    drop(out);
    task.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[tokio::test]
async fn a_path_that_cannot_be_written_stops_the_start() {
    let (cx, _) = context("file");
    let error = made(json!({"path": "/proc/nowhere/out"})).start(&cx).await.unwrap_err();
    assert!(format!("{error:#}").starts_with("/proc/nowhere/out: "), "{error:#}");
}

#[tokio::test]
async fn directories_are_made_on_demand() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a/b/out.json");
    let config = json!({"path": path, "create_directory": true, "directory_permissions": "0700"});
    assert_eq!(write(config, &sample::all()).await, (13, 0));
    let mode = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_that_has_its_size_is_put_aside_and_old_ones_go() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out.json");
    let stranger = "out-of-band.json";
    fs::write(directory.path().join(stranger), "").unwrap();
    let ancient = "out-2001-01-01T00-00-00.000-size.json";
    fs::write(directory.path().join(ancient), "").unwrap();
    let config = json!({
        "path": path, "rotation": {"max_megabytes": 1, "max_backups": 3, "max_days": 1},
    });
    let config = serde_json::from_value(config).unwrap();
    let mut writer = Writer::open(&config, &path).unwrap();
    // Two fit into a file.
    let record = |number: u8| vec![number; 400 * 1024];
    for number in 0..12 {
        writer.write(&record(number)).unwrap();
    }
    // One that is too large has a file of its own.
    writer.write(&vec![b'x'; 3 << 20]).unwrap();
    let names = names(directory.path());
    let old: Vec<_> = names.iter().filter(|name| name.ends_with("-size.json")).collect();
    assert_eq!((names.len(), old.len()), (5, 3), "{names:?}");
    assert!(names.contains(&stranger.to_owned()) && !names.contains(&ancient.to_owned()));
    let held: Vec<_> =
        old.iter().map(|name| fs::read(directory.path().join(name)).unwrap()).collect();
    let pair = |number: u8| [record(number), record(number + 1)].concat();
    assert!(held == [pair(6), pair(8), pair(10)], "the newest are kept, whole and in order");
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);
}

#[test]
fn mistakes_are_reported_as_the_collector_does() {
    let wrong = |config: serde_json::Value| {
        let config = serde_json::from_value(config).unwrap();
        let mistakes = File::new(config).err().expect("mistakes").0;
        mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({})), ["path must be non-empty"]);
    assert_eq!(
        wrong(json!({
            "path": "x", "append": true, "compression": "zstd", "rotation": {},
            "group_by": {"enabled": true}, "directory_permissions": "0755",
        })),
        [
            "append and rotation enabled at the same time is not supported",
            "path must contain exactly one * when group_by is enabled",
            "directory_permissions requires create_directory to be true",
        ]
    );
    for (config, message) in [
        (
            json!({"path": "*/x", "group_by": {"enabled": true}}),
            "path must not start with * when group_by is enabled",
        ),
        (
            json!({"path": "./x/*", "group_by": {"enabled": true, "resource_attribute": ""}}),
            "resource_attribute must not be empty when group_by is enabled",
        ),
        (
            json!({"path": "./x/*", "group_by": {"enabled": true, "max_open_files": 0}}),
            "max_open_files must provide a positive size when group_by is enabled",
        ),
        (
            json!({"path": "x", "encoding": "text_encoding"}),
            "unknown encoding extension \"text_encoding\": there are no such extensions; leave the key \
             out, and choose the form by `format`, json or proto",
        ),
    ] {
        assert_eq!(wrong(config), [message]);
    }
    let permissions =
        |text| json!({"path": "x", "create_directory": true, "directory_permissions": text});
    assert_eq!(
        wrong(permissions("rwx")),
        ["directory_permissions value must be a valid octal representation"]
    );
    assert_eq!(
        wrong(permissions("7777")),
        ["directory_permissions contain invalid bits for file access"]
    );
    let read = |config| serde_json::from_value::<Config>(config).unwrap_err().to_string();
    assert!(read(json!({"format": "text"})).contains("format type is not supported"));
    assert!(read(json!({"compression": "gzip"})).contains("compression is not supported"));
}

#[tokio::test]
async fn what_another_left_unfinished_does_not_spoil_what_follows() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("out");
    let [_, logs, _] = sample::all();
    let batch = std::slice::from_ref(&logs);
    let line = lines(batch);
    // A line of which the end is missing, by everything but the line break and by much.
    for torn in [line.len() - 1, 3] {
        fs::write(&path, [&line, &line[..torn]].concat()).unwrap();
        assert_eq!(write(json!({"path": path, "append": true}), batch).await, (2, 0));
        let expected = [&line, &line[..torn], b"\n", &line].concat();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
    // A record that has its length before it, of which nothing after it could be read.
    fs::remove_file(&path).unwrap();
    let config = json!({"path": path, "append": true, "format": "proto", "compression": "zstd"});
    for _ in 0..2 {
        assert_eq!(write(config.clone(), batch).await, (2, 0));
    }
    let whole = fs::read(&path).unwrap();
    assert_eq!((records(&whole).len(), names(directory.path()).len()), (2, 1));
    for torn in [whole.len() - 1, whole.len() / 2 + 3] {
        fs::write(&path, &whole[..torn]).unwrap();
        assert_eq!(write(config.clone(), batch).await, (2, 0));
        assert_eq!(records(&fs::read(&path).unwrap()).len(), 1);
        let aside = names(directory.path()).into_iter().find(|name| name != "out").unwrap();
        let aside = directory.path().join(aside);
        assert_eq!(fs::read(&aside).unwrap(), &whole[..torn]);
        fs::remove_file(aside).unwrap();
    }
}

#[tokio::test]
async fn each_group_has_its_file() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("of-*/all.json");
    let of = |group: &str| {
        let [_, Batch::Logs(mut logs), _] = sample::all() else { unreachable!() };
        let resource = logs.resource_logs[0].resource.as_mut().unwrap();
        resource.attributes = crate::metric::pairs(&[("tenant", group)]);
        logs
    };
    let of_none = {
        let mut logs = of("");
        logs.resource_logs[0].resource = None;
        logs
    };
    // Two groups in one block, one of them twice, and something that is in no group.
    let mut mixed = of("a");
    for more in [of("b"), of("a"), of_none.clone()] {
        mixed.resource_logs.extend(more.resource_logs);
    }
    let old = directory.path().join("of-b/all.json");
    fs::create_dir(old.parent().unwrap()).unwrap();
    fs::write(&old, "of a run before\n").unwrap();
    fs::File::open(&old).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let config = json!({
        "path": path,
        "group_by": {"enabled": true, "resource_attribute": "tenant", "max_open_files": 1},
    });
    let batches = [mixed, of("a"), of("b"), of_none].map(Batch::Logs);
    assert_eq!(write(config, &batches).await, (10, 4));
    let written =
        |group: &str| fs::read(directory.path().join(format!("of-{group}/all.json"))).unwrap();
    let mut twice = of("a");
    twice.resource_logs.extend(of("a").resource_logs);
    // None is begun anew because it had to be closed for a while.
    assert_eq!(written("a"), lines(&[twice, of("a")].map(Batch::Logs)));
    assert_eq!(written("b"), lines(&[of("b"), of("b")].map(Batch::Logs)));
    assert_eq!(names(directory.path()), ["of-a", "of-b"]);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_does_not_hold_up_the_start() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (out, _, task) = start(json!({"path": path})).await;
    out.send(sample::metrics()).await.unwrap();
    drop(out);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_takes_the_place_of_another_in_a_reload_goes_on_in_its_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("lines");
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    let (cx, _) = context("file");
    for (config, expected) in [
        (json!({"path": path}), 1),
        (json!({"path": path, "flush_interval": "2s"}), 2),
        // Of another form; and a file of an earlier run.
        (json!({"path": path, "format": "proto"}), 0),
    ] {
        let (out, input) = channel();
        let mut exporter = made(config.clone());
        exporter.start(&cx).await.unwrap();
        let task = tokio::spawn(exporter.run(cx.clone(), input));
        out.send(sample::metrics()).await.unwrap();
        drop(out);
        task.await.unwrap().unwrap();
        if expected > 0 {
            assert_eq!(lines(), expected, "{config}");
        } else {
            assert!(!fs::read(&path).unwrap().starts_with(b"{"), "{config}");
        }
    }
    write(json!({"path": path}), &[sample::metrics()]).await;
    assert_eq!(lines(), 1);
}
