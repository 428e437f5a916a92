//! The orchestrator: offers the processes of remote agents over OGC WPS and loses no job.
pub mod engine;
