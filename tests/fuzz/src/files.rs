//! Whole files: the INI reader, references between keys, and descriptors from the bytes to the command line.

use std::path::{Path, PathBuf};

use wps_remote_agent::command::{self, RunContext};
use wps_remote_agent::descriptor::ServiceDescriptor;
use wps_remote_agent::descriptor::load::{LoadContext, Loaded, load, load_descriptor};
use wps_remote_agent::descriptor::model::Kind;
use wps_remote_protocol::ini::{Document, MAX_FILE, Options, Piece, Template, Variable, Variables};
use wps_remote_protocol::{Content, ExecutionId, Input, Inputs, Value};

/// The sections whose values are JSON objects, as in the simplified form of descriptors.
const OBJECTS: &[&str] = &["Input", "Output"];
const FOLDED: &[(&str, bool)] = &[("Description", true), ("Input", false)];

fn ways() -> [Options; 4] {
    [
        Options::new("f"),
        Options::new("f").ignoring_case(),
        Options { latin1: true, ..Options::new("f") },
        Options { object_sections: OBJECTS, folded_sections: FOLDED, ..Options::new("f") },
    ]
}

/// The INI reader in every manner: places are real, and a comment at the end changes nothing.
pub fn ini(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    for options in ways() {
        match Document::parse(data, &options) {
            Ok(doc) => {
                for section in doc.sections() {
                    assert!((1..=lines).contains(&section.line));
                    for entry in &section.entries {
                        assert!((1..=lines).contains(&entry.line));
                        assert!(
                            !entry.key.is_empty() && entry.replaced.is_none_or(|before| before < entry.line)
                        );
                    }
                }
                assert!(doc.warnings().iter().all(|warning| warning.line <= lines && !warning.fatal));
                let dedented = doc.warnings().iter().any(|warning| warning.code == "dedented");
                let longer = [data, b"\n# the end\n"].concat();
                if !dedented && let Ok(longer) = Document::parse(&longer, &options) {
                    assert_eq!(doc.sections(), longer.sections());
                }
            }
            Err(error) => {
                assert!(!error.findings.is_empty() && !error.to_string().is_empty());
                assert!(error.findings.iter().all(|finding| finding.line <= lines));
            }
        }
    }
}

/// References: results are bounded, in the shortest form, and what is open is a run variable.
pub fn interpolation(data: &[u8]) {
    let Ok(doc) = Document::parse(data, &Options::new("f")) else { return };
    let vars = Variables::default()
        .with("unique_exe_id", Variable::AtRun)
        .with("shared", Variable::Unset("set it".to_owned()))
        .with("host_name", Variable::Text("h".to_owned()));
    let keys =
        doc.sections().iter().flat_map(|section| section.entries.iter().map(move |entry| (section, entry)));
    // Every value may grow to 64 KiB: a hundred of them tell as much as ten thousand.
    for (section, entry) in keys.take(100) {
        match doc.resolve(&section.name, &entry.key, &vars) {
            Ok(Some(template)) => {
                shortest(&template);
                assert_eq!(template.is_fixed(), template.fixed().is_some());
                if !entry.value.contains("%(") {
                    assert_eq!(template.to_string(), entry.value);
                }
            }
            Ok(None) => unreachable!("the key is there"),
            Err(finding) => assert!(finding.fatal && finding.line > 0 && finding.remedy.is_some()),
        }
    }
}

fn shortest(template: &Template) {
    let literal = |piece: &Piece| matches!(piece, Piece::Literal(_));
    for pair in template.pieces().windows(2) {
        assert!(!(literal(&pair[0]) && literal(&pair[1])));
    }
    for piece in template.pieces() {
        match piece {
            Piece::Literal(text) => assert!(!text.is_empty() && text.len() <= MAX_FILE),
            Piece::Variable(name) => assert_eq!(name, "unique_exe_id"),
        }
    }
}

/// A descriptor of either dialect, from its bytes to the announcement and to the command line of a run.
pub fn descriptor(data: &[u8]) {
    let work = PathBuf::from("/nonexistent/work");
    let file = Path::new("/nonexistent/services/s.config");
    for latin1 in [false, true] {
        let context = LoadContext { latin1, ..LoadContext::bare(work.clone()) };
        let descriptor = match load_descriptor(file, data, &context) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                assert!(!error.findings.is_empty());
                assert!(!matches!(load(file, data, &context), Loaded::Descriptor(_)));
                continue;
            }
        };
        descriptor.description();
        let Ok(execution) = ExecutionId::new("0123456789abcdef") else { return };
        let run = RunContext::new(execution.clone());
        let Ok(plan) = command::prepare(&descriptor, &run, &inputs(&descriptor)) else { continue };
        let own = descriptor.run_dir(&execution);
        for file in &plan.files {
            assert!(
                file.path.starts_with(&own) || plan.make_dirs.iter().any(|dir| file.path.starts_with(dir))
            );
        }
    }
}

/// One value for each input, right or wrong.
fn inputs(descriptor: &ServiceDescriptor) -> Inputs {
    let mut inputs = Inputs::new();
    for spec in &descriptor.inputs {
        let value = match spec.kind {
            Kind::Json => document("{\"a\": [1, {\"b\": null}]}"),
            Kind::Xml => document("<a b='c'/>"),
            Kind::Text | Kind::Binary => document("text"),
            Kind::Box => Value::literal("0,0,1,1"),
            Kind::Literal(_) => Value::literal(spec.checks.allowed.first().map_or("1", String::as_str)),
        };
        inputs.push(Input { id: spec.name.clone(), value });
    }
    inputs
}

fn document(text: &str) -> Value {
    Value::Complex { content: Content::Text(text.to_owned()), media_type: String::new(), schema: None }
}
