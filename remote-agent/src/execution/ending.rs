//! Turns the end of a program into the ending of an execution: what the supervisor wrote down, what was asked of it, what the
//! program produced and said last.

use std::path::Path;

use wps_remote_protocol::{ErrorKind, ExecutionError, KillReceipt, LogLevel};

use super::stdout::{Decide, filter};
use super::system;
use crate::outputs::{self, Delivery};
use crate::supervise::record::{Exit, Outcome, TROUBLE_FILE};
use crate::workdir::{Ending, Folder, Record};

/// SIGKILL without a limit that explains it.
const KILLED_BY_OTHERS: &str =
    "SIGKILL, not sent by the agent: the host was out of memory, or somebody on it ended the program";

/// Whether and why the agent asked for the end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// It did not.
    Nothing,
    /// The orchestrator wanted it.
    ByOrchestrator,
    /// The program's output said that it cannot go on, in these words.
    ByRule(String),
}

/// Makes the ending and puts it down. Also gives the receipt, if anything had to be ended.
pub(super) fn make(
    folder: &Folder,
    record: &Record,
    delivery: &Delivery<'_>,
    asked: Asked,
    last_lines: &str,
    rules: &mut dyn Decide,
) -> (Ending, Option<KillReceipt>) {
    let (ending, receipt) = match folder.exit() {
        Ok(exit) => {
            let receipt = exit.receipt.clone();
            (judge(exit, record, delivery, asked, last_lines, rules), receipt)
        }
        Err(error) => {
            let receipt = system::end_orphans(&record.work_dir, wall_clock_ms());
            let ended = receipt.is_some();
            let mut text = match (&asked, error.is_absent()) {
                (Asked::ByOrchestrator, true) => "aborted on request".to_owned(),
                (_, true) => {
                    "the job's supervisor ended without a word (killed, or the host went down)".to_owned()
                }
                (_, false) => error.to_string(),
            };
            if let Ok(trouble) = std::fs::read_to_string(folder.path().join(TROUBLE_FILE)) {
                text = format!("{text}: {}", trouble.trim());
            }
            if ended {
                text.push_str("; what was left of the program was ended");
            }
            let kind = if asked == Asked::ByOrchestrator { ErrorKind::Aborted } else { ErrorKind::Lost };
            (failed(kind, &text, last_lines, receipt.clone()), receipt)
        }
    };
    if let Err(error) = folder.write_ending(&ending) {
        // It is told all the same; only a restart before that would have to make it again.
        tracing::warn!(execution.id = %record.execution, %error, "the ending could not be put down");
    }
    (ending, receipt)
}

fn judge(
    exit: Exit,
    record: &Record,
    delivery: &Delivery<'_>,
    asked: Asked,
    last_lines: &str,
    rules: &mut dyn Decide,
) -> Ending {
    let receipt = exit.receipt.clone();
    if let Asked::ByRule(reason) = asked {
        return failed(ErrorKind::Reported, &reason, last_lines, receipt);
    }
    let because = exit.exceeded.as_ref().map(|limit| format!(" ({limit})")).unwrap_or_default();
    let (kind, text) = match exit.outcome {
        Outcome::Exited(0) => {
            if let Some(fault) = cut_result(&exit, record) {
                return failed(ErrorKind::OutputMissing(fault.0), &fault.1, last_lines, receipt);
            }
            // A failure to write it shows as a missing output.
            let written = record.stdout_result.as_ref().map(|path| distil(&record.launch.log, path, rules));
            if let Some(Err(error)) = written {
                tracing::warn!(execution.id = %record.execution, %error, "the result in the output was not written");
            }
            return match outputs::collect(&record.outputs, &record.execution, delivery) {
                Ok(outputs) => Ending::Completed(outputs),
                Err(faults) => {
                    let error = outputs::as_error(&faults);
                    failed(error.kind, &error.text, last_lines, receipt)
                }
            };
        }
        Outcome::Exited(code) => {
            let note = system::exit_note(code).map(|note| format!(" ({note})")).unwrap_or_default();
            (ErrorKind::Exited(code), format!("process exit code is {code}: failure{note}{because}"))
        }
        Outcome::Signalled(signal) => (
            ErrorKind::Signalled(signal),
            // A signal is a negative exit code in the words of the legacy agent.
            match (signal, exit.exceeded) {
                (9, None) => format!("process exit code is -9: failure ({KILLED_BY_OTHERS})"),
                _ => {
                    let name = system::signal_name(signal);
                    format!("process exit code is -{signal}: failure ({name}){because}")
                }
            },
        ),
        Outcome::TimedOut => (
            ErrorKind::TimedOut,
            format!("maximum running time of {} s exceeded", record.launch.max_running_time_s),
        ),
        Outcome::Aborted if asked == Asked::ByOrchestrator => {
            (ErrorKind::Aborted, "aborted on request".to_owned())
        }
        Outcome::Aborted => (
            ErrorKind::Signalled(15),
            "the job was ended from outside of the agent (SIGTERM to its supervisor; does the host shut down?)"
                .to_owned(),
        ),
        Outcome::NotStarted(why) => (ErrorKind::NotStarted, why),
    };
    let text = match exit.log_error {
        Some(error) => format!("{text} (its output could not be kept: {error})"),
        None => text,
    };
    failed(kind, &text, last_lines, receipt)
}

/// A result that is taken from the program's output is worth nothing if part of that was dropped: `(output, why)`.
fn cut_result(exit: &Exit, record: &Record) -> Option<(String, String)> {
    let result = record.stdout_result.as_ref().filter(|_| exit.dropped_bytes > 0)?;
    let output = record.outputs.iter().find(|output| output.place == outputs::Place::File(result.clone()))?;
    let why = match &exit.log_error {
        Some(error) => error.clone(),
        None => format!("at most {} bytes are kept", record.launch.log_limit_bytes),
    };
    let text = format!(
        "output `{}` is what the program prints, but {} bytes of that were lost: {why}",
        output.id, exit.dropped_bytes
    );
    Some((output.id.clone(), text))
}

fn distil(log: &Path, result: &Path, rules: &mut dyn Decide) -> std::io::Result<()> {
    // The folder is the program's, who may run as another user than we: nothing that it has put there is written through or
    // followed.
    match std::fs::remove_file(result) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let to = std::io::BufWriter::new(std::fs::File::create_new(result)?);
    filter(system::open_itself(log)?, to, rules)
}

fn failed(kind: ErrorKind, first: &str, last_lines: &str, receipt: Option<KillReceipt>) -> Ending {
    let text = if last_lines.is_empty() { first.to_owned() } else { format!("{first}\n{last_lines}") };
    let text = wps_remote_protocol::native::cut(&text, wps_remote_protocol::native::MAX_TEXT);
    Ending::Failed(ExecutionError { kind, text, receipt: receipt.map(Box::new) })
}

/// The ending of an execution whose following itself failed.
pub(super) fn lost(why: &str) -> Ending {
    failed(ErrorKind::Lost, &format!("the agent failed to follow the job: {why}"), "", None)
}

/// Survivors are worth a warning.
pub(super) fn receipt_level(receipt: &KillReceipt) -> LogLevel {
    if receipt.survivors.is_empty() { LogLevel::Info } else { LogLevel::Warning }
}

#[expect(clippy::disallowed_methods, reason = "a receipt carries the wall clock")]
fn wall_clock_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
