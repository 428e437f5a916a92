//! Sends an execution's files to the upload server and notes for the job's log what arrived there: size and checksum.

use std::sync::{Mutex, PoisonError};

use super::Host;
use crate::outputs::Parcel;

/// What the job's log is to say.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    #[cfg(feature = "upload")]
    fn add(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Everything noted so far, once.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends files; the address of each, or why they are not there.
#[cfg(feature = "upload")]
pub(super) fn upload(host: &Host, parcels: &[Parcel], notes: &Notes) -> Result<Vec<String>, String> {
    let Some(uploader) = &host.uploader else { return Err("no upload server is configured".to_owned()) };
    let placed = crate::upload::send(uploader, parcels).map_err(|error| error.to_string())?;
    for file in &placed {
        notes.add(format!("uploaded {} ({} bytes, SHA-256 {})", file.href, file.bytes, file.sha256));
    }
    Ok(placed.into_iter().map(|file| file.href).collect())
}

/// A program without uploads refuses `[UPLOADER]` when it starts, so that nobody comes here.
#[cfg(not(feature = "upload"))]
pub(super) fn upload(_: &Host, _: &[Parcel], _: &Notes) -> Result<Vec<String>, String> {
    Err("this program was built without uploads".to_owned())
}
