//! Simulates worlds until one breaks an invariant, or so many operations or seconds are over.
//!
//! ```sh
//! cargo run --release -p e2e --bin simulate -- --operations 1000000
//! cargo run --release -p e2e --bin simulate -- --replay tests/simulation/seeds/NAME.json --trace
//! ```

#![expect(clippy::print_stdout, reason = "its report is its purpose")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use e2e::simulation::{Outcome, Plan, Sabotage, World, shrink};

const USAGE: &str = "simulate [--seed N] [--operations N] [--seconds N] [--length N] [--keep FOLDER] [--replay FILE] [--trace] [--break RULE]

  --seed N        the first seed (1); each world takes the next one
  --operations N  stops after so many operations over all worlds (1000000)
  --seconds N     stops after so many seconds
  --length N      operations of one world (300)
  --keep FOLDER   where a plan that breaks an invariant is written to (tests/simulation/seeds)
  --replay FILE   does this plan only
  --trace         tells everything that happens in it
  --break RULE    breaks a rule on purpose";

struct Asked {
    seed: u64,
    operations: usize,
    seconds: Option<u64>,
    length: usize,
    keep: PathBuf,
    replay: Option<PathBuf>,
    trace: bool,
    sabotage: Sabotage,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seed: 1,
        operations: 1_000_000,
        seconds: None,
        length: 300,
        keep: PathBuf::from("tests/simulation/seeds"),
        replay: None,
        trace: false,
        sabotage: Sabotage::Nothing,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--trace" {
            asked.trace = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| USAGE.to_owned())?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: `{value}` is no number"));
        match name.as_str() {
            "--seed" => asked.seed = number()?,
            "--operations" => asked.operations = number()? as usize,
            "--seconds" => asked.seconds = Some(number()?),
            "--length" => asked.length = number()? as usize,
            "--keep" => asked.keep = PathBuf::from(&value),
            "--replay" => asked.replay = Some(PathBuf::from(&value)),
            "--break" => {
                let rule = Sabotage::ALL.iter().find(|(known, _)| *known == value);
                let known = Sabotage::ALL.map(|(known, _)| known).join(", ");
                asked.sabotage = rule.ok_or(format!("--break knows {known}"))?.1;
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(asked)
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(usage) => {
            println!("{usage}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &asked.replay {
        return replay(file, &asked);
    }
    let begun = Instant::now();
    let (mut operations, mut happenings, mut worlds, mut virtual_ms, mut runs) = (0, 0, 0_u64, 0_u64, 0);
    let mut endings: BTreeMap<&'static str, u64> = BTreeMap::new();
    while operations < asked.operations
        && asked.seconds.is_none_or(|most| begun.elapsed() < Duration::from_secs(most))
    {
        let seed = asked.seed + worlds;
        let plan = Plan::by_chance(seed, asked.length);
        let Outcome {
            operations: done,
            happenings: happened,
            took_ms,
            endings: ended,
            runs: ran,
            violation,
            ..
        } = World::run(&plan, asked.sabotage, false);
        operations += done;
        happenings += happened;
        virtual_ms += took_ms;
        runs += ran;
        worlds += 1;
        for (state, number) in ended {
            *endings.entry(state).or_default() += number;
        }
        if let Some(violation) = violation {
            println!("seed {seed}: {violation}");
            return keep(&plan, &violation, &asked);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{operations} operations in {worlds} worlds (seeds {} to {}), {happenings} happenings, {runs} programs, {} virtual days, {took:.1} s: no invariant was broken; jobs: {endings:?}",
        asked.seed,
        asked.seed + worlds - 1,
        virtual_ms / 86_400_000,
    );
    ExitCode::SUCCESS
}

/// Cuts a plan down and writes it to a file.
fn keep(plan: &Plan, violation: &str, asked: &Asked) -> ExitCode {
    let small = shrink(plan, asked.sabotage, violation, 3_000);
    println!("{} of {} operations are needed for it", small.steps.len(), plan.steps.len());
    let file = asked.keep.join(format!("seed-{}.json", plan.seed));
    let written = serde_json::to_string(&small).map_err(|error| error.to_string()).and_then(|text| {
        std::fs::create_dir_all(&asked.keep)
            .and_then(|()| std::fs::write(&file, text + "\n"))
            .map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => println!("kept in {}; do it again with --replay {0} --trace", file.display()),
        Err(error) => println!("{} cannot be written: {error}", file.display()),
    }
    ExitCode::FAILURE
}

fn replay(file: &Path, asked: &Asked) -> ExitCode {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let plan: Plan =
        match read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
            Ok(plan) => plan,
            Err(error) => {
                println!("{}: {error}", file.display());
                return ExitCode::from(2);
            }
        };
    let outcome = World::run(&plan, asked.sabotage, asked.trace);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{} operations, jobs: {:?}", outcome.operations, outcome.endings);
    match outcome.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
