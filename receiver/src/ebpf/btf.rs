//! Where the running kernel keeps its fields: BTF lookups by path.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use btf_rs::{Backend, Btf, Struct, Type};

/// The running kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// A kernel's types.
pub struct Types(Btf);

impl Types {
    /// Those of the running kernel.
    pub fn of_running_kernel() -> Result<Self> {
        Self::from_file(Path::new(VMLINUX))
            .context("fathom needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")
    }

    /// Those in a BTF file.
    pub fn from_file(path: &Path) -> Result<Self> {
        // Mapped, not parsed: a few dozen of a hundred thousand types are looked at, once.
        Btf::from_file_with_backend(path, Backend::Mmap)
            // The kernel's own can be mapped since Linux 6.16 only.
            .or_else(|_| Btf::from_file_with_backend(path, Backend::Cache))
            .map(Self)
            .map_err(|e| anyhow!("cannot read {}: {e}", path.display()))
    }

    /// The offset in bytes of a field, as in `task_struct.ioac.syscr`, or of an element of one, as in
    /// `pt_regs.regs[3]`. Members of anonymous structs and unions count as members of what holds them.
    pub fn offset(&self, path: &str) -> Result<u32> {
        let mut names = path.split('.');
        let root = names.next().unwrap_or_default();
        let mut holder = self
            .named(root)
            .into_iter()
            .find_map(|kind| match kind {
                // Of a type that is only declared, the members are elsewhere.
                Type::Struct(s) | Type::Union(s) if !s.members.is_empty() => Some(s),
                _ => None,
            })
            .with_context(|| format!("this kernel has no struct {root}"))?;
        let mut bits = 0;
        let mut names = names.peekable();
        while let Some(name) = names.next() {
            let (name, place) = match name.strip_suffix(']').and_then(|n| n.split_once('[')) {
                Some((name, place)) => (name, Some(place.parse::<u32>()?)),
                None => (name, None),
            };
            let (offset, kind) = self
                .member(&holder, name)
                .with_context(|| format!("this kernel has no field {path}"))?;
            bits += offset;
            if let Some(place) = place {
                bits += 8
                    * place
                    * self
                        .element(&kind, place)
                        .with_context(|| format!("{path} is not of an array"))?;
            }
            if names.peek().is_some() {
                holder = match kind {
                    Type::Struct(s) | Type::Union(s) => s,
                    _ => bail!("{name} in {path} is not a struct"),
                };
            }
        }
        Ok(bits / 8)
    }

    /// The size in bytes of a struct.
    pub fn size(&self, name: &str) -> Result<u32> {
        self.named(name)
            .into_iter()
            .find_map(|kind| match kind {
                Type::Struct(s) | Type::Union(s) if !s.members.is_empty() => Some(s.size() as u32),
                _ => None,
            })
            .with_context(|| format!("this kernel has no struct {name}"))
    }

    /// Whether there is a type, a function or a variable of that name.
    pub fn exists(&self, name: &str) -> bool {
        !self.named(name).is_empty()
    }

    /// The place of a tracepoint's argument among all, as in `block_rq_issue(request)`: the first that points
    /// to such a struct.
    pub fn argument(&self, path: &str) -> Result<u32> {
        let (event, wanted) = path
            .strip_suffix(')')
            .and_then(|path| path.split_once('('))
            .context("an argument is event(struct)")?;
        let name = format!("btf_trace_{event}");
        let prototype = self.named(&name).into_iter().find_map(|kind| {
            let Type::Ptr(pointer) = self.stripped(kind) else { return None };
            match self.stripped(self.0.resolve_chained_type(&pointer).ok()?) {
                Type::FuncProto(prototype) => Some(prototype),
                _ => None,
            }
        });
        let prototype =
            prototype.with_context(|| format!("this kernel has no tracepoint {event}"))?;
        // The first is what the program was registered with.
        let place = prototype.parameters.iter().skip(1).position(|parameter| {
            let Ok(kind) = self.0.resolve_chained_type(parameter) else { return false };
            let Type::Ptr(pointer) = self.stripped(kind) else { return false };
            let Ok(kind) = self.0.resolve_chained_type(&pointer) else { return false };
            matches!(self.stripped(kind), Type::Struct(s) if self.0.resolve_name(&s).is_ok_and(|n| n == wanted))
        });
        let place = place.with_context(|| format!("tracepoint {event} has no struct {wanted}"))?;
        Ok(u32::try_from(place)?)
    }

    /// The number behind an enum's value, as in `pageflags.PG_head`.
    pub fn value(&self, path: &str) -> Result<u32> {
        let (name, value) = path.split_once('.').context("an enum's value is enum.VALUE")?;
        for kind in self.named(name) {
            if let Type::Enum(kind) = kind {
                for member in &kind.members {
                    if self.0.resolve_name(member).is_ok_and(|n| n == value) {
                        return Ok(member.val());
                    }
                }
            }
        }
        bail!("this kernel has no enum value {path}")
    }

    fn named(&self, name: &str) -> Vec<Type> {
        self.0.resolve_types_by_name(name).unwrap_or_default()
    }

    /// The offset in bits and the type of a member.
    fn member(&self, holder: &Struct, name: &str) -> Option<(u32, Type)> {
        for member in &holder.members {
            let own = self.0.resolve_name(member).unwrap_or_default();
            if own != name && !own.is_empty() {
                continue;
            }
            let kind = self.stripped(self.0.resolve_chained_type(member).ok()?);
            if own == name {
                return Some((member.bit_offset(), kind));
            }
            if let Type::Struct(anonymous) | Type::Union(anonymous) = &kind
                && let Some((offset, kind)) = self.member(anonymous, name)
            {
                return Some((member.bit_offset() + offset, kind));
            }
        }
        None
    }

    /// The size in bytes of an array's elements, if they are numbers and it is long enough.
    fn element(&self, array: &Type, place: u32) -> Option<u32> {
        let Type::Array(array) = array else { return None };
        match self.stripped(self.0.resolve_chained_type(array).ok()?) {
            Type::Int(number) if (place as usize) < array.len() => {
                u32::try_from(number.size()).ok()
            }
            _ => None,
        }
    }

    /// The type behind names and qualifiers.
    fn stripped(&self, mut kind: Type) -> Type {
        loop {
            let next = match &kind {
                Type::Typedef(t) => self.0.resolve_chained_type(t),
                Type::Const(t) => self.0.resolve_chained_type(t),
                Type::Volatile(t) => self.0.resolve_chained_type(t),
                Type::TypeTag(t) => self.0.resolve_chained_type(t),
                _ => return kind,
            };
            match next {
                Ok(next) => kind = next,
                Err(_) => return kind,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        Types::of_running_kernel().expect("tests run on a kernel with BTF")
    }

    #[test]
    fn fields_have_offsets() {
        let types = types();
        // The x86-64 system call record: a header of 8 bytes, then the number, then the arguments.
        assert_eq!(types.offset("trace_event_raw_sys_enter.id").ok(), Some(8));
        assert_eq!(types.offset("trace_event_raw_sys_enter.args").ok(), Some(16));
        assert_eq!(types.offset("pt_regs.orig_ax").ok(), Some(120));
    }

    #[test]
    fn fields_of_anonymous_members_are_found() {
        let types = types();
        // `folio.flags` lies in an anonymous struct in an anonymous union, and is the first word.
        assert_eq!(types.offset("folio.flags").ok(), Some(0));
        // Through a named member: the sum of both offsets.
        let outer = types.offset("task_struct.ioac").expect("accounting is built in");
        let inner = types.offset("task_io_accounting.syscr").expect("accounting is built in");
        assert_eq!(types.offset("task_struct.ioac.syscr").ok(), Some(outer + inner));
    }

    #[test]
    fn arguments_have_their_places() {
        let types = types();
        assert_eq!(types.argument("sched_switch(task_struct)").ok(), Some(1));
        assert_eq!(types.argument("sched_process_exec(linux_binprm)").ok(), Some(2));
        let error = |path| types.argument(path).expect_err("it does not exist").to_string();
        assert_eq!(error("no_such(request)"), "this kernel has no tracepoint no_such");
        assert_eq!(error("sched_switch(bio)"), "tracepoint sched_switch has no struct bio");
    }

    #[test]
    fn what_is_missing_is_named() {
        let types = types();
        let error = |path| types.offset(path).expect_err("it does not exist").to_string();
        assert_eq!(error("no_such_struct.x"), "this kernel has no struct no_such_struct");
        assert_eq!(error("task_struct.no_such"), "this kernel has no field task_struct.no_such");
        assert!(types.value("pageflags.PG_no_such").is_err());
        assert!(types.value("pageflags.PG_head").is_ok());
    }
}
