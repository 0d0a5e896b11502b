//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything may take before a test gives up. Generous: it is only ever reached in failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks until there is an answer; `what` names it in the failure.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > DEADLINE {
            bail!("{what}: not within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
