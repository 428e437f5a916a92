//! Loading: what is accepted, what is warned of, what is refused, in both dialects.

mod extensions;
mod reading;

use std::path::{Path, PathBuf};
use std::time::Duration;

use wps_remote_protocol::ini::{Finding, IniError};
use wps_remote_protocol::{AllowedValues, DataType, LiteralType, Occurs};

use super::load::{FileKind, load_descriptor, recognise};
use super::model::{Condition, Kind, Place, Test};
use super::*;

const BASE: [(&str, &str); 9] = [
    ("service", "S"),
    ("namespace", "n"),
    ("description", "d"),
    ("active", "true"),
    ("output_dir", "/w"),
    ("workdir", "%(output_dir)s/%(unique_exe_id)s"),
    ("executable_path", "/p"),
    ("executable_cmd", "/bin/prog"),
    ("max_running_time_seconds", "60"),
];

fn context() -> LoadContext {
    LoadContext::bare(PathBuf::from("/w"))
}

fn load_text(text: &str) -> Result<ServiceDescriptor, IniError> {
    load_descriptor(Path::new("/etc/wps/s.config"), text.as_bytes(), &context())
}

/// `[DEFAULT]` with some keys replaced (empty = left out) or added, and sections after it.
fn dialect_a(changes: &[(&str, &str)], sections: &str) -> String {
    let mut text = "[DEFAULT]\n".to_owned();
    for (key, value) in BASE {
        let value = changes.iter().find(|(changed, _)| *changed == key).map_or(value, |(_, value)| *value);
        if value != "-" {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    for (key, value) in changes.iter().filter(|(key, _)| !BASE.iter().any(|(known, _)| known == key)) {
        text.push_str(&format!("{key} = {value}\n"));
    }
    text + sections
}

pub(crate) fn good(text: &str) -> ServiceDescriptor {
    load_text(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn codes(list: &[Finding]) -> Vec<&'static str> {
    list.iter().map(|finding| finding.code).filter(|code| *code != "geoserver-drops-output").collect()
}

/// The warnings of a file that loads.
fn warned(text: &str, expected: &[&str]) -> ServiceDescriptor {
    let descriptor = good(text);
    assert_eq!(codes(&descriptor.warnings), expected, "{:#?}\n{text}", descriptor.warnings);
    assert!(descriptor.warnings.iter().all(|warning| warning.line > 0), "{:#?}", descriptor.warnings);
    descriptor
}

/// The one fault of a file that does not load, which must name `place` and hold `part`.
fn refused(text: &str, code: &str, part: &str) {
    let error = load_text(text).expect_err(text);
    let finding = error.findings.iter().find(|finding| finding.code == code);
    let finding = finding.unwrap_or_else(|| panic!("no {code} in {error}"));
    assert!(error.to_string().contains(part), "{part} not in {error}");
    assert!(finding.remedy.is_some(), "{finding}");
}

const IN: &str = "[Input1]\nclass = param\nname = x\ntype = string\ndescription = d\n";

fn input(more: &str) -> String {
    dialect_a(&[], &format!("{IN}{more}\n"))
}

#[test]
fn files_are_recognised_by_their_keys() {
    assert_eq!(recognise(dialect_a(&[], "").as_bytes()), FileKind::Descriptor(Dialect::A));
    assert_eq!(recognise(b"\xef\xbb\xbf[description]\r\nService = x\r\n"), FileKind::Descriptor(Dialect::B));
    assert_eq!(recognise(b"[DEFAULT]\nbus_class_name = x\nservice = y\n"), FileKind::Other);
    assert_eq!(recognise(b"[loggers]\nkeys = root\n[DEFAULT]\nservice = y\n"), FileKind::Other);
    assert_eq!(recognise(b"[x]\nservice = y\n"), FileKind::Other);
    let both = "[DEFAULT]\nservice = a\n[Description]\nservice = b\n";
    refused(both, "two-dialects", "keep one");
    refused("[x]\ny = 1\n", "not-a-descriptor", "add `service = NAME`");
    refused("no ini at all\n", "no-separator", "line 1");
}

#[test]
fn every_key_of_default_is_needed_except_the_work_directory_of_the_agent() {
    for (key, _) in BASE.iter().filter(|(key, _)| *key != "output_dir") {
        refused(&dialect_a(&[(key, "-")], ""), "missing-key", &format!("[DEFAULT] {key}: is required"));
    }
    let descriptor = good(&dialect_a(&[("output_dir", "-")], ""));
    assert_eq!(descriptor.output_dir, Path::new("/w"), "lent by the agent, also to references");
}

#[test]
fn keys_of_default_are_read() {
    let text = dialect_a(
        &[
            ("title", "T"),
            ("version", "2.1"),
            ("keywords", "a, b"),
            ("process_weight", "{\"weight\": \"20\", \"coefficient\": 1.5}"),
            ("retry_safe", "true"),
            ("private_tmp", "true"),
        ],
        "[Limits]\ncpu_seconds = 5\nmemory_mb = 100\nnice = 10\n[Logging]\nprogress_preset = gdal\n",
    );
    let descriptor = warned(&text, &[]);
    assert_eq!((descriptor.weight, descriptor.max_running), (30.0, Some(Duration::from_secs(60))));
    assert_eq!(descriptor.limits.memory_mb, Some(100));
    let shown = descriptor.description();
    assert_eq!((shown.title.as_str(), shown.version.as_str(), shown.repeatable), ("T", "2.1", true));
    assert_eq!(shown.keywords, ["a", "b"]);
    assert_eq!(good(&dialect_a(&[], "")).description().title, "n.S");
}

#[test]
fn values_of_default_are_checked() {
    let check = |key: &str, value: &str, code: &str, part: &str| {
        refused(&dialect_a(&[(key, value)], ""), code, part);
    };
    check("service", "a.b", "bad-name", "use 1 to 64");
    check("namespace", "ä", "bad-name", "cannot be part of an address");
    check("max_running_time_seconds", "1h", "bad-value", "not a whole number");
    check("process_weight", "bots.Weight", "bad-weight", "weight_command");
    check("process_weight", "{\"weight\": -1}", "bad-weight", "not a number from 0");
    check("executable_cmd", "prog \"a", "unbalanced-quotes", "not closed");
    check("executable_cmd", "prog %(missing)s", "unknown-reference", "define `missing`");
    check("own", "%(wps_execution_shared_dir)s", "reference-unset", "set wps_execution_shared_dir");
    check("sort", "random", "bad-value", "write natural");
    check("output_dir", "/w/%(unique_exe_id)s", "depends-on-run", "known before it");
    check("workdir", "/elsewhere", "path-outside", "allowed_paths");
    warned(&dialect_a(&[("max_running_time_seconds", "0")], ""), &["no-time-limit"]);
    warned(&dialect_a(&[("max_runing_time_seconds", "5")], ""), &["unknown-key"]);
    warned(&dialect_a(&[("titel", "T")], ""), &["unknown-key"]);
    warned(&dialect_a(&[("titel", "T"), ("title", "%(titel)s")], ""), &[]);
    warned(&dialect_a(&[("description", "[draft]")], ""), &["json-like-text"]);
    warned(&dialect_a(&[("workdir", "/v/%(unique_exe_id)s")], ""), &["workdir-differs"]);
    let descriptor = warned(&dialect_a(&[("active", "yes")], ""), &["active-not-boolean"]);
    assert!(!descriptor.active, "as the old agent");
    let descriptor = warned(&dialect_a(&[("output_dir", "work")], ""), &["relative-path"]);
    assert_eq!(descriptor.output_dir, Path::new("/etc/wps/work"));
}

#[test]
fn command_lines_keep_quoted_references_together() {
    let words = |changes: &[(&str, &str)], codes: &[&str]| {
        let descriptor = warned(&dialect_a(changes, ""), codes);
        descriptor.program.words.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let dir = ("dir", "/opt/my tools");
    let quoted = words(&[dir, ("executable_cmd", "\"%(dir)s/prog\" -o '%(workdir)s' x\\y")], &[]);
    assert_eq!(quoted, ["/opt/my tools/prog", "-o", "/w/%(unique_exe_id)s", "x\\y"]);
    let split = words(&[("line", "python  -u"), ("executable_cmd", "%(line)s a.py")], &["blank-in-command"]);
    assert_eq!(split, ["python", "-u", "a.py"]);
    let relative = words(
        &[("executable_path", "tools"), ("executable_cmd", "tools/x --d=tools other")],
        &["relative-path"],
    );
    assert_eq!(relative, ["/etc/wps/tools/x", "--d=/etc/wps/tools", "other"]);
    assert_eq!(words(&[("executable_cmd", "%(descriptor_dir)s/x.sh")], &[]), ["/etc/wps/x.sh"]);
}

#[test]
fn sections_are_ordered_as_texts_with_a_warning_or_naturally() {
    let sections: String = (1..=11)
        .map(|n| format!("[Input{n}]\nclass = param\nname = i{n}\ntype = string\ndescription = d\n"))
        .collect();
    let names = |descriptor: &ServiceDescriptor| {
        descriptor.inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>()
    };
    let text = warned(&dialect_a(&[], &sections), &["text-order"]);
    assert_eq!(names(&text)[..4], ["i1", "i10", "i11", "i2"]);
    let natural = warned(&dialect_a(&[("sort", "natural")], &sections), &[]);
    assert_eq!(names(&natural)[..3], ["i1", "i2", "i3"]);
}

#[test]
fn roles_come_from_letters_in_names() {
    let constant = "class = const\nname = c\ntype = string\ndescription = d\nvalue = v\n";
    let descriptor =
        warned(&dialect_a(&[], &format!("[Reconstruction]\n{constant}")), &["role-by-substring"]);
    assert_eq!(descriptor.consts.len(), 1);
    warned(&dialect_a(&[], &format!("[CONST-a_1]\n{constant}")), &[]);
    refused(&dialect_a(&[], &format!("[InputAction]\n{constant}")), "several-roles", "rename the section");
    warned(&dialect_a(&[], "[Notes]\nanything = 1\n"), &[]);
    let twice = format!("{IN}[Input2]\nclass = param\nname = x\ntype = int\ndescription = second\n");
    let descriptor = warned(&dialect_a(&[], &twice), &["duplicate-name"]);
    assert_eq!(descriptor.inputs[0].description, "second");
}

#[test]
fn inputs_are_read_and_announced() {
    let more = "title = T\nmin = 0\nmax = 3\ndefault = b\nenum = [\"a\", \"b\"]\nuom = m\npattern = [a-z]\n";
    let descriptor = warned(&input(more), &[]);
    let shown = &descriptor.description().inputs[0];
    assert_eq!((shown.id.as_str(), shown.title.as_deref(), shown.summary.as_str()), ("x", Some("T"), "d"));
    assert_eq!(shown.occurs, Occurs { min: 0, max: Some(3) });
    let DataType::Literal(literal) = &shown.data else { panic!("{shown:?}") };
    assert_eq!(
        (literal.kind, literal.default.as_deref(), literal.uom.as_deref()),
        (LiteralType::String, Some("b"), Some("m"))
    );
    assert_eq!(literal.allowed, AllowedValues::Values(vec!["a".into(), "b".into()]));
    let descriptor = warned(&input("default = b\n"), &[]);
    assert_eq!(descriptor.description().inputs[0].occurs.min, 0, "a default need not be sent");
    assert_eq!(descriptor.legacy_inputs()[0].1["min"], 1, "as written");
    let unbounded = warned(&input("max = 0\n"), &["max-zero"]);
    assert_eq!(unbounded.inputs[0].max, None);
    assert_eq!(unbounded.legacy_inputs()[0].1["max"], -1);
}

#[test]
fn faults_of_inputs_are_named() {
    for (more, code, part) in [
        ("min = x", "bad-value", "[Input1] min"),
        ("range = [1, 2]", "bad-value", "numbers and dates only"),
        ("pattern = (", "bad-value", "unclosed group"),
        ("multi = all", "bad-value", "join:SEPARATOR"),
        ("pass_by = mail", "bad-value", "value or file"),
        ("sensitive = maybe", "bad-value", "neither true nor false"),
        ("enum = []", "bad-value", "allows no value"),
        ("default = %(nope)s", "unknown-reference", "line 16"),
    ] {
        refused(&input(more), code, part);
    }
    refused(&input("").replace("type = string", "type = number"), "bad-type", "use string, int");
    refused(&input("").replace("class = param", "class = parm"), "bad-class", "neither param nor const");
    refused(
        &input("").replace("description = d\n", "").replace("active", "description = d\nactive"),
        "missing-key",
        "[Input1] description",
    );
    warned(&input("min = 2\n"), &["min-above-max"]);
    warned(&input("patern = a\n"), &["unknown-key"]);
    let descriptor = warned(&input("enum = [a]\ndefault = b\n"), &["bad-default"]);
    assert!(descriptor.inputs[0].default.is_empty());
    let same = dialect_a(&[("description", "same")], &IN.replace("= d", "= same"));
    assert_eq!(good(&same).inputs[0].description, "same", "a text equal to the default one does not vanish");
}

#[test]
fn consts_are_resolved_and_checked() {
    let constant = |kind: &str, value: &str| {
        dialect_a(
            &[("n", "5")],
            &format!("[Const1]\nclass = const\nname = c\ntype = {kind}\ndescription = d\nvalue = {value}\n"),
        )
    };
    assert_eq!(good(&constant("int", "%(n)s")).consts[0].value.to_string(), "5");
    assert_eq!(good(&constant("string", "two words, grün")).consts[0].value.to_string(), "two words, grün");
    assert!(!good(&constant("string", "%(workdir)s/x")).consts[0].value.is_fixed());
    refused(&constant("int", "five"), "bad-value", "[Const1] value");
    refused(&constant("string", "a\n  b"), "bad-value", "control character");
}

#[test]
fn actions_are_checked_at_load() {
    let action = |lines: &str| dialect_a(&[], &format!("{IN}[Action1]\n{lines}\n"));
    for (lines, code, part) in [
        ("class = cmdlin", "bad-class", "did you mean `cmdline`?"),
        ("class = cmdline\ninput_ref = x", "missing-key", "[Action1] template"),
        ("class = cmdline\ntemplate = value", "missing-key", "[Action1] input_ref"),
        ("class = copyfile\nsource_filepath = /a\ntarget_filepath = /etc/b", "path-outside", "allowed_paths"),
        (
            "class = copyfile\nsource_filepath = /a\ntarget_filepath = %(workdir)s/a/../stdout.log",
            "path-taken",
            "another file",
        ),
        (
            "class = copyfile\nsource_filepath = /a\ntarget_filepath = %(workdir)s/../x",
            "path-outside",
            "outside the run directory",
        ),
        (
            "class = updateJSONfile\ninput_ref = x\nsource_filepath = /a\ntarget_filepath = %(workdir)s/x\njson_path_expr = ['a'].x",
            "bad-json-path",
            "subscripts only",
        ),
        ("class = env\ninput_ref = x\nvariable = A-B", "bad-name", "letters, digits"),
    ] {
        refused(&action(lines), code, part);
    }
    let descriptor =
        warned(&action("class = cmdline\ninput_ref = y\ntemplate = value"), &["unknown-input-ref"]);
    assert!(descriptor.actions.is_empty(), "left out, as the old agent did");
    warned(&action("class = cmdline\ninput_ref = x\ntemplate = --filename=value"), &["template-substring"]);
    warned(&action("class = cmdline\ninput_ref = x\ntemplate = value:name"), &["template-order"]);
    warned(
        &action("class = copyfile\nsource_filepath = /none/a\ntarget_filepath = %(workdir)s/b"),
        &["file-missing"],
    );
    let context = LoadContext { allowed_paths: vec!["/data".into()], ..context() };
    let text = action("class = copyfile\nsource_filepath = /none/a\ntarget_filepath = /data/b");
    assert!(load_descriptor(Path::new("/etc/wps/s.config"), text.as_bytes(), &context).is_ok());
}

#[test]
fn outputs_are_checked_and_announced() {
    let output = |lines: &str| {
        dialect_a(
            &[],
            &format!("[Output1]\nname = result\ntype = image/png\nfilepath = %(workdir)s/a.png\n{lines}\n"),
        )
    };
    let descriptor = warned(
        &output("required = false\npublish_as_layer = TRUE\npublish_layer_name = l"),
        &["geoserver-type"],
    );
    let shown = &descriptor.description().outputs[0];
    assert!(shown.optional);
    assert_eq!(shown.publication.as_ref().unwrap().layer.as_deref(), Some("l"));
    let DataType::Complex(complex) = &shown.data else { panic!("{shown:?}") };
    assert_eq!(complex.formats[0].media_type, "image/png");
    warned(&output("upload_data = true"), &["geoserver-type"]);
    let without = dialect_a(&[], "[Output1]\nname = result\ntype = string\n");
    assert_eq!(warned(&without, &["no-filepath"]).outputs[0].place, Place::Contract);
    let typeless = dialect_a(&[], "[Output1]\nname = result\nfilepath = %(workdir)s/x\n");
    assert!(warned(&typeless, &["output-without-type"]).outputs.is_empty());
    refused(&output("").replace("image/png", "picture"), "bad-type", "MIME type");
    refused(&output("").replace("%(workdir)s/a.png", "/etc/passwd"), "path-outside", "allowed_paths");
    refused(&output("sidecars = all"), "bad-value", "write stem");
    let owc = "[Output1]\nname = result\ntype = application/owc\nlayers_to_publish = result1;nope\n";
    warned(&dialect_a(&[], owc), &["unknown-layer", "unknown-layer"]);
    let free = dialect_a(&[], "[Output1]\nname = free\ntype = int\nfilepath = %(workdir)s/x\n");
    let descriptor = good(&free);
    assert!(descriptor.warnings.iter().any(|warning| warning.code == "geoserver-drops-output"));
    assert_eq!(descriptor.outputs[0].kind, Kind::Literal(LiteralType::Integer));
}

#[test]
fn logging_is_read_in_both_forms() {
    let logging = |lines: &str| dialect_a(&[], &format!("[Logging]\n{lines}\n"));
    let descriptor =
        warned(&logging("stdout_parser = [a{1,3} (.*), b]\nstdout_action = [progress, ignore]"), &[]);
    assert_eq!(descriptor.rules.rules.len(), 2);
    let text = "stdout_parser = [x]\nstdout_action = [ignore]\nrule.10 = log (b)\nrule.2 = abort a, b\nlog_unmatched = true";
    let descriptor = warned(&logging(text), &[]);
    let sources: Vec<_> = descriptor.rules.rules.iter().map(|rule| rule.pattern.source()).collect();
    assert_eq!(sources, ["a, b", "(b)"], "in the order of numbers, the lists are ignored");
    warned(&logging("stdout_parser = [a, b]\nstdout_action = [ignore]"), &["list-lengths"]);
    warned(&logging("stdout_parser = [a]\nstdout_action = [Ignore]"), &["unknown-action"]);
    warned(&logging("stdout_parser = [a]\nstdout_action = [progress]"), &["rule-groups"]);
    warned(&logging("stdout_parser = abc\nstdout_action = [log]"), &["list-without-brackets"]);
    refused(&logging("stdout_parser = [a]"), "missing-key", "stdout_action");
    refused(&logging("stdout_parser = [(a]\nstdout_action = [log]"), "bad-pattern", "unclosed group");
    refused(&logging("progress_preset = dots"), "bad-value", "gdal, otb or percent");
    refused(&logging("rule.1 = stop x"), "unknown-action", "begin with progress");
}

fn simple(more: &str) -> String {
    format!("[Description]\nservice = S\nexecutable = prog\n{more}")
}

#[test]
fn the_simple_dialect_has_defaults_for_everything() {
    let descriptor = warned(&simple(""), &[]);
    assert_eq!(descriptor.id.to_string(), "default:S");
    assert!(descriptor.active && descriptor.cwd.is_none());
    assert_eq!(descriptor.max_running, Some(Duration::from_secs(3600)));
    assert_eq!(descriptor.rules.rules.len(), 7, "built-in rules");
    let text = "[DESCRIPTION]\nSERVICE = S\nExecutable = my prog\nActive = false\n[options]\nCustomArgs = -a \"b c\" D:\\x\\\nDebug = True\n";
    let descriptor = warned(text, &[]);
    let words: Vec<_> = descriptor.program.words.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["my prog", "-a", "b c", "D:\\x\\"], "one path, never split");
    assert!(!descriptor.active && descriptor.debug && descriptor.rules.log_unmatched);
}

#[test]
fn faults_of_the_simple_dialect_are_named() {
    for (more, code, part) in [
        ("active = yes\n", "bad-value", "write True or False"),
        ("[Input]\nx = 5\n", "bad-object", "line 5"),
        ("[Input]\nx = {\"type\": \"string\", \"type\": \"int\"}\n", "bad-object", "appears twice"),
        ("[Input]\nx = {}\nx = {}\n", "duplicate-name", "first in line 5"),
        ("[Input]\n1x = {}\n", "bad-name", "begin with a letter"),
        ("[Input]\nx = {\"default\": \"a\", \"enum\": [\"b\"]}\n", "bad-value", "member `default`"),
        ("[Input]\nx = {\"type\": \"number\"}\n", "bad-value", "which is not a type"),
        ("[Input]\nx = {\"flag\": true}\n", "bad-value", "booleans only"),
        ("[Input]\nx = {\"min\": \"1\"}\n", "bad-value", "without quotes"),
        ("[Input]\nx = {\"min\": 3}\n", "bad-value", "below `min`"),
        ("[Input]\nx = {\"type\": \"int\",\n[Output]\ny = {}\n", "object-not-closed", "line 5"),
        ("[Output]\nx = {\"file\": \"../x\"}\n", "bad-value", "below the run directory"),
        (
            "[Output]\nx = {\"source\": \"stdout\"}\ny = {\"source\": \"stdout\"}\n",
            "bad-value",
            "only one output",
        ),
    ] {
        refused(&simple(more), code, part);
    }
    warned(&simple("[Input]\nx = {\"tpye\": \"int\"}\n"), &["unknown-member"]);
    warned(&simple("[Inputs]\nx = {}\n"), &["unknown-section"]);
    warned(&simple("executabel = x\n"), &["unknown-key"]);
}

#[test]
fn every_fault_is_told_in_the_same_breath() {
    let codes = |text: &str| match load_text(text) {
        Err(error) => error.findings.iter().map(|finding| (finding.line, finding.code)).collect::<Vec<_>>(),
        Ok(_) => panic!("{text}"),
    };
    let simple = "[Description]\nservice = a.b\nexecutable = /bin/true\nactive = yes\n[Options]\n\
        max_running_time_seconds = soon\n[Limits]\ncpu_seconds = 0\n[Access]\nroles = ?\n[Output]\n1x = {}\n";
    let expected = [
        (2, "bad-name"),
        (4, "bad-value"),
        (6, "bad-value"),
        (8, "bad-value"),
        (10, "bad-name"),
        (12, "bad-name"),
    ];
    assert_eq!(codes(simple), expected);
    let classic = dialect_a(
        &[("service", "a.b"), ("description", "-")],
        "[Limits]\nnice = x\n[Output1]\nname = result\ntype = string\nfilepath = /etc/passwd\n[Action1]\nclass = x\n",
    );
    let mut found: Vec<_> = codes(&classic).into_iter().map(|(_, code)| code).collect();
    found.sort_unstable();
    assert_eq!(found, ["bad-class", "bad-name", "bad-value", "missing-key", "path-outside"]);
    let error = load_text(&classic).unwrap_err();
    let outside = error.findings.iter().find(|finding| finding.code == "path-outside").unwrap();
    assert_eq!((outside.section.as_deref(), outside.key.as_deref()), (Some("Output1"), Some("filepath")));
    let line = classic.lines().position(|line| line.starts_with("filepath")).unwrap() + 1;
    assert_eq!(outside.line, line, "the key's own line");
}

#[test]
fn parameters_of_the_simple_dialect_are_read() {
    let text = simple(
        "[Options]\nargformat = -key value\n[Input]\n\
         a = {\"type\": \"int\", \"max\": \"unbounded\", \"default\": [1, 2], \"range\": [0, null]}\n\
         b = {\"type\": \"image/tiff\", \"arg\": \"--in={value}\", \"mime\": [\"image/tiff\", \"image/png\"]}\n\
         c = {\"const\": \"fixed value\", \"alias\": \"cc\"}\n\
         d = {\"min\": 0, \"arg\": \"\"}\n[Output]\n\
         o = {\"type\": \"image/tiff\", \"file\": \"out/*.tif\", \"publish\": {\"layer\": \"l\"}}\n\
         p = {\"source\": \"stdout\", \"required\": false}\n",
    );
    let descriptor = warned(&text, &[]);
    assert_eq!(descriptor.inputs[0].default, ["1", "2"]);
    assert_eq!((descriptor.inputs[0].min, descriptor.inputs[0].max), (0, None));
    assert_eq!(descriptor.inputs[1].media_types, ["image/tiff", "image/png"]);
    assert_eq!(descriptor.consts[0].name, "c");
    assert_eq!(descriptor.actions.len(), 3, "an empty template keeps an input off the command line");
    assert_eq!(descriptor.outputs[0].place, Place::Matching("out/*.tif".into()));
    assert!(!descriptor.outputs[0].backup, "there is no shared folder");
    assert_eq!(descriptor.outputs[1].place, Place::Stdout);
    let shared = LoadContext { shared_dir: Some("/s".into()), ..context() };
    let shared = load_descriptor(Path::new("/etc/wps/s.ini"), text.as_bytes(), &shared).unwrap();
    assert!(
        shared.outputs[0].backup && !shared.outputs[1].backup,
        "files go to the shared folder, texts do not"
    );
}

/// The indented blocks of the crate's page that begin with this line.
fn examples(first: &str) -> Vec<String> {
    let page = include_str!("../../README.md");
    let mut blocks = vec![String::new()];
    for line in page.lines() {
        match (line.strip_prefix("    "), line.is_empty()) {
            (Some(code), _) => blocks.last_mut().unwrap().push_str(&format!("{code}\n")),
            (None, true) => blocks.last_mut().unwrap().push('\n'),
            (None, false) => blocks.push(String::new()),
        }
    }
    blocks.iter().map(|block| block.trim().to_owned()).filter(|block| block.starts_with(first)).collect()
}

#[test]
fn the_examples_of_the_page_load_without_warnings() {
    let simple = examples("[Description]\n");
    let [greeter] = simple.as_slice() else { panic!("{simple:?}") };
    assert_eq!(warned(greeter, &[]).outputs[0].name, "greeting");
    let old = examples("[DEFAULT]\nservice");
    let [contour] = old.as_slice() else { panic!("{old:?}") };
    assert_eq!(warned(contour, &[]).actions.len(), 2);
    assert_eq!(examples("[DEFAULT]\ndomain").len(), 1);
}

/// All source of a folder but the tests.
fn source(folder: &Path, into: &mut String) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        match path.is_dir() {
            true => source(&path, into),
            false => into.push_str(&std::fs::read_to_string(path).unwrap()),
        }
    }
}

#[test]
fn every_warning_is_on_the_page_with_its_remedy() {
    let page = include_str!("../../README.md");
    let (_, table) = page.split_once("| code | what it says | what to do |\n|---|---|---|\n").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let listed: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    source(&root.join("src"), &mut text);
    for file in ["ini.rs", "ini/lines.rs", "ini/list.rs", "ini/settings.rs"] {
        text.push_str(&std::fs::read_to_string(root.join("../protocol/src").join(file)).unwrap());
    }
    let mut found = 0;
    for start in [".warn(", "Finding::warning(", "say(false,", "oddities.push(("] {
        for rest in text.split(start).skip(1) {
            let rest = rest.trim_start().trim_start_matches("false,").trim_start();
            let Some(code) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
            assert!(listed.contains(&code), "the page does not explain {code}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
    for code in listed {
        assert!(text.contains(&format!("\"{code}\"")), "nothing warns of {code} any more");
    }
}
