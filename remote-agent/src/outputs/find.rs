//! Where a program left an output: in a named file, in the one that matches a pattern, or as its list of outputs says.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Expected, Fault, Place};

/// Largest `outputs.json` that is read.
const MAX_INDEX: u64 = 1024 * 1024;

/// Most files that may go along with an output.
const MAX_SIDE_FILES: usize = 64;

/// Where it is, or what it is.
pub(super) enum Located {
    File(PathBuf),
    Text(String),
}

/// Finds an output; whether it may be taken from there is for the caller to check.
pub(super) fn find(spec: &Expected) -> Result<Located, Fault> {
    Ok(match &spec.place {
        Place::File(file) => Located::File(file.clone()),
        Place::Given(text) => Located::Text(text.clone()),
        Place::Matching { folder, pattern } => {
            let mut names: Vec<_> = fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name())
                .filter(|name| name.to_str().is_some_and(|name| matches(name, pattern)))
                .collect();
            names.sort();
            match names.as_slice() {
                [] => Located::File(folder.join(pattern)),
                [name] => Located::File(folder.join(name)),
                [_, _, ..] => {
                    return Err(Fault::Ambiguous {
                        id: spec.id.clone(),
                        pattern: pattern.clone(),
                        names: names
                            .iter()
                            .take(5)
                            .map(|name| name.to_string_lossy())
                            .collect::<Vec<_>>()
                            .join(", "),
                    });
                }
            }
        }
        Place::Contract { folder, extension } => by_contract(spec, folder, extension)?,
    })
}

fn by_contract(spec: &Expected, folder: &Path, extension: &str) -> Result<Located, Fault> {
    let index = folder.join("outputs.json");
    // A link could lead anywhere, and a pipe would never end.
    if index.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        let bad = |why: &str| Fault::Index { id: spec.id.clone(), path: index.clone(), why: why.to_owned() };
        let mut bytes = Vec::new();
        File::open(&index)
            .and_then(|file| file.take(MAX_INDEX + 1).read_to_end(&mut bytes))
            .map_err(|error| bad(&error.to_string()))?;
        if bytes.len() as u64 > MAX_INDEX {
            return Err(bad(&format!("it has more than {MAX_INDEX} bytes")));
        }
        let document: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        match document.get(&spec.id) {
            None => {}
            Some(serde_json::Value::String(text)) => return Ok(Located::Text(text.clone())),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                return Ok(Located::Text(value.to_string()));
            }
            Some(value) => {
                return match value.get("file").and_then(serde_json::Value::as_str) {
                    Some(file) => Ok(Located::File(folder.join(file))),
                    None => Err(bad("the member must be a text, a number, true or false, or {\"file\": …}")),
                };
            }
        }
    }
    let plain = folder.join(&spec.id);
    let extended = folder.join(format!("{}.{extension}", spec.id));
    Ok(Located::File(if plain.exists() || extension.is_empty() { plain } else { extended }))
}

/// Whether a name matches a pattern in which `*` stands for any text.
pub(super) fn matches(name: &str, pattern: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    // What follows the last star must be the end; the pieces between are found from left to right.
    let Some(last) = pieces.pop() else { return true };
    for piece in pieces {
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(last)
}

/// Names of everything beside a file that has its stem: `.shx` and `.dbf` go with a `.shp`.
pub(super) fn beside(file: &Path) -> io::Result<Vec<String>> {
    let (Some(folder), Some(stem)) = (file.parent(), file.file_stem().and_then(|stem| stem.to_str())) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let belongs = name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'));
        // Links are left out: where they lead was not checked.
        if belongs && entry.path() != file && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.push(name);
        }
    }
    names.sort();
    if names.len() > MAX_SIDE_FILES {
        let why =
            format!("{} files begin with `{stem}.`; at most {MAX_SIDE_FILES} can go along", names.len());
        return Err(io::Error::other(why));
    }
    Ok(names)
}
