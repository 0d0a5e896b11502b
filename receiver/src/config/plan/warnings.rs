//! What components have to say of a configuration that is right: once, whether it is run or only checked.

use super::Plan;

/// The plan's components' warnings, after those that are `known`.
pub fn with_components(plan: &Plan, known: Vec<String>) -> Vec<String> {
    let mut all = known;
    let mut add = |section: &str, id: &dyn std::fmt::Display, said: Vec<String>| {
        for text in said {
            let text = format!("{section}::{id}: {text}");
            // Each pipeline has an instance of its own.
            if !all.contains(&text) {
                all.push(text);
            }
        }
    };
    for planned in &plan.extensions {
        add("extensions", &planned.id, planned.component.warnings());
    }
    for planned in plan.pipelines.iter().flat_map(|pipeline| &pipeline.processors) {
        add("processors", &planned.id, planned.component.warnings());
    }
    for planned in &plan.exporters {
        add("exporters", &planned.id, planned.component.warnings());
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::config;

    #[test]
    fn what_has_no_effect_is_said_once() {
        let yaml = "yaml:
receivers: {iomonitor: }
exporters: {otlp_http: {endpoint: 'http://localhost:1', cookies: {}}}
processors: {resourcedetection: {detectors: [env, gcp]}}
extensions:
  health_check: {check_collector_pipeline: {enabled: true}}
  zpages: {expvar: {enabled: true}}
service:
  extensions: [health_check, zpages]
  pipelines:
    metrics: {receivers: [iomonitor], processors: [resourcedetection], exporters: [otlp_http]}
    metrics/2: {receivers: [iomonitor], processors: [resourcedetection], exporters: [otlp_http]}
";
        let plan = config::load(&[yaml.to_owned()], &[], &crate::KINDS);
        let warnings = plan.map_err(|report| report.to_string()).expect("valid").warnings;
        let about = [
            "extensions::health_check: check_collector_pipeline",
            "extensions::zpages: expvar",
            "processors::resourcedetection: detector gcp is not here",
            "exporters::otlp_http: cookies",
        ];
        assert_eq!(warnings.len(), about.len(), "{warnings:#?}");
        for (warning, about) in warnings.iter().zip(about) {
            assert!(warning.starts_with(about), "{warning}");
        }
    }
}
