//! The orchestrator: offers the processes of remote agents over OGC WPS and loses no job.
//!
//! | module | responsibility |
//! |---|---|
//! | [`engine`] | pure: jobs, agents, what happens next |
//! | [`driver`] | the one task that owns the engine; performs its actions |
//! | [`bus`] | agents on XMPP ⇄ engine events |
//! | [`store`] | jobs, durable |
//! | [`results`] | files of jobs |
//! | [`matching`] | requests against descriptions |
//! | [`jobs`] | the handle that faces use |
//! | [`access`] | who is asking, and what it may do |
//! | [`encoding`] | documents ⇄ our types |
//! | [`http`] | routes, sizes, links, downloads |
//! | [`telemetry`] | figures for operators |
//! | [`memory`] | gives back what large requests took |
//! | [`service`] | what the host's service manager is told |
//! | [`config`], [`check`], [`cli`] | what the operator writes, examines, types |
//! | [`compose`] | puts it all together; the only place that knows all modules |

pub mod access;
pub mod bus;
mod chain;
pub mod check;
pub mod cli;
pub mod compose;
pub mod config;
pub mod driver;
pub mod encoding;
pub mod engine;
pub mod http;
pub mod jobs;
pub mod limits;
pub mod matching;
pub mod memory;
pub mod references;
pub mod results;
pub mod service;
pub mod store;
pub mod telemetry;
