//! The processes whose cgroups are counted. A sidecar knows the name of what it watches, not its cgroup,
//! which is another after each restart.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Comm;
use crate::{
    cgroup::{Rule, View},
    config::Mistakes,
};

/// `scope::cgroups_of`: processes, any of which will do. The agent itself is none of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Processes by their id, as the agent's `/proc` has it.
    pub pids: Vec<u32>,
    /// Processes by their name.
    pub comm: Comm,
    /// What is counted while none of them can be found.
    pub fallback: Fallback,
}

/// `scope::cgroups_of::fallback`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Nothing.
    #[default]
    None,
    /// The Kubernetes pod that the agent runs in.
    Pod,
}

/// The processes, checked.
#[derive(Debug)]
pub(super) struct Target {
    rules: Vec<Rule>,
    fallback: Fallback,
}

impl Target {
    /// `None`: it is not asked for.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, Mistakes> {
        let Config { pids, comm, fallback } = config;
        let mut wrong = Mistakes::default();
        let patterns = comm.check("comm", &mut wrong);
        let mut rules: Vec<_> = pids.iter().copied().map(Rule::Pid).collect();
        rules.extend(comm.exact.iter().cloned().map(Rule::Comm));
        rules.extend(comm.prefix.iter().cloned().map(Rule::Prefix));
        rules.extend(patterns.into_iter().map(Rule::Regex));
        let fallback = *fallback;
        let named = !(pids.is_empty() && comm.is_empty());
        wrong.require(
            named || matches!(fallback, Fallback::None),
            "fallback",
            "requires pids or comm, for which it stands in",
        );
        wrong.or(named.then_some(Self { rules, fallback }))
    }

    /// The directories of their cgroups, and what of it all could not be found.
    pub(super) fn find(&self) -> (Vec<PathBuf>, Vec<String>) {
        let view = View::default();
        let mut problems = Vec::new();
        match view.find(&self.rules) {
            Ok(found) => {
                problems.extend(found.missed.iter().map(ToString::to_string));
                return (found.directories, problems);
            }
            Err(error) => problems.push(error.to_string()),
        }
        match self.fallback {
            Fallback::None => (Vec::new(), problems),
            Fallback::Pod => match view.pod() {
                Ok(pod) => {
                    problems.push(format!("counting the whole pod {} instead", pod.display()));
                    (vec![pod], problems)
                }
                Err(error) => {
                    problems.push(format!("fallback: {error}"));
                    (Vec::new(), problems)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(yaml: &str) -> Result<Option<Target>, String> {
        let config = serde_yaml::from_str(yaml).expect("it is valid");
        Target::new(&config).map_err(|wrong| format!("{wrong:?}"))
    }

    #[test]
    fn it_is_asked_for_by_naming_a_process() {
        assert!(target("{}").expect("it is valid").is_none());
        assert!(target("pids: [1]").expect("it is valid").is_some());
        assert!(target("comm: {prefix: [post]}").expect("it is valid").is_some());
        let wrong = target("fallback: pod").expect_err("it stands in for nothing");
        assert!(wrong.contains("fallback") && wrong.contains("requires pids or comm"), "{wrong}");
        let wrong = target("comm: {regex: ['a('], exact: ['']}").expect_err("both are wrong");
        assert!(wrong.contains("comm::regex::0") && wrong.contains("comm::exact::0"), "{wrong}");
    }

    #[test]
    fn what_is_not_found_is_said() {
        let target = target("comm: {exact: [no-such-process]}\nfallback: pod");
        let (directories, problems) = target.expect("it is valid").expect("it is asked for").find();
        assert!(directories.is_empty(), "{directories:?}");
        let [process, pod] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(process.contains("no process with command no-such-process"), "{process}");
        assert!(pod.starts_with("fallback: "), "{pod}");
    }
}
