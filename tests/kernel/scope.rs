//! What is counted is what happens inside the scope, no more and no less.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    agent::{Agent, Mode, Setup},
    cgroup::Cgroup,
    file,
    plan::{Call, Open, Plan, Step},
    random,
};

use crate::{in_each_mode, syscalls::equal, work};

in_each_mode!(the_scope_is_its_subtrees);

fn the_scope_is_its_subtrees(mode: Mode) -> Result<()> {
    let mut rng = random::rng();
    let directory = file::directory()?;
    let path = file::cold(&directory, &mut rng, 100_000)?;
    let mut plan = |count| Plan {
        threads: 1,
        files: vec![Open::Read(path.clone())],
        phases: vec![vec![
            Step::new(Call::Pread64, 0, rng.usize(1..5_000)).times(count),
            Step::advise(0, 1),
        ]],
    };
    let (first, second, outside) = (Cgroup::new()?, Cgroup::new()?, Cgroup::new()?);
    let (child, stranger) = (first.child()?, outside.child()?);
    let grandchild = child.child()?;
    let setup =
        Setup::new(mode, &first).with("scope", json!({"cgroups": [first.path(), second.path()]}));
    let agent = Agent::start(&setup)?;
    let inner = Agent::start(&Setup::new(mode, &child))?;

    work(&plan(1_000), &outside)?;
    work(&plan(2_000), &stranger)?;
    let scrape = agent.settled()?;
    equal(&scrape, &Default::default())?;
    ensure!(scrape.count("ebpf_fadvise_calls_total", &[])? == 0);
    ensure!(scrape.count("ebpf_page_cache_adds_total", &[])? == 0);

    let mut total = tests::plan::Report::default();
    let mut below = tests::plan::Report::default();
    for (cgroup, count) in [(&first, 111), (&second, 2_222), (&child, 33), (&grandchild, 4)] {
        let report = work(&plan(count), cgroup)?;
        for (call, tally) in report.tallies {
            if cgroup.path().starts_with(child.path()) {
                below.tallies.entry(call).or_default().merge(tally.clone());
            }
            total.tallies.entry(call).or_default().merge(tally);
        }
    }
    let scrape = agent.settled()?;
    equal(&scrape, &total)?;
    ensure!(scrape.count("ebpf_fadvise_calls_total", &[])? == 4);
    // The second agent, at the same time and from its own scope.
    let scrape = inner.settled()?;
    equal(&scrape, &below)?;
    ensure!(scrape.count("ebpf_fadvise_calls_total", &[])? == 2);
    Ok(())
}

#[test]
fn a_cgroup_that_does_not_exist_is_named() -> Result<()> {
    let missing = "/sys/fs/cgroup/no-such-cgroup.service";
    let cgroup = Cgroup::new()?;
    let setup =
        Setup::new(Mode::Auto, &cgroup).with("scope", json!({"cgroups": [cgroup.path(), missing]}));
    let ended = Agent::refused(&setup)?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.log.contains(missing), "{ended:?}");
    Ok(())
}
