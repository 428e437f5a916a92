//! The orchestrator: offers the processes of remote agents over OGC WPS and loses no job.
pub mod bus;
pub mod driver;
pub mod engine;
pub mod jobs;
pub mod matching;
pub mod results;
pub mod store;
pub mod telemetry;
