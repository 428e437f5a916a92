//! Whether two descriptors mean the same: all but file, lines, names of sections and warnings, with every path made
//! absolute and the program as it would be started.

use std::path::Path;

use wps_remote_protocol::ExecutionId;
use wps_remote_protocol::ini::Template;

use crate::command::{self, RunContext};
use crate::descriptor::model::{ActionKind, Dialect, Place, ServiceDescriptor};
use crate::descriptor::paths;
use crate::rules::Rules;

/// Stands for an execution while paths are compared.
const SAMPLE: &str = "0f0f0f0f0f0f0f0f";

/// The first thing in which they differ; `None` = they mean the same.
pub(super) fn difference(old: &ServiceDescriptor, new: &ServiceDescriptor) -> Option<String> {
    let (old, new) = (meaning(old), meaning(new));
    let mut differing = old.lines().zip(new.lines()).filter(|(old, new)| old != new);
    let cut = |text: &str| text.trim().chars().take(120).collect::<String>();
    match differing.next() {
        Some((old, new)) => Some(format!("`{}` would become `{}`", cut(old), cut(new))),
        None if old.lines().count() != new.lines().count() => {
            Some("it has more parts than can be written".to_owned())
        }
        None => None,
    }
}

/// All that a descriptor means, as a text.
pub(super) fn meaning(descriptor: &ServiceDescriptor) -> String {
    let mut d = descriptor.clone();
    let run_dir = d.output_dir.join(SAMPLE);
    let fixed = |template: &Template| {
        template.fill(|name| match name {
            "workdir" => Some(run_dir.to_string_lossy().into_owned()),
            _ => Some(SAMPLE.to_owned()),
        })
    };
    let path = |template: &mut Template, base: &Path| {
        let path = paths::absolute(Path::new(&fixed(template)), base);
        *template = Template::literal(path.to_string_lossy());
    };
    d.program.words = started(&d).into_iter().map(Template::literal).collect();
    d.program.beside = false;
    d.program.interpreters.clear();
    (d.program.line, d.program.key) = (0, "");
    d.dialect = Dialect::A;
    d.hash.clear();
    d.warnings.clear();
    let dir = d.dir().to_owned();
    let mut cwd = d.cwd.take().unwrap_or_else(|| Template::literal(run_dir.to_string_lossy()));
    path(&mut cwd, &dir);
    d.cwd = Some(cwd);
    if let Some(extra) = &mut d.extra_dir {
        path(extra, &dir);
    }
    for (_, value) in &mut d.env {
        *value = Template::literal(fixed(value));
    }
    for input in &mut d.inputs {
        input.line = 0;
        // The two dialects differ in what they take for granted, not in what they mean.
        input.declared_media_types = input.declared_media_types.take().map(|text| text.replace(' ', ""));
    }
    for constant in &mut d.consts {
        constant.value = Template::literal(fixed(&constant.value));
    }
    for action in &mut d.actions {
        action.line = 0;
        action.section.clear();
        match &mut action.what {
            ActionKind::CreateJson { target, schema, .. } => {
                path(target, &run_dir);
                schema.iter_mut().for_each(|schema| path(schema, &dir));
            }
            ActionKind::UpdateJson { source, target, .. }
            | ActionKind::UpdateIni { source, target, .. }
            | ActionKind::CopyFile { source, target } => {
                path(source, &dir);
                path(target, &run_dir);
            }
            ActionKind::WriteFile { target, .. } => path(target, &run_dir),
            ActionKind::CommandLine { .. } | ActionKind::Env { .. } | ActionKind::Stdin { .. } => {}
        }
    }
    for output in &mut d.outputs {
        output.line = 0;
        output.declared_media_types = output.declared_media_types.take().map(|text| text.replace(' ', ""));
        if let Place::File(file) = &mut output.place {
            path(file, &run_dir);
        }
        output.publish.metadata.iter_mut().for_each(|metadata| path(metadata, &dir));
    }
    let mut rules = Rules::clone(&d.rules);
    rules.rules.iter_mut().for_each(|rule| rule.line = 0);
    d.rules = rules.into();
    format!("{d:#?}")
}

/// The program and its fixed arguments as they would be started, or as near to that as is known.
pub(super) fn started(descriptor: &ServiceDescriptor) -> Vec<String> {
    let bare = ServiceDescriptor {
        inputs: Vec::new(),
        consts: Vec::new(),
        actions: Vec::new(),
        ..descriptor.clone()
    };
    let words = || descriptor.program.words.iter().map(ToString::to_string).collect();
    let Ok(execution) = ExecutionId::new(SAMPLE) else { return words() };
    command::prepare(&bare, &RunContext::new(execution), &Vec::new())
        .map_or_else(|_| words(), |plan| plan.argv())
}

/// The same as a template of dialect A: what depends on the run is a reference again.
pub(super) fn started_template(descriptor: &ServiceDescriptor) -> Vec<Template> {
    use wps_remote_protocol::ini::Piece;
    let word = |word: String| {
        let mut pieces = Vec::new();
        for (index, part) in word.split(SAMPLE).enumerate() {
            if index > 0 {
                pieces.push(Piece::Variable("unique_exe_id".to_owned()));
            }
            if !part.is_empty() {
                pieces.push(Piece::Literal(part.to_owned()));
            }
        }
        Template::from_pieces(pieces)
    };
    started(descriptor).into_iter().map(word).collect()
}
