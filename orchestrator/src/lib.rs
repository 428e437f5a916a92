//! The orchestrator: offers the processes of remote agents over OGC WPS and loses no job.
pub mod engine;
pub mod jobs;
pub mod matching;
pub mod results;
pub mod store;
