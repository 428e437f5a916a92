//! There is no fork here, and so no server that splits off supervisors: each is a program of its own.

use std::io;
use std::path::PathBuf;

/// Not on this system.
pub(in crate::supervise) fn serve() -> io::Result<Option<PathBuf>> {
    Err(io::ErrorKind::Unsupported.into())
}
