//! The current task.

use abi::group::Group;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf};

use crate::field::{Address, Memory, Trusted, present, set};

crate::fields! {
    OFFSET_TASK_STRUCT_PENDING_SIGNAL_SIG,
    OFFSET_TASK_STRUCT_GROUP_LEADER,
    OFFSET_TASK_STRUCT_START_BOOTTIME,
    OFFSET_TASK_STRUCT_COMM,
}

/// Whether this kernel hands out the current task as a pointer whose type the verifier knows (Linux
/// 5.11): its fields then cost one instruction each instead of a call.
#[unsafe(no_mangle)]
static TYPED_TASK: u32 = 0;

/// The thread, as the address of its task: the key of what is remembered about it. Not its id,
/// which changes while it lives: a thread that calls `execve` takes over the id of its process's
/// first thread, and an entry under the old id would stay for ever.
#[inline(always)]
pub fn thread() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The thread's task, to read its fields.
#[inline(always)]
pub fn current() -> Address {
    Address(thread())
}

/// A field of the current task.
#[inline(always)]
pub fn read<T: Copy + Default>(offset: &'static u32) -> T {
    if set(&TYPED_TASK) != 0 { typed().read(offset) } else { current().read(offset) }
}

#[inline(always)]
fn typed() -> Trusted {
    // SAFETY: the helper has no preconditions.
    Trusted::new(unsafe { bpf_get_current_task_btf() } as *const u8)
}

/// The process's id in the initial pid namespace.
#[inline(always)]
pub fn process_id() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The process, told from a later one with its id.
#[inline(always)]
pub fn process() -> Group {
    let start = if set(&TYPED_TASK) != 0 {
        typed().follow(&OFFSET_TASK_STRUCT_GROUP_LEADER).read(&OFFSET_TASK_STRUCT_START_BOOTTIME)
    } else {
        current().follow(&OFFSET_TASK_STRUCT_GROUP_LEADER).read(&OFFSET_TASK_STRUCT_START_BOOTTIME)
    };
    Group { id: u64::from(process_id()), start }
}

/// The name of the process: of its main thread, since others often have names of their own.
#[inline(always)]
pub fn process_name() -> [u64; 2] {
    if set(&TYPED_TASK) != 0 {
        // An array of bytes may be read as bytes alone through a typed pointer.
        let leader = typed().follow(&OFFSET_TASK_STRUCT_GROUP_LEADER);
        Address::from(leader).read(&OFFSET_TASK_STRUCT_COMM)
    } else {
        current().follow(&OFFSET_TASK_STRUCT_GROUP_LEADER).read(&OFFSET_TASK_STRUCT_COMM)
    }
}

/// Whether the thread is being killed. The kernel hands SIGKILL to every thread of a process that
/// dies of a signal (`complete_signal` in kernel/signal.c). False where the field is not known.
#[inline(always)]
pub fn killed() -> bool {
    const SIGKILL: u64 = 1 << 8;
    if !present(&OFFSET_TASK_STRUCT_PENDING_SIGNAL_SIG) {
        return false;
    }
    let pending: u64 = current().read(&OFFSET_TASK_STRUCT_PENDING_SIGNAL_SIG);
    pending & SIGKILL != 0
}
