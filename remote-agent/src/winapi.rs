//! The calls of Windows that no well-kept crate offers safely: job objects, console events, figures of the host, the
//! event log. The only unsafe code of the program; each block says why it is sound. Knows nothing of jobs or agents.

#![expect(unsafe_code, reason = "Windows offers these calls through a C interface only")]

pub mod console;
pub mod host;
pub mod job;
pub mod report;

use std::io;
use std::os::windows::io::{FromRawHandle, OwnedHandle};

use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::core::BOOL;

/// What a call that answers yes or no says.
fn done(answer: BOOL) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes over a handle that a call has just made for us.
fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers pass the result of a call that opens a new handle, which nobody else owns or closes.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// A text as the wide, zero-terminated form that the calls take. A NUL inside ends it early.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().take_while(|unit| *unit != 0).chain([0]).collect()
}

/// The text of a wide buffer up to its first zero.
fn narrow(buffer: &[u16]) -> String {
    let end = buffer.iter().position(|unit| *unit == 0).unwrap_or(buffer.len());
    String::from_utf16_lossy(&buffer[..end])
}
