//! What the kernel side and the user side of a signal share: the layout of map values and pure
//! logic. No I/O, no allocation; everything here is tested on the host.
#![no_std]

pub mod block;
pub mod compaction;
pub mod descriptors;
pub mod dirty;
pub mod duration;
pub mod errno;
pub mod exponential;
pub mod fadvise;
pub mod faults;
pub mod group;
pub mod io_uring;
pub mod kills;
pub mod madvise;
pub mod page_cache;
pub mod page_states;
pub mod reclaim;
pub mod sample;
pub mod scope;
pub mod seat;
pub mod syscalls;

/// A type of integers alone: any bytes are a value of it, and it has no padding.
///
/// # Safety
///
/// That must be so.
#[expect(unsafe_code, reason = "what is claimed cannot be checked in general")]
pub unsafe trait Plain: Copy + 'static {}

#[expect(unsafe_code, reason = "the trait is how a type says that it is plain bytes")]
// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// Declares a plain `repr(C)` type without implicit padding, so that every byte of a map value or
/// key is the byte of a field.
#[macro_export]
macro_rules! shared {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }
        const _: () = assert!(
            core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$type>())*,
            concat!(stringify!($name), " has implicit padding: add explicit fields"),
        );
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "the trait is how a type says that it is plain bytes")]
        // SAFETY: `repr(C)`, and by the assertion above every byte is the byte of an integer field.
        unsafe impl aya::Pod for $name {}
        #[expect(unsafe_code, reason = "the trait is how a type says that it is plain bytes")]
        // SAFETY: as above, and every pattern of bits is an integer.
        unsafe impl $crate::Plain for $name {}
    };
}

/// Declares the counters of one signal: a `u64` each, in a per-CPU array indexed by the variant.
#[macro_export]
macro_rules! counters {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every counter, in the order of the map.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// Entries of the map.
            pub const COUNT: u32 = Self::ALL.len() as u32;
        }
    };
}
