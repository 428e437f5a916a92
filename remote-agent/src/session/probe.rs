//! Answers the doctor of an orchestrator: reads its file in the shared folder, writes one beside it, tells the time.

use std::io::{Read, Write};
use std::path::Path;

use wps_remote_protocol::native::probe::{Probe, Probed};

/// Looks at the shared folder. Takes as long as the file system does.
pub(super) fn look(shared: Option<&Path>, probe: &Probe) -> Probed {
    Probed { clock_ms: clock_ms(), fault: tried(shared, probe).err() }
}

fn tried(shared: Option<&Path>, probe: &Probe) -> Result<(), String> {
    let shared = shared.ok_or("the agent has no shared folder: wps_execution_shared_dir is not set")?;
    let file = shared.join(&probe.file);
    let mut text = String::new();
    // One byte more than it may hold tells that it is another file.
    let read = std::fs::File::open(&file).and_then(|file| file.take(201).read_to_string(&mut text));
    read.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    if text != probe.text {
        return Err(format!("{} holds something else", file.display()));
    }
    let answer = shared.join(format!("{}.answer", probe.file));
    let written = std::fs::File::create_new(&answer).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{} cannot be written: {error}", answer.display()))
}

#[expect(clippy::disallowed_methods, reason = "the wall clock is what is asked for")]
fn clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_same_one_or_the_fault_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe { file: ".check-1".into(), text: "hello".into() };
        let fault = |shared: Option<&Path>| look(shared, &probe).fault.unwrap_or_default();
        assert!(fault(None).contains("wps_execution_shared_dir"));
        assert!(fault(Some(folder.path())).contains("cannot be read"));
        std::fs::write(folder.path().join(".check-1"), "other").unwrap();
        assert!(fault(Some(folder.path())).contains("something else"));
        std::fs::write(folder.path().join(".check-1"), "hello").unwrap();
        assert_eq!(fault(Some(folder.path())), "");
        assert_eq!(std::fs::read_to_string(folder.path().join(".check-1.answer")).unwrap(), "hello");
        assert!(fault(Some(folder.path())).contains("cannot be written"), "nothing is overwritten");
    }
}
