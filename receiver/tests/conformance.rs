//! Every component and every signal, by being in a list, is held to the same promises.

use std::collections::BTreeSet;

use fathom::{
    KINDS,
    config::load,
    ebpf::globals,
    exporters::EXPORTERS,
    extensions::EXTENSIONS,
    metric::Metric,
    processors::PROCESSORS,
    receivers::{RECEIVERS, iomonitor::SIGNALS},
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

/// Kind, name and default configuration of every component.
fn components() -> Vec<(&'static str, &'static str, serde_json::Value)> {
    let receivers = RECEIVERS.iter().map(|f| ("receivers", f.name, (f.default_config)()));
    let processors = PROCESSORS.iter().map(|f| ("processors", f.name, (f.default_config)()));
    let exporters = EXPORTERS.iter().map(|f| ("exporters", f.name, (f.default_config)()));
    let extensions = EXTENSIONS.iter().map(|f| ("extensions", f.name, (f.default_config)()));
    receivers.chain(processors).chain(exporters).chain(extensions).collect()
}

fn metrics() -> impl Iterator<Item = &'static Metric> {
    RECEIVERS.iter().flat_map(|f| f.metrics)
}

/// The report about a configuration of one component.
fn report(kind: &str, name: &str, config: &str) -> String {
    let text = format!("yaml:{kind}::{name}: {config}");
    load(&[text], &[], &KINDS).err().map(|report| report.to_string()).unwrap_or_default()
}

#[test]
fn a_key_that_does_not_exist_is_refused_by_every_component() {
    for (kind, name, _) in components() {
        let report = report(kind, name, "{no_such_key: 1}");
        let expected = format!(
            "{kind}::{name}::no_such_key: error reading configuration for \"{name}\": '' has invalid keys: \
             no_such_key"
        );
        assert!(report.contains(&expected), "{report}");
    }
}

#[test]
fn every_default_is_of_the_type_that_the_key_takes() {
    for (kind, name, defaults) in components() {
        let report = report(kind, name, &defaults.to_string());
        assert!(!report.contains("invalid keys"), "{kind}::{name}: {report}");
        assert!(!report.contains("expected"), "{kind}::{name}: {report}");
    }
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../docs/configuration.md");
    let mut missing = Vec::new();
    for (_, name, defaults) in components() {
        // What several have in common stands at the head of their chapter.
        let (common, section) = page
            .split("\n## ")
            .find_map(|chapter| {
                let (common, sections) = chapter.split_once("\n### ")?;
                let named = |section: &&str| section.lines().next() == Some(name);
                Some((common, sections.split("\n### ").find(named)?))
            })
            .unwrap_or_else(|| panic!("docs/configuration.md has no section ### {name}"));
        let serde_json::Value::Object(keys) = defaults else { panic!("{name} has no keys") };
        for key in keys.keys() {
            let mentioned = [common, section]
                .iter()
                .any(|text| text.contains(&format!("`{key}")) || text.contains(&format!("{key}`")));
            if !mentioned {
                missing.push(format!("{name}::{key}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md does not say what is {missing:?}");
}

#[test]
fn metrics_are_described_once_and_whole() {
    let mut seen = BTreeSet::new();
    for metric in metrics() {
        assert!(seen.insert(metric.name), "{} is in two lists", metric.name);
        assert!(metric.name.starts_with("ebpf."), "{}", metric.name);
        assert!(!metric.unit.is_empty(), "{} has no unit", metric.name);
        for text in [metric.description, metric.caveat] {
            assert!(text.ends_with('.'), "{}: {text}", metric.name);
        }
    }
}

/// What a rung declares is what its programs read: a field that nobody sets would be read at offset 0,
/// and one that nobody reads could refuse a mechanism for nothing.
#[test]
fn ladders_and_objects_agree() {
    for signal in SIGNALS {
        let object = object::File::parse(signal.object).expect("an object is an ELF file");
        for rung in signal.probes.iter().flat_map(|probe| probe.rungs) {
            let fields = rung.fields.iter().flat_map(|field| globals::alternatives(field));
            let fields = fields.map(globals::of_field);
            let values = rung.values.iter().map(|value| globals::of_value(value));
            let declared: BTreeSet<String> = fields.chain(values).collect();
            let read: BTreeSet<String> =
                rung.programs.iter().flat_map(|p| read_by(&object, p.program)).collect();
            // What the scope and the groups read is looked up for every program.
            let common: BTreeSet<String> =
                globals::COMMON.iter().map(|field| globals::of_field(field)).collect();
            let own: BTreeSet<String> = read.difference(&common).cloned().collect();
            let undeclared: Vec<_> = own.difference(&declared).collect();
            assert!(undeclared.is_empty(), "{:?} read {undeclared:?} undeclared", rung.programs);
            for field in rung.fields {
                let mut alternatives = globals::alternatives(field).map(globals::of_field);
                let used = alternatives.any(|name| read.contains(&name));
                assert!(used, "{:?} declare {field} and do not read it", rung.programs);
            }
            for value in rung.values {
                assert!(read.contains(&globals::of_value(value)), "{:?}: {value}", rung.programs);
            }
        }
    }
}

/// What the program of a classic tracepoint returns decides whether others see the event: perf does if it is 1.
#[test]
fn classic_tracepoints_stay_visible_to_others() {
    // include/uapi/linux/bpf.h: opcodes of one byte, then registers, an offset and a number, 8 bytes in all.
    const EXIT: u8 = 0x95;
    const RETURN_1: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0xb4, 0, 0, 0, 1, 0, 0, 0]];
    for signal in SIGNALS {
        let object = object::File::parse(signal.object).expect("an object is an ELF file");
        let sections = object.sections().filter(|section| section.name() == Ok("tracepoint"));
        for code in sections.map(|section| section.data().expect("its code")) {
            let mut before = [0; 8];
            for instruction in code.as_chunks().0 {
                let ends = instruction[0] == EXIT;
                assert!(!ends || RETURN_1.contains(&before), "{}: {before:x?}", signal.name);
                before = *instruction;
            }
        }
    }
}

/// The globals for fields and values that a program's code refers to.
fn read_by(object: &object::File<'_>, program: &str) -> BTreeSet<String> {
    let symbol = object
        .symbols()
        .find(|symbol| symbol.name() == Ok(program))
        .unwrap_or_else(|| panic!("the object has no program {program}"));
    let section = symbol.section_index().expect("a program is in a section");
    let section = object.section_by_index(section).expect("the section exists");
    let code = symbol.address()..symbol.address() + symbol.size();
    section
        .relocations()
        .filter(|(at, _)| code.contains(at))
        .filter_map(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(index) => object.symbol_by_index(index).ok()?.name().ok(),
            _ => None,
        })
        .filter(|name| {
            ["OFFSET_", "SIZE_", "ENUM_", "ARG_"].iter().any(|kind| name.starts_with(kind))
        })
        .map(str::to_owned)
        .collect()
}
