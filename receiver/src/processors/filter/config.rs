//! The configuration of `filter`, and the checks that say what it means.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use serde::{Deserialize, Serialize};

use super::{Asked, Filter, Logs, Metrics, Names, Traces, Which, expr::Expression};
use crate::{
    batch::Signal,
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
    pub metric_conditions: Vec<Option<Group>>,
    /// Conditions on log records, scopes and resources.
    pub log_conditions: Vec<Option<Group>>,
    /// Conditions on spans, their events, scopes and resources.
    pub trace_conditions: Vec<Option<Group>>,
    /// Read for the sake of existing files, and held to the syntax: no profiles come here.
    pub profile_conditions: Vec<Option<Group>>,
    /// Which metrics and data points are dropped, in the form that says beforehand what conditions are about.
    pub metrics: MetricsConfig,
    /// Which log records are dropped.
    pub logs: LogsConfig,
    /// Which spans are dropped.
    pub traces: TracesConfig,
    /// Read for the sake of existing files, and held to the syntax: no profiles come here.
    pub profiles: ProfilesConfig,
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
    /// `HasLabel('key')` with the operators of the Collector's expressions, such as `in ['a', 'b']`, `matches`, `>=` and `and`.
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

/// Which profiles are dropped.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfilesConfig {
    /// Conditions on resources.
    pub resource: Option<Vec<String>>,
    /// Conditions on profiles.
    pub profile: Option<Vec<String>>,
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
    let Config { error_mode, metrics, logs, traces, profiles, spans, .. } = config;
    let (mut metric_groups, mut log_groups, mut trace_groups) =
        (config.metric_conditions, config.log_conditions, config.trace_conditions);
    let mut wrong = Mistakes::default();
    let on_metrics =
        metrics.resource.is_some() || metrics.metric.is_some() || metrics.datapoint.is_some();
    let metrics_have = metrics.include.is_some() || metrics.exclude.is_some();
    let on_logs = logs.resource.is_some() || logs.log_record.is_some();
    let logs_have = logs.include.is_some() || logs.exclude.is_some();
    let on_traces =
        traces.resource.is_some() || traces.span.is_some() || traces.spanevent.is_some();
    let on_profiles = profiles.resource.is_some() || profiles.profile.is_some();
    wrong.require(
        trace_groups.is_empty() || !on_traces,
        "trace_conditions",
        "cannot use context inferred trace conditions \"trace_conditions\" and the settings \
         \"traces.resource\", \"traces.span\", \"traces.spanevent\" at the same time",
    );
    wrong.require(
        metric_groups.is_empty() || !(on_metrics || metrics_have),
        "metric_conditions",
        "cannot use context inferred metric conditions \"metric_conditions\" and the settings \
         \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\", \"metrics.include\", \
         \"metrics.exclude\" at the same time",
    );
    wrong.require(
        log_groups.is_empty() || !(on_logs || logs_have),
        "log_conditions",
        "cannot use context inferred log conditions \"log_conditions\" and the settings \
         \"logs.resource\", \"logs.log\", \"logs.include\", \"logs.exclude\" at the same time",
    );
    wrong.require(
        config.profile_conditions.is_empty() || !on_profiles,
        "profile_conditions",
        "cannot use context inferred profile conditions \"profile_conditions\" and the settings \
         \"profiles.resource\", \"profiles.profile\" at the same time",
    );
    wrong.require(
        !(on_metrics && metrics_have),
        "metrics",
        "cannot use \"metrics.resource\", \"metrics.metric\", \"metrics.datapoint\" and the settings \
         \"metrics.include\", \"metrics.exclude\" at the same time",
    );
    wrong.require(
        !(on_logs && logs_have),
        "logs",
        "cannot use \"logs.resource\", \"logs.log\" and the settings \"logs.include\", \
         \"logs.exclude\" at the same time",
    );
    wrong.require(
        !(on_traces && (spans.include.is_some() || spans.exclude.is_some())),
        "traces",
        "cannot use \"traces.resource\", \"traces.span\", \"traces.spanevent\" and the span settings \
         \"spans.include\", \"spans.exclude\" at the same time",
    );
    // Conditions that stand beside the other form are the mistake, whatever they say.
    for (groups, mixed) in [
        (&mut metric_groups, on_metrics || metrics_have),
        (&mut log_groups, on_logs || logs_have),
        (&mut trace_groups, on_traces),
    ] {
        if mixed {
            groups.clear();
        }
    }
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

    let profiles = [("resource", profiles.resource), ("profile", profiles.profile)];
    for (key, list) in profiles {
        for (i, text) in list.into_iter().flatten().enumerate() {
            wrong.nest(&format!("profiles::{key}::{i}"), malformed(&text));
        }
    }
    if !on_profiles {
        check_profiles(config.profile_conditions, &mut wrong);
    }

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
    wrong.nest("spans", spans_selection.unsuited(Signal::Traces));
    wrong.or(Filter {
        metrics: Metrics { asked: on_metrics, include, exclude },
        logs: Logs { asked: on_logs, selection: logs_selection },
        traces: Traces { asked: on_traces, selection: spans_selection },
    })
}

/// What is wrong with the syntax of a condition on profiles. What it names, nobody here knows.
fn malformed(text: &str) -> Mistakes {
    let mut wrong = Mistakes::default();
    let read = Conditions::new(Context::Resource, &[text.to_owned()], ErrorMode::default());
    let errors = read.err().into_iter().flatten().map(|(_, message)| message);
    errors
        .filter(|message| message.contains("condition has invalid syntax"))
        .for_each(|m| wrong.add("", m));
    wrong
}

fn check_profiles(groups: Vec<Option<Group>>, wrong: &mut Mistakes) {
    let path = "profile_conditions";
    check_style(path, &groups, wrong);
    for (i, group) in groups.into_iter().enumerate() {
        let at = format!("{path}::{i}");
        match group {
            None => wrong.add(at, EMPTY),
            Some(Group::Condition(text)) => wrong.nest(&at, malformed(&text)),
            Some(Group::Several(Several { context, conditions, .. })) => {
                let known = ["resource", "scope", "profile"];
                if !context.is_empty() && !known.contains(&context.to_lowercase().as_str()) {
                    let message = format!("unknown context {context}");
                    wrong.unknown(format!("{at}::context"), message, &context, known);
                }
                for (j, text) in conditions.iter().enumerate() {
                    wrong.nest(&format!("{at}::conditions::{j}"), malformed(text));
                }
            }
        }
    }
}

const EMPTY: &str = "condition cannot be empty";

fn check_style(path: &str, groups: &[Option<Group>], wrong: &mut Mistakes) {
    let basic =
        groups.iter().flatten().filter(|group| matches!(group, Group::Condition(_))).count();
    wrong.require(
        basic == 0 || basic == groups.iter().flatten().count(),
        path,
        "configuring multiple configuration styles is not supported, please use only Basic \
         configuration or only Advanced configuration",
    );
}

fn add_groups(
    asked: &mut Asked,
    path: &str,
    groups: Vec<Option<Group>>,
    contexts: &[Context],
    mode: ErrorMode,
    wrong: &mut Mistakes,
) {
    check_style(path, &groups, wrong);
    for (i, group) in groups.into_iter().enumerate() {
        let at = format!("{path}::{i}");
        let (group, one) = match group {
            None => {
                wrong.add(at, EMPTY);
                continue;
            }
            Some(Group::Condition(text)) => {
                (Several { conditions: vec![text], ..Several::default() }, true)
            }
            Some(Group::Several(group)) => (group, false),
        };
        let known = contexts.iter().find(|context| context.name() == group.context.to_lowercase());
        if known.is_none() && !group.context.is_empty() {
            let names = contexts.iter().map(|context| context.name());
            let message = format!("unknown context {}", group.context);
            wrong.unknown(format!("{at}::context"), message, &group.context, names);
            continue;
        }
        let mode = group.error_mode.unwrap_or(mode);
        // What each is about is its own affair.
        for (j, text) in group.conditions.iter().map(std::slice::from_ref).enumerate() {
            let parsed = match known {
                None => Conditions::inferred(contexts, text, mode),
                Some(context) => Conditions::new(*context, text, mode).map(|made| (*context, made)),
            };
            match parsed {
                Ok((context, conditions)) => asked.add(context, Some(conditions)),
                Err(all) => {
                    let at = if one { at.clone() } else { format!("{at}::conditions::{j}") };
                    all.into_iter().for_each(|(_, message)| wrong.add(at.clone(), message));
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
