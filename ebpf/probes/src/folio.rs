//! Folios: what the page cache consists of.

use crate::field::{Address, Memory, present, set};

crate::fields! {
    OFFSET_FOLIO_FLAGS,
    OFFSET_FOLIO__FLAGS_1,
    OFFSET_FOLIO__FOLIO_ORDER,
    OFFSET_PAGE_FLAGS,
    OFFSET_PAGE_COMPOUND_ORDER,
    SIZE_PAGE,
    ENUM_PAGEFLAGS_PG_HEAD,
}

/// A folio's flags, or a page's.
#[inline(always)]
pub fn flags(folio: impl Memory) -> u64 {
    if present(&OFFSET_FOLIO_FLAGS) {
        folio.read(&OFFSET_FOLIO_FLAGS)
    } else {
        folio.read(&OFFSET_PAGE_FLAGS)
    }
}

/// Pages in a folio: one event can stand for up to 512 and more. Where a large one keeps its order
/// has moved twice.
#[inline(always)]
pub fn pages(folio: impl Memory) -> u64 {
    let head = 1 << (set(&ENUM_PAGEFLAGS_PG_HEAD) & 63);
    if !present(&OFFSET_FOLIO_FLAGS) {
        // Linux before 5.16: a compound page's second page.
        let flags: u64 = folio.read(&OFFSET_PAGE_FLAGS);
        if flags & head == 0 {
            return 1;
        }
        let second = Address(folio.address() + u64::from(set(&SIZE_PAGE)));
        return 1 << (second.read::<u8>(&OFFSET_PAGE_COMPOUND_ORDER) & 63);
    }
    let flags: u64 = folio.read(&OFFSET_FOLIO_FLAGS);
    if flags & head == 0 {
        return 1;
    }
    if present(&OFFSET_FOLIO__FOLIO_ORDER) {
        return 1 << (folio.read::<u8>(&OFFSET_FOLIO__FOLIO_ORDER) & 63);
    }
    // In the low byte of the second page's flags since Linux 6.6 (include/linux/page-flags.h).
    let flags: u64 = folio.read(&OFFSET_FOLIO__FLAGS_1);
    1 << (flags & 63)
}
