//! Plans: values of every type, several values, documents, actions.

mod conditions;
mod properties;
mod recorded;

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use wps_remote_protocol::{BoundingBox, Content, DataType, ExecutionId, Input, Value};

use super::*;
use crate::descriptor::load::load_descriptor;
use crate::descriptor::{LoadContext, ServiceDescriptor};

const EXECUTION: &str = "0123456789abcde";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/descriptors")
}

fn context() -> LoadContext {
    LoadContext { shared_dir: Some("/srv/wps/shared".into()), ..LoadContext::bare("/srv/wps/work".into()) }
}

fn load(path: &Path, text: &str) -> ServiceDescriptor {
    load_descriptor(path, text.as_bytes(), &context()).unwrap_or_else(|error| panic!("{error}"))
}

/// A fixture; paths of its support files lead to the ones in this crate, as if they were installed.
fn fixture(name: &str) -> ServiceDescriptor {
    let path = fixtures().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    load(&path, &text)
}

/// The fixture with its support folder moved to where the test can read it.
fn relocated(name: &str, from: &str) -> (ServiceDescriptor, String) {
    let support = fixtures().join("support").to_string_lossy().into_owned();
    let path = fixtures().join(name);
    let text = std::fs::read_to_string(&path).unwrap().replace(from, &support);
    (load(&path, &text), support)
}

fn run_context() -> RunContext {
    RunContext::new(ExecutionId::new(EXECUTION).unwrap())
}

fn plan(descriptor: &ServiceDescriptor, inputs: &Json) -> Result<Plan, PrepareError> {
    let object = inputs.as_object().cloned().unwrap_or_default();
    prepare(descriptor, &run_context(), &from_json::inputs(descriptor, &object))
}

fn argv(descriptor: &ServiceDescriptor, inputs: &Json) -> Vec<String> {
    plan(descriptor, inputs).unwrap_or_else(|error| panic!("{inputs}: {error}")).argv()
}

fn fault(descriptor: &ServiceDescriptor, inputs: &Json) -> (InputFault, String) {
    match plan(descriptor, inputs) {
        Err(PrepareError::Input(error)) => (error.code, error.locator),
        other => panic!("{inputs}: {other:?}"),
    }
}

fn planned(plan: &Plan, name: &str) -> String {
    let path = plan.work_dir.join(name);
    let file = plan.files.iter().find(|file| file.path == path);
    let file = file.unwrap_or_else(|| panic!("{name} is not planned: {:?}", plan.files));
    match &file.content {
        FileContent::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        FileContent::CopyOf(path) => std::fs::read_to_string(path).unwrap(),
    }
}

/// A descriptor of dialect A around some sections.
fn sample(sections: &str) -> ServiceDescriptor {
    load(Path::new("/etc/wps/sample.config"), &sample_text(sections))
}

fn sample_text(sections: &str) -> String {
    format!(
        "[DEFAULT]\nservice = S\nnamespace = n\ndescription = d\nactive = true\noutput_dir = /w\n\
         workdir = %(output_dir)s/%(unique_exe_id)s\nexecutable_path = /p\nexecutable_cmd = /bin/prog -q\n\
         max_running_time_seconds = 60\n{sections}"
    )
}

fn param(name: &str, kind: &str, more: &str) -> String {
    format!("[Input_{name}]\nclass = param\nname = {name}\ntype = {kind}\ndescription = d\n{more}\n")
}

fn action(name: &str, template: &str, more: &str) -> String {
    format!("[Action_{name}]\nclass = cmdline\ninput_ref = {name}\ntemplate = {template}\n{more}\n")
}

#[test]
fn values_of_each_type_are_checked() {
    let check = |kind: &str, more: &str, good: &[&str], bad: &[&str]| {
        let descriptor = sample(&format!("{}{}", param("x", kind, more), action("x", "-name value", "")));
        for value in good {
            let words = argv(&descriptor, &json!({ "x": value }));
            assert_eq!(
                words[2..],
                ["-x".to_owned(), value.trim_end_matches('~').to_owned()],
                "{kind} {more} {value:?}"
            );
        }
        for value in bad {
            let found = fault(&descriptor, &json!({ "x": value }));
            assert_eq!(found, (InputFault::InvalidParameterValue, "x".to_owned()), "{kind} {more} {value:?}");
        }
    };
    check("int", "", &["0", "-5", "+7", "2147483647"], &["1.5", "2147483648", "", "x", "1 2", "0x1"]);
    check("byte", "", &["-128", "127"], &["128"]);
    check("short", "", &["32767"], &["32768"]);
    check("long", "", &["9223372036854775807"], &["9223372036854775808"]);
    check("float", "", &["1", "1.5", "-2e3", ".5"], &["nan", "inf", "1e999", "1,5", ""]);
    check("double", "allow_nan = true", &["NaN", "inf"], &["x"]);
    check("boolean", "", &["true", "false"], &["yes", "2", ""]);
    check("char", "", &["ä", " "], &["", "ab", "\t"]);
    check(
        "string",
        "",
        &["", "a b", "$(id)", "`id`", "it's \"q\" \\", "grün 中", "%s", "a\u{2028}b"],
        &["a\tb", "a\nb", "\0", "\u{7f}", "\u{85}", "\u{1b}[0m"],
    );
    check("string", "min_length = 2\nmax_length = 3", &["äö", "äöü"], &["ä", "äöüß"]);
    check("string", "pattern = [a-z]+|ab c", &["ab", "ab c"], &["AB", "ab1", ""]);
    check("string", "forbid = ..", &["a.b"], &["a..b"]);
    check("string", "enum = [a, b c]", &["a", "b c"], &["A", "b", "[a"]);
    check("int", "enum = [1, 2]", &["1", "+2"], &["3"]);
    check("int", "range = [1, 10]", &["1", "10"], &["0", "11"]);
    check("float", "range = [0.5, ]", &["0.5", "1e9"], &["0.49"]);
    check(
        "datetime",
        "range = [2024-01-01T00:00:00Z, 2024-12-31T00:00:00Z]",
        &["2024-05-01T00:00:00Z"],
        &["2025-01-01T00:00:00Z"],
    );
    check(
        "datetime",
        "",
        &["2024-05-01T00:00:00", "2024-05-01T00:00:00+02:00", "2024-05-01"],
        &["tomorrow", "2024-13-01", ""],
    );
    check(
        "url",
        "",
        &["https://a.org/x%20y?z=1&w=2#f", "ftp://a/b", "s3://bucket/key"],
        &["file:///etc/passwd", "javascript:alert(1)", "a b", "nope", "https://a.org/x y"],
    );
    check("url", "url_schemes = [file, https]", &["file:///data/a.tif"], &["http://a.org/"]);
    check("application/json", "", &["{\"a\": 1}", "[1]", "\"x\"", "{\n}"], &["{", "", "a"]);
    check("application/xml", "", &["<a/>", "<a>\n</a>"], &["{\"a\": 1}", "<a>", "<!DOCTYPE a><a/>"]);
    check("application/vnd.geo+json", "", &["{}"], &["<a/>"]);
}

#[test]
fn numbers_are_trimmed_and_booleans_have_one_form() {
    let descriptor = sample(&format!("{}{}", param("x", "int", ""), action("x", "value", "")));
    assert_eq!(argv(&descriptor, &json!({"x": " 12 "}))[2], "12");
    assert_eq!(argv(&descriptor, &json!({"x": -3}))[2], "-3", "a negative number is no option");
    let descriptor = sample(&format!("{}{}", param("x", "boolean", ""), action("x", "value", "")));
    assert_eq!(argv(&descriptor, &json!({"x": "1"}))[2], "true");
    assert_eq!(argv(&descriptor, &json!({"x": false}))[2], "false");
    let of = |value: Json| check::number_text(value.as_number().unwrap());
    assert_eq!(of(json!(50.0)), "50.0");
    assert_eq!(of(json!(f64::from(0.1f32))), "0.1", "the widening of Java's floats is undone");
    assert_eq!(of(json!(0.1)), "0.1");
    assert_eq!(of(json!(0.123456789012345)), "0.123456789012345");
    assert_eq!(of(json!(72)), "72");
}

#[test]
fn dates_follow_the_formatter() {
    let sections =
        format!("{}{}", param("x", "datetime", "formatter = %d.%m.%Y %H:%M"), action("x", "value", ""));
    let descriptor = sample(&sections);
    assert_eq!(argv(&descriptor, &json!({"x": "2024-05-01T12:30:00Z"}))[2], "01.05.2024 12:30");
    assert_eq!(argv(&descriptor, &json!({"x": "02.05.2024 07:05"}))[2], "02.05.2024 07:05");
    assert_eq!(fault(&descriptor, &json!({"x": "2.Mai"})).1, "x");
}

#[test]
fn absent_inputs_make_no_argument_and_no_word_none() {
    let sections = format!(
        "{}{}{}{}",
        param("a", "string", "min = 0"),
        action("a", "-name value", ""),
        param("b", "string", "missing = none\nmin = 0"),
        action("b", "-name value", "")
    );
    assert_eq!(argv(&sample(&sections), &json!({})), ["/bin/prog", "-q", "-b", "None"]);
    assert_eq!(argv(&sample(&sections), &json!({"a": [], "b": "x"})), ["/bin/prog", "-q", "-b", "x"]);
    let required = sample(&format!("{}{}", param("a", "string", ""), action("a", "value", "")));
    assert_eq!(fault(&required, &json!({})), (InputFault::MissingParameterValue, "a".to_owned()));
    assert_eq!(
        fault(&required, &json!({"a": ["x", "y"]})),
        (InputFault::InvalidParameterValue, "a".to_owned())
    );
}

#[test]
fn unknown_names_are_ignored_with_a_warning_and_consts_cannot_be_set() {
    let descriptor = sample(&format!(
        "{}[Const1]\nclass = const\nname = c\ntype = string\ndescription = d\nvalue = two words\n{}{}",
        param("field", "string", "min = 0"),
        action("c", "value", ""),
        action("field", "-name value", ""),
    ));
    let plan = plan(&descriptor, &json!({"filed": "x"})).unwrap();
    assert_eq!(plan.args, ["-q", "two words"]);
    assert_eq!(plan.warnings[0].code, "undeclared-input");
    assert_eq!(plan.warnings[0].remedy.as_deref(), Some("did you mean `field`?"));
    assert_eq!(fault(&descriptor, &json!({"c": "x"})), (InputFault::InvalidParameterValue, "c".to_owned()));
}

/// What the author asks of a value is asked of documents, too, or the request is refused.
#[test]
fn limits_hold_for_every_kind_of_value() {
    let check = |kind: &str, more: &str, good: &[&str], bad: &[&str]| {
        let descriptor = sample(&format!("{}{}", param("x", kind, more), action("x", "-name value", "")));
        for value in good {
            plan(&descriptor, &json!({ "x": value }))
                .unwrap_or_else(|error| panic!("{kind} {more} {value}: {error}"));
        }
        for value in bad {
            let found = fault(&descriptor, &json!({ "x": value }));
            assert_eq!(found, (InputFault::InvalidParameterValue, "x".to_owned()), "{kind} {more} {value:?}");
        }
    };
    check("string", "max_bytes = 4", &["abcd", "ää"], &["abcde", "äää"]);
    check("text/plain", "enum = [first, second]", &["first"], &["third", "", "first "]);
    check("text/csv", "max_length = 3", &["a,b", "äöü"], &["a,bc"]);
    check("application/json", "min_length = 3", &["[1]"], &["[]"]);
    check("text/xml", "forbid = evil", &["<a/>"], &["<evil/>"]);
    // One of the shared folder that is too large to be read is not believed.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "harmless\nevil\n").unwrap();
    let descriptor = sample(&format!("{}{}", param("d", "text/csv", "forbid = x"), action("d", "value", "")));
    let content =
        Content::Shared(wps_remote_protocol::SharedFile { path: "a.csv".into(), bytes: 14, sha256: None });
    let value = Value::Complex { content, media_type: "text/csv".into(), schema: None };
    let run = |max_document| {
        let context = RunContext { shared_dir: Some(dir.path().into()), max_document, ..run_context() };
        prepare(&descriptor, &context, &vec![Input { id: "d".into(), value: value.clone() }])
    };
    assert!(run(14).is_ok());
    assert!(matches!(run(13), Err(PrepareError::Input(_))));
}

#[test]
fn files_of_inputs_with_similar_names_are_different_files() {
    let descriptor = sample(&format!(
        "{}{}{}{}",
        param("a b", "complex", "max = 2"),
        param("a_b", "complex", ""),
        param("a_b-2", "complex", ""),
        ["a b", "a_b", "a_b-2"].map(|name| action(name, "value", "")).concat(),
    ));
    let plan = plan(&descriptor, &json!({"a b": ["1", "2"], "a_b": "3", "a_b-2": "4"})).unwrap();
    let read = |path: &String| planned(&plan, path.strip_prefix(&format!("/w/{EXECUTION}/")).unwrap());
    assert_eq!(plan.args[1..].iter().map(read).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
}

/// At load what is known, at execution the rest: also in defaults and aliases.
#[test]
fn references_to_the_run_are_filled_in_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.ini"), "[a]\n").unwrap();
    let descriptor = sample(&format!(
        "{}{}{}[Output1]\nname = r\ntype = string\nfilepath = %(workdir)s/r\nupload_data = true\nupload_data_root = up/%(unique_exe_id)s\n",
        param("x", "string", "default = %(workdir)s/x.tif"),
        action("x", "-name value", "alias = job-%(unique_exe_id)s"),
        format_args!(
            "[Action_ini]\nclass = updateINIfile\ninput_ref = x\nalias = k%(unique_exe_id)s\nsection = s%(unique_exe_id)s\n\
             source_filepath = {}/t.ini\ntarget_filepath = %(workdir)s/o.ini\n",
            folder.path().display()
        ),
    ));
    let DataType::Literal(shown) = &descriptor.description().inputs[0].data else { panic!("a literal") };
    assert_eq!(shown.default.as_deref(), Some("/w/%(unique_exe_id)s/x.tif"));
    let plan = plan(&descriptor, &json!({})).unwrap();
    assert_eq!(plan.args[1..], [format!("-job-{EXECUTION}"), format!("/w/{EXECUTION}/x.tif")]);
    let written = format!("[a]\n[s{EXECUTION}]\nk{EXECUTION} = /w/{EXECUTION}/x.tif\n");
    assert_eq!(planned(&plan, "o.ini"), written);
    assert_eq!(plan.outputs[0].upload, Some(Some(format!("up/{EXECUTION}"))));
}

#[test]
fn a_value_cannot_become_an_option() {
    let alone = |more: &str| sample(&format!("{}{}", param("x", "string", more), action("x", "value", "")));
    assert_eq!(fault(&alone(""), &json!({"x": "--evil"})).1, "x");
    assert_eq!(argv(&alone("allow_leading_dash = true"), &json!({"x": "--fine"}))[2], "--fine");
    let named = sample(&format!("{}{}", param("x", "string", ""), action("x", "-name value", "")));
    assert_eq!(argv(&named, &json!({"x": "-v"}))[2..], ["-x", "-v"]);
    let spread = sample(&format!(
        "{}{}",
        param("x", "string", "max = 0\nmulti = spread"),
        action("x", "-name value", "")
    ));
    assert_eq!(fault(&spread, &json!({"x": ["a", "-b"]})).1, "x");
    // Where it begins an argument, whatever follows; after an option it is that option's argument.
    let with = |template: &str| sample(&format!("{}{}", param("x", "string", ""), action("x", template, "")));
    for exposed in ["value.tif", "value,name", "file value", "file --name {name} {value}.tif extra {value}"] {
        assert_eq!(fault(&with(exposed), &json!({"x": "-o/etc"})).1, "x", "{exposed}");
    }
    for safe in ["-o value.tif", "--name=value", "@value"] {
        argv(&with(safe), &json!({"x": "-o/etc"}));
    }
}

#[test]
fn several_values_are_passed_in_four_ways() {
    let with = |multi: &str, template: &str| {
        let sections =
            format!("{}{}", param("x", "string", &format!("max = 0\n{multi}")), action("x", template, ""));
        argv(&sample(&sections), &json!({"x": ["a b", "c"]}))[2..].to_vec()
    };
    assert_eq!(with("", "-name value"), ["-x", "a b", "-x", "c"]);
    assert_eq!(with("multi = repeat", "--name=value"), ["--x=a b", "--x=c"]);
    assert_eq!(with("multi = spread", "-name value"), ["-x", "a b", "c"]);
    assert_eq!(with("multi = join:,", "-name T=value"), ["-x", "T=a b,c"]);
    assert_eq!(with("multi = json", "value"), ["[\"a b\",\"c\"]"]);
    assert_eq!(with("", "--name"), ["--x"], "a switch is set once");
}

#[test]
fn switches_are_set_by_true_only() {
    let descriptor = sample(&format!(
        "{}{}",
        param("loud", "boolean", "min = 0"),
        action("loud", "--name=value", "flag = true")
    ));
    assert_eq!(argv(&descriptor, &json!({"loud": true}))[2..], ["--loud"]);
    assert_eq!(argv(&descriptor, &json!({"loud": false})).len(), 2);
    assert_eq!(argv(&descriptor, &json!({})).len(), 2);
}

#[test]
fn documents_become_files_or_arguments() {
    let descriptor = sample(&format!(
        "{}{}{}{}",
        param("doc", "text/csv", "max = 2"),
        action("doc", "--name=value", ""),
        param("j", "application/json", "min = 0\npass_by = file\nmax_bytes = 10"),
        action("j", "value", "")
    ));
    let one = plan(&descriptor, &json!({"doc": "a,b\n1,2\n"})).unwrap();
    assert_eq!(one.args[1], format!("--doc=/w/{EXECUTION}/in/doc.csv"));
    assert_eq!(planned(&one, "in/doc.csv"), "a,b\n1,2\n");
    assert_eq!(
        one.make_dirs,
        [PathBuf::from("/w").join(EXECUTION), PathBuf::from("/w").join(EXECUTION).join("in")]
    );
    let two = plan(&descriptor, &json!({"doc": ["x", "y"], "j": "{}"})).unwrap();
    assert_eq!(two.args[1..3], ["-1", "-2"].map(|n| format!("--doc=/w/{EXECUTION}/in/doc{n}.csv")));
    assert_eq!(two.args[3], format!("/w/{EXECUTION}/in/j.json"));
    assert_eq!(fault(&descriptor, &json!({"doc": "x", "j": "[1,2,3,4,5]"})).1, "j");
    let bytes = |bytes: &[u8]| Value::Complex {
        content: Content::Bytes(bytes.to_vec()),
        media_type: "image/tiff".into(),
        schema: None,
    };
    let raster = sample(&format!("{}{}", param("r", "image/geotiff", ""), action("r", "value", "")));
    let plan = prepare(&raster, &run_context(), &vec![Input { id: "r".into(), value: bytes(b"II*\0\xff") }])
        .unwrap();
    assert_eq!(plan.args[1], format!("/w/{EXECUTION}/in/r.tif"));
    assert_eq!(plan.files[0].content, FileContent::Bytes(b"II*\0\xff".to_vec()));
    let inline =
        sample(&format!("{}{}", param("r", "image/geotiff", "pass_by = value"), action("r", "value", "")));
    let found = prepare(&inline, &run_context(), &vec![Input { id: "r".into(), value: bytes(b"a\0b") }]);
    assert!(matches!(found, Err(PrepareError::Input(_))), "{found:?}");
    let long =
        sample(&format!("{}{}", param("t", "text/plain", "pass_by = value"), action("t", "value", "")));
    assert_eq!(argv(&long, &json!({"t": "line\nline"}))[2], "line\nline");
    assert_eq!(fault(&long, &json!({"t": "x".repeat(200_000)})).1, "t");
}

#[test]
fn documents_are_held_against_the_format_that_they_come_in() {
    let mime = "pass_by = file\ninput_mime_type = text/xml,text/plain,application/json";
    let descriptor = sample(&format!("{}{}", param("x", "text/xml", mime), action("x", "value", "")));
    let planned = |text: &str, media_type: &str| {
        let content = Content::Text(text.into());
        let value = Value::Complex { content, media_type: media_type.into(), schema: None };
        prepare(&descriptor, &run_context(), &vec![Input { id: "x".into(), value }])
            .map(|plan| plan.argv()[2].clone())
    };
    for (text, media_type, file) in [
        ("<a/>", "", "x.xml"),
        ("<a/>", "text/xml", "x.xml"),
        ("plain <text>", "text/plain", "x.txt"),
        ("{\"a\": 1}", "Application/JSON", "x.json"),
    ] {
        let argument =
            planned(text, media_type).unwrap_or_else(|error| panic!("{text} {media_type}: {error}"));
        assert!(argument.ends_with(file), "{argument}");
    }
    // The default format, one that is not listed, and a listed one that it is not.
    for (text, media_type) in
        [("plain", "text/xml"), ("plain", ""), ("plain", "text/csv"), ("{", "application/json")]
    {
        assert!(planned(text, media_type).is_err(), "{text} {media_type}");
    }
}

#[cfg(unix)]
#[test]
fn files_of_the_shared_folder_are_passed_by_path_and_cannot_climb() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    std::fs::write(dir.path().join("in/a.csv"), "1,2\n").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("in/link")).unwrap();
    let with = |path: &str, more: &str| {
        let descriptor = sample(&format!("{}{}", param("d", "text/csv", more), action("d", "value", "")));
        let content = Content::Shared(wps_remote_protocol::SharedFile {
            path: path.to_owned(),
            bytes: 4,
            sha256: None,
        });
        let value = Value::Complex { content, media_type: "text/csv".into(), schema: None };
        let context = RunContext { shared_dir: Some(dir.path().to_path_buf()), ..run_context() };
        prepare(&descriptor, &context, &vec![Input { id: "d".into(), value }])
    };
    let plan = with("in/a.csv", "").unwrap();
    assert_eq!(plan.args[1], dir.path().join("in/a.csv").to_str().unwrap());
    assert_eq!(with("in/a.csv", "pass_by = value").unwrap().args[1], "1,2\n");
    for bad in ["../etc/passwd", "/etc/passwd", "in/../../x", "in/link"] {
        assert!(matches!(with(bad, ""), Err(PrepareError::Input(_))), "{bad}");
    }
    assert!(matches!(with("in/a.csv", "max_bytes = 3"), Err(PrepareError::Input(_))));
    assert!(matches!(with("in/none", ""), Err(PrepareError::Setup(_))));
}

#[test]
fn actions_write_files_environment_and_standard_input() {
    let descriptor = sample(&format!(
        "{}{}{}\
         [Action1]\nclass = writefile\ninput_ref = doc\ntarget_filepath = %(workdir)s/sub/doc.csv\ntemplate = --name=value\n\
         [Action2]\nclass = env\ninput_ref = word\nvariable = THE_WORD\n\
         [Action3]\nclass = stdin\ninput_ref = doc\n\
         [Action4]\nclass = createJSONfile\ninput_ref = j\ntarget_filepath = %(workdir)s/j.json\ntemplate = value\n\
         [Environment]\nLANG = C.UTF-8\nRUN = run-%(unique_exe_id)s\n",
        param("doc", "text/csv", ""),
        param("word", "string", "max = 3"),
        param("j", "application/json", "min = 0\nmax = 3"),
    ));
    let plan = plan(&descriptor, &json!({"doc": "a\n", "word": ["x y", "z"], "j": ["{\"n\": 1.10}", "{}"]}))
        .unwrap();
    let dir = format!("/w/{EXECUTION}");
    assert_eq!(
        plan.args[1..],
        [format!("--doc={dir}/sub/doc.csv"), format!("{dir}/j-1.json"), format!("{dir}/j-2.json")]
    );
    assert_eq!(planned(&plan, "sub/doc.csv"), "a\n");
    assert_eq!(planned(&plan, "j-1.json"), "{\"n\": 1.10}", "every digit as it was received");
    assert_eq!(plan.stdin.as_deref(), Some(&b"a\n"[..]));
    let env = |name: &str| plan.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(env("THE_WORD"), Some("x y,z"));
    assert_eq!(env("LANG"), Some("C.UTF-8"));
    assert_eq!(env("RUN"), Some(format!("run-{EXECUTION}").as_str()));
    assert_eq!(env("WPS_EXECUTION_ID"), Some(EXECUTION));
    assert_eq!(env("WPS_WORKDIR"), Some(dir.as_str()));
    assert_eq!(
        (env("WPS_SERVICE"), env("WPS_NAMESPACE"), env("WPS_BASE_URL")),
        (Some("S"), Some("n"), Some(""))
    );
}

#[test]
fn file_names_from_documents_cannot_climb() {
    let (descriptor, _) = relocated("04-shell-json-files.config", "/opt/wps/sampling");
    let descriptor = ServiceDescriptor {
        actions: descriptor
            .actions
            .into_iter()
            .map(|mut action| {
                if let crate::descriptor::model::ActionKind::CreateJson { schema, .. } = &mut action.what {
                    *schema = None;
                }
                action
            })
            .collect(),
        ..descriptor
    };
    for number in [
        json!("../../x"),
        json!(".."),
        json!("a/b"),
        json!(1.5),
        json!(null),
        json!(""),
        json!("x".repeat(129)),
    ] {
        let station = json!({"station": {"number": number}}).to_string();
        let found = fault(&descriptor, &json!({"campaign": "c", "station": station}));
        assert_eq!(found.1, "station", "{station}");
    }
}

#[test]
fn sensitive_values_are_masked() {
    let descriptor = sample(&format!(
        "{}{}",
        param("key", "string", "sensitive = true"),
        action("key", "--name=value", "")
    ));
    let plan = plan(&descriptor, &json!({"key": "hunter2"})).unwrap();
    assert_eq!(plan.masked(&plan.argv().join(" ")), "/bin/prog -q --key=****");
}

#[test]
fn boxes_reach_the_program_with_their_system() {
    let ini = "[Description]\nservice = s\nnamespace = n\nexecutable = /bin/true\n[Input]\n\
        area = {\"type\": \"bbox\", \"min\": 0, \"default\": \"0,0,1,1\", \"crs\": [\"EPSG:4326\", \"EPSG:25832\"]}\n\
        [Output]\nr = {\"type\": \"bbox\", \"file\": \"r.txt\"}\n";
    let descriptor = load(Path::new("/srv/box.ini"), ini);
    let last = |inputs: &Json| argv(&descriptor, inputs).last().cloned().unwrap_or_default();
    assert!(last(&json!({})).ends_with("0,0,1,1,EPSG:4326"));
    assert!(
        last(&json!({"area": "-7,40.5,2,50,urn:ogc:def:crs:EPSG::25832"}))
            .ends_with("-7,40.5,2,50,EPSG:25832")
    );
    let invalid = (InputFault::InvalidParameterValue, "area".to_owned());
    assert_eq!(fault(&descriptor, &json!({"area": "1,2,3"})), invalid);
    assert_eq!(fault(&descriptor, &json!({"area": "1,2,3,4,EPSG:1"})), invalid);
    let area = BoundingBox { crs: None, lower: vec![1.0, 2.0], upper: vec![3.0, 4.25] };
    let inputs = vec![Input { id: "area".into(), value: Value::BoundingBox(area) }];
    let plan = prepare(&descriptor, &run_context(), &inputs).unwrap();
    assert!(plan.argv().last().unwrap().ends_with("1,2,3,4.25,EPSG:4326"));
    let described = descriptor.description();
    let systems = |data: &DataType| match data {
        DataType::BoundingBox(data) => data.crs.join(" "),
        other => panic!("{other:?}"),
    };
    assert_eq!(systems(&described.inputs[0].data), "EPSG:4326 EPSG:25832");
    assert_eq!(systems(&described.outputs[0].data), "EPSG:4326");
}
