//! A dashboard for Grafana: first why reads are slow, then every metric, each signal a row.

use fathom::{
    metric::{Kind, Metric},
    receivers::{RECEIVERS, iomonitor::SIGNALS},
};
use serde_json::{Value, json};

use super::{rules, series};

/// The panels of a row, two beside each other.
const WIDTH: usize = 12;
const HEIGHT: usize = 8;

/// The dashboard as Grafana imports it.
pub fn dashboard() -> Value {
    let mut board = Board::default();
    board.row("Why are my reads slow?", false);
    for panel in rules::PANELS {
        board.panel(panel.title, panel.description, panel.unit, &[(panel.expr, panel.legend)]);
    }
    for signal in SIGNALS {
        board.row(&format!("{}: {}", signal.name, signal.description), true);
        signal.metrics.iter().for_each(|metric| board.metric(metric));
    }
    for receiver in RECEIVERS {
        board.row(
            &format!("The receiver {} itself, and what the kernel counts", receiver.name),
            true,
        );
        let of_signals =
            |metric: &Metric| SIGNALS.iter().flat_map(|s| s.metrics).any(|m| m.name == metric.name);
        let own = receiver.metrics.iter().filter(|metric| !of_signals(metric));
        own.for_each(|metric| board.metric(metric));
    }
    json!({
        "uid": "fathom",
        "title": "Fathom",
        "tags": ["fathom"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("job", "label_values(ebpf_probe_status, job)"),
            variable("instance", "label_values(ebpf_probe_status{job=~\"$job\"}, instance)"),
        ]},
        "panels": board.panels,
    })
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": true,
        "includeAll": true,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    })
}

#[derive(Default)]
struct Board {
    panels: Vec<Value>,
    column: usize,
    y: usize,
    /// Whether the panels go into the row that was begun last, which is folded.
    folded: bool,
}

impl Board {
    fn row(&mut self, title: &str, folded: bool) {
        if self.column > 0 {
            self.column = 0;
            self.y += HEIGHT;
        }
        self.folded = folded;
        let id = self.id();
        self.panels.push(json!({
            "id": id, "type": "row", "title": title, "collapsed": folded, "panels": [],
            "gridPos": {"x": 0, "y": self.y, "w": 2 * WIDTH, "h": 1},
        }));
        self.y += 1;
    }

    fn id(&self) -> usize {
        let inside = |panel: &Value| panel["panels"].as_array().map_or(0, Vec::len);
        self.panels.iter().map(|panel| 1 + inside(panel)).sum::<usize>() + 1
    }

    fn metric(&mut self, metric: &Metric) {
        let (name, labels) = (series::name(metric), series::labels(metric));
        let legend = labels.iter().map(|label| format!("{{{{{label}}}}}")).collect::<Vec<_>>();
        let legend = if legend.is_empty() { "{{instance}}".to_owned() } else { legend.join(" ") };
        let by = [&["instance".to_owned()], labels.as_slice()].concat().join(", ");
        let of = "{job=~\"$job\", instance=~\"$instance\"}";
        let description = format!("{} But: {}", metric.description, metric.caveat);
        let (queries, unit) = match metric.kind {
            Kind::Counter => (
                vec![(format!("sum by ({by}) (rate({name}{of}[$__rate_interval]))"), legend)],
                true,
            ),
            Kind::UpDownCounter | Kind::Gauge => {
                (vec![(format!("sum by ({by}) ({name}{of})"), legend)], false)
            }
            Kind::ExponentialHistogram => {
                let quantile = |quantile: f64| {
                    let rate = format!("rate({name}_bucket{of}[$__rate_interval])");
                    (
                        format!("histogram_quantile({quantile}, sum by ({by}, le) ({rate}))"),
                        format!("p{} {legend}", quantile * 100.0),
                    )
                };
                ([0.5, 0.95, 0.99].map(quantile).to_vec(), false)
            }
        };
        let queries: Vec<_> = queries.iter().map(|(q, l)| (q.as_str(), l.as_str())).collect();
        self.panel(metric.name, &description, grafana_unit(metric.unit, unit), &queries);
    }

    fn panel(&mut self, title: &str, description: &str, unit: &str, queries: &[(&str, &str)]) {
        let targets = queries.iter().zip(b'A'..).map(|((expr, legend), id)| {
            json!({"refId": char::from(id).to_string(), "expr": expr, "legendFormat": legend})
        });
        let panel = json!({
            "id": self.id(),
            "type": "timeseries",
            "title": title,
            "description": description,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": self.column * WIDTH, "y": self.y, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": targets.collect::<Vec<_>>(),
        });
        let folded = self.folded.then_some(self.panels.last_mut()).flatten();
        match folded.and_then(|row| row["panels"].as_array_mut()) {
            Some(panels) => panels.push(panel),
            None => self.panels.push(panel),
        }
        self.column = (self.column + 1) % 2;
        if self.column == 0 {
            self.y += HEIGHT;
        }
    }
}

/// A UCUM unit, per second if it is a rate, as Grafana names it.
fn grafana_unit(unit: &str, rate: bool) -> &'static str {
    match (unit, rate) {
        ("By", true) => "Bps",
        ("By", false) => "bytes",
        // Seconds in a second are a share.
        ("s", true) | ("1", _) => "percentunit",
        ("s", false) => "s",
        (_, true) => "cps",
        (_, false) => "short",
    }
}
