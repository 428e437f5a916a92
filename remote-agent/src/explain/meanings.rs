//! One sentence for each key of a descriptor. A table; the rules themselves are in the loaders.

use wps_remote_protocol::ini::{DEFAULT_SECTION, Document, Entry};

use crate::descriptor::Dialect;

type Table = &'static [(&'static str, &'static str)];

const DEFAULT: Table = &[
    ("service", "name of the process; clients see namespace:service"),
    ("namespace", "group of processes; part of the process identifier, and a room for GeoServer"),
    ("description", "abstract of the process"),
    ("title", "title of the process; namespace.service without it"),
    ("active", "true offers the process; anything else keeps it off"),
    ("output_dir", "parent of run directories; each run gets <output_dir>/<execution id>"),
    ("max_running_time_seconds", "a run that lasts longer is ended; 0 = no limit"),
    ("executable_path", "working directory of the program"),
    ("cwd", "working directory of the program, instead of executable_path"),
    ("executable_cmd", "program and fixed arguments; quotes group, no shell is involved"),
    ("workdir", "directory of one run; should be %(output_dir)s/%(unique_exe_id)s"),
    ("unique_execution_id", "by convention the execution id, for use in references"),
    ("process_weight", "units of the agent's capacity that one run takes: weight x coefficient"),
    ("weight_command", "program that gets the inputs as JSON and prints the weight"),
    ("version", "version of the process"),
    ("keywords", "keywords of the process"),
    ("sort", "natural = sections are ordered by their numbers, not as texts"),
    ("private_tmp", "true gives the program a TMPDIR of its own in the run directory"),
    ("allow_batch", "true permits a batch file as the program (Windows)"),
    ("retry_safe", "true lets a run be started anew after its agent vanished"),
    ("debug", "true keeps the run directory and logs more"),
    ("servicePassword", "kept for old files; has no effect"),
    ("sharedir", "kept for old files; the shared folder is set in remote.config"),
    ("load_average_scan_minutes", "kept for old files; set in remote.config"),
    ("process_blacklist", "kept for old files; set in remote.config"),
];

const INPUT: Table = &[
    ("class", "param = an input that clients give; const = a value that only this file gives"),
    ("name", "identifier that clients use"),
    ("type", "type of the value"),
    ("title", "title for people"),
    ("description", "abstract for people"),
    ("min", "fewest values; 0 = may be absent"),
    ("max", "most values; `unbounded` or 0 = any number"),
    ("default", "value that holds when the client gives none"),
    ("value", "the fixed value; clients cannot set it"),
    ("input_mime_type", "MIME types that are accepted, the default first"),
    ("formatter", "form in which a date reaches the program (strftime)"),
    ("enum", "the only values that are accepted"),
    ("pattern", "expression that the whole value must match"),
    ("min_length", "fewest characters"),
    ("max_length", "most characters"),
    ("range", "smallest and largest value"),
    ("forbid", "text that must not occur in the value"),
    ("multi", "how several values are passed: repeat, spread, join:SEPARATOR or json"),
    ("missing", "none = an absent value becomes the word None, as in the old agent"),
    ("allow_leading_dash", "true accepts values that begin with - and stand alone as an argument"),
    ("allow_nan", "true accepts NaN and infinity"),
    ("url_schemes", "schemes of addresses that are accepted"),
    ("max_bytes", "largest document in bytes"),
    ("pass_by", "value = the text itself is passed; file = the path of a file that holds it"),
    ("sensitive", "true keeps the value out of logs"),
    ("uom", "unit of measure"),
];

const ACTION: Table = &[
    ("class", "what is done with the value before the program starts"),
    ("input_ref", "the input or const whose value is used"),
    (
        "template",
        "argument; `name` (or {name}) and `value` (or {value}) are filled in, a value is never split",
    ),
    ("alias", "what `name` becomes in the template, or the key in the file"),
    ("flag", "true = the template without value, if the input is true"),
    ("when", "condition: NAME, not NAME, NAME = TEXT or NAME != TEXT"),
    ("source_filepath", "file to start from"),
    ("target_filepath", "file to write, below the run directory"),
    ("json_schema", "schema that the document must satisfy"),
    ("json_path_expr", "place in the document, as in ['plan']['hours']"),
    ("section", "section of the INI file to change"),
    ("variable", "environment variable to set"),
    ("overwrite", "true = several documents go to the same file, the last one stays"),
    ("create_parents", "true = missing parents are made in the JSON file"),
];

const OUTPUT: Table = &[
    ("name", "identifier that clients use"),
    ("type", "type of the value; string = the text of the file, else the file itself"),
    ("title", "title for people"),
    ("description", "abstract for people"),
    ("filepath", "file that the program writes"),
    ("source", "json = as outputs.json or a file of its name tells; stdout = what the program prints"),
    ("output_mime_type", "MIME types of the result, the default first"),
    ("backup_on_wps_execution_shared_dir", "true = the result goes to the shared folder"),
    ("upload_data", "true = the result goes to the upload server"),
    ("upload_data_root", "directory on the upload server"),
    ("publish_as_layer", "hint: publish the result as a layer"),
    ("publish_layer_name", "hint: name of the layer"),
    ("publish_default_style", "hint: style of the layer"),
    ("publish_target_workspace", "hint: workspace of the layer"),
    ("publish_metadata", "file whose text is sent as metadata"),
    ("layers_to_publish", "outputs that make up the map context, separated by ;"),
    ("required", "false = a run succeeds without this output"),
    ("sidecars", "stem = files with the same stem go with the result"),
    ("min_bytes", "smallest acceptable size"),
    ("max_bytes", "largest acceptable size"),
];

const LOGGING: Table = &[
    ("stdout_parser", "expressions for lines of the program's output, matched at the start"),
    ("stdout_action", "what each of them means: progress, log, abort, ignore"),
    ("progress_preset", "progress bar to recognise: gdal, otb or percent"),
    ("stdout_encoding", "encoding of the output: utf-8 or latin1"),
    ("log_unmatched", "true = lines without a rule are sent as log lines"),
];

const LIMITS: Table = &[
    ("cpu_seconds", "processor time that the program may use"),
    ("memory_mb", "memory that the program may use"),
    ("output_mb", "size of the files that the program may write"),
    ("open_files", "files that the program may have open"),
    ("nice", "how nice the program is to others"),
];

const DESCRIPTION: Table = &[
    ("service", "name of the process; clients see namespace:service"),
    ("namespace", "group of processes; `default` without it"),
    ("title", "title of the process"),
    ("description", "abstract of the process"),
    ("executable", "the program: beside this file, in PATH, or an absolute path; never split"),
    ("process_buffer", "number for old orchestrators; no other effect"),
    ("result_size", "number for old orchestrators; no other effect"),
    ("active", "True offers the process, False keeps it off"),
    ("version", "version of the process"),
    ("keywords", "keywords of the process"),
    ("retry_safe", "true lets a run be started anew after its agent vanished"),
];

const OPTIONS: Table = &[
    ("customargs", "arguments put first"),
    ("argformat", "template of all arguments; `key` and `value` are filled in"),
    ("debug", "True keeps the run directory and sends every line of output as a log line"),
    ("max_running_time_seconds", "a run that lasts longer is ended; 0 = no limit"),
    ("process_weight", "units of the agent's capacity that one run takes: weight x coefficient"),
    ("output_dir", "parent of run directories"),
    ("cwd", "working directory of the program; the run directory without it"),
    ("share_results", "auto = file outputs go to the shared folder where there is one"),
    ("private_tmp", "true gives the program a TMPDIR of its own in the run directory"),
    ("allow_batch", "true permits a batch file as the program (Windows)"),
    ("weight_command", "program that gets the inputs as JSON and prints the weight"),
];

/// What a key means where it stands.
pub(super) fn of(dialect: Dialect, section: &str, entry: &Entry, doc: &Document) -> String {
    let key = entry.key.as_str();
    let found =
        |table: Table| table.iter().find(|(known, _)| *known == key).map(|(_, text)| (*text).to_owned());
    let lower = section.to_ascii_lowercase();
    let known = match (dialect, lower.as_str()) {
        (_, "environment") => Some("environment variable of the program".to_owned()),
        (_, "limits") => found(LIMITS),
        (_, "access") if key == "roles" => Some("roles of which a client must have one".to_owned()),
        (_, "logging") => found(LOGGING).or_else(|| {
            key.starts_with("rule.")
                .then(|| "rule for lines of the program's output: action, then expression".to_owned())
        }),
        (Dialect::B, "description") => found(DESCRIPTION),
        (Dialect::B, "options") => found(OPTIONS),
        (Dialect::B, "input") => Some("an input (or a constant) of the process".to_owned()),
        (Dialect::B, "output") => Some("an output of the process".to_owned()),
        (Dialect::A, _) if section == DEFAULT_SECTION => found(DEFAULT).or_else(|| Some(variable(key, doc))),
        (Dialect::A, name) if name.contains("input") || name.contains("const") => found(INPUT),
        (Dialect::A, name) if name.contains("output") => found(OUTPUT),
        (Dialect::A, name) if name.contains("action") => found(ACTION),
        (Dialect::A | Dialect::B, _) => Some("in a section without meaning here".to_owned()),
    };
    known.unwrap_or_else(|| "not known here; has no effect".to_owned())
}

/// A key that the author made up.
fn variable(key: &str, doc: &Document) -> String {
    let reference = format!("%({key})s");
    let lines: Vec<String> = doc
        .sections()
        .iter()
        .flat_map(|section| &section.entries)
        .filter(|entry| entry.value.contains(&reference))
        .map(|entry| entry.line.to_string())
        .take(8)
        .collect();
    if lines.is_empty() {
        "a variable that nothing refers to".to_owned()
    } else {
        format!("a variable; used in line {}", lines.join(", "))
    }
}
