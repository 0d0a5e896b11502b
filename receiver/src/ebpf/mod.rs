//! Everything that talks to the kernel's BPF side: types and offsets, loading, attaching, maps.
//! It knows no signal.

pub mod btf;
pub mod capability;
pub mod globals;
pub mod ladder;
pub mod load;
pub mod memory;
pub mod scope;
