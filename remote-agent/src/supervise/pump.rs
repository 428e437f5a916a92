//! Carries a program's output from its pipe into the log file, on a thread of its own: a slow disk never delays a kill,
//! a full one never blocks the program. Knows bytes only.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::path::Path;
use std::thread;

use tokio::sync::oneshot;

use crate::files;

/// What became of the output.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Pumped {
    /// Bytes that were not written.
    pub(super) dropped_bytes: u64,
    /// Why, when it was not the limit.
    pub(super) error: Option<String>,
}

/// Creates the log file. Group members may read it, others not.
pub(super) fn create(path: &Path) -> io::Result<File> {
    files::options(0o640).append(true).create(true).open(path)
}

/// Starts the thread. The receiver resolves when every writer of the pipe is gone.
pub(super) fn start(mut from: PipeReader, to: File, limit: u64) -> io::Result<oneshot::Receiver<Pumped>> {
    let (done, receiver) = oneshot::channel();
    thread::Builder::new().name("pump".to_owned()).stack_size(128 * 1024).spawn(move || {
        // The receiver is gone only when the supervisor no longer waits; nothing is left to tell then.
        let _ = done.send(pump(&mut from, to, limit));
    })?;
    Ok(receiver)
}

fn pump(from: &mut impl Read, mut to: impl Write, limit: u64) -> Pumped {
    let mut result = Pumped::default();
    let mut room = limit;
    let mut buffer = [0_u8; 32 * 1024];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                result.error.get_or_insert_with(|| error.to_string());
                break;
            }
        };
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(length);
        if fits > 0 && result.error.is_none() {
            if let Err(error) = to.write_all(&buffer[..fits]) {
                // From here on everything is dropped: a log with holes would mislead.
                result.error = Some(error.to_string());
                result.dropped_bytes += length as u64;
                continue;
            }
            room -= fits as u64;
            if room == 0 {
                let note = format!("\n[the agent keeps {limit} bytes of output; the rest is dropped]\n");
                let _ = to.write_all(note.as_bytes());
            }
            result.dropped_bytes += (length - fits) as u64;
        } else {
            result.dropped_bytes += length as u64;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_within_the_limit_is_kept_byte_for_byte() {
        let mut log = Vec::new();
        let result = pump(&mut &b"a\0\xff\n"[..], &mut log, 5);
        assert_eq!((log.as_slice(), result), (&b"a\0\xff\n"[..], Pumped::default()));
    }

    #[test]
    fn output_beyond_the_limit_is_counted_and_noted_once() {
        let mut log = Vec::new();
        let bytes = vec![b'x'; 200_000];
        let result = pump(&mut bytes.as_slice(), &mut log, 10);
        assert_eq!(result.dropped_bytes, 199_990);
        let text = String::from_utf8(log).unwrap();
        assert_eq!(text.matches('x').count(), 10);
        assert_eq!(text.matches("keeps 10 bytes").count(), 1);
    }

    #[test]
    fn a_full_disk_does_not_stop_the_reading() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let bytes = vec![b'x'; 100_000];
        let result = pump(&mut bytes.as_slice(), Full, 1_000_000);
        assert_eq!(result.dropped_bytes, 100_000);
        assert!(result.error.is_some());
    }
}
