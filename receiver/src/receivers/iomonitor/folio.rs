//! What programs need to know of a folio to count its pages.

/// A folio's order: its flags say whether it is large, and where it says how large has moved twice.
pub const FOLIO: &[&str] =
    &["folio.flags|page.flags", "folio._folio_order|folio._flags_1|page.compound_order", "page"];
/// Where among the flags.
pub const HEAD: &[&str] = &["pageflags.PG_head"];
