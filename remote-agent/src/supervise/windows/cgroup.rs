//! There are no control groups here: a job object does what they do, always and without being delegated.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

/// Not on this system: there is none.
#[derive(Debug)]
pub(in crate::supervise) struct Group(Infallible);

impl Group {
    pub(in crate::supervise) fn create(
        _parent: &Path,
        _name: &str,
        _memory_mb: Option<u64>,
    ) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::supervise) fn remove(self) {
        match self.0 {}
    }
}

/// The part of a tree of control groups that this agent manages: none.
///
/// # Errors
/// Always.
pub fn delegated() -> Result<PathBuf, String> {
    Err("Windows has job objects instead, which every job gets".to_owned())
}
