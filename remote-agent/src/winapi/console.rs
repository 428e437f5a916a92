//! Console events, and the encoding that console programs write.

use std::io;

use windows_sys::Win32::Globalization::{CP_OEMCP, MultiByteToWideChar};
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, GenerateConsoleCtrlEvent, SetConsoleCtrlHandler,
};

use super::done;

/// What a console tells all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Ctrl-C: the usual request to end.
    Interrupt,
    /// Ctrl-Break: cannot be ignored as a whole, as Ctrl-C can.
    Break,
}

/// Sends an event to every process that shares our console, ourselves included.
pub fn send(event: Event) -> io::Result<()> {
    let event = match event {
        Event::Interrupt => CTRL_C_EVENT,
        Event::Break => CTRL_BREAK_EVENT,
    };
    // SAFETY: takes numbers only.
    done(unsafe { GenerateConsoleCtrlEvent(event, 0) })
}

/// Ctrl-C is noticed again by this process and by those that it starts, should whoever started us have turned it off.
pub fn notice_interrupts() -> io::Result<()> {
    // SAFETY: without a handler the call only clears the attribute "ignore Ctrl-C".
    done(unsafe { SetConsoleCtrlHandler(None, 0) })
}

/// Text in the code page that console programs of this host write (CP850, CP932 …). `None` if it is not such a text.
pub fn from_console_encoding(bytes: &[u8]) -> Option<String> {
    let length = i32::try_from(bytes.len()).ok()?;
    if length == 0 {
        return Some(String::new());
    }
    // No code page needs more UTF-16 units than bytes.
    let mut buffer = vec![0_u16; bytes.len()];
    // SAFETY: both buffers live through the call, both lengths are those of the buffers, which do not overlap.
    let units =
        unsafe { MultiByteToWideChar(CP_OEMCP, 0, bytes.as_ptr(), length, buffer.as_mut_ptr(), length) };
    let units = usize::try_from(units).ok().filter(|units| *units > 0)?;
    Some(String::from_utf16_lossy(buffer.get(..units)?))
}
