//! The Windows event log.

use std::io;
use std::ptr::{null, null_mut};

use windows_sys::Win32::System::EventLog::{
    DeregisterEventSource, EVENTLOG_ERROR_TYPE, EVENTLOG_INFORMATION_TYPE, EVENTLOG_WARNING_TYPE,
    RegisterEventSourceW, ReportEventW,
};

use super::{done, wide};

/// How grave an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warning,
    /// Good to know.
    Information,
}

/// Longest text of an entry that Windows takes, in UTF-16 units.
const MAX_TEXT: usize = 31_839;

/// Writes one entry of a source into the log "Application". `id` selects the message of the source's message file.
pub fn report(source: &str, kind: Kind, id: u32, text: &str) -> io::Result<()> {
    let source = wide(source);
    // SAFETY: the name is zero-terminated and lives through the call; no server is named.
    let log = unsafe { RegisterEventSourceW(null(), source.as_ptr()) };
    if log.is_null() {
        return Err(io::Error::last_os_error());
    }
    let kind = match kind {
        Kind::Error => EVENTLOG_ERROR_TYPE,
        Kind::Warning => EVENTLOG_WARNING_TYPE,
        Kind::Information => EVENTLOG_INFORMATION_TYPE,
    };
    let mut text = wide(text);
    if text.len() > MAX_TEXT {
        text.truncate(MAX_TEXT - 1);
        text.push(0);
    }
    let texts = [text.as_ptr()];
    // SAFETY: the source is registered; one zero-terminated text is announced and given; neither user nor data.
    let reported = done(unsafe {
        ReportEventW(log, kind, 0, id, null_mut(), texts.len() as u16, 0, texts.as_ptr(), null())
    });
    // SAFETY: registered above and used no more.
    unsafe { DeregisterEventSource(log) };
    reported
}
