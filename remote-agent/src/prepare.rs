//! Turns a plan (what a descriptor makes of a request) into an execution that can be started, and its rules into a form that a
//! later agent can read. The one place that knows both `command` and `execution`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wps_remote_protocol::{
    BoundingBoxData, ComplexData, DataType, ErrorKind, ExecutionError, Format, LiteralData, LogLevel, Request,
};

use crate::command::{self, FileContent, Plan, PlannedOutput, PlannedPlace, PrepareError, RunContext};
use crate::descriptor::ServiceDescriptor;
use crate::descriptor::model::Kind;
use crate::descriptor::paths;
use crate::descriptor::pattern::{Anchor, Pattern};
use crate::execution::Prepared;
use crate::execution::stdout::{Decide, Verdict};
use crate::outputs::{Expected, Metadata, Place};
use crate::rules::{Decision, Encoding, Preset, Rule, RuleAction, Rules};
use crate::supervise::record::{Launch, Limits, RunAs};
use crate::workdir::{LOG_FILE, Record};

/// What holds for every execution of an agent.
#[derive(Debug, Clone)]
pub struct Manner {
    /// The folder that the orchestrator also sees.
    pub shared: Option<PathBuf>,
    /// Time between the polite and the hard way of ending.
    pub grace: Duration,
    /// Most bytes of output that are kept for one execution.
    pub log_limit_bytes: u64,
    /// Environment variables that no program may see.
    pub hidden_variables: Vec<String>,
    /// As whom programs run; absent = as the agent.
    pub run_as: Option<RunAs>,
    /// Folder of the control groups below which each job gets one of its own.
    pub cgroup: Option<PathBuf>,
}

/// Prepares an execution. Reads templates, writes nothing: the result writes its files when asked.
pub fn prepare(
    descriptor: &ServiceDescriptor,
    request: &Request,
    originator: &str,
    accepted_ms: i64,
    manner: &Manner,
    control_folder: &Path,
) -> Result<Prepared, ExecutionError> {
    let plan = plan(descriptor, request, manner).map_err(as_error)?;
    if let Some(held) = &plan.held {
        return Err(error(ErrorKind::NotStarted, held.to_string()));
    }
    let rules = descriptor.rules.clone();
    let record = record(descriptor, request, originator, accepted_ms, manner, control_folder, &plan);
    let stdin = record.launch.stdin.clone().zip(plan.stdin.clone());
    let allowed = descriptor.allowed_paths.clone();
    Ok(Prepared { record, rules: by_rules(rules), fill: Box::new(move || fill(&plan, &allowed, stdin)) })
}

/// What a request makes of a descriptor.
pub fn plan(
    descriptor: &ServiceDescriptor,
    request: &Request,
    manner: &Manner,
) -> Result<Plan, PrepareError> {
    let context = RunContext {
        shared_dir: manner.shared.clone(),
        base_url: request.base_url.clone(),
        ..RunContext::new(request.execution.clone())
    };
    command::prepare(descriptor, &context, &request.inputs)
}

fn as_error(refused: PrepareError) -> ExecutionError {
    match refused {
        PrepareError::Input(input) => {
            let kind = ErrorKind::InvalidInput {
                code: input.code.as_str().to_owned(),
                locator: input.locator.clone(),
            };
            error(kind, input.to_string())
        }
        PrepareError::Setup(why) => error(ErrorKind::NotStarted, why),
    }
}

fn record(
    descriptor: &ServiceDescriptor,
    request: &Request,
    originator: &str,
    accepted_ms: i64,
    manner: &Manner,
    control_folder: &Path,
    plan: &Plan,
) -> Record {
    let captured = plan.work_dir.join("stdout.result");
    let captures = plan.outputs.iter().any(|output| output.place == PlannedPlace::Stdout);
    let mut roots = vec![plan.work_dir.clone(), descriptor.output_dir.clone()];
    roots.extend(descriptor.allowed_paths.iter().cloned());
    let most = descriptor.limits.output_mb.map(|mb| mb.saturating_mul(1024 * 1024));
    Record {
        version: Record::VERSION,
        execution: request.execution.clone(),
        process: request.process.clone(),
        originator: originator.to_owned(),
        base_url: request.base_url.clone(),
        weight: descriptor.weight,
        accepted_ms,
        work_dir: plan.work_dir.clone(),
        extra_dir: plan.extra_dir.clone(),
        keep: descriptor.debug,
        launch: Launch {
            argv: plan.argv(),
            cwd: plan.cwd.clone(),
            env: environment(plan, manner.run_as.as_ref()),
            env_remove: manner.hidden_variables.clone(),
            stdin: plan.stdin.is_some().then(|| control_folder.join("stdin")),
            log: plan.work_dir.join(LOG_FILE),
            log_limit_bytes: most.map_or(manner.log_limit_bytes, |most| most.min(manner.log_limit_bytes)),
            // Half a second must not become "no limit".
            max_running_time_s: plan
                .max_running
                .map_or(0, |limit| limit.as_secs() + u64::from(limit.subsec_nanos() > 0)),
            grace_ms: u64::try_from(manner.grace.as_millis()).unwrap_or(u64::MAX),
            limits: Limits {
                cpu_seconds: plan.limits.cpu_seconds,
                memory_mb: plan.limits.memory_mb,
                file_mb: plan.limits.output_mb,
                open_files: plan.limits.open_files,
                nice: plan.limits.nice,
            },
            run_as: manner.run_as.clone(),
            cgroup: manner.cgroup.clone(),
        },
        stdout_result: captures.then(|| captured.clone()),
        outputs: plan
            .outputs
            .iter()
            .map(|output| {
                expected(output, plan, descriptor.dir(), &captured, &roots, most, manner.shared.is_some())
            })
            .collect(),
        rules: serde_json::to_value(StoredRules::from(descriptor.rules.as_ref())).unwrap_or_default(),
    }
}

/// That of the plan; the home of another user is not ours.
fn environment(plan: &Plan, run_as: Option<&RunAs>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    if let Some(user) = run_as {
        env.push(("HOME".to_owned(), user.home.to_string_lossy().into_owned()));
        env.extend(["USER", "LOGNAME"].map(|name| (name.to_owned(), user.name.clone())));
    }
    // What the descriptor says comes last, so that it counts.
    env.extend(plan.env.iter().cloned());
    env
}

fn expected(
    output: &PlannedOutput,
    plan: &Plan,
    descriptor_dir: &Path,
    captured: &Path,
    roots: &[PathBuf],
    most: Option<u64>,
    shared: bool,
) -> Expected {
    let place = match &output.place {
        PlannedPlace::File(path) => Place::File(path.clone()),
        PlannedPlace::Matching { folder, pattern } => {
            Place::Matching { folder: folder.clone(), pattern: pattern.clone() }
        }
        PlannedPlace::Contract { extension } => {
            Place::Contract { folder: plan.work_dir.clone(), extension: extension.clone() }
        }
        PlannedPlace::Stdout => Place::File(captured.to_owned()),
        // legacy: the layer name of each listed output with a `;` after it, a blank for one without.
        PlannedPlace::Composed => Place::Given(
            (output.layers.iter())
                .map(|name| plan.outputs.iter().find(|other| other.name == *name))
                .map(|layer| layer.and_then(|layer| layer.publish.layer.as_deref()).unwrap_or(" "))
                .map(|layer| format!("{layer};"))
                .collect(),
        ),
    };
    let data = match output.kind {
        Kind::Literal(kind) => {
            DataType::Literal(LiteralData { kind, uom: None, allowed: Default::default(), default: None })
        }
        Kind::Box => DataType::BoundingBox(BoundingBoxData { crs: Vec::new() }),
        Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => {
            DataType::Complex(ComplexData { formats: vec![Format::new(&output.media_type)], max_bytes: None })
        }
    };
    Expected {
        id: output.name.clone(),
        place,
        data,
        optional: !output.required,
        roots: roots.to_vec(),
        min_bytes: output.min_bytes.unwrap_or(0),
        max_bytes: [output.max_bytes, most].into_iter().flatten().min(),
        sidecars: output.sidecars,
        // legacy: the shared folder comes first where an output asks for both.
        upload: output.upload.clone().filter(|_| !(output.backup && shared)).map(Option::unwrap_or_default),
        metadata: output.metadata.clone().map(|file| {
            let roots = roots.iter().cloned().chain([descriptor_dir.to_owned()]).collect();
            Metadata { file, roots }
        }),
    }
}

/// Writes everything that the program finds in its folder. The folder itself exists already and is empty.
fn fill(plan: &Plan, allowed: &[PathBuf], stdin: Option<(PathBuf, Vec<u8>)>) -> Result<(), ExecutionError> {
    let fail = |path: &Path, source: std::io::Error| {
        error(ErrorKind::NotStarted, format!("{} cannot be written: {source}", path.display()))
    };
    for folder in plan.make_dirs.iter().filter(|folder| **folder != plan.work_dir) {
        // One that will be removed again must be this execution's own.
        if plan.extra_dir.as_ref() == Some(folder) && folder.symlink_metadata().is_ok() {
            let text = format!("{} exists already: it was not made for this execution", folder.display());
            return Err(error(ErrorKind::NotStarted, text));
        }
        fs::create_dir_all(folder).map_err(|source| fail(folder, source))?;
    }
    for file in &plan.files {
        // Looked at once more: other programs may write to a folder of `allowed_paths`, too.
        if !paths::leads_inside(&file.path, plan.make_dirs.iter().chain(allowed).map(PathBuf::as_path)) {
            let text = format!("{} leads through a link out of the allowed directories", file.path.display());
            return Err(error(ErrorKind::NotStarted, text));
        }
        let written = match &file.content {
            FileContent::Bytes(bytes) => fs::write(&file.path, bytes),
            FileContent::CopyOf(from) => fs::copy(from, &file.path).map(drop),
        };
        written.map_err(|source| fail(&file.path, source))?;
    }
    if let Some((path, bytes)) = stdin {
        fs::write(&path, bytes).map_err(|source| fail(&path, source))?;
    }
    Ok(())
}

fn error(kind: ErrorKind, text: String) -> ExecutionError {
    ExecutionError { kind, text, receipt: None }
}

/// The rules of a descriptor as the reader of an output wants them.
pub fn by_rules(rules: Arc<Rules>) -> Box<dyn Decide> {
    Box::new(ByRules(rules))
}

struct ByRules(Arc<Rules>);

impl Decide for ByRules {
    fn decide(&mut self, record: &str, unfinished: bool) -> Verdict {
        if unfinished {
            return self.0.decide_unfinished(record).map_or(Verdict::Unmatched, Verdict::Progress);
        }
        match self.0.decide(record) {
            Decision::Progress(percent) => Verdict::Progress(percent),
            Decision::NoNumber(text) => Verdict::BadProgress(text),
            Decision::Log(level, text) => Verdict::Log(level, text),
            Decision::Abort(text) => Verdict::Abort(text),
            Decision::Ignore => Verdict::Ignore,
            Decision::Unmatched => Verdict::Unmatched,
        }
    }

    fn logs_unmatched(&self) -> Option<LogLevel> {
        self.0.log_unmatched.then_some(LogLevel::Info)
    }

    fn decode<'b>(&self, bytes: &'b [u8]) -> std::borrow::Cow<'b, str> {
        self.0.decode(bytes).into()
    }
}

/// Reads the rules back from a record. What cannot be read means nothing: the job goes on without progress.
pub fn stored_rules(stored: &serde_json::Value) -> Box<dyn Decide> {
    let stored = StoredRules::deserialize(stored).unwrap_or_default();
    by_rules(Arc::new(stored.into()))
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredRules {
    rules: Vec<(String, String)>,
    preset: Option<String>,
    log_unmatched: bool,
    latin1: bool,
}

impl From<&Rules> for StoredRules {
    fn from(rules: &Rules) -> Self {
        let rule = |rule: &Rule| (rule.action.word().to_owned(), rule.pattern.source().to_owned());
        Self {
            rules: rules.rules.iter().map(rule).collect(),
            preset: rules.preset.map(|preset| preset.word().to_owned()),
            log_unmatched: rules.log_unmatched,
            latin1: rules.encoding == Encoding::Latin1,
        }
    }
}

impl From<StoredRules> for Rules {
    fn from(stored: StoredRules) -> Self {
        let rule = |(action, pattern): &(String, String)| {
            let pattern = Pattern::new(pattern, Anchor::Start).ok()?;
            Some(Rule { pattern, action: RuleAction::parse(action)?, line: 0 })
        };
        Self {
            rules: stored.rules.iter().filter_map(rule).collect(),
            preset: stored.preset.as_deref().and_then(Preset::parse),
            log_unmatched: stored.log_unmatched,
            encoding: if stored.latin1 { Encoding::Latin1 } else { Encoding::Utf8 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_a_restart() {
        let rules = Rules { preset: Some(Preset::Gdal), log_unmatched: true, ..Rules::simple() };
        let stored = serde_json::to_value(StoredRules::from(&rules)).unwrap();
        let mut read = stored_rules(&stored);
        let mut original = ByRules(Arc::new(rules));
        for line in ["progress: 5", "[WARNING] x", "[FATAL] y", "0...10...20", "other", ""] {
            assert_eq!(read.decide(line, false), original.decide(line, false), "{line}");
            assert_eq!(read.decide(line, true), original.decide(line, true), "{line}");
        }
        assert_eq!(read.logs_unmatched(), Some(LogLevel::Info));
        assert_eq!(stored_rules(&serde_json::Value::Null).decide("progress: 5", false), Verdict::Unmatched);
    }
}
