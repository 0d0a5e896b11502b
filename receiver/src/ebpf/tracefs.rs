//! Classic tracepoints as tracefs shows them.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// How the kernel names the records of classic tracepoints in its BTF, before the event's class.
pub const RECORD: &str = "trace_event_raw_";

const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The folder of an event, `category/name`. A classic tracepoint is found by its files; without them
/// the kernel's own error would say nothing.
pub fn event(target: &str) -> Result<PathBuf> {
    for mount in MOUNTS {
        let events = Path::new(mount).join("events");
        let event = events.join(target);
        match fs::metadata(event.join("id")) {
            Ok(_) => return Ok(event),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("{mount} may be read by root or with CAP_DAC_READ_SEARCH alone")
            }
            Err(_) if events.exists() => bail!("this kernel has no tracepoint {target}"),
            Err(_) => {}
        }
    }
    bail!("tracefs is not mounted: `mount -t tracefs nodev {}`", MOUNTS[0])
}

/// The offset of a field of the records of a class: one of `events` has it, or the event that is called
/// like the class, in whatever category.
pub fn offset(class: &str, field: &str, events: &[&str]) -> Result<u32> {
    let own = [format!("raw_syscalls/{class}")];
    let candidates = events.iter().copied().chain(own.iter().map(String::as_str));
    for candidate in candidates {
        let Ok(folder) = event(candidate) else { continue };
        let path = folder.join("format");
        let format =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(offset) = parse(&format, field) {
            return Ok(offset);
        }
    }
    bail!("no tracepoint's format has a field {field}")
}

/// A line such as `field:unsigned long args[6]; offset:16; size:48; signed:0;`, whose parts tabs part.
fn parse(format: &str, name: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
        let declared = declaration.rsplit([' ', '*']).next()?;
        let declared = declared.split('[').next()?;
        if declared != name {
            return None;
        }
        rest.trim().strip_prefix("offset:")?.split(';').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_formats() {
        let format = "name: sys_enter\nID: 22\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n\
            \tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n\n\
            print fmt: \"NR %ld\", REC->id\n";
        assert_eq!(parse(format, "id"), Some(8));
        assert_eq!(parse(format, "args"), Some(16));
        assert_eq!(parse(format, "arg"), None);
    }
}
