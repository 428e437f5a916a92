//! Lets go of what only the start needed: most of the program file that was mapped to read the configuration, to set up
//! encryption and to compile expressions is not looked at again while an agent idles, which is most of its life. Knows
//! nothing of the agent.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Waits until the start is over, then gives back.
pub(crate) async fn give_back_after(settled: Duration) {
    tokio::time::sleep(settled).await;
    match tokio::task::spawn_blocking(give_back).await {
        Ok(Ok(bytes)) => debug!(bytes, "what only the start needed is no longer mapped"),
        Ok(Err(error)) => debug!(%error, "what only the start needed stays mapped"),
        Err(error) => debug!(%error, "giving back failed"),
    }
}

/// Unmaps the pages of this program's code and constants. Each comes back from the file, or from the system's cache of it, at
/// its next use. Gives the size of what was looked at, in bytes.
///
/// # Errors
/// What the system says.
fn give_back() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut all = 0;
    for (start, length) in maps.lines().filter_map(|line| unwritten(line, program.to_str()?)) {
        #[expect(unsafe_code, reason = "advice about memory takes addresses")]
        // SAFETY: the range is one whole mapping of the program file that may not be written and never was (see `unwritten`),
        // so that the file has the very bytes that are dropped here; it cannot be written while it runs.
        unsafe { madvise(start as *mut std::ffi::c_void, length, Advice::LinuxDontNeed) }?;
        all += length;
    }
    Ok(all)
}

/// Start and length of a mapping of the program's code, or of its beginning, which holds constants: see
/// proc_pid_maps(5). Not of anything else: what is read-only now may have been written while the program was loaded.
fn unwritten(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, flags, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?;
    let beginning = flags == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if path != program || !(flags == "r-xp" || beginning) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of files that are mapped, in KiB.
    fn mapped() -> u64 {
        let status = fs::read_to_string("/proc/self/status").expect("there is /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn the_pages_of_the_program_are_given_back_and_come_again() {
        // Other tests run meanwhile and map pages of their own.
        let fewer = (0..100).any(|_| {
            let before = mapped();
            let bytes = give_back().expect("a program may be given advice");
            bytes > 1 << 20 && mapped() < before
        });
        assert!(fewer, "{} KiB stay mapped", mapped());
        // Whatever runs next was dropped, and works.
        assert_eq!(format!("{:?}", "1.5".parse::<f64>()), "Ok(1.5)");
    }

    #[test]
    fn only_what_was_never_written_is_touched() {
        let check = |line: &str, expected| assert_eq!(unwritten(line, "/bin/agent"), expected, "{line}");
        check("1000-3000 r-xp 00002000 fe:00 77     /bin/agent", Some((0x1000, 0x2000)));
        check("0-1000 r--p 00000000 fe:00 77     /bin/agent", Some((0, 0x1000)));
        for other in [
            "1000-3000 r--p 00002000 fe:00 77     /bin/agent",
            "1000-3000 rw-p 00000000 fe:00 77     /bin/agent",
            "1000-3000 r-xp 00002000 fe:00 78     /lib/libc.so.6",
            "1000-3000 r-xp 00000000 00:00 0 ",
            "1000-3000 r-xp 00000000 00:00 0      [vdso]",
            "",
        ] {
            check(other, None);
        }
    }
}
