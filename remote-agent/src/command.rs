//! From a request's inputs to everything that must exist before the program starts: argument vector, environment, input
//! files, expected outputs. Reads the template and schema files that actions name; writes nothing, starts nothing, and
//! never builds a line for a shell.

mod actions;
pub mod check;
mod documents;
pub mod from_json;
mod ini_edit;
pub mod json_path;
pub mod program;
pub(crate) mod schema;
pub mod template;
#[cfg(test)]
mod tests;
mod values;
mod xml;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use wps_remote_protocol::ini::{Finding, Template};
use wps_remote_protocol::{ExecutionId, Inputs};

pub use program::{Held, Located};

use crate::descriptor::model::{Dialect, Kind, Limits, OutputSpec, Place, Publish, ServiceDescriptor};
use crate::descriptor::{paths, types};

/// What a run is given besides the descriptor and the inputs.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// Names the run; the run directory is `<output_dir>/<execution>`.
    pub execution: ExecutionId,
    /// The folder that both sides share, if there is one.
    pub shared_dir: Option<PathBuf>,
    /// Public address of the orchestrator; may be empty.
    pub base_url: String,
    /// Largest document that may be read from the shared folder into an argument or a file action, in bytes.
    pub max_document: u64,
}

impl RunContext {
    /// A run without shared folder and address.
    pub fn new(execution: ExecutionId) -> Self {
        Self { execution, shared_dir: None, base_url: String::new(), max_document: 64 * 1024 * 1024 }
    }
}

/// Why a request cannot be run: the client's fault, in the standard's words (OGC 05-007r7 §10.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("input `{locator}`: {why}")]
pub struct InputError {
    /// `MissingParameterValue` or `InvalidParameterValue`.
    pub code: InputFault,
    /// The input's id.
    pub locator: String,
    /// Why.
    pub why: String,
}

/// The two ways in which an input can be at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFault {
    /// It is required and absent.
    MissingParameterValue,
    /// Its value cannot be used.
    InvalidParameterValue,
}

impl InputFault {
    /// The code as the standards spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingParameterValue => "MissingParameterValue",
            Self::InvalidParameterValue => "InvalidParameterValue",
        }
    }
}

/// Why a run cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrepareError {
    /// The client's fault.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The descriptor's or its files' fault: a template that cannot be read, a path that leaves the run directory.
    #[error("{0}")]
    Setup(String),
}

pub(crate) fn invalid(locator: &str, why: impl Into<String>) -> InputError {
    InputError { code: InputFault::InvalidParameterValue, locator: locator.to_owned(), why: why.into() }
}

/// Everything that a run needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The program; absolute if it was found.
    pub program: PathBuf,
    /// Its arguments, each exactly as the program will see it.
    pub args: Vec<String>,
    /// Working directory of the child.
    pub cwd: PathBuf,
    /// Variables to add to the agent's own environment.
    pub env: Vec<(String, String)>,
    /// The run directory; must not exist before.
    pub work_dir: PathBuf,
    /// Directories to make below the run directory (or beside it, when the descriptor's `workdir` differs), parents
    /// first; the run directory itself is the first.
    pub make_dirs: Vec<PathBuf>,
    /// The one of them that is named after the execution though it is not the run directory; it must not exist before and
    /// goes when the run directory goes.
    pub extra_dir: Option<PathBuf>,
    /// Files to write before the program starts, in order.
    pub files: Vec<PlannedFile>,
    /// What the program reads from standard input; `None` = the null device.
    pub stdin: Option<Vec<u8>>,
    /// What the program is expected to leave.
    pub outputs: Vec<PlannedOutput>,
    /// After this long the program is ended.
    pub max_running: Option<Duration>,
    /// Limits of the child.
    pub limits: Limits,
    /// Why the program cannot be started, if it cannot.
    pub held: Option<Held>,
    /// Values that must not be shown.
    pub sensitive: Vec<String>,
    /// What was unwise in the request.
    pub warnings: Vec<Finding>,
}

impl Plan {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        std::iter::once(program).chain(self.args.iter().cloned()).collect()
    }

    /// A text as it may appear in a log: sensitive values are masked.
    pub fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.sensitive.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret.as_str(), "****");
        }
        text
    }
}

/// A file to write before the program starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where; absolute, in a directory of [`Plan::make_dirs`] or one that exists.
    pub path: PathBuf,
    /// What.
    pub content: FileContent,
}

/// What a planned file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A copy of this file.
    CopyOf(PathBuf),
}

/// An output that the program is expected to leave.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedOutput {
    /// Identifier.
    pub name: String,
    /// Literal or which sort of document.
    pub kind: Kind,
    /// The type as written in the descriptor.
    pub declared: String,
    /// MIME type of a document; `text/plain` for a literal.
    pub media_type: String,
    /// Where it is.
    pub place: PlannedPlace,
    /// Whether the run fails without it.
    pub required: bool,
    /// The text of the file is the value (literals), not the file itself.
    pub textual: bool,
    /// Smallest acceptable size in bytes.
    pub min_bytes: Option<u64>,
    /// Largest acceptable size in bytes.
    pub max_bytes: Option<u64>,
    /// Goes to the shared folder.
    pub backup: bool,
    /// Goes to the upload server, below this directory there.
    pub upload: Option<Option<String>>,
    /// Files with the same stem go with it.
    pub sidecars: bool,
    /// Hints for publishing, resolved.
    pub publish: Publish,
    /// File whose text is sent as metadata, if it lies in an allowed directory.
    pub metadata: Option<PathBuf>,
    /// For a map context: the names of the outputs that are its layers.
    pub layers: Vec<String>,
}

/// Where an output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedPlace {
    /// This file; absolute.
    File(PathBuf),
    /// The one file of `folder` whose name matches `pattern` (`*` = any text).
    Matching {
        /// Directory; absolute.
        folder: PathBuf,
        /// Pattern of the file name.
        pattern: String,
    },
    /// `<run directory>/outputs.json` member `name` (a scalar, or `{"file": "…"}`), else a file `<name>` or
    /// `<name>.<extension>` in the run directory.
    Contract {
        /// Extension of the type, without dot.
        extension: String,
    },
    /// Standard output without the lines that a rule consumed.
    Stdout,
    /// Composed from other outputs.
    Composed,
}

impl ServiceDescriptor {
    /// The directory of one run.
    pub fn run_dir(&self, execution: &ExecutionId) -> PathBuf {
        self.output_dir.join(execution.as_str())
    }

    /// The directory of the descriptor file.
    pub fn dir(&self) -> &Path {
        self.source.parent().unwrap_or(Path::new("."))
    }
}

/// Works out a run. Nothing is written; every value that reaches the program is one argument, byte for byte.
pub fn prepare(
    descriptor: &ServiceDescriptor,
    context: &RunContext,
    inputs: &Inputs,
) -> Result<Plan, PrepareError> {
    let run = Run::new(descriptor, context)?;
    let bound = values::bind(descriptor, &run, inputs)?;
    let done = actions::perform(descriptor, &run, bound)?;

    let words: Vec<String> = descriptor.program.words.iter().map(|word| run.fill(word)).collect();
    let (program, mut args, held) = match program::locate(descriptor, &words) {
        Ok(located) => (located.program, located.args, None),
        Err(missing) => {
            let (written, args, held) = *missing;
            (written, args, Some(held))
        }
    };
    args.extend(done.args);

    let cwd = match &descriptor.cwd {
        None => run.work_dir.clone(),
        Some(template) => paths::absolute(Path::new(&run.fill(template)), descriptor.dir()),
    };
    let mut make_dirs = vec![run.work_dir.clone()];
    let mut extra_dir = None;
    if let Some(extra) = &descriptor.extra_dir {
        let extra = run.inside(&run.fill(extra), "workdir")?;
        let own = extra.file_name().is_some_and(|name| name == context.execution.as_str());
        extra_dir = own.then(|| extra.clone());
        make_dirs.push(extra);
    }
    let mut env: Vec<(String, String)> =
        descriptor.env.iter().map(|(name, value)| (name.clone(), run.fill(value))).collect();
    env.extend(done.env);
    let work_dir = run.work_dir.to_string_lossy().into_owned();
    for (name, value) in [
        ("WPS_EXECUTION_ID", context.execution.as_str()),
        ("WPS_WORKDIR", work_dir.as_str()),
        ("WPS_SERVICE", descriptor.id.name()),
        ("WPS_NAMESPACE", descriptor.id.namespace()),
        ("WPS_BASE_URL", context.base_url.as_str()),
    ] {
        env.retain(|(other, _)| other != name);
        env.push((name.to_owned(), value.to_owned()));
    }
    if descriptor.private_tmp {
        let tmp = run.work_dir.join("tmp");
        env.retain(|(other, _)| other != "TMPDIR");
        env.push(("TMPDIR".to_owned(), tmp.to_string_lossy().into_owned()));
        make_dirs.push(tmp);
    }
    // Parents first, each once.
    let folders: BTreeSet<PathBuf> = done
        .files
        .iter()
        .filter_map(|file| file.path.parent())
        .filter(|folder| folder.starts_with(&run.work_dir) && !make_dirs.iter().any(|dir| dir == folder))
        .map(Path::to_path_buf)
        .collect();
    make_dirs.extend(folders);
    let outputs = descriptor.outputs.iter().map(|output| run.output(output)).collect::<Result<_, _>>()?;
    Ok(Plan {
        program,
        args,
        cwd,
        env,
        work_dir: run.work_dir.clone(),
        make_dirs,
        extra_dir,
        files: done.files,
        stdin: done.stdin,
        outputs,
        max_running: descriptor.max_running,
        limits: descriptor.limits.clone(),
        held,
        sensitive: done.sensitive,
        warnings: done.warnings,
    })
}

/// The run variables and the rules for its paths.
pub(crate) struct Run<'a> {
    pub descriptor: &'a ServiceDescriptor,
    pub context: &'a RunContext,
    pub work_dir: PathBuf,
}

impl<'a> Run<'a> {
    fn new(descriptor: &'a ServiceDescriptor, context: &'a RunContext) -> Result<Self, PrepareError> {
        let work_dir = descriptor.run_dir(&context.execution);
        if work_dir.to_str().is_none() {
            return Err(PrepareError::Setup(format!("{} is not UTF-8", work_dir.display())));
        }
        Ok(Self { descriptor, context, work_dir })
    }

    /// Fills the run variables in.
    pub fn fill(&self, template: &Template) -> String {
        template.fill(|name| self.variable(name))
    }

    /// Fills the run variables into a text of which everything else is resolved.
    pub fn fill_text(&self, text: &str) -> String {
        match self.descriptor.dialect {
            Dialect::A => text.replace("%(unique_exe_id)s", self.context.execution.as_str()),
            // Objects of dialect B hold no references.
            Dialect::B => text.to_owned(),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "unique_exe_id" => Some(self.context.execution.as_str().to_owned()),
            "workdir" if self.descriptor.dialect == Dialect::B => {
                Some(self.work_dir.to_string_lossy().into_owned())
            }
            _ => None,
        }
    }

    /// A path that an action may write to, or at which an output may lie.
    pub fn inside(&self, text: &str, what: &str) -> Result<PathBuf, PrepareError> {
        let path = paths::absolute(Path::new(text), &self.work_dir);
        let extra = self.descriptor.extra_dir.as_ref().map(|extra| PathBuf::from(self.fill(extra)));
        let roots = || {
            let all = std::iter::once(&self.work_dir).chain(&extra).chain(&self.descriptor.allowed_paths);
            all.map(PathBuf::as_path)
        };
        let fault = |lies: &str| {
            let shown = path.display();
            Err(PrepareError::Setup(format!(
                "{what} {shown} {lies} neither in the run directory nor in a directory of allowed_paths"
            )))
        };
        if !roots().any(|root| path.starts_with(root)) {
            return fault("lies");
        }
        if !paths::leads_inside(&path, roots()) {
            return fault("leads through a link to a place that is");
        }
        Ok(path)
    }

    /// A file that the descriptor names for reading.
    pub fn source(&self, template: &Template) -> PathBuf {
        paths::absolute(Path::new(&self.fill(template)), self.descriptor.dir())
    }

    fn output(&self, output: &OutputSpec) -> Result<PlannedOutput, PrepareError> {
        let what = format!("output `{}`:", output.name);
        let place = match &output.place {
            Place::File(template) => {
                let path = paths::absolute(Path::new(&self.fill(template)), &self.work_dir);
                let allowed = &self.descriptor.allowed_paths;
                let roots = [&self.work_dir, &self.descriptor.output_dir].into_iter().chain(allowed);
                if !roots.into_iter().any(|root| path.starts_with(root)) {
                    self.inside(&path.to_string_lossy(), &what)?;
                }
                PlannedPlace::File(path)
            }
            Place::Matching(pattern) => {
                let (folder, pattern) = pattern.rsplit_once('/').unwrap_or(("", pattern));
                PlannedPlace::Matching { folder: self.inside(folder, &what)?, pattern: pattern.to_owned() }
            }
            Place::Contract => PlannedPlace::Contract {
                extension: types::extension(output.kind, &output.media_types).to_owned(),
            },
            Place::Stdout => PlannedPlace::Stdout,
            Place::Composed => PlannedPlace::Composed,
        };
        let metadata =
            output.publish.metadata.as_ref().map(|template| self.source(template)).filter(|path| {
                let own = [self.work_dir.as_path(), &self.descriptor.output_dir, self.descriptor.dir()];
                let allowed = self.descriptor.allowed_paths.iter().map(PathBuf::as_path);
                own.into_iter().chain(allowed).any(|root| path.starts_with(root))
            });
        let textual = !output.kind.is_complex();
        Ok(PlannedOutput {
            name: output.name.clone(),
            kind: output.kind,
            declared: output.declared.clone(),
            media_type: if textual {
                "text/plain".to_owned()
            } else {
                output.media_types.first().cloned().unwrap_or_else(|| "application/octet-stream".to_owned())
            },
            place,
            required: output.required,
            textual,
            min_bytes: output.min_bytes,
            max_bytes: output.max_bytes,
            backup: output.backup,
            upload: output.upload.clone().map(|root| root.map(|root| self.fill_text(&root))),
            sidecars: output.sidecars,
            publish: output.publish.clone(),
            metadata,
            layers: output.layers.clone(),
        })
    }
}
