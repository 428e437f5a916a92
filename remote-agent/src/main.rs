//! The program `wps-remote-agent`: a supervisor when called as one, else the command line. Knows nothing else.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: a supervisor must start fast and stay small.
    if wps_remote_agent::supervise::is_wanted(&args) {
        return wps_remote_agent::supervise::main(&args);
    }
    wps_remote_agent::cli::main(args)
}
