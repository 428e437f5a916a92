//! The remote agent: turns the INI service descriptors of a folder into processes that an orchestrator can run.

pub mod engine;
pub mod execution;
pub mod outputs;
pub mod supervise;
pub mod workdir;
