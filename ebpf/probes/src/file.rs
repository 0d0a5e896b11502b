//! Files that system calls name by their descriptors.

use crate::{
    field::{Address, Memory, present, probe_at},
    task,
};

crate::fields! {
    OFFSET_TASK_STRUCT_FILES,
    OFFSET_FILES_STRUCT_FDT,
    OFFSET_FDTABLE_FD,
    OFFSET_FILE_F_MAPPING,
    OFFSET_FILE_F_POS,
    OFFSET_ADDRESS_SPACE_HOST,
    OFFSET_INODE_I_SIZE,
}

/// Whether this kernel's types say where files are.
#[inline(always)]
pub fn are_known() -> bool {
    present(&OFFSET_FILE_F_MAPPING)
}

/// The file behind a descriptor of the current task, which must be open.
#[inline(always)]
pub fn of_descriptor(descriptor: u64) -> Address {
    let files = task::current().follow(&OFFSET_TASK_STRUCT_FILES);
    let array = files.follow(&OFFSET_FILES_STRUCT_FDT).follow(&OFFSET_FDTABLE_FD);
    Address(probe_at(array.address() + 8 * u64::from(descriptor as u32)))
}

/// Where its next read begins.
#[inline(always)]
pub fn position(file: Address) -> u64 {
    file.read(&OFFSET_FILE_F_POS)
}

/// What its pages belong to.
#[inline(always)]
pub fn mapping(file: Address) -> Address {
    file.follow(&OFFSET_FILE_F_MAPPING)
}

/// The bytes of the file that pages belong to.
#[inline(always)]
pub fn size(mapping: impl Memory) -> i64 {
    mapping.follow(&OFFSET_ADDRESS_SPACE_HOST).read(&OFFSET_INODE_I_SIZE)
}
