//! cgroups, as they are found on disk and in `/proc`: what a path says about its container, pod and
//! unit, which directory has an id, and in which directory a process is. It knows no signal and no
//! component; the receivers scope with it and `enrichment` names with it.

mod cache;
mod find;
mod mount;
mod path;
mod resolve;

pub use self::{
    cache::Cache,
    find::{Found, NotFound, Rule, View},
    mount::{Membership, Mount, Relative, memberships, mounts, unified},
    path::{Container, Identity, Pod, Qos, Runtime, pod_uid},
    resolve::{Counts, Known, Resolver},
};

/// The id of the hierarchy's root: kernfs gives its first node the number 1.
pub const ROOT: u64 = 1;
