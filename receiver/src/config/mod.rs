//! YAML -> checked configuration.

pub mod duration;
mod id;
mod mistake;
mod section;

pub use id::Id;
pub use mistake::{Mistake, Mistakes, Place};
pub use section::{Raw, Section};
