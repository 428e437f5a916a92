//! The body of a file of dialect A that says what one of dialect B says.

use wps_remote_protocol::ini::Document;

use super::same::started_template;
use super::write::{self, Sheet, literal, numbered, template};
use crate::descriptor::model::{
    Action, ActionKind, ConstSpec, InputSpec, Kind, Multi, Operand, OutputSpec, PassBy, Place,
    ServiceDescriptor,
};
use crate::rules::Rules;

/// Writes it. What dialect A has no words for is left out; the comparison finds it.
pub(super) fn body(doc: &Document, old: &ServiceDescriptor) -> String {
    let mut sheet = Sheet::default();
    default(&mut sheet, doc, old);
    for (index, input) in old.inputs.iter().enumerate() {
        sheet.section(&numbered("Input", index, old.inputs.len()));
        write_input(&mut sheet, input);
    }
    for (index, constant) in old.consts.iter().enumerate() {
        sheet.section(&numbered("Const", index, old.consts.len()));
        write_const(&mut sheet, constant, doc);
    }
    for (index, action) in old.actions.iter().enumerate() {
        sheet.section(&numbered("Action", index, old.actions.len()));
        write_action(&mut sheet, action, old);
    }
    for (index, output) in old.outputs.iter().enumerate() {
        sheet.section(&numbered("Output", index, old.outputs.len()));
        write_output(&mut sheet, output);
    }
    if doc.section("Logging").is_some() || old.rules.log_unmatched {
        let rules = Rules::clone(&old.rules);
        write::logging(&mut sheet, &rules);
    }
    for section in doc.sections() {
        if ["Environment", "Limits", "Access"].iter().any(|name| section.name.eq_ignore_ascii_case(name)) {
            sheet.section(&section.name);
            section.entries.iter().for_each(|entry| sheet.key(&entry.key, &entry.value));
        }
    }
    sheet.finish()
}

fn default(sheet: &mut Sheet, doc: &Document, old: &ServiceDescriptor) {
    let raw = |section: &str, key: &str| doc.section(section).and_then(|section| section.raw(key));
    sheet.section("DEFAULT");
    sheet.key("service", old.id.name());
    sheet.key("namespace", old.id.namespace());
    sheet.some("title", old.title.as_deref().map(literal));
    sheet.key("description", literal(&old.description));
    sheet.some("version", old.version.as_deref().map(literal));
    sheet.some("keywords", raw("Description", "keywords"));
    sheet.key("active", old.active.to_string());
    sheet.flag("retry_safe", old.repeatable, false);
    sheet.some("output_dir", raw("Options", "output_dir"));
    sheet.key("workdir", "%(output_dir)s/%(unique_exe_id)s");
    sheet.key("max_running_time_seconds", old.max_running.map_or(0, |limit| limit.as_secs()).to_string());
    sheet.key("executable_path", old.cwd.as_ref().map_or_else(|| "%(workdir)s".to_owned(), template));
    sheet.key("executable_cmd", write::command(&started_template(old)));
    for key in ["process_weight", "weight_command"] {
        sheet.some(key, raw("Options", key));
    }
    sheet.flag("private_tmp", old.private_tmp, false);
    sheet.flag("allow_batch", old.program.allow_batch, false);
    sheet.flag("debug", old.debug, false);
}

fn list(texts: &[String]) -> String {
    serde_json::Value::from(texts.to_vec()).to_string()
}

fn write_input(sheet: &mut Sheet, input: &InputSpec) {
    sheet.key("class", "param");
    sheet.key("name", literal(&input.name));
    sheet.key("type", literal(&input.declared));
    sheet.some("title", input.title.as_deref().map(literal));
    sheet.key("description", literal(&input.description));
    sheet.key("min", input.min.to_string());
    sheet.key("max", input.max.map_or_else(|| "unbounded".to_owned(), |max| max.to_string()));
    match input.default.as_slice() {
        [] => {}
        [one] => sheet.key("default", literal(one)),
        more => sheet.key("default", literal(&list(more))),
    }
    sheet.some("input_mime_type", input.declared_media_types.as_deref().map(literal));
    sheet.some("formatter", input.formatter.as_deref().map(literal));
    let checks = &input.checks;
    if !checks.allowed.is_empty() {
        sheet.key("enum", literal(&list(&checks.allowed)));
    }
    sheet.some("pattern", checks.pattern.as_ref().map(|pattern| literal(pattern.source())));
    sheet.some("min_length", checks.min_length.map(|n| n.to_string()));
    sheet.some("max_length", checks.max_length.map(|n| n.to_string()));
    if let Some((low, high)) = &checks.range {
        let end = |end: &Option<String>| end.clone().unwrap_or_else(|| "null".to_owned());
        sheet.key("range", literal(&format!("[{}, {}]", end(low), end(high))));
    }
    sheet.some("forbid", checks.forbid.as_deref().map(literal));
    sheet.flag("allow_leading_dash", checks.allow_leading_dash, false);
    sheet.flag("allow_nan", checks.allow_nan, false);
    if !checks.url_schemes.is_empty() {
        sheet.key("url_schemes", format!("[{}]", checks.url_schemes.join(", ")));
    }
    sheet.some("max_bytes", checks.max_bytes.map(|n| n.to_string()));
    match &input.multi {
        Multi::Repeat => {}
        Multi::Spread => sheet.key("multi", "spread"),
        Multi::Json => sheet.key("multi", "json"),
        Multi::Join(separator) => sheet.key("multi", literal(&format!("join:{separator}"))),
    }
    if input.kind.is_complex() || input.pass_by == PassBy::File {
        sheet.key("pass_by", if input.pass_by == PassBy::File { "file" } else { "value" });
    }
    sheet.flag("sensitive", input.sensitive, false);
    sheet.some("uom", input.uom.as_deref().map(literal));
}

fn write_const(sheet: &mut Sheet, constant: &ConstSpec, doc: &Document) {
    let object = doc.section("Input").and_then(|section| section.raw(&constant.name));
    let object: Option<serde_json::Value> = object.and_then(|text| serde_json::from_str(text).ok());
    let member = |name: &str| object.as_ref().and_then(|object| object[name].as_str());
    sheet.key("class", "const");
    sheet.key("name", literal(&constant.name));
    sheet.key("type", literal(member("type").unwrap_or("string")));
    sheet.key("description", literal(member("description").unwrap_or("")));
    sheet.key("value", template(&constant.value));
}

fn write_action(sheet: &mut Sheet, action: &Action, old: &ServiceDescriptor) {
    let ActionKind::CommandLine { operand, words, flag } = &action.what else { return };
    let name = match operand {
        Operand::Input(index) => old.inputs.get(*index).map(|input| &input.name),
        Operand::Const(index) => old.consts.get(*index).map(|constant| &constant.name),
    };
    sheet.key("class", "cmdline");
    sheet.some("input_ref", name.map(|name| literal(name)));
    write::words(sheet, words);
    sheet.flag("flag", *flag, false);
}

fn write_output(sheet: &mut Sheet, output: &OutputSpec) {
    sheet.key("name", literal(&output.name));
    sheet.key("type", literal(&output.declared));
    sheet.some("title", output.title.as_deref().map(literal));
    sheet.some("description", output.description.as_deref().map(literal));
    sheet.some("output_mime_type", output.declared_media_types.as_deref().map(literal));
    match &output.place {
        Place::File(file) => {
            // Beside a reference, a per cent sign is written twice.
            sheet.key("filepath", format!("%(workdir)s/{}", file.to_string().replace('%', "%%")));
        }
        Place::Contract => sheet.key("source", "json"),
        Place::Stdout => sheet.key("source", "stdout"),
        Place::Matching(_) | Place::Composed => {}
    }
    sheet.flag("required", output.required, true);
    sheet.some("min_bytes", output.min_bytes.map(|n| n.to_string()));
    sheet.some("max_bytes", output.max_bytes.map(|n| n.to_string()));
    sheet.flag("backup_on_wps_execution_shared_dir", output.backup, false);
    if output.sidecars {
        sheet.key("sidecars", "stem");
    }
    if let Some(root) = &output.upload {
        sheet.key("upload_data", "true");
        sheet.some("upload_data_root", root.as_deref().map(literal));
    }
    sheet.some("publish_as_layer", output.publish.as_layer.as_deref().map(literal));
    sheet.some("publish_layer_name", output.publish.layer.as_deref().map(literal));
    sheet.some("publish_default_style", output.publish.style.as_deref().map(literal));
    sheet.some("publish_target_workspace", output.publish.workspace.as_deref().map(literal));
    sheet.some("publish_metadata", output.publish.metadata.as_ref().map(template));
    debug_assert!(output.crs.is_empty() || output.kind == Kind::Box);
}
