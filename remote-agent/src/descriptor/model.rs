//! What a service descriptor says, whatever its dialect: the one structure that everything after the loader works with.
//! Knows nothing of INI files or of running programs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wps_remote_protocol::ini::{Finding, Template};
use wps_remote_protocol::{LiteralType, ProcessId};

use super::pattern::Pattern;
use crate::command::json_path::JsonPath;
use crate::rules::Rules;

/// Which of the two forms a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `[DEFAULT]`, `[Input1]`, `[Action1]`, `[Output1]`: the form of the Python agent.
    A,
    /// `[Description]`, `[Options]`, `[Input]`, `[Output]` with one JSON object for each parameter.
    B,
}

/// One service: a program and how it appears as a process.
#[derive(Debug, Clone)]
pub struct ServiceDescriptor {
    /// The file.
    pub source: PathBuf,
    /// Its form.
    pub dialect: Dialect,
    /// SHA-256 of its bytes, lower-case hex.
    pub hash: String,
    /// Who it is.
    pub id: ProcessId,
    /// Title, if the author wrote one.
    pub title: Option<String>,
    /// Abstract.
    pub description: String,
    /// Whether it is to be offered at all.
    pub active: bool,
    /// Version of the process.
    pub version: Option<String>,
    /// Free keywords.
    pub keywords: Vec<String>,
    /// Whether a job may be started anew after its agent vanished.
    pub repeatable: bool,
    /// The program and its fixed arguments.
    pub program: ProgramLine,
    /// Working directory of the child; `None` = the run directory.
    pub cwd: Option<Template>,
    /// Parent of the run directories; absolute.
    pub output_dir: PathBuf,
    /// Another directory to make for each job, when `workdir` differs from the run directory.
    pub extra_dir: Option<Template>,
    /// After this long the program is ended; `None` = no limit.
    pub max_running: Option<Duration>,
    /// Units of capacity that one execution takes.
    pub weight: f64,
    /// Program that weighs a request, if any (arguments split, first the program).
    pub weight_command: Option<Vec<String>>,
    /// Environment variables to add.
    pub env: Vec<(String, Template)>,
    /// Whether the child gets a `TMPDIR` of its own below its run directory.
    pub private_tmp: bool,
    /// Limits of the child.
    pub limits: Limits,
    /// Of these roles a client must have one; empty = no role is needed.
    pub roles: Vec<String>,
    /// What clients may or must give.
    pub inputs: Vec<InputSpec>,
    /// Values that only the descriptor sets.
    pub consts: Vec<ConstSpec>,
    /// What is done with inputs and consts, in order.
    pub actions: Vec<Action>,
    /// What the program gives back.
    pub outputs: Vec<OutputSpec>,
    /// What lines of the program's output mean.
    pub rules: Arc<Rules>,
    /// Keep the run directory, log at DEBUG, send unmatched lines.
    pub debug: bool,
    /// Directories outside `output_dir` that the agent's administrator opened for this agent's descriptors.
    pub allowed_paths: Vec<PathBuf>,
    /// `process_buffer` and `result_size` of dialect B, for legacy registrations only.
    pub legacy_sizes: (i64, i64),
    /// What deviates from a literal reading or is unwise, in order of lines.
    pub warnings: Vec<Finding>,
}

/// The beginning of the argument vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramLine {
    /// Words; the first is the program.
    pub words: Vec<Template>,
    /// A bare program name is first sought beside the descriptor, and a file that cannot be executed by itself gets the
    /// interpreter of its extension (dialect B).
    pub beside: bool,
    /// Interpreters by lower-case extension without dot.
    pub interpreters: Vec<(String, Vec<String>)>,
    /// Whether a batch file may be the program (Windows).
    pub allow_batch: bool,
    /// Line of the key that names the program.
    pub line: usize,
    /// That key.
    pub key: &'static str,
}

/// Limits of a child; absent = none of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPU time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Address space in MiB.
    pub memory_mb: Option<u64>,
    /// Size of the files it writes, each, and of its outputs, in MiB.
    pub output_mb: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Niceness, -20 to 19.
    pub nice: Option<i32>,
}

/// The kind of an input's or output's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text with a literal type.
    Literal(LiteralType),
    /// A JSON document.
    Json,
    /// An XML document.
    Xml,
    /// Another text document.
    Text,
    /// Any bytes.
    Binary,
    /// A bounding box.
    Box,
}

impl Kind {
    /// Whether a value is a document rather than a literal or a bounding box.
    pub fn is_complex(self) -> bool {
        !matches!(self, Self::Literal(_) | Self::Box)
    }
}

/// One input.
#[derive(Debug, Clone)]
pub struct InputSpec {
    /// Identifier.
    pub name: String,
    /// Title.
    pub title: Option<String>,
    /// Abstract.
    pub description: String,
    /// The type as written.
    pub declared: String,
    /// What it means.
    pub kind: Kind,
    /// MIME types of a document, the default first.
    pub media_types: Vec<String>,
    /// The MIME list as written, for legacy registrations.
    pub declared_media_types: Option<String>,
    /// Reference systems of a bounding box, the default first; else empty.
    pub crs: Vec<String>,
    /// Fewest values.
    pub min: u32,
    /// Most values; `None` = unbounded.
    pub max: Option<u32>,
    /// Values that hold when none is given, as written.
    pub default: Vec<String>,
    /// `strftime` pattern for dates.
    pub formatter: Option<String>,
    /// What limits the values.
    pub checks: Checks,
    /// How several values come onto the command line.
    pub multi: Multi,
    /// How a document reaches the program.
    pub pass_by: PassBy,
    /// Never to be shown in logs.
    pub sensitive: bool,
    /// Unit of measure.
    pub uom: Option<String>,
    /// An absent input becomes the word `None`, as in the old agent.
    pub missing_is_none: bool,
    /// Line of its section or object.
    pub line: usize,
}

/// What limits the values of an input beyond its type.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Allowed values; empty = all.
    pub allowed: Vec<String>,
    /// Expression that the whole text must match.
    pub pattern: Option<Pattern>,
    /// Fewest characters.
    pub min_length: Option<usize>,
    /// Most characters of a literal.
    pub max_length: Option<usize>,
    /// Smallest and largest value, as written.
    pub range: Option<(Option<String>, Option<String>)>,
    /// A text that must not occur.
    pub forbid: Option<String>,
    /// A value that becomes an argument of its own may begin with `-`.
    pub allow_leading_dash: bool,
    /// Floating point values may be NaN or infinite.
    pub allow_nan: bool,
    /// Schemes of addresses.
    pub url_schemes: Vec<String>,
    /// Largest document in bytes.
    pub max_bytes: Option<u64>,
}

/// How several values come onto the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Multi {
    /// The whole template once for each value.
    #[default]
    Repeat,
    /// The word that holds the value once for each value, the others once.
    Spread,
    /// One template, values joined by this text.
    Join(String),
    /// One template, the JSON array of the values.
    Json,
}

/// How a value reaches the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassBy {
    /// The text itself.
    Value,
    /// The path of a file that holds it.
    File,
}

/// A value that only the descriptor sets.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Its value; run variables may be open.
    pub value: Template,
}

/// What an action works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// Index into [`ServiceDescriptor::inputs`].
    Input(usize),
    /// Index into [`ServiceDescriptor::consts`].
    Const(usize),
}

/// Something done with an input or const before the program starts.
#[derive(Debug, Clone)]
pub struct Action {
    /// What.
    pub what: ActionKind,
    /// Only if this holds; `None` = always.
    pub when: Option<Condition>,
    /// Line of its section.
    pub line: usize,
    /// Its section.
    pub section: String,
}

/// When an action is performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Index into [`ServiceDescriptor::inputs`].
    pub input: usize,
    /// What is asked of its values.
    pub test: Test,
    /// It is performed if the test fails.
    pub negated: bool,
}

/// A question about the values of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Has it a value, its default included? Of a truth value: is it true?
    Given,
    /// Is one of them this text, or this number?
    Equals(String),
}

/// The classes of actions.
#[derive(Debug, Clone)]
pub enum ActionKind {
    /// Words on the command line.
    CommandLine {
        /// Whose value.
        operand: Operand,
        /// The words.
        words: Vec<Word>,
        /// A switch: emitted without value if the value is true.
        flag: bool,
    },
    /// A JSON input becomes a file.
    CreateJson {
        /// Whose value.
        operand: Operand,
        /// The file; `${json_path_expr}` stands for what `path` finds.
        target: Template,
        /// Where the distinguishing part of the file name is in the document.
        path: Option<JsonPath>,
        /// Schema file.
        schema: Option<Template>,
        /// Several documents go to the same file; the last one stays.
        overwrite: bool,
        /// Words that put the path onto the command line.
        words: Vec<Word>,
    },
    /// A value is set in a JSON file.
    UpdateJson {
        /// Whose value.
        operand: Operand,
        /// Template file.
        source: Template,
        /// File to write.
        target: Template,
        /// The place.
        path: JsonPath,
        /// Missing parents are made.
        create_parents: bool,
    },
    /// A file is copied.
    CopyFile {
        /// From.
        source: Template,
        /// To.
        target: Template,
    },
    /// A value is set in an INI file.
    UpdateIni {
        /// Whose value.
        operand: Operand,
        /// Template file.
        source: Template,
        /// File to write.
        target: Template,
        /// Section.
        section: Template,
        /// Key.
        key: Template,
        /// The value is written as a JSON list of texts.
        as_list: bool,
    },
    /// A value becomes a file as it is.
    WriteFile {
        /// Whose value.
        operand: Operand,
        /// File to write.
        target: Template,
        /// Words that put the path onto the command line.
        words: Vec<Word>,
    },
    /// A value becomes an environment variable.
    Env {
        /// Whose value.
        operand: Operand,
        /// Its name.
        variable: String,
    },
    /// A value becomes the program's standard input.
    Stdin {
        /// Whose value.
        operand: Operand,
    },
}

/// One word of an action's template: never split, whatever is put into it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(pub Vec<WordPart>);

/// A part of a [`Word`]. The name is already filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordPart {
    /// Text as it is.
    Literal(Template),
    /// The value.
    Value,
}

impl Word {
    /// Whether a value stands in it.
    pub fn has_value(&self) -> bool {
        self.0.contains(&WordPart::Value)
    }

    /// Whether the value is its beginning.
    pub fn begins_with_value(&self) -> bool {
        self.0.first() == Some(&WordPart::Value)
    }

    /// Whether it begins like an option, whatever the value.
    pub fn begins_like_option(&self) -> bool {
        matches!(self.0.first(), Some(WordPart::Literal(text)) if text.to_string().starts_with('-'))
    }
}

/// One output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    /// Identifier.
    pub name: String,
    /// Title.
    pub title: Option<String>,
    /// Abstract.
    pub description: Option<String>,
    /// The type as written.
    pub declared: String,
    /// What it means.
    pub kind: Kind,
    /// MIME types of a document, the default first.
    pub media_types: Vec<String>,
    /// The MIME list as written, for legacy registrations.
    pub declared_media_types: Option<String>,
    /// Reference systems of a bounding box, the default first; else empty.
    pub crs: Vec<String>,
    /// Where the program leaves it.
    pub place: Place,
    /// Whether a successful job must have it.
    pub required: bool,
    /// Smallest acceptable size in bytes.
    pub min_bytes: Option<u64>,
    /// Largest acceptable size in bytes.
    pub max_bytes: Option<u64>,
    /// Goes to the shared folder.
    pub backup: bool,
    /// Files with the same stem go with it.
    pub sidecars: bool,
    /// Goes to the upload server, below this directory.
    pub upload: Option<Option<String>>,
    /// Hints for publishing.
    pub publish: Publish,
    /// For a map context: the names of the outputs that are its layers.
    pub layers: Vec<String>,
    /// Line of its section or object.
    pub line: usize,
}

/// The `publish_*` hints as written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Publish {
    /// `publish_as_layer` as written.
    pub as_layer: Option<String>,
    /// Layer name.
    pub layer: Option<String>,
    /// Style.
    pub style: Option<String>,
    /// Workspace.
    pub workspace: Option<String>,
    /// File whose text is sent as metadata.
    pub metadata: Option<Template>,
}

/// Where a program leaves an output.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In this file; relative = below the run directory.
    File(Template),
    /// In the one file below the run directory that matches this pattern (`*` in the last part only).
    Matching(String),
    /// Where the contract of dialect B says: `outputs.json`, else a file named after the output.
    Contract,
    /// The program's standard output without the lines that a rule consumed.
    Stdout,
    /// Nowhere: it is composed from other outputs (map context).
    Composed,
}
