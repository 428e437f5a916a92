//! What the jobs of each service usually print: counts which rules their output met, remembers over restarts whether
//! every job told its progress, and notices the first one that no longer does (the program was upgraded, its language
//! changed, a rule was edited). Starts nothing and decides nothing about jobs.
//!
//! A warning must be worth reading, so it needs a habit: `ALWAYS` good jobs in a row told their progress. A job says
//! nothing about the habit if it failed or was aborted, or if it was over sooner than the quickest that told its progress:
//! short jobs often have none to tell. After a warning the habit begins anew, so that a service is warned of once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;
use wps_remote_protocol::ProcessId;

use crate::execution::stdout::Counts;

/// So many good jobs in a row make a habit.
const ALWAYS: u32 = 5;
/// Most services that are remembered.
const MAX_SERVICES: usize = 10_000;
/// Largest file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Its name. No execution can be called so: their names do not begin with a dot.
const FILE: &str = ".habits.json";

/// What is remembered of all services.
#[derive(Debug)]
pub struct Habits {
    file: PathBuf,
    services: BTreeMap<String, Habit>,
    changed: bool,
}

/// What is remembered of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Habit {
    /// Good jobs in a row that told their progress.
    in_a_row: u32,
    /// How long the quickest of them took, in milliseconds.
    quickest_ms: u64,
    /// Jobs that were counted, and which rules their records met.
    jobs: u64,
    counts: Counts,
}

impl Habits {
    /// Reads what a former agent has left in its folder of job records. A file that cannot be read is begun anew: only a
    /// warning depends on it.
    pub fn open(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let services = match read(&file) {
            Ok(services) => services,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!("{} cannot be read and is begun anew: {error}", file.display());
                BTreeMap::new()
            }
        };
        Self { file, services, changed: false }
    }

    /// Takes note of a job that ended well after `took`. `tells` says whether its rules know of progress at all. Gives the
    /// warning if the job broke a habit.
    pub fn note(
        &mut self,
        process: &ProcessId,
        tells: bool,
        counts: &Counts,
        took: Duration,
    ) -> Option<String> {
        let name = process.to_string();
        if !tells {
            self.changed |= self.services.remove(&name).is_some();
            return None;
        }
        if !self.services.contains_key(&name) && self.services.len() >= MAX_SERVICES {
            return None;
        }
        self.changed = true;
        let habit = self.services.entry(name).or_default();
        habit.jobs += 1;
        habit.counts.add(counts);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if counts.progress > 0 {
            let first = habit.in_a_row == 0;
            habit.quickest_ms = if first { took_ms } else { habit.quickest_ms.min(took_ms) };
            habit.in_a_row = habit.in_a_row.saturating_add(1);
            return None;
        }
        if took_ms < habit.quickest_ms {
            return None;
        }
        let before = std::mem::take(&mut habit.in_a_row);
        (before >= ALWAYS).then(|| {
            format!(
                "no line of the output told the progress, although the last {before} jobs of {process} all did \
                 ({counts}); if the program has changed what it prints, try the rules with `check FILE --log stdout.log`"
            )
        })
    }

    /// What is to be written, if anything has changed since this was asked last.
    pub fn to_save(&mut self) -> Option<Unsaved> {
        std::mem::take(&mut self.changed)
            .then(|| Unsaved { file: self.file.clone(), services: self.services.clone() })
    }
}

/// Habits that are not on disk yet.
#[derive(Debug)]
pub struct Unsaved {
    file: PathBuf,
    services: BTreeMap<String, Habit>,
}

impl Unsaved {
    /// Writes them, whole or not at all; may block. A failure is logged: only a warning depends on it.
    pub fn save(self) {
        let draft = self.file.with_extension("draft");
        let write = || {
            let mut file = fs::File::create(&draft)?;
            file.write_all(&serde_json::to_vec(&self.services)?)?;
            fs::rename(&draft, &self.file)
        };
        if let Err(error) = write() {
            warn!("{} cannot be written: {error}", self.file.display());
        }
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Habit>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessId {
        ProcessId::new("demo", "Slow").unwrap()
    }

    fn told(progress: u64) -> Counts {
        Counts { records: 3 + progress, progress, unmatched: 3, ..Counts::default() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_first_job_without_progress_after_many_with_it_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut habits = Habits::open(folder.path());
        for _ in 0..7 {
            assert_eq!(habits.note(&process(), true, &told(4), seconds(10)), None);
        }
        let said = habits.note(&process(), true, &told(0), seconds(10)).unwrap();
        assert!(said.contains("the last 7 jobs of demo:Slow") && said.contains("3 unmatched"), "{said}");
        assert_eq!(habits.note(&process(), true, &told(0), seconds(10)), None, "said once");
        for _ in 0..ALWAYS {
            assert_eq!(habits.note(&process(), true, &told(4), seconds(10)), None);
        }
        assert!(habits.note(&process(), true, &told(0), seconds(10)).is_some(), "a new habit is broken anew");
    }

    #[test]
    fn short_jobs_few_jobs_and_services_without_progress_are_no_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut habits = Habits::open(folder.path());
        for _ in 0..20 {
            habits.note(&process(), true, &told(4), seconds(10));
        }
        assert_eq!(
            habits.note(&process(), true, &told(0), seconds(9)),
            None,
            "shorter than all that told it"
        );
        assert!(
            habits.note(&process(), true, &told(0), seconds(11)).is_some(),
            "a short job breaks no habit"
        );
        for progress in [1, 1, 1, 1, 0, 1, 1, 1, 1, 0] {
            assert_eq!(habits.note(&process(), true, &told(progress), seconds(10)), None, "not always");
        }
        for _ in 0..ALWAYS {
            habits.note(&process(), true, &told(4), seconds(10));
        }
        assert_eq!(habits.note(&process(), false, &told(0), seconds(10)), None, "its rules were taken away");
        assert_eq!(habits.note(&process(), true, &told(0), seconds(10)), None, "and the habit with them");
    }

    #[test]
    fn habits_outlive_the_agent_and_a_damaged_file_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let mut habits = Habits::open(folder.path());
        for _ in 0..ALWAYS {
            habits.note(&process(), true, &told(4), seconds(1));
        }
        habits.to_save().unwrap().save();
        assert!(habits.to_save().is_none(), "nothing new");
        let mut next = Habits::open(folder.path());
        assert_eq!(next.services, habits.services);
        assert!(next.note(&process(), true, &told(0), seconds(1)).is_some());
        fs::write(folder.path().join(FILE), b"{\"a:b\": 7").unwrap();
        assert!(Habits::open(folder.path()).services.is_empty());
    }
}
