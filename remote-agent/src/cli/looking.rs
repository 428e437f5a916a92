//! `check` and `describe`: files and folders in, explanations out. What is explained, and how, is decided in `explain`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value as Json;

use super::{CANNOT_START, FAILED, Format, Looking, complain, say};
use crate::config::AgentConfig;
use crate::descriptor::LoadContext;
use crate::descriptor::load::{FileKind, recognise};
use crate::explain::{self, Explanation};

/// Deepest folder that is looked into; the same as when serving.
const MAX_DEPTH: usize = 8;

pub(super) fn check(looking: &Looking) -> ExitCode {
    look(looking, explain::check)
}

pub(super) fn describe(looking: &Looking) -> ExitCode {
    look(looking, explain::describe)
}

fn look(looking: &Looking, explain: fn(&Path, &[u8], &LoadContext) -> Explanation) -> ExitCode {
    let context = match context(looking.config.as_deref()) {
        Ok(context) => context,
        Err(why) => return complain(&why, CANNOT_START),
    };
    let files = match files(&looking.files) {
        Ok(files) => files,
        Err(why) => return complain(&why, CANNOT_START),
    };
    if files.is_empty() {
        return complain(
            "there is no service descriptor (*.config, *.ini, *.properties) at the given places",
            FAILED,
        );
    }
    let mut usable = true;
    let mut found = Vec::new();
    for file in files {
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                return complain(&format!("{} cannot be read: {error}", file.display()), CANNOT_START);
            }
        };
        let explanation = explain(&file, &bytes, &context);
        usable &= explanation.usable;
        match looking.format {
            Format::Text => say(&explanation.text),
            Format::Json => found.push(explanation.json),
        }
    }
    if looking.format == Format::Json {
        say(&Json::Array(found).to_string());
    }
    if usable { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// What an agent with this configuration lends to descriptors; without one, folders below the temporary folder.
pub(super) fn context(config: Option<&Path>) -> Result<LoadContext, String> {
    match config {
        Some(path) => {
            AgentConfig::load(path).map(|config| config.load_context()).map_err(|error| error.to_string())
        }
        None => Ok(LoadContext::bare(std::env::temp_dir().join("wps-remote-agent").join("work"))),
    }
}

/// Named files as they are; of folders, what looks like a descriptor.
fn files(places: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for place in places {
        let fail = |error: std::io::Error| format!("{} cannot be read: {error}", place.display());
        let place = std::path::absolute(place).map_err(fail)?;
        let kind = fs::metadata(&place).map_err(fail)?;
        if kind.is_dir() {
            walk(&place, 0, &mut files).map_err(fail)?;
        } else if kind.is_file() {
            files.push(place);
        } else {
            // Reading a pipe would wait for a writer that never comes.
            return Err(format!("{} is no regular file", place.display()));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            // A subfolder that cannot be read is none of ours.
            let _ = walk(&path, depth + 1, files);
        } else if has_the_extension(&path)
            && fs::metadata(&path).is_ok_and(|kind| kind.is_file())
            && fs::read(&path).is_ok_and(|bytes| recognise(&bytes) != FileKind::Other)
        {
            files.push(path);
        }
    }
    Ok(())
}

fn has_the_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| ["config", "ini", "properties"].contains(&extension.as_str()))
}
