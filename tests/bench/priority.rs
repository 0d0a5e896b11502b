//! Priority over what else the machine does. What the bench starts does not inherit it.

use std::process::{Command, Stdio, id};

/// Takes it; says so if it cannot be had.
pub(crate) fn raise() {
    if !set(&["--reset-on-fork", "--fifo"], "1") {
        println!(
            "no priority (chrt of util-linux, as root): figures scatter on a machine that has other work"
        );
    }
}

/// Gives it back.
pub(crate) fn lower() {
    set(&["--other"], "0");
}

fn set(policy: &[&str], priority: &str) -> bool {
    let mut command = Command::new("chrt");
    command.args(policy).args(["--pid", priority, &id().to_string()]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
