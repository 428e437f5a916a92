//! As whom programs run: here always as the agent's service does.

use thiserror::Error;

use crate::supervise::record::RunAs;

/// Why programs cannot be run as the user that is wanted.
#[derive(Debug, Error)]
pub enum UserError {
    /// Not on this system.
    #[error("{0} has no meaning on Windows: programs run as the service does (service install --account)")]
    NotHere(&'static str),
}

/// The user of programs: always that of the agent.
pub fn run_as(user: Option<&str>, group: Option<&str>) -> Result<Option<RunAs>, UserError> {
    match (user, group) {
        (None, None) => Ok(None),
        (Some(_), _) => Err(UserError::NotHere("run_as")),
        (None, Some(_)) => Err(UserError::NotHere("run_as_group")),
    }
}
