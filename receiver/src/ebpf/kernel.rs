//! The kernel that programs are loaded into, as far as they must be told about it. What it can do is
//! asked of its types, never of its version: distributions change kernels without changing versions.

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Context as _, Result, bail};
use aya::Btf;

use super::{architecture, btf::Types, tracefs};

/// What the running kernel is.
pub struct Kernel {
    /// Its types in the two forms that are needed; the reason if it has none.
    types: Result<(Types, Btf), String>,
    /// What has been looked up: every object asks for the same fields, and a search goes through all types.
    found: RefCell<BTreeMap<String, Result<u32, String>>>,
    /// Whether a task can be preempted inside a raw tracepoint's program.
    pub preemptible: bool,
    /// Whether the helper for a typed pointer to the current task exists.
    pub typed_task: bool,
    /// The bit that tells a 32-bit caller of a system call.
    pub compat: u32,
    /// Whether a tracing program may allocate a map's entry when it needs one.
    pub may_allocate: bool,
}

impl Kernel {
    /// The running one.
    pub fn running() -> Self {
        let types = Types::of_running_kernel().and_then(|types| {
            let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
            Ok((types, btf))
        });
        let types = types.map_err(|error| format!("{error:#}"));
        let has = |name: &str| types.as_ref().is_ok_and(|(types, _)| types.exists(name));
        Self {
            // Calls of tracepoints are protected by SRCU since Linux 7.0: `tracepoint_srcu` protected something
            // else before `tracepoint_ext` came, and was gone in between (kernel/tracepoint.c).
            preemptible: has("tracepoint_ext") && has("tracepoint_srcu_srcu_data"),
            compat: types.as_ref().map_or(0, |(types, _)| architecture::compat(types)),
            typed_task: has("bpf_get_current_task_btf"),
            // Linux 6.1: before, a warning goes to the kernel's log (kernel/bpf/verifier.c).
            may_allocate: has("bpf_mem_alloc"),
            types,
            found: RefCell::default(),
        }
    }

    /// Its BTF, which typed programs are loaded against.
    pub fn btf(&self) -> Result<&Btf> {
        match &self.types {
            Ok((_, btf)) => Ok(btf),
            Err(why) => bail!("{why}"),
        }
    }

    /// The number behind what a rung asks for: a field's offset or, without a dot, a type's size;
    /// with brackets, the place of an argument. A record's
    /// fields are in the `format` files too, which kernels without BTF have: those of the events that the
    /// record is named after, or of `events`.
    pub fn field(&self, path: &str, events: &[&str]) -> Result<u32> {
        if self.types.is_err() {
            return self.look_up(path, events);
        }
        let mut found = self.found.borrow_mut();
        let result = found
            .entry(path.to_owned())
            .or_insert_with(|| self.look_up(path, events).map_err(|error| format!("{error:#}")));
        result.clone().map_err(anyhow::Error::msg)
    }

    fn look_up(&self, path: &str, events: &[&str]) -> Result<u32> {
        match (&self.types, path.strip_prefix(tracefs::RECORD)) {
            (Ok((types, _)), _) if path.ends_with(')') => types.argument(path),
            (Ok((types, _)), _) if path.contains('.') => types.offset(path).or_else(|error| {
                let other = architecture::instead(path).ok_or(error)?;
                types.offset(other)
            }),
            (Ok((types, _)), _) => types.size(path),
            (Err(_), Some(record)) => {
                let (class, field) = record.split_once('.').context("a field is record.field")?;
                tracefs::offset(class, field, events)
            }
            (Err(why), None) => bail!("{why}"),
        }
    }

    /// The number behind an enum's value.
    pub fn value(&self, path: &str) -> Result<u32> {
        match &self.types {
            Ok((types, _)) => types.value(path),
            Err(why) => bail!("{why}"),
        }
    }
}
