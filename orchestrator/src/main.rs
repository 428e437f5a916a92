//! The program `wps-orchestrator`: arguments to exit code.

fn main() -> std::process::ExitCode {
    wps_orchestrator::cli::main()
}
