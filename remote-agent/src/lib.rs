//! The remote agent: turns the INI service descriptors of a folder into processes that an orchestrator can run.

pub mod command;
pub mod config;
pub mod descriptor;
pub mod driver;
pub mod engine;
pub mod execution;
pub mod load;
pub mod outputs;
pub mod prepare;
pub mod rules;
pub mod session;
pub mod supervise;
pub mod workdir;
