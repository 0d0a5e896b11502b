//! The configuration of `filter`, and the checks that say what it means.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use serde::{Deserialize, Serialize};

use super::{Asked, Filter, Logs, Metrics, Names, Traces, Which, expr::Expression};
use crate::{
    config::Mistakes,
    ottl::{Conditions, Context, ErrorMode},
    processors::matching::{self, Attribute, Attributes, Selection, Texts},
};

/// The configuration of `filter`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to do when a condition fails, such as by a division by zero: `propagate` drops the block and reports
    /// the failure, `ignore` reports it and goes on with the next condition, `silent` goes on.
    #[serde(deserialize_with = "crate::config::any_case")]
    pub error_mode: ErrorMode,
    /// Conditions on metrics, data points, scopes and resources; their paths say which: `metric.name`.
    pub metric_conditions: Vec<Group>,
    /// Conditions on log records, scopes and resources.
    pub log_conditions: Vec<Group>,
    /// Conditions on spans, their events, scopes and resources.
    pub trace_conditions: Vec<Group>,
    /// Which metrics and data points are dropped, in the form that says beforehand what conditions are about.
    pub metrics: MetricsConfig,
    /// Which log records are dropped.
    pub logs: LogsConfig,
    /// Which spans are dropped.
    pub traces: TracesConfig,
    /// Which spans are kept, in the older form.
    pub spans: SpansConfig,
}

/// One condition, or several with settings of their own.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Group {
    /// A condition.
    Condition(String),
    /// Several.
    Several(Several),
}

/// Conditions with settings of their own. If one holds, what they are about is dropped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Several {
    /// What they are about: `resource`, `scope`, `metric`, `datapoint`, `log`, `span` or `spanevent`. Without it, their
    /// paths say so.
    pub context: String,
    /// The conditions.
    pub conditions: Vec<String>,
    /// What to do when one of them fails, if it is not what is done for all.
    #[serde(deserialize_with = "crate::config::any_case_option")]
    pub error_mode: Option<ErrorMode>,
}

/// Which metrics and data points are dropped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Conditions on resources; if one holds, all below the resource is dropped.
    pub resource: Option<Vec<String>>,
    /// Conditions on metrics; if one holds, the metric is dropped.
    pub metric: Option<Vec<String>>,
    /// Conditions on data points; if one holds, the point is dropped.
    pub datapoint: Option<Vec<String>>,
    /// What is kept, in the older form.
    pub include: Option<MetricProperties>,
    /// What is dropped, in the older form.
    pub exclude: Option<MetricProperties>,
    /// Accepted as the Collector's; regular expressions are fast without a cache.
    pub regexp: Option<matching::Regexp>,
}

/// What a metric has, in the older form.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricProperties {
    /// How texts are compared: `strict` or `regexp`; or `expr`.
    pub match_type: String,
    /// Accepted as the Collector's; regular expressions are fast without a cache.
    pub regexp: Option<matching::Regexp>,
    /// The metric's name: one of these.
    pub metric_names: Vec<String>,
    /// For `expr`: one of these must hold for one of the metric's points. `MetricName`, `MetricType`, `Label('key')` and
    /// `HasLabel('key')`, with `==`, `!=`, `matches`, `contains`, `startsWith`, `endsWith`, `&&`, `||`, `!`.
    pub expressions: Vec<String>,
    /// Attributes of the resource: all of these.
    pub resource_attributes: Vec<Attribute>,
}

/// Which log records are dropped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Conditions on resources; if one holds, all below the resource is dropped.
    pub resource: Option<Vec<String>>,
    /// Conditions on log records; if one holds, the record is dropped.
    pub log_record: Option<Vec<String>>,
    /// What is kept, in the older form.
    pub include: Option<LogProperties>,
    /// What is dropped, in the older form.
    pub exclude: Option<LogProperties>,
}

/// What a log record has, in the older form.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogProperties {
    /// How texts are compared: `strict` or `regexp`.
    pub match_type: String,
    /// Attributes of the resource: all of these.
    pub resource_attributes: Vec<Attribute>,
    /// Attributes of the record: all of these.
    pub record_attributes: Vec<Attribute>,
    /// The severity text: one of these.
    pub severity_texts: Vec<String>,
    /// The severity number.
    pub severity_number: Option<LogSeverity>,
    /// The body: one of these.
    pub bodies: Vec<String>,
}

/// The least severity.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSeverity {
    /// The least severity, by its short name or its number.
    pub min: String,
    /// Whether a record without one matches.
    pub match_undefined: bool,
}

/// Which spans are dropped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Conditions on resources; if one holds, all below the resource is dropped.
    pub resource: Option<Vec<String>>,
    /// Conditions on spans; if one holds, the span is dropped.
    pub span: Option<Vec<String>>,
    /// Conditions on the events of spans that are kept; if one holds, the event is dropped.
    pub spanevent: Option<Vec<String>>,
}

/// Which spans are kept, in the older form.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpansConfig {
    /// What is kept.
    pub include: Option<matching::Config>,
    /// What is dropped. Asked after `include`.
    pub exclude: Option<matching::Config>,
}

/// Checks everything.
pub(super) fn check(config: Config) -> Result<Filter, Mistakes> {
    let Config { error_mode, metrics, logs, traces, spans, .. } = config;
    let (metric_groups, log_groups, trace_groups) =
        (config.metric_conditions, config.log_conditions, config.trace_conditions);
    let mut wrong = Mistakes::default();
    wrong.require(
        (metrics.resource.is_none() && metrics.metric.is_none() && metrics.datapoint.is_none())
            || (metrics.include.is_none() && metrics.exclude.is_none()),
        "metrics",
        "cannot use \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\" and the settings \
         \"metrics.include\", \"metrics.exclude\" at the same time",
    );
    wrong.require(
        (logs.resource.is_none() && logs.log_record.is_none())
            || (logs.include.is_none() && logs.exclude.is_none()),
        "logs",
        "cannot use \"logs.resource\", \"logs.log\" and the settings \"logs.include\", \
         \"logs.exclude\" at the same time",
    );
    wrong.require(
        (traces.resource.is_none() && traces.span.is_none() && traces.spanevent.is_none())
            || (spans.include.is_none() && spans.exclude.is_none()),
        "traces",
        "cannot use \"traces.resource\", \"traces.span\", \"traces.spanevent\" and the span settings \
         \"spans.include\", \"spans.exclude\" at the same time",
    );
    let mut conditions = |path: &str, context, list: Option<Vec<String>>| {
        Conditions::new(context, &list?, error_mode)
            .map_err(|all| {
                for (i, message) in all {
                    wrong.add(format!("{path}::{i}"), message);
                }
            })
            .ok()
    };
    let mut on_metrics = Asked::default();
    on_metrics.add(
        Context::Resource,
        conditions("metrics::resource", Context::Resource, metrics.resource),
    );
    on_metrics.add(Context::Metric, conditions("metrics::metric", Context::Metric, metrics.metric));
    on_metrics.add(
        Context::DataPoint,
        conditions("metrics::datapoint", Context::DataPoint, metrics.datapoint),
    );
    let mut on_logs = Asked::default();
    on_logs.add(Context::Resource, conditions("logs::resource", Context::Resource, logs.resource));
    on_logs.add(Context::Log, conditions("logs::log_record", Context::Log, logs.log_record));
    let mut on_traces = Asked::default();
    on_traces
        .add(Context::Resource, conditions("traces::resource", Context::Resource, traces.resource));
    on_traces.add(Context::Span, conditions("traces::span", Context::Span, traces.span));
    on_traces.add(
        Context::SpanEvent,
        conditions("traces::spanevent", Context::SpanEvent, traces.spanevent),
    );

    // From the most general on: a condition is about the first that has all that it asks for.
    let mut grouped = |asked: &mut Asked, path: &str, groups, own: [Context; 2]| {
        let contexts = [Context::Resource, Context::Scope, own[0], own[1]];
        add_groups(asked, path, groups, &contexts, error_mode, &mut wrong);
    };
    let points = [Context::Metric, Context::DataPoint];
    grouped(&mut on_metrics, "metric_conditions", metric_groups, points);
    grouped(&mut on_logs, "log_conditions", log_groups, [Context::Log; 2]);
    let events = [Context::Span, Context::SpanEvent];
    grouped(&mut on_traces, "trace_conditions", trace_groups, events);

    let mut names = |path: &str, properties: Option<MetricProperties>| match names(properties?) {
        Ok(names) => Some(names),
        Err(message) => {
            wrong.add(path, message);
            None
        }
    };
    let include = names("metrics::include", metrics.include);
    let exclude = names("metrics::exclude", metrics.exclude);
    let mut record_properties =
        |path: &str, properties: Option<LogProperties>| match log_properties(properties?) {
            Ok(config) => config,
            Err(message) => {
                wrong.add(path, message);
                None
            }
        };
    let log_include = record_properties("logs::include::severity_number::min", logs.include);
    let log_exclude = record_properties("logs::exclude::severity_number::min", logs.exclude);
    let mut selection = |path: &str, include, exclude| {
        Selection::new(include, exclude).unwrap_or_else(|nested| {
            wrong.nest(path, nested);
            Selection::default()
        })
    };
    let logs_selection = selection("logs", log_include, log_exclude);
    let spans_selection = selection("spans", spans.include, spans.exclude);
    wrong.or(Filter {
        metrics: Metrics { asked: on_metrics, include, exclude },
        logs: Logs { asked: on_logs, selection: logs_selection },
        traces: Traces { asked: on_traces, selection: spans_selection },
    })
}

fn add_groups(
    asked: &mut Asked,
    path: &str,
    groups: Vec<Group>,
    contexts: &[Context],
    mode: ErrorMode,
    wrong: &mut Mistakes,
) {
    for (i, group) in groups.into_iter().enumerate() {
        let at = format!("{path}::{i}");
        let (several, one) = match group {
            Group::Condition(text) => {
                (Several { conditions: vec![text], ..Several::default() }, true)
            }
            Group::Several(several) => (several, false),
        };
        let mode = several.error_mode.unwrap_or(mode);
        let known =
            contexts.iter().find(|context| context.name() == several.context.to_lowercase());
        let parsed = match (known, several.context.as_str()) {
            (None, "") => Conditions::inferred(contexts, &several.conditions, mode),
            (Some(context), _) => Conditions::new(*context, &several.conditions, mode)
                .map(|conditions| (*context, conditions)),
            (None, name) => {
                let names = contexts.iter().map(|context| context.name());
                wrong.unknown(
                    format!("{at}::context"),
                    format!("unknown context {name}"),
                    name,
                    names,
                );
                continue;
            }
        };
        match parsed {
            Ok((context, conditions)) => asked.add(context, Some(conditions)),
            Err(all) => {
                for (j, message) in all {
                    let at = if one { at.clone() } else { format!("{at}::conditions::{j}") };
                    wrong.add(at, message);
                }
            }
        }
    }
}

fn names(properties: MetricProperties) -> Result<Names, String> {
    let MetricProperties { match_type, metric_names, expressions, resource_attributes, .. } =
        properties;
    let names = if match_type == "expr" {
        let read = |text: &String| {
            Expression::new(text).map_err(|error| format!("invalid expression {text:?}: {error}"))
        };
        let all: Result<Vec<_>, _> = expressions.iter().map(read).collect();
        Some(Which::Expressions(all?)).filter(|_| !expressions.is_empty())
    } else if metric_names.is_empty() {
        None
    } else {
        Some(Which::Named(Texts::new(&match_type, metric_names)?))
    };
    Ok(Names { names, resource: Attributes::new(&match_type, resource_attributes)? })
}

/// The same in the form that matching has; nothing if nothing is asked for, which the Collector
/// ignores.
fn log_properties(properties: LogProperties) -> Result<Option<matching::Config>, String> {
    let LogProperties {
        match_type,
        resource_attributes,
        record_attributes,
        severity_texts,
        severity_number,
        bodies,
    } = properties;
    let severity = match severity_number {
        Some(LogSeverity { min, match_undefined }) => {
            let min = severity(&min)
                .ok_or_else(|| format!("'{min}' is not a valid severity: not a valid severity"))?;
            Some(matching::Severity { min, match_undefined })
        }
        None => None,
    };
    let empty = resource_attributes.is_empty()
        && record_attributes.is_empty()
        && severity_texts.is_empty()
        && bodies.is_empty()
        && severity.is_none();
    Ok((!empty).then(|| matching::Config {
        match_type,
        resources: resource_attributes,
        attributes: record_attributes,
        log_severity_texts: severity_texts,
        log_severity_number: severity,
        log_bodies: bodies,
        ..Default::default()
    }))
}

fn severity(text: &str) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    match text.parse() {
        Ok(number) => (1..=24).contains(&number).then_some(number),
        Err(_) => {
            let name = format!("SEVERITY_NUMBER_{}", text.to_uppercase());
            SeverityNumber::from_str_name(&name).map(i32::from).filter(|number| *number > 0)
        }
    }
}
