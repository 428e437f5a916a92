//! Folders are made once, found again, and removed only when they may be.

#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, symlink};

use wps_remote_protocol::ErrorKind;

use super::*;
use crate::supervise::record::LOCK_FILE;

struct World {
    folder: tempfile::TempDir,
    control: Control,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test of retention compares with the clock of the file system"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(&folder.path().join("control")).unwrap();
        Self { folder, control }
    }

    fn record(&self, id: &str) -> Record {
        let work_dir = self.folder.path().join("out").join(id);
        Record {
            version: Record::VERSION,
            execution: ExecutionId::new(id).unwrap(),
            process: ProcessId::new("a", "b").unwrap(),
            originator: "orchestrator".into(),
            base_url: String::new(),
            weight: 1.0,
            accepted_ms: 0,
            extra_dir: None,
            keep: false,
            launch: Launch {
                argv: vec!["/bin/true".into()],
                cwd: work_dir.clone(),
                env: vec![],
                env_remove: vec![],
                stdin: None,
                log: work_dir.join(LOG_FILE),
                log_limit_bytes: 1,
                max_running_time_s: 0,
                grace_ms: 0,
                limits: Default::default(),
                run_as: None,
                cgroup: None,
            },
            work_dir,
            stdout_result: None,
            outputs: vec![],
            rules: serde_json::Value::Null,
        }
    }

    fn create(&self, id: &str) -> (Folder, Record) {
        let record = self.record(id);
        let folder = self.control.folder(&record.execution);
        folder.create::<WorkdirError>(&record, || Ok(())).unwrap();
        (folder, record)
    }
}

fn failed() -> Ending {
    Ending::Failed(ExecutionError { kind: ErrorKind::Exited(1), text: "x".into(), receipt: None })
}

#[test]
fn a_folder_that_exists_is_never_used() {
    let world = World::new();
    let (_, record) = world.create("e1");
    #[cfg(unix)]
    assert_eq!(fs::metadata(&record.work_dir).unwrap().mode() & 0o7777, 0o770);
    let again = world.control.folder(&record.execution).create::<WorkdirError>(&record, || Ok(()));
    assert!(matches!(again, Err(WorkdirError::Exists(_))));
    let other = world.record("e2");
    fs::create_dir(&other.work_dir).unwrap();
    let taken = world.control.folder(&other.execution).create::<WorkdirError>(&other, || Ok(()));
    assert!(matches!(taken, Err(WorkdirError::Exists(path)) if path == other.work_dir));
    assert!(!world.control.folder(&other.execution).path().exists(), "no trace of what was not begun");
}

#[test]
fn a_later_agent_finds_each_state() {
    let world = World::new();
    let (_, open) = world.create("e-open");
    let (ended, _) = world.create("e-ended");
    ended.write_ending(&failed()).unwrap();
    let (finished, _) = world.create("e-finished");
    finished.mark_finished().unwrap();
    fs::create_dir(world.control.root().join("e-half")).unwrap();
    fs::create_dir(world.control.root().join("not ours")).unwrap();
    fs::write(world.control.root().join("legacy.pid"), "").unwrap();
    let (damaged, _) = world.create("e-damaged");
    fs::write(damaged.path().join(JOB_FILE), "{").unwrap();

    let (found, strange) = world.control.scan().unwrap();
    let mut states: Vec<String> = found
        .into_iter()
        .map(|found| match found {
            Found::Open(_, record) => {
                assert_eq!(*record, open);
                format!("open {}", record.execution)
            }
            Found::Ended(_, record, ending) => {
                assert_eq!(ending, failed());
                format!("ended {}", record.execution)
            }
            Found::Finished(execution) => format!("finished {execution}"),
        })
        .collect();
    states.sort();
    assert_eq!(states, ["ended e-ended", "finished e-finished", "open e-open"]);
    assert_eq!(strange.len(), 2, "{strange:?}");
    assert!(!world.control.root().join("e-half").exists(), "an empty folder was promised to nobody");
}

#[test]
fn only_finished_folders_of_the_right_age_are_removed() {
    let world = World::new();
    let (_, running) = world.create("e-running");
    let (finished, record) = world.create("e-finished");
    finished.mark_finished().unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(world.control.sweep(hour, now()).unwrap().0, []);
    assert!(record.work_dir.exists());
    let (removed, failed) = world.control.sweep(hour, now() + hour + hour).unwrap();
    assert_eq!((removed, failed.len()), (vec![record.execution.clone()], 0));
    assert!(!record.work_dir.exists() && !finished.path().exists());
    assert!(running.work_dir.exists());
}

#[test]
fn what_could_not_be_made_whole_leaves_no_trace() {
    let world = World::new();
    let record = world.record("e1");
    let folder = world.control.folder(&record.execution);
    let full = || WorkdirError::Io {
        what: "input",
        path: "x".into(),
        verb: "written",
        source: io::ErrorKind::StorageFull.into(),
    };
    let work_dir = record.work_dir.clone();
    let made = folder.create::<WorkdirError>(&record, || {
        fs::write(work_dir.join("half"), "x").unwrap();
        Err(full())
    });
    assert!(made.is_err());
    assert!(!record.work_dir.exists() && !folder.path().exists());
    assert!(record.work_dir.parent().unwrap().exists(), "not ours alone");
}

#[test]
fn a_folder_whose_supervisor_lives_is_never_removed() {
    let world = World::new();
    let (finished, record) = world.create("e1");
    finished.mark_finished().unwrap();
    let mut lock = files::hold(&finished.path().join(LOCK_FILE)).unwrap().unwrap();
    io::Write::write_all(&mut lock, b"1\n").unwrap();
    let later = now() + Duration::from_secs(60);
    assert_eq!(world.control.sweep(Duration::ZERO, later).unwrap().0, []);
    assert!(record.work_dir.exists());
    drop(lock);
    assert_eq!(world.control.sweep(Duration::ZERO, later).unwrap().0, [record.execution]);
}

#[test]
fn what_is_debugged_stays_and_a_second_folder_goes_with_the_first() {
    let world = World::new();
    let (kept, mut record) = world.create("e-kept");
    record.keep = true;
    fs::write(kept.path().join(JOB_FILE), serde_json::to_vec(&record).unwrap()).unwrap();
    kept.mark_finished().unwrap();
    let (gone, mut second) = world.create("e-gone");
    let beside = world.folder.path().join("beside");
    fs::create_dir_all(beside.join("e-gone")).unwrap();
    second.extra_dir = Some(beside.join("e-gone"));
    fs::write(gone.path().join(JOB_FILE), serde_json::to_vec(&second).unwrap()).unwrap();
    gone.mark_finished().unwrap();
    let (foreign, mut third) = world.create("e-foreign");
    third.extra_dir = Some(beside.clone());
    fs::write(foreign.path().join(JOB_FILE), serde_json::to_vec(&third).unwrap()).unwrap();
    foreign.mark_finished().unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(world.control.sweep(hour, now() + hour + hour).unwrap().0.len(), 3);
    assert!(record.work_dir.exists() && !kept.path().exists());
    assert!(!second.work_dir.exists() && !beside.join("e-gone").exists());
    assert!(!third.work_dir.exists() && beside.exists(), "no folder that is not named after the execution");
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_a_folder_is_not_followed() {
    let world = World::new();
    let (finished, record) = world.create("e1");
    finished.mark_finished().unwrap();
    let precious = world.folder.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "x").unwrap();
    fs::remove_dir(&record.work_dir).unwrap();
    symlink(&precious, &record.work_dir).unwrap();
    world.control.sweep(Duration::ZERO, now() + Duration::from_secs(60)).unwrap();
    assert!(precious.join("file").exists());
}

#[test]
fn two_agents_do_not_share_a_control_folder() {
    let world = World::new();
    assert!(matches!(Control::open(world.control.root()), Err(WorkdirError::InUse(_))));
    let root = world.control.root().to_owned();
    drop(world.control);
    assert!(Control::open(&root).is_ok());
}
