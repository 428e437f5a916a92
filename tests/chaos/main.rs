//! The long form of the chaos: faults against the running programs, then a report. Panics with it, and keeps all
//! logs, if anything of what clients were promised did not come true.
//!
//! ```sh
//! cargo run -p e2e --bin chaos                             # 2,000 jobs, 2 orchestrators on PostgreSQL, Prosody
//! cargo run -p e2e --bin chaos -- --xmpp ejabberd
//! cargo run -p e2e --bin chaos -- --single                 # SQLite: 200 kills of the orchestrator
//! cargo run -p e2e --bin chaos -- --jobs 500 --seed 42     # the same faults again, as far as time allows
//! ```

use std::process::ExitCode;

use e2e::chaos::{self, Plan, Xmpp};
use e2e::random::seed;
use e2e::tell;

const USAGE: &str = "usage: chaos [--xmpp prosody|ejabberd] [--single] [--jobs N] [--faults N] [--seed N]";

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(why) => {
            tell(&format!("{why}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    tell(&format!("seed {}", plan.seed));
    match chaos::run("chaos", &plan) {
        Ok(report) => {
            tell(&report.to_string());
            ExitCode::SUCCESS
        }
        Err(why) => {
            tell(&format!("the chaos cannot take place: {why}"));
            ExitCode::from(2)
        }
    }
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let (mut xmpp, mut single, mut jobs, mut faults, mut wanted) = (Xmpp::Prosody, false, None, None, seed());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number =
            |text: String| text.parse::<u64>().map_err(|error| format!("{argument}: `{text}`: {error}"));
        match argument.as_str() {
            "--single" => single = true,
            "--xmpp" => {
                xmpp = match value()?.as_str() {
                    "prosody" => Xmpp::Prosody,
                    "ejabberd" => Xmpp::Ejabberd,
                    other => return Err(format!("--xmpp: `{other}` is neither prosody nor ejabberd")),
                }
            }
            "--jobs" => jobs = Some(number(value()?)?),
            "--faults" => faults = Some(number(value()?)?),
            "--seed" => wanted = number(value()?)?,
            _ => return Err(format!("what is {argument}?")),
        }
    }
    let count = |wanted: Option<u64>, usual| wanted.and_then(|n| usize::try_from(n).ok()).unwrap_or(usual);
    let mut plan = match single {
        true => Plan::single(count(faults, 200), wanted),
        false => Plan::cluster(xmpp, count(jobs, 2_000), wanted),
    };
    plan.jobs = count(jobs, plan.jobs);
    plan.faults = count(faults, plan.faults);
    Ok(plan)
}
