//! The body of a file of dialect A without what the old one was warned of: what had no effect is left out, what was not
//! obvious is said plainly, and everything else stays as its author wrote it, references included.

use std::path::Path;

use wps_remote_protocol::ini::{DEFAULT_SECTION, Document, Entry, Finding, Section};

use super::write::{self, Sheet, literal, numbered};
use crate::descriptor::model::{Action, ActionKind, ServiceDescriptor};
use crate::descriptor::paths;

/// Warnings that are about the names of sections or their order.
const NAMES: [&str; 3] = ["role-by-substring", "several-roles", "text-order"];
/// Warnings after which `[Logging]` is written anew.
const LISTS: [&str; 4] = ["list-without-brackets", "list-lengths", "unknown-action", "list-split"];

/// Writes it.
pub(super) fn body(doc: &Document, old: &ServiceDescriptor) -> String {
    let tidy = Tidy { doc, old, rename: old.warnings.iter().any(|warning| NAMES.contains(&warning.code)) };
    let mut sheet = Sheet::default();
    if let Some(section) = doc.section(DEFAULT_SECTION) {
        sheet.section(DEFAULT_SECTION);
        section.entries.iter().for_each(|entry| tidy.default_key(&mut sheet, section, entry));
    }
    let lines = |lines: Vec<usize>| -> Vec<&Section> {
        lines.iter().filter_map(|line| doc.sections().iter().find(|section| section.line == *line)).collect()
    };
    let inputs = lines(old.inputs.iter().map(|input| input.line).collect());
    tidy.role(&mut sheet, "Input", &inputs, |sheet, section, entry| tidy.input_key(sheet, section, entry));
    let is_const = |section: &&Section| {
        let name = section.raw("name").unwrap_or_default();
        section.raw("class") == Some("const") && old.consts.iter().any(|known| known.name == name)
    };
    // Of two consts with one name the later section counts.
    let mut consts: Vec<&Section> = Vec::new();
    for constant in &old.consts {
        let same = doc.sections().iter().filter(is_const);
        let mut same: Vec<_> = same.filter(|section| section.raw("name") == Some(&constant.name)).collect();
        same.sort_by(|a, b| a.name.cmp(&b.name));
        consts.extend(same.pop());
    }
    tidy.role(&mut sheet, "Const", &consts, |sheet, section, entry| tidy.plain_key(sheet, section, entry));
    let actions = lines(old.actions.iter().map(|action| action.line).collect());
    tidy.role(&mut sheet, "Action", &actions, |sheet, section, entry| tidy.action_key(sheet, section, entry));
    let outputs = lines(old.outputs.iter().map(|output| output.line).collect());
    tidy.role(&mut sheet, "Output", &outputs, |sheet, section, entry| tidy.plain_key(sheet, section, entry));
    tidy.others(&mut sheet);
    sheet.finish()
}

struct Tidy<'a> {
    doc: &'a Document,
    old: &'a ServiceDescriptor,
    rename: bool,
}

impl Tidy<'_> {
    fn warned(&self, code: &str, line: usize) -> bool {
        self.old.warnings.iter().any(|warning| warning.code == code && warning.line == line)
    }

    /// Whether a key has no effect.
    fn is_idle(&self, section: &Section, entry: &Entry) -> bool {
        let of_key = |warning: &&Finding| {
            warning.section.as_deref() == Some(&section.name) && warning.key.as_deref() == Some(&entry.key)
        };
        self.old.warnings.iter().filter(of_key).any(|warning| warning.code == "unknown-key")
    }

    fn default_key(&self, sheet: &mut Sheet, section: &Section, entry: &Entry) {
        if self.is_idle(section, entry) {
            return;
        }
        let cut = ["blank-in-command", "relative-path"];
        let command = self.old.warnings.iter().any(|warning| {
            cut.contains(&warning.code)
                && matches!(warning.key.as_deref(), Some("executable_cmd" | "executable_path"))
        });
        match entry.key.as_str() {
            "active" if self.warned("active-not-boolean", entry.line) => sheet.key("active", "false"),
            "executable_cmd" if command => {
                sheet.key("executable_cmd", write::command(&self.old.program.words))
            }
            "executable_path" | "output_dir" | "cwd" if self.warned("relative-path", entry.line) => {
                let path = paths::absolute(Path::new(&entry.value), self.old.dir());
                sheet.key(&entry.key, literal(&path.to_string_lossy()));
            }
            _ => sheet.key(&entry.key, &entry.value),
        }
    }

    fn plain_key(&self, sheet: &mut Sheet, section: &Section, entry: &Entry) {
        if self.is_idle(section, entry) {
            return;
        }
        let line = section.line;
        let relative = |key: &str| {
            (self.warned("relative-path", line) || self.warned("relative-path", entry.line))
                && entry.key == key
        };
        if (relative("filepath") || relative("target_filepath")) && !entry.value.starts_with(['/', '%']) {
            // The run directory; `workdir` may be another one.
            sheet.key(&entry.key, format!("{}/{}", self.run_dir(), entry.value));
        } else if (relative("source_filepath") || relative("json_schema")) && !entry.value.contains("%(") {
            let path = paths::absolute(Path::new(&entry.value), self.old.dir());
            sheet.key(&entry.key, literal(&path.to_string_lossy()));
        } else {
            sheet.key(&entry.key, &entry.value);
        }
    }

    fn run_dir(&self) -> String {
        match self.old.extra_dir {
            None => "%(workdir)s".to_owned(),
            Some(_) => format!("{}/%(unique_exe_id)s", self.old.output_dir.display()),
        }
    }

    fn input_key(&self, sheet: &mut Sheet, section: &Section, entry: &Entry) {
        match entry.key.as_str() {
            "max" if self.warned("max-zero", entry.line) || self.warned("negative-count", entry.line) => {
                sheet.key("max", "unbounded");
            }
            "min" if self.warned("negative-count", entry.line) => sheet.key("min", "0"),
            "default" if self.warned("bad-default", entry.line) => {}
            _ => self.plain_key(sheet, section, entry),
        }
    }

    fn action_key(&self, sheet: &mut Sheet, section: &Section, entry: &Entry) {
        let odd = ["template-substring", "template-order", "template-constant"];
        let action = self.old.actions.iter().find(|action| action.line == section.line);
        let words = match action.map(|action: &Action| &action.what) {
            Some(
                ActionKind::CommandLine { words, .. }
                | ActionKind::CreateJson { words, .. }
                | ActionKind::WriteFile { words, .. },
            ) => words.as_slice(),
            _ => &[],
        };
        let template_line = section.entry("template").map_or(0, |entry| entry.line);
        let anew = !words.is_empty() && odd.iter().any(|code| self.warned(code, template_line));
        match entry.key.as_str() {
            "alias" if anew => {}
            "template" if anew => write::words(sheet, words),
            _ => self.plain_key(sheet, section, entry),
        }
    }

    fn role(
        &self,
        sheet: &mut Sheet,
        role: &str,
        sections: &[&Section],
        key: impl Fn(&mut Sheet, &Section, &Entry),
    ) {
        for (index, section) in sections.iter().enumerate() {
            if self.rename {
                sheet.section(&numbered(role, index, sections.len()));
            } else {
                sheet.section(&section.name);
            }
            section.entries.iter().for_each(|entry| key(sheet, section, entry));
        }
    }

    /// Sections without a role: those that are read, and those of others who read this file, too.
    fn others(&self, sheet: &mut Sheet) {
        for section in self.doc.sections() {
            let name = section.name.to_lowercase();
            let has_role = ["input", "const", "output", "action"].iter().any(|role| name.contains(role));
            let idle = self.warned("unknown-section", section.line);
            if section.name == DEFAULT_SECTION || has_role || idle {
                continue;
            }
            if section.name == "Logging" && self.old.warnings.iter().any(|w| LISTS.contains(&w.code)) {
                write::logging(sheet, &self.old.rules);
                continue;
            }
            sheet.section(&section.name);
            for entry in section.entries.iter().filter(|entry| !self.is_idle(section, entry)) {
                sheet.key(&entry.key, &entry.value);
            }
        }
    }
}
