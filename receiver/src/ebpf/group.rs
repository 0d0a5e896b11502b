//! What a receiver counts by.

use std::{fs, path::Path};

use abi::group;
use serde::{Deserialize, Serialize};

use super::globals::Globals;

/// `group_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The host as a whole.
    Host,
    /// Each cgroup v2.
    Cgroup,
    /// Each process.
    Process,
}

impl GroupBy {
    /// Tells the programs. `pages_have_owners`: what happens to a page is to be counted for the cgroup that
    /// the page is charged to; `bios_have_owners`: as much of requests to devices.
    pub fn set(self, globals: &mut Globals, pages_have_owners: bool, bios_have_owners: bool) {
        let number = match self {
            Self::Host => group::HOST,
            Self::Cgroup => group::CGROUP,
            Self::Process => group::PROCESS,
        };
        globals.number(group::GROUP_BY, number);
        globals.number(group::OWNERS, pages_have_owners.into());
        globals.number(group::BIO_OWNERS, bios_have_owners.into());
    }

    /// The kernel's fields without which groups cannot be told apart.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Process => &["task_struct.group_leader", "task_struct.start_boottime"],
            Self::Host | Self::Cgroup => &[],
        }
    }
}

/// Whether a controller (`memory`, `io`) is in the hierarchy that is mounted at one of `mounts`: if it is in
/// one of version 1, what is charged to a cgroup is charged to none of these.
pub fn is_charged_in(controller: &str, mounts: &[impl AsRef<Path>]) -> bool {
    mounts.iter().any(|mount| {
        fs::read_to_string(mount.as_ref().join("cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|c| c == controller))
    })
}

/// The fields by which a page's owner is found.
pub const OWNER: &[&str] =
    &["mem_cgroup.css.cgroup", "cgroup.kn", "kernfs_node.id", "cgroup.level"];
/// The fields by which a bio's owner is found.
pub const BIO_OWNER: &[&str] = &[
    "bio.bi_blkg",
    "blkcg_gq.blkcg",
    "blkcg.css.cgroup",
    "cgroup.kn",
    "kernfs_node.id",
    "cgroup.level",
];
