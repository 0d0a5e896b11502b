//! The command line: flags, signals, exit codes. 0 is success, 1 an error that is printed, 2 a
//! wrong command line.

mod agent;
mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // First of all: whoever starts an agent may have another configuration for it at once. What comes while the program
    // is still being linked ends it, though: nothing of it runs yet.
    let held = agent::hold_hangups();
    fathom::ebpf::memory::keep_small();
    match held.and_then(|()| cli::Cli::parse().run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
