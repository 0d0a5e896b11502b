//! The read-only globals of an object, set before it is loaded.

use std::collections::{BTreeMap, BTreeSet};

use aya::EbpfLoader;

use super::{
    architecture,
    kernel::Kernel,
    ladder::{Mode, Probe, Rung},
};

/// Values by the globals' names.
#[derive(Clone, Default, PartialEq)]
pub struct Globals(Vec<(String, Vec<u8>)>);

impl Globals {
    /// Sets a `u32`.
    pub fn number(&mut self, name: impl Into<String>, value: u32) {
        self.bytes(name, value.to_ne_bytes());
    }

    /// Sets a global of any type to its bytes in memory.
    pub fn bytes(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Hands all of them to the loader. One that an object does not have is none of its business:
    /// the scope, for instance, is set for every object.
    pub(super) fn apply<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, value) in &self.0 {
            loader.override_global(name, value.as_slice(), false);
        }
    }
}

/// What the code that all programs share reads, for the scope and the groups. It asks what there is.
pub const COMMON: &[&str] = &[
    "task_struct.group_leader",
    "task_struct.start_boottime",
    "task_struct.comm",
    "task_struct.nsproxy",
    "nsproxy.mnt_ns",
    "mnt_namespace.ns.inum",
    "task_struct.cgroups",
    "css_set.dfl_cgrp",
    "cgroup.level",
    "cgroup.ancestor_ids",
    "cgroup.ancestors",
    "cgroup.kn",
    "kernfs_node.id",
    "mem_cgroup.css.cgroup",
    "page.mem_cgroup",
    "folio.memcg_data",
    "obj_cgroup.memcg",
    "obj_cgroup.is_root",
    "bio.bi_blkg",
    "blkcg_gq.blkcg",
    "blkcg.css.cgroup",
];

/// What this kernel does not have of all that programs ask for, with the reasons.
pub(super) struct Missing(BTreeMap<&'static str, String>);

impl Missing {
    /// Looks everything up, sets the globals to what is found, and keeps what is not.
    pub(super) fn find(kernel: &Kernel, probes: &[&'static Probe], globals: &mut Globals) -> Self {
        let rungs = || probes.iter().flat_map(|p| p.rungs);
        let mut missing = BTreeMap::new();
        let events: Vec<_> = rungs()
            .filter(|r| matches!(r.mode, Mode::Tracepoint | Mode::SyscallTracepoint))
            .flat_map(|r| r.programs)
            .map(|p| p.target)
            .collect();
        let fields = rungs().flat_map(|r| r.fields).flat_map(|field| alternatives(field));
        for field in fields.chain(COMMON.iter().copied()).collect::<BTreeSet<_>>() {
            match kernel.field(field, &events) {
                Ok(offset) => globals.number(of_field(field), offset),
                Err(error) => drop(missing.insert(field, error.to_string())),
            }
        }
        for value in rungs().flat_map(|r| r.values).collect::<BTreeSet<_>>() {
            match kernel.value(value) {
                Ok(number) => globals.number(of_value(value), number),
                Err(error) => drop(missing.insert(*value, error.to_string())),
            }
        }
        globals.number("TYPED_TASK", kernel.typed_task.into());
        globals.number("COMPAT", kernel.compat);
        globals.number("PAGE_SHIFT", architecture::page_shift());
        Self(missing)
    }

    /// Why a rung cannot work on this kernel, if something that it must have is missing.
    pub(super) fn refusal(&self, rung: &Rung) -> Option<&str> {
        let needed = rung.fields.iter().filter(|field| !field.ends_with('?'));
        let mut refusals = needed.filter_map(|field| {
            let reasons: Option<Vec<_>> = alternatives(field).map(|f| self.reason(f)).collect();
            // One alternative is enough; the first is the usual one.
            reasons?.first().copied()
        });
        refusals.next().or_else(|| rung.values.iter().find_map(|value| self.reason(value)))
    }

    /// Why one field or value is missing.
    pub(super) fn reason(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// The fields that a declaration names: `a|b`, `a?`.
pub fn alternatives(field: &'static str) -> impl Iterator<Item = &'static str> {
    field.trim_end_matches('?').split('|')
}

/// The name of the global that holds a field's offset, `OFFSET_FOLIO_FLAGS` for `folio.flags`; for a
/// type alone its size, `SIZE_PAGE` for `page`; for a tracepoint's argument its place,
/// `ARG_BLOCK_RQ_ISSUE_REQUEST` for `block_rq_issue(request)`.
pub fn of_field(path: &str) -> String {
    if let Some(argument) = path.strip_suffix(')') {
        return format!("ARG_{}", argument.replace('(', "_").to_uppercase());
    }
    let kind = if path.contains('.') { "OFFSET" } else { "SIZE" };
    format!("{kind}_{}", path.replace('.', "_").to_uppercase())
}

/// The name of the global that holds an enum's value: `ENUM_PAGEFLAGS_PG_HEAD` for
/// `pageflags.PG_head`.
pub fn of_value(path: &str) -> String {
    format!("ENUM_{}", path.replace('.', "_").to_uppercase())
}
