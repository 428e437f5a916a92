//! Actions of dialect A.

use std::path::Path;

use wps_remote_protocol::LiteralType;
use wps_remote_protocol::ini::Template;

use super::when;
use crate::command::json_path::JsonPath;
use crate::command::schema;
use crate::command::template::{self, Style};
use crate::descriptor::common::{Reading, SAMPLE_ID};
use crate::descriptor::model::{Action, ActionKind, Kind, Operand, ServiceDescriptor, Word};
use crate::descriptor::paths;
use crate::descriptor::words::template_words;
use crate::workdir::LOG_FILE;

const ACTION_KEYS: [&str; 16] = [
    "class",
    "input_ref",
    "template",
    "alias",
    "flag",
    "when",
    "overwrite",
    "create_parents",
    "target_filepath",
    "source_filepath",
    "json_schema",
    "json_path_expr",
    "section",
    "variable",
    "name",
    "description",
];

const CLASSES: [&str; 9] = [
    "cmdline",
    "createJSONfile",
    "updateJSONfile",
    "copyfile",
    "updateINIfile",
    "updateINIfileList",
    "writefile",
    "env",
    "stdin",
];

/// Reads the sections in order. `descriptor` has its inputs and consts already.
pub(super) fn read(
    reading: &mut Reading<'_>,
    sections: &[String],
    descriptor: &ServiceDescriptor,
) -> Vec<Action> {
    let mut actions = Vec::new();
    for section in sections {
        let line = reading.doc.section(section).map_or(0, |section| section.line);
        let what = action(reading, section, descriptor);
        let when = when::read(reading, section, descriptor);
        if let Some(what) = what {
            actions.push(Action { what, when, line, section: section.clone() });
        }
    }
    actions
}

fn action(reading: &mut Reading<'_>, section: &str, descriptor: &ServiceDescriptor) -> Option<ActionKind> {
    reading.unknown_keys(section, &ACTION_KEYS);
    let class = reading.required(section, "class", "add `class = cmdline`, or another class")?;
    if !CLASSES.contains(&class.as_str()) {
        let near = wps_remote_protocol::ini::nearest(&class, CLASSES);
        let remedy = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use one of {}", CLASSES.join(", ")),
        };
        reading.error("bad-class", section, "class", format!("`{class}` is not a class of actions"), &remedy);
        return None;
    }
    if class == "copyfile" {
        let source = source(reading, section)?;
        return Some(ActionKind::CopyFile { source, target: target(reading, section, descriptor)? });
    }
    let name = reading.required(section, "input_ref", "add the name of an input or const")?;
    let inputs = descriptor.inputs.iter().position(|input| input.name == name).map(Operand::Input);
    let consts = || descriptor.consts.iter().position(|known| known.name == name).map(Operand::Const);
    let Some(operand) = inputs.or_else(consts) else {
        let names = descriptor
            .inputs
            .iter()
            .map(|i| i.name.as_str())
            .chain(descriptor.consts.iter().map(|c| c.name.as_str()));
        let remedy = match wps_remote_protocol::ini::nearest(&name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name an input or const of this file".to_owned(),
        };
        let why = format!("`{name}` is neither an input nor a const; the action is left out");
        reading.warn("unknown-input-ref", section, "input_ref", why, &remedy);
        return None;
    };
    let alias = reading.template(section, "alias").unwrap_or_else(|| Template::literal(&name));
    match class.as_str() {
        "cmdline" => {
            reading.required_template(section, "template", "add `template = -name value`")?;
            let flag = reading.flag(section, "flag", false);
            let kind = match operand {
                Operand::Input(index) => descriptor.inputs[index].kind,
                Operand::Const(index) => descriptor.consts[index].kind,
            };
            if flag && kind != Kind::Literal(LiteralType::Boolean) {
                let why = format!("`{name}` is not a boolean, so it cannot be a switch");
                reading.error("bad-value", section, "flag", why, "set `type = boolean`, or remove the key");
            }
            let words = words(reading, section, &alias)?;
            Some(ActionKind::CommandLine { operand, words, flag })
        }
        "createJSONfile" => {
            let path = match reading.text(section, "json_path_expr") {
                None => None,
                Some(text) => Some(json_path(reading, section, &text)?),
            };
            let schema = reading.template(section, "json_schema");
            if let Some(schema) = &schema {
                readable(reading, section, "json_schema", schema);
                usable_schema(reading, section, schema);
            }
            Some(ActionKind::CreateJson {
                operand,
                target: target(reading, section, descriptor)?,
                path,
                schema,
                overwrite: reading.flag(section, "overwrite", false),
                words: words(reading, section, &alias)?,
            })
        }
        "updateJSONfile" => {
            let text =
                reading.required(section, "json_path_expr", "add a place such as ['plan']['hours']")?;
            Some(ActionKind::UpdateJson {
                operand,
                source: source(reading, section)?,
                target: target(reading, section, descriptor)?,
                path: json_path(reading, section, &text)?,
                create_parents: reading.flag(section, "create_parents", false),
            })
        }
        "updateINIfile" | "updateINIfileList" => {
            let ini_section = reading.required_template(section, "section", "add the section to change")?;
            let bad_key = alias.to_string().contains(['=', ':', '\n', '\r']);
            if ini_section.to_string().contains([']', '\n', '\r']) || bad_key {
                reading.error(
                    "bad-value",
                    section,
                    "section",
                    "section or key cannot stand in an INI file",
                    "use plain names",
                );
            }
            Some(ActionKind::UpdateIni {
                operand,
                source: source(reading, section)?,
                target: target(reading, section, descriptor)?,
                section: ini_section,
                key: alias,
                as_list: class == "updateINIfileList",
            })
        }
        "writefile" => Some(ActionKind::WriteFile {
            operand,
            target: target(reading, section, descriptor)?,
            words: words(reading, section, &alias)?,
        }),
        "env" => {
            let variable = reading.required(section, "variable", "add `variable = NAME`")?;
            let good = !variable.is_empty()
                && !variable.starts_with(|c: char| c.is_ascii_digit())
                && variable.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good {
                let why = format!("`{variable}` is not a name of an environment variable");
                reading.error("bad-name", section, "variable", why, "use letters, digits and _");
            }
            Some(ActionKind::Env { operand, variable })
        }
        _ => Some(ActionKind::Stdin { operand }),
    }
}

/// The words of `template`; none if there is none.
fn words(reading: &mut Reading<'_>, section: &str, alias: &Template) -> Option<Vec<Word>> {
    let Some(entry) = reading.doc.section(section).and_then(|found| found.entry("template")) else {
        return Some(Vec::new());
    };
    match template_words(reading.doc, section, &entry.value, &reading.vars, Style::Anywhere) {
        Ok(words) => {
            let parsed = template::parse(&words, Style::Anywhere, alias);
            for (code, why) in parsed.oddities {
                reading.warn(code, section, "template", why, "write {name} and {value} to be clear");
            }
            Some(parsed.words)
        }
        Err(finding) => {
            reading.errors.push(finding.at(entry.line).section(section).key("template"));
            None
        }
    }
}

fn json_path(reading: &mut Reading<'_>, section: &str, text: &str) -> Option<JsonPath> {
    match JsonPath::parse(text) {
        Ok(path) => Some(path),
        Err(why) => {
            reading.error(
                "bad-json-path",
                section,
                "json_path_expr",
                why,
                "write subscripts only, such as ['plan']['limits'][1]",
            );
            None
        }
    }
}

fn source(reading: &mut Reading<'_>, section: &str) -> Option<Template> {
    let template = reading.required_template(section, "source_filepath", "add the file to start from")?;
    readable(reading, section, "source_filepath", &template);
    Some(template)
}

/// Warns early of a file that every run will need.
fn readable(reading: &mut Reading<'_>, section: &str, key: &str, template: &Template) {
    let Some(text) = template.fixed() else { return };
    if !Path::new(&text).is_absolute() {
        let why = format!("`{text}` is relative; it is taken as relative to the descriptor");
        reading.warn("relative-path", section, key, why, "write an absolute path");
    }
    let path = paths::absolute(Path::new(&text), reading.dir());
    if !path.is_file() {
        let why = format!("{} is not there; runs will fail until it is", path.display());
        reading.warn("file-missing", section, key, why, "put the file there, or correct the path");
    }
}

/// Warns early of a schema that every run would fail at. It may depend on the run, or be put in place later.
fn usable_schema(reading: &mut Reading<'_>, section: &str, template: &Template) {
    let Some(text) = template.fixed() else { return };
    let path = paths::absolute(Path::new(&text), reading.dir());
    if path.is_file()
        && let Err(why) = schema::load(&path)
    {
        let why = format!("{why}; runs will fail until it is corrected");
        reading.warn(
            "schema-unusable",
            section,
            "json_schema",
            why,
            "correct the schema (drafts 4 to 2020-12)",
        );
    }
}

fn target(reading: &mut Reading<'_>, section: &str, descriptor: &ServiceDescriptor) -> Option<Template> {
    let key = "target_filepath";
    let template = reading.required_template(section, key, "add the file to write, below %(workdir)s")?;
    let text = template.fill(|_| Some(SAMPLE_ID.to_owned()));
    if !Path::new(&text).is_absolute() {
        let why = format!("`{template}` is relative; it is taken as relative to the run directory");
        reading.warn("relative-path", section, key, why, "begin with %(workdir)s");
    }
    let run_dir = descriptor.output_dir.join(SAMPLE_ID);
    let path = paths::absolute(Path::new(&text), &run_dir);
    let extra = descriptor.extra_dir.as_ref().map(|extra| extra.fill(|_| Some(SAMPLE_ID.to_owned())).into());
    let mut roots =
        std::iter::once(run_dir.clone()).chain(extra).chain(descriptor.allowed_paths.iter().cloned());
    if !roots.any(|root| path.starts_with(&root) && path != root) {
        let why = format!("`{template}` lies outside the run directory");
        reading.error(
            "path-outside",
            section,
            key,
            why,
            "write below %(workdir)s, or add the directory to allowed_paths in remote.config",
        );
        return None;
    }
    if path == run_dir.join(LOG_FILE) {
        let why = format!("`{template}` is where the program's output is kept");
        reading.error("path-taken", section, key, why, "write to another file of the run directory");
        return None;
    }
    Some(template)
}
