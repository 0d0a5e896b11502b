//! Waiting for a condition, never for a time.

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything may take before a test gives up. Generous: it is only ever reached in failure.
pub static DEADLINE: LazyLock<Duration> =
    LazyLock::new(|| on_this_machine(Duration::from_secs(120)));

/// How many times slower than others this machine is.
pub static SLOWDOWN: LazyLock<u64> = LazyLock::new(|| {
    env::var("FATHOM_TEST_SLOWDOWN").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
});

/// How long that may take here which takes `time` on a machine: an emulated one says by
/// `FATHOM_TEST_SLOWDOWN` how many times slower it is.
pub fn on_this_machine(time: Duration) -> Duration {
    time * u32::try_from(*SLOWDOWN).unwrap_or(1)
}

/// Asks until there is an answer; `what` names it in the failure.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > *DEADLINE {
            bail!("{what}: not within {:?}", *DEADLINE);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
