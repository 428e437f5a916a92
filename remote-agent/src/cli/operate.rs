//! `status`, `drain`, `reload`: what an operator on the same host asks of a running agent. Finds it through its configuration,
//! whose secrets are not needed for that.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::{FAILED, Format, complain, config_file, say};
use crate::config::AgentConfig;
use crate::control::{self, Answer, JobState, Order, Report};

/// Pause between two looks at a draining agent.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The configuration of the running agent
    #[arg(short = 'r', long, value_name = "FILE", env = "WPS_REMOTE_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The configuration of the running agent
    #[arg(short = 'r', long, value_name = "FILE", env = "WPS_REMOTE_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Return when the last job has ended and every ending is stored by an orchestrator
    #[arg(long, conflicts_with = "undo")]
    wait: bool,
    /// Take new jobs again
    #[arg(long)]
    undo: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// The configuration of the running agent
    #[arg(short = 'r', long, value_name = "FILE", env = "WPS_REMOTE_AGENT_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) async fn status(wanted: &Status) -> ExitCode {
    let report = match ask(wanted.config.as_ref(), Order::Status).await {
        Ok(Answer::Report(report)) => report,
        Ok(other) => return odd(&other),
        Err(error) => return complain(&error, FAILED),
    };
    match wanted.format {
        Format::Text => say(&text(&report)),
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => say(&json),
            Err(error) => return complain(&error.to_string(), FAILED),
        },
    }
    ExitCode::SUCCESS
}

pub(super) async fn drain(wanted: &Drain) -> ExitCode {
    let mut order = Order::Drain { on: !wanted.undo };
    let mut said = String::new();
    loop {
        let report = match ask(wanted.config.as_ref(), order).await {
            Ok(Answer::Report(report)) => report,
            Ok(other) => return odd(&other),
            Err(error) => return complain(&error, FAILED),
        };
        let (running, undelivered) = (report.running(), report.undelivered());
        let line = match (wanted.undo, running, undelivered) {
            (true, ..) => "the agent takes new jobs".to_owned(),
            (false, 0, 0) => "the agent takes no new jobs and has none".to_owned(),
            (false, running, 0) => format!("the agent takes no new jobs; {running} run"),
            (false, running, waiting) => format!(
                "the agent takes no new jobs; {running} run, {waiting} endings are not taken by an orchestrator yet"
            ),
        };
        if line != said {
            say(&line);
            said = line;
        }
        if !wanted.wait || running + undelivered == 0 {
            return ExitCode::SUCCESS;
        }
        if order == Order::Status && !report.draining {
            return complain("somebody else has ended the draining", FAILED);
        }
        order = Order::Status;
        sleep(LOOK).await;
    }
}

pub(super) async fn reload(wanted: &Reload) -> ExitCode {
    match ask(wanted.config.as_ref(), Order::Reload).await {
        Ok(Answer::Reloaded(reloaded)) => {
            let named =
                |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            say(&format!("changed: {}", named(&reloaded.applied)));
            if !reloaded.restart.is_empty() {
                say(&format!("takes effect after a restart: {}", named(&reloaded.restart)));
            }
            ExitCode::SUCCESS
        }
        Ok(other) => odd(&other),
        Err(error) => complain(&error, FAILED),
    }
}

async fn ask(config: Option<&PathBuf>, order: Order) -> Result<Answer, String> {
    let file = config_file(config);
    let folder = AgentConfig::records_of(&file).map_err(|error| error.to_string())?;
    control::ask(&folder, order).await.map_err(|error| error.to_string())
}

fn odd(answer: &Answer) -> ExitCode {
    match answer {
        Answer::Failed(why) => complain(&format!("the agent could not do it: {why}"), FAILED),
        Answer::Report(_) | Answer::Reloaded(_) => complain("the agent answers to another question", FAILED),
    }
}

fn text(report: &Report) -> String {
    let load = &report.load;
    let mut text = format!("{} (wps-remote-agent {}, pid {})\n", report.nick, report.version, report.pid);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "running for     {}", duration(report.uptime_s));
    let orchestrators = match report.orchestrators.as_slice() {
        [] => "none is there".to_owned(),
        names => names.join(", "),
    };
    let _ = writeln!(text, "orchestrators   {orchestrators}");
    let accepts = match &load.refusing {
        None => "yes".to_owned(),
        Some(refusal) => format!("no: {}", refusal.text),
    };
    let _ = writeln!(text, "takes new jobs  {accepts}");
    let _ =
        writeln!(text, "load            CPU {:.0} %, memory {:.0} %", load.cpu_percent, load.memory_percent);
    let places = load.max_running.map_or_else(String::new, |most| format!(" of {most}"));
    let _ = writeln!(
        text,
        "capacity        {} of {} units in use, {} jobs{places} running",
        load.used, load.capacity, load.running
    );
    let _ = writeln!(text, "processes       {}", report.processes.len());
    if report.jobs.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\n{:<36}  {:<24}  {:<8}  {:>4}  ACCEPTED", "EXECUTION", "PROCESS", "STATE", "%");
    for job in &report.jobs {
        let state = match job.state {
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Ended => "ended",
        };
        let percent = job.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}"));
        let accepted = job.accepted_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let accepted = accepted.map_or_else(|| "-".to_owned(), |at| at.strftime("%FT%TZ").to_string());
        let _ = writeln!(
            text,
            "{:<36}  {:<24}  {state:<8}  {percent:>4}  {accepted}",
            job.execution.as_str(),
            job.process.to_string()
        );
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days} d {clock}") } else { clock }
}
