//! Errors of system calls as attribute values.

use std::borrow::Cow;

use abi::errno;
use nix::errno::Errno;

use crate::metric::{Attribute, Metric, Pair, Points};

/// `error.type` of OpenTelemetry's conventions.
pub const TYPE: Attribute =
    Attribute { name: "error.type", description: "the error's name, such as `EBADF`" };

/// One point per error that has happened, from a table by [`errno::slot`].
pub fn emit(
    points: &mut Points<'_>,
    metric: &'static Metric,
    attributes: &[Pair<'_>],
    table: &[u64],
) {
    for (slot, count) in table.iter().enumerate() {
        emit_one(points, metric, attributes, slot as u32, *count);
    }
}

/// The point of one error, by its [`errno::slot`], if it has happened.
pub fn emit_one(
    points: &mut Points<'_>,
    metric: &'static Metric,
    attributes: &[Pair<'_>],
    slot: u32,
    count: u64,
) {
    // Slot 0 is success.
    if slot == 0 || count == 0 {
        return;
    }
    let name = name(slot);
    let mut attributes = attributes.to_vec();
    attributes.push((TYPE.name, &name));
    points.counter(metric, &attributes, count);
}

fn name(slot: u32) -> Cow<'static, str> {
    if slot == errno::OTHER {
        // OpenTelemetry's word for an error that has no name of its own.
        return Cow::Borrowed("_OTHER");
    }
    if slot == errno::RESTART {
        return Cow::Borrowed("ERESTARTSYS");
    }
    match Errno::from_raw(slot as i32) {
        // Numbers that never leave the kernel, unless a driver is wrong.
        Errno::UnknownErrno => Cow::Owned(slot.to_string()),
        known => Cow::Owned(format!("{known:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_names() {
        assert_eq!(name(9), "EBADF");
        assert_eq!(name(11), "EAGAIN");
        assert_eq!(name(41), "41");
        assert_eq!(name(errno::RESTART), "ERESTARTSYS");
        assert_eq!(name(errno::OTHER), "_OTHER");
    }
}
