//! The command line: flags, signals, exit codes. 0 is success, 1 an error that is printed, 2 a
//! wrong command line.

mod agent;
mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    fathom::ebpf::memory::share();
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
