//! What is offered of a folder, and how soon.

use std::time::{Duration, Instant};

use super::watch::{WatchSettings, Watched, watch};
use super::*;

const CONTEXT_DIR: &str = "/nowhere";
/// What was promised; on an idle host it takes a quarter of a second.
const SOON: Duration = Duration::from_secs(2);

fn context() -> LoadContext {
    LoadContext::bare(PathBuf::from("/nowhere/work"))
}

fn text(service: &str, program: &str) -> String {
    format!("[Output]\nresult = {{}}\n[Description]\nservice = {service}\nexecutable = {program}\n")
}

fn names(changes: &[CatalogChange]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            CatalogChange::Added(descriptor) => format!("added {}", descriptor.id),
            CatalogChange::Changed(descriptor) => format!("changed {}", descriptor.id),
            CatalogChange::Removed(id) => format!("removed {id}"),
            CatalogChange::Broken { error, kept } => {
                format!(
                    "broken {} kept {}",
                    error.findings[0].code,
                    kept.as_ref().map_or("-".into(), ToString::to_string)
                )
            }
            CatalogChange::Held { id, line, .. } => format!("held {id} line {line}"),
            CatalogChange::Duplicate { id, second, .. } => format!("duplicate {id} {}", second.display()),
            CatalogChange::Inactive { id, .. } => format!("inactive {id}"),
        })
        .collect()
}

/// Takes over one file and tells what changed; programs named `missing` are missing.
fn step(catalog: &mut Catalog, name: &str, content: Option<&str>) -> Vec<String> {
    let path = Path::new(CONTEXT_DIR).join(name);
    catalog.put(&path, content.map(str::as_bytes), &context());
    settle(catalog)
}

fn settle(catalog: &mut Catalog) -> Vec<String> {
    names(&catalog.settle(|descriptor| {
        let program = descriptor.program.words[0].to_string();
        if program == "missing" {
            Err(Held { program, looked: Vec::new(), why: "does not exist".into() })
        } else {
            Ok(())
        }
    }))
}

#[test]
fn files_come_change_and_go() {
    let mut catalog = Catalog::default();
    assert_eq!(step(&mut catalog, "a.ini", Some(&text("A", "true"))), ["added default:A"]);
    assert_eq!(step(&mut catalog, "a.ini", Some(&text("A", "true"))), [""; 0], "nothing new, nothing told");
    assert_eq!(step(&mut catalog, "a.ini", Some(&text("A", "false"))), ["changed default:A"]);
    assert_eq!(
        step(&mut catalog, "other.ini", Some("[x]\ny = 1\n")),
        [""; 0],
        "other files are not our business"
    );
    assert_eq!(
        step(&mut catalog, "a.ini", Some(&text("B", "true"))),
        ["removed default:A", "added default:B"]
    );
    assert_eq!(step(&mut catalog, "a.ini", None), ["removed default:B"]);
    assert!(catalog.offers().is_empty());
}

#[test]
fn a_broken_edit_keeps_the_last_good_version() {
    let mut catalog = Catalog::default();
    step(&mut catalog, "a.ini", Some(&text("A", "true")));
    assert_eq!(
        step(&mut catalog, "a.ini", Some("[Description]\nservice = A\n")),
        ["broken missing-key kept default:A"]
    );
    assert_eq!(catalog.offers().len(), 1);
    assert_eq!(settle(&mut catalog), [""; 0], "told once");
    assert_eq!(step(&mut catalog, "a.ini", Some("nothing")), ["broken not-a-descriptor kept default:A"]);
    assert_eq!(step(&mut catalog, "a.ini", Some(&text("A", "true"))), [""; 0], "as it was");
    assert_eq!(
        step(&mut catalog, "b.ini", Some("[Description]\nservice = B\n")),
        ["broken missing-key kept -"]
    );
}

#[test]
fn missing_programs_hold_a_process_back() {
    let mut catalog = Catalog::default();
    assert_eq!(step(&mut catalog, "a.ini", Some(&text("A", "missing"))), ["held default:A line 5"]);
    assert_eq!(settle(&mut catalog), [""; 0], "told once");
    let found = catalog.settle(|_| Ok(()));
    assert_eq!(names(&found), ["added default:A"], "the program has come");
    assert_eq!(settle(&mut catalog), ["held default:A line 5", "removed default:A"], "and gone");
}

#[test]
fn of_two_files_with_one_process_the_first_counts() {
    let mut catalog = Catalog::default();
    step(&mut catalog, "b.ini", Some(&text("A", "true")));
    assert_eq!(
        step(&mut catalog, "a.ini", Some(&text("A", "false"))),
        ["duplicate default:A /nowhere/b.ini", "changed default:A"]
    );
    assert_eq!(step(&mut catalog, "a.ini", None), ["changed default:A"]);
    let off = format!("{}active = false\n", text("A", "true"));
    assert_eq!(step(&mut catalog, "b.ini", Some(&off)), ["inactive default:A", "removed default:A"]);
}

#[test]
fn jobs_cannot_add_services() {
    let mut catalog = Catalog::default();
    let with_work = format!("{}[Options]\noutput_dir = /nowhere/work\n", text("A", "true"));
    step(&mut catalog, "a.ini", Some(&with_work));
    assert_eq!(step(&mut catalog, "work/0123/x.ini", Some(&text("Evil", "true"))), [""; 0]);
    let hiding = format!("{}[Options]\noutput_dir = /nowhere\n", text("Evil", "true"));
    assert_eq!(step(&mut catalog, "work/0123/x.ini", Some(&hiding)), [""; 0]);
    assert_eq!(catalog.offers().len(), 1);
}

#[test]
fn only_likely_names_are_looked_at() {
    let check = |name: &str, expected: bool| {
        assert_eq!(listing::may_be_descriptor(Path::new(name)), expected, "{name}");
    };
    for good in ["a.config", "a.INI", "a.b.properties"] {
        check(good, true);
    }
    for bad in [
        "remote.config",
        "logger.properties",
        ".a.ini",
        "a.ini~",
        "a.ini.swp",
        "#a.ini",
        ".#a.ini",
        "a.txt",
        "a",
    ] {
        check(bad, false);
    }
}

/// Waits until the offer is as wanted; says how long it took.
async fn until(
    watched: &mut Watched,
    what: &str,
    wanted: impl Fn(&[Arc<ServiceDescriptor>]) -> bool,
) -> Duration {
    let begun = Instant::now();
    let found =
        tokio::time::timeout(Duration::from_secs(10), watched.offers.wait_for(|offers| wanted(offers))).await;
    assert!(found.is_ok_and(|found| found.is_ok()), "{what}: {:?}", watched.offers.borrow());
    begun.elapsed()
}

fn begin(folder: &Path, exclude: Vec<PathBuf>) -> (Watched, JoinSet<()>) {
    let settings = WatchSettings { roots: vec![folder.to_path_buf()], exclude, context: context() };
    let (watched, task) = watch(settings).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    (watched, tasks)
}

#[tokio::test]
async fn a_process_without_outputs_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    std::fs::write(folder.join("mute.ini"), "[Description]\nservice = Mute\nexecutable = true\n").unwrap();
    std::fs::write(folder.join("good.ini"), text("Good", "true")).unwrap();
    let (watched, tasks) = begin(&folder, vec![]);
    let offered: Vec<String> = watched.offers.borrow().iter().map(|o| o.id.to_string()).collect();
    assert_eq!(offered, ["default:Good"]);
    drop(tasks);
}

#[tokio::test]
async fn a_watched_folder_is_followed_soon() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    std::fs::create_dir(folder.join("work")).unwrap();
    std::fs::write(folder.join("first.ini"), text("First", "true")).unwrap();
    let (mut watched, tasks) = begin(&folder, vec![folder.join("work")]);
    assert_eq!(watched.offers.borrow().len(), 1, "the first offer is complete at once");

    let has =
        |id: &'static str| move |offers: &[Arc<ServiceDescriptor>]| offers.iter().any(|o| o.id.name() == id);
    std::fs::create_dir(folder.join("echo")).unwrap();
    std::fs::write(folder.join("echo/service.ini"), text("Echo", "true")).unwrap();
    let took = until(&mut watched, "dropped", has("Echo")).await;
    assert!(took < SOON, "{took:?}");

    let version = format!("{}version = 2\n", text("Echo", "true"));
    std::fs::write(folder.join("echo/service.ini"), version).unwrap();
    let newer = |offers: &[Arc<ServiceDescriptor>]| offers.iter().any(|o| o.version.as_deref() == Some("2"));
    let took = until(&mut watched, "changed", newer).await;
    assert!(took < SOON, "{took:?}");

    std::fs::write(folder.join("work/job.ini"), text("Evil", "true")).unwrap();
    std::fs::remove_dir_all(folder.join("echo")).unwrap();
    let took = until(&mut watched, "removed", |offers| offers.len() == 1).await;
    assert!(took < SOON, "{took:?}");
    assert!(!has("Evil")(&watched.offers.borrow()));
    drop(tasks);
}

#[tokio::test]
async fn a_file_that_is_being_written_causes_no_stir() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let (mut watched, tasks) = begin(&folder, Vec::new());
    let path = folder.join("slow.ini");
    let whole = text("Slow", "true");
    // Written in pieces, each of them broken, with pauses that an editor over a slow share may have.
    for end in [20, 30, whole.len()] {
        std::fs::write(&path, &whole[..end]).unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    until(&mut watched, "written", |offers| offers.len() == 1).await;
    std::fs::write(&path, "[Description]\nservice = Slow\n").unwrap();
    let broken = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match watched.changes.recv().await {
                Some(CatalogChange::Added(_)) => {}
                other => return other,
            }
        }
    });
    let found = broken.await.unwrap();
    assert!(
        matches!(&found, Some(CatalogChange::Broken { kept: Some(_), .. })),
        "no other stir before: {found:?}"
    );
    assert_eq!(watched.offers.borrow().len(), 1);
    drop(tasks);
}

#[cfg(unix)]
#[tokio::test]
async fn a_program_that_comes_later_is_found() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    std::fs::write(folder.join("a.ini"), text("A", "./prog")).unwrap();
    let (mut watched, tasks) = begin(&folder, Vec::new());
    assert!(watched.offers.borrow().is_empty());
    std::fs::write(folder.join("prog"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(folder.join("prog"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let took = until(&mut watched, "program", |offers| offers.len() == 1).await;
    assert!(took < SOON, "{took:?}");
    drop(tasks);
}

/// Time that this thread has used, so that other work on the host does not count.
#[cfg(unix)]
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

#[cfg(unix)]
#[test]
fn many_descriptors_load_fast() {
    let whole = include_str!("../../tests/fixtures/descriptors/02-gdalwarp-reproject.config");
    let begun = used();
    let mut catalog = Catalog::default();
    for number in 0..100 {
        let text = whole.replace("service = Reproject", &format!("service = R{number}"));
        catalog.put(Path::new(&format!("/nowhere/{number}.config")), Some(text.as_bytes()), &context());
    }
    assert_eq!(catalog.settle(|_| Ok(())).len(), 100);
    let took = used() - begun;
    assert!(took < Duration::from_secs(2), "{took:?} in an unoptimised build");
}
