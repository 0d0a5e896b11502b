//! What the agent may do that other processes may not, and no more of it than is needed.
//!
//! Capabilities belong to threads (capabilities(7)). Before there is a second one, the agent gives up all that none
//! of its receivers asks for, and lays aside what they ask for to start with: a thread takes that up
//! while it attaches, at the start or in a reload, and puts it back.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// What a component needs beside what any process may do.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// While it starts.
    pub to_start: Vec<Capability>,
    /// As long as it runs.
    pub to_run: Vec<Capability>,
}

impl Needs {
    /// Those of several components.
    pub fn all(needs: impl IntoIterator<Item = Self>) -> Self {
        needs.into_iter().fold(Self::default(), |mut all, one| {
            all.to_start.extend(one.to_start);
            all.to_run.extend(one.to_run);
            all
        })
    }
}

/// What any component may need: to listen at a port below 1024.
const ALWAYS: Capability = Capability::CAP_NET_BIND_SERVICE;

/// Whether it has not been given up, if it was ever had.
pub fn may(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false)
}

/// Whether the kernel asks for more than CAP_PERFMON where a program is attached to a classic tracepoint or a
/// function: Debian's does, by a value that others do not know.
pub fn perf_is_for_administrators() -> bool {
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    level.ok().and_then(|level| level.trim().parse().ok()).is_some_and(|level: i32| level > 2)
}

/// Gives up, in this thread and in all that it starts from now on, what is not needed.
pub fn confine(needs: &Needs) -> Result<()> {
    let has = read(CapSet::Permitted)?;
    let kept = |wanted: &[Capability]| -> CapsHashSet {
        wanted.iter().chain([&ALWAYS]).copied().filter(|one| has.contains(one)).collect()
    };
    let to_run = kept(&needs.to_run);
    let permitted: CapsHashSet = to_run.union(&kept(&needs.to_start)).copied().collect();
    // No other program is started; and what is ambient must be inheritable, and goes with it.
    write(CapSet::Inheritable, &CapsHashSet::new())?;
    write(CapSet::Effective, &to_run)?;
    write(CapSet::Permitted, &permitted)
}

/// While it lives, this thread can do all that the agent has not given up.
pub struct Raised {
    before: CapsHashSet,
}

impl Raised {
    /// Takes up what was laid aside.
    pub fn now() -> Result<Self> {
        let before = read(CapSet::Effective)?;
        write(CapSet::Effective, &read(CapSet::Permitted)?)?;
        Ok(Self { before })
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        // To have less is always allowed.
        let _ = write(CapSet::Effective, &self.before);
    }
}

fn read(set: CapSet) -> Result<CapsHashSet> {
    caps::read(None, set).with_context(|| format!("cannot read the {set:?} capabilities"))
}

fn write(set: CapSet, to: &CapsHashSet) -> Result<()> {
    caps::set(None, set, to).with_context(|| format!("cannot set the {set:?} capabilities"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_laid_aside_can_be_taken_up_and_what_is_given_up_cannot() {
        let needs =
            Needs { to_start: vec![Capability::CAP_PERFMON], to_run: vec![Capability::CAP_BPF] };
        // A thread's own.
        let confined = thread::spawn(move || -> Result<()> {
            let had = read(CapSet::Permitted)?;
            let of = |wanted: &[Capability]| -> CapsHashSet {
                wanted.iter().copied().filter(|one| had.contains(one)).collect()
            };
            let to_run = of(&[Capability::CAP_BPF, ALWAYS]);
            let all = of(&[Capability::CAP_BPF, ALWAYS, Capability::CAP_PERFMON]);
            confine(&Needs::all([needs, Needs::default()]))?;
            assert_eq!(read(CapSet::Effective)?, to_run);
            assert_eq!(read(CapSet::Permitted)?, all);
            {
                let _raised = Raised::now()?;
                assert_eq!(read(CapSet::Effective)?, all);
            }
            assert_eq!(read(CapSet::Effective)?, to_run);
            Ok(())
        });
        confined.join().expect("no assertion fails").expect("the kernel lets it");
    }
}
