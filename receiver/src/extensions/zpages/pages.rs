//! What the pages say.

use std::{fmt, time::SystemTime};

use humantime_serde::re::humantime::{format_duration, format_rfc3339_millis};
use serde::Deserialize;

use super::html::{Cell, Page, in_query};
use crate::{
    config::duration_text,
    status::{Event, Statuses},
    telemetry::recent::Record,
};

/// What a page can be asked about, in the Collector's words.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    #[serde(rename = "zpipelinename")]
    pub(super) pipeline: String,
    #[serde(rename = "zcomponentname")]
    pub(super) component: String,
    #[serde(rename = "zcomponentkind")]
    pub(super) kind: String,
    #[serde(rename = "zextensionname")]
    pub(super) extension: String,
}

/// The pages, as the first one links to them.
const PAGES: [(&str, &str); 5] = [
    ("Pipelines", "pipelinez"),
    ("Extensions", "extensionz"),
    ("Features", "featurez"),
    ("Probes", "probez"),
    ("Errors", "errorz"),
];

pub(super) fn service(started: SystemTime) -> String {
    let property = |name: &str, value: &dyn fmt::Display| [Cell::text(name), Cell::text(value)];
    let build = [
        property("Command", &env!("CARGO_PKG_NAME")),
        property("Description", &env!("CARGO_PKG_DESCRIPTION")),
        property("Version", &env!("CARGO_PKG_VERSION")),
    ];
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let uptime = started.elapsed().unwrap_or_default();
    let runtime = [
        property("StartTimestamp", &format_rfc3339_millis(started)),
        property("Uptime", &duration_text(std::time::Duration::from_secs(uptime.as_secs()))),
        property("OS", &std::env::consts::OS),
        property("Arch", &std::env::consts::ARCH),
        property("Kernel", &kernel),
    ];
    let mut page = Page::new(concat!("Service ", env!("CARGO_PKG_NAME")))
        .heading("Build Info")
        .table(["Name", "Value"], &build)
        .heading("Runtime Info")
        .table(["Name", "Value"], &runtime)
        .heading("Pages");
    for (name, path) in PAGES {
        page = page.line(&Cell::Links(vec![(name.to_owned(), path.to_owned())]));
    }
    page.end()
}

pub(super) fn pipelines(statuses: &Statuses, records: &[Record], asked: &Asked) -> String {
    let groups = statuses.groups();
    let flows = statuses.flows();
    let rows: Vec<_> = flows
        .iter()
        .map(|flow| {
            let links = |kind: &str, ids: &[String]| {
                let link = |id: &String| {
                    let (pipeline, component) = (in_query(&flow.id), in_query(id));
                    let to = format!(
                        "pipelinez?zpipelinename={pipeline}&zcomponentname={component}&zcomponentkind={kind}"
                    );
                    (id.clone(), to)
                };
                Cell::Links(ids.iter().map(link).collect())
            };
            let group = groups.get(&format!("pipeline:{}", flow.id));
            let event = group.and_then(|group| Event::of_all(group.values()));
            [
                Cell::text(&flow.id),
                Cell::text(flow.signal),
                Cell::text(flow.mutates),
                links("receiver", &flow.receivers),
                links("processor", &flow.processors),
                links("exporter", &flow.exporters),
                status(event.as_ref()),
                error(event.as_ref()),
            ]
        })
        .collect();
    let heads = [
        "FullName",
        "InputType",
        "MutatesData",
        "Receivers",
        "Processors",
        "Exporters",
        "Status",
        "Error",
    ];
    let page = Page::new("Pipelines").table(heads, &rows);
    if asked.pipeline.is_empty() || asked.component.is_empty() || asked.kind.is_empty() {
        return page.end();
    }
    let name = format!("{}:{}", asked.kind, asked.component);
    let event = groups.get(&format!("pipeline:{}", asked.pipeline)).and_then(|g| g.get(&name));
    let shown = match asked.kind.as_str() {
        "processor" => format!("processor: {}/{}", asked.pipeline, asked.component),
        kind => format!("{kind}: {}", asked.component),
    };
    component(page, &shown, &name, event, records).end()
}

pub(super) fn extensions(statuses: &Statuses, records: &[Record], asked: &Asked) -> String {
    let group = statuses.groups().remove("extensions").unwrap_or_default();
    let rows: Vec<_> = group
        .iter()
        .map(|(name, event)| {
            let id = name.trim_start_matches("extension:");
            let to = format!("extensionz?zextensionname={}", in_query(id));
            [Cell::Links(vec![(id.to_owned(), to)]), status(Some(event)), Cell::text(&event.error)]
        })
        .collect();
    let page = Page::new("Extensions").table(["FullName", "Status", "Error"], &rows);
    if asked.extension.is_empty() {
        return page.end();
    }
    let name = format!("extension:{}", asked.extension);
    component(page, &asked.extension, &name, group.get(&name), records).end()
}

/// One component in more detail.
fn component(
    page: Page,
    shown: &str,
    name: &str,
    event: Option<&Event>,
    records: &[Record],
) -> Page {
    let Some(event) = event else {
        return page.heading(shown).line(&Cell::text("There is no such component."));
    };
    let rows = [
        [Cell::text("Status"), status(Some(event))],
        [Cell::text("Since"), Cell::text(format_rfc3339_millis(event.time))],
        [Cell::text("Error"), Cell::text(&event.error)],
    ];
    let own: Vec<_> = records.iter().filter(|r| r.component == name).cloned().collect();
    table_of(page.heading(shown).table(["Name", "Value"], &rows).heading("Errors"), &own)
}

pub(super) fn features() -> String {
    let heads = ["ID", "Enabled", "Description", "Stage"];
    let page = Page::new("Feature Gates").table(heads, &[]);
    page.line(&Cell::text("This version has none.")).end()
}

pub(super) fn probes(statuses: &Statuses) -> String {
    let mut rows = Vec::new();
    for (receiver, probes) in statuses.probes() {
        for probe in probes {
            let (signal, name) = probe.name.split_once('/').unwrap_or(("", &probe.name));
            let missed = probe.missed.map_or_else(|| "?".to_owned(), |missed| missed.to_string());
            rows.push([
                Cell::text(&receiver),
                Cell::text(signal),
                Cell::text(name),
                Cell::text(if probe.mode.is_some() { "attached" } else { "not attached" }),
                Cell::text(probe.mode.unwrap_or("-")),
                Cell::text(missed),
                Cell::text(&probe.reason),
            ]);
        }
    }
    let heads = ["Receiver", "Signal", "Probe", "Status", "Mode", "Missed", "Reason"];
    let text = "Missed are events for which the kernel did not run the probe; it is read with the metrics, and \
                \"?\" before that and where the kernel does not count it.";
    Page::new("Probes").table(heads, &rows).line(&Cell::text(text)).end()
}

pub(super) fn errors(records: &[Record]) -> String {
    table_of(Page::new("Errors"), records).end()
}

/// The newest first.
fn table_of(page: Page, records: &[Record]) -> Page {
    let now = SystemTime::now();
    let row = |record: &Record| {
        let age = now.duration_since(record.time).unwrap_or_default();
        let age = std::time::Duration::from_secs(age.as_secs());
        [
            Cell::text(format_rfc3339_millis(record.time)),
            Cell::text(format!("{} ago", format_duration(age))),
            Cell::text(record.level),
            Cell::text(if record.component.is_empty() { "-" } else { &record.component }),
            Cell::text(record.times),
            Cell::text(&record.text),
        ]
    };
    let rows: Vec<_> = records.iter().rev().map(row).collect();
    let page = page.table(["Time", "Age", "Level", "Component", "Times", "Message"], &rows);
    match records.is_empty() {
        true => page.line(&Cell::text("None since the start.")),
        false => page,
    }
}

fn status(event: Option<&Event>) -> Cell {
    Cell::text(event.map_or("", |event| event.status.name()))
}

fn error(event: Option<&Event>) -> Cell {
    Cell::text(event.map_or("", |event| event.error.as_str()))
}
