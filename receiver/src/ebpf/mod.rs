//! Everything that talks to the kernel's BPF side: types and offsets, loading, attaching, maps.
//! It knows no signal.

pub mod architecture;
mod attach;
pub mod btf;
pub mod capability;
mod event;
pub mod globals;
mod grace;
pub mod group;
pub mod kernel;
pub mod ladder;
pub mod load;
pub mod memory;
mod object;
pub mod process;
pub mod scope;
mod seats;
pub mod table;
mod tracefs;
pub mod turn;
pub mod undisturbed;
