//! Results of agents of the old dialect: contents that came with the message, and files that were named by a path on the
//! agent's host. A path is believed only below the configured folders, whatever links lie on the way; the file is linked
//! (or copied) into the execution's folder at once, because such an agent cleans up behind everybody's back.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use wps_remote_protocol::legacy::LegacyOutput;
use wps_remote_protocol::{
    Content, DataType, ExecutionId, LiteralType, Output, Outputs, ProcessDescription, SharedFile, Value,
};

use super::settings::LegacyFiles;

/// The outputs and remarks for the job's log, or which output is at fault and why.
pub(in crate::bus) fn collect(
    files: &LegacyFiles,
    execution: &ExecutionId,
    outputs: &[LegacyOutput],
    broken: &[(String, String)],
    description: Option<&ProcessDescription>,
) -> Result<(Outputs, Vec<String>), (String, String)> {
    if let Some((name, why)) = broken.first() {
        return Err((name.clone(), format!("the output `{name}` {why}")));
    }
    let mut notes = Vec::new();
    let mut taken = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        let declared = description.and_then(|description| description.output(&output.name));
        if description.is_some() && declared.is_none() {
            notes.push(format!("the output `{}` was not announced and is dropped", output.name));
            continue;
        }
        let value = if output.is_textual() {
            textual(&output.value, declared.map(|declared| &declared.data))
        } else if output.kind.starts_with("application/owc") {
            document(map_context(output).to_string())
        } else {
            let file = take(files, execution, number, output)
                .map_err(|why| (output.name.clone(), format!("the output `{}`: {why}", output.name)))?;
            Value::Complex { content: Content::Shared(file), media_type: String::new(), schema: None }
        };
        taken.push(Output { metadata: output.metadata.clone(), ..Output::new(output.name.clone(), value) });
    }
    let declared = description.map(|description| description.outputs.as_slice()).unwrap_or_default();
    for missing in declared.iter().filter(|output| !taken.iter().any(|taken| taken.id == output.id)) {
        notes.push(format!("the agent sent no output `{}`", missing.id));
    }
    let place = |output: &Output| declared.iter().position(|other| other.id == output.id);
    taken.sort_by_key(place);
    Ok((taken, notes))
}

fn textual(text: &str, declared: Option<&DataType>) -> Value {
    match declared {
        Some(DataType::Complex(_)) => document(text.to_owned()),
        // Numbers and the like come with the line end of the file that they were read from; a text stays as it is.
        Some(DataType::Literal(literal)) if literal.kind != LiteralType::String => {
            Value::literal(text.trim())
        }
        _ => Value::literal(text),
    }
}

fn document(text: String) -> Value {
    Value::Complex { content: Content::Text(text), media_type: String::new(), schema: None }
}

/// An OWC GeoJSON document (OGC 14-055r2) with a feature for each layer; such an output is a list of names, no file.
fn map_context(output: &LegacyOutput) -> Json {
    let features: Vec<Json> = output
        .value
        .split(';')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| json!({"type": "Feature", "id": name, "geometry": null, "properties": {"title": name}}))
        .collect();
    json!({
        "type": "FeatureCollection",
        "id": output.name,
        "properties": {"lang": "en", "title": output.title.as_deref().unwrap_or(&output.name)},
        "features": features,
    })
}

fn take(
    files: &LegacyFiles,
    execution: &ExecutionId,
    number: usize,
    output: &LegacyOutput,
) -> Result<SharedFile, String> {
    let Some(shared) = &files.shared else {
        return Err(
            "is a file, but there is no folder to take it over through ([results] shared_dir)".to_owned()
        );
    };
    let real = locate(files, &output.value)?;
    let metadata = std::fs::metadata(&real).map_err(|error| format!("`{}`: {error}", real.display()))?;
    if !metadata.is_file() {
        return Err(format!("`{}` is not a regular file", output.value));
    }
    let name = real.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
    let relative = format!("{execution}/{number}/{}", name.unwrap_or("result"));
    let target = shared.join(&relative);
    link(&real, &target).map_err(|error| format!("`{}` cannot be taken over: {error}", output.value))?;
    let bytes = std::fs::metadata(&target).map_err(|error| format!("`{relative}`: {error}"))?.len();
    Ok(SharedFile { path: relative, bytes, sha256: None })
}

/// The real path of what the agent named, below one of the folders.
fn locate(files: &LegacyFiles, named: &str) -> Result<PathBuf, String> {
    if named.is_empty() || named.contains('\0') || named.len() > 4096 {
        return Err("the path is empty, or none at all".to_owned());
    }
    let mapped = files.path_map.iter().find_map(|(there, here)| {
        let rest = named.strip_prefix(there.as_str())?;
        (rest.is_empty() || rest.starts_with('/') || there.ends_with('/'))
            .then(|| here.join(rest.trim_start_matches('/')))
    });
    let path = mapped.unwrap_or_else(|| PathBuf::from(named));
    let candidates: Vec<PathBuf> = if path.is_absolute() {
        // GeoServer looks below its upload folder for absolute paths too.
        let below = files.base.iter().map(|base| base.join(named.trim_start_matches('/')));
        std::iter::once(path.clone()).chain(below).collect()
    } else {
        files.base.iter().chain(&files.roots).map(|folder| folder.join(&path)).collect()
    };
    let roots: Vec<PathBuf> =
        files.roots.iter().chain(&files.base).filter_map(|root| root.canonicalize().ok()).collect();
    let mut found = false;
    for candidate in candidates {
        if let Ok(real) = candidate.canonicalize() {
            found = true;
            if roots.iter().any(|root| real.starts_with(root)) {
                return Ok(real);
            }
        }
    }
    let shown: String = named.chars().take(300).collect();
    Err(if found {
        format!("the file `{shown}` does not lie in a folder of [legacy] result_roots and is not opened")
    } else {
        format!(
            "the file `{shown}` is not there (does this host see the agent's output folder, under the same path? [legacy] path_map \
             and upload_dir help)"
        )
    })
}

/// Link, else copy under another name and rename: complete or absent. What is there already stays.
fn link(source: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    if std::fs::hard_link(source, target).is_ok() {
        return Ok(());
    }
    let partial = parent.join(".partial");
    std::fs::copy(source, &partial)?;
    std::fs::rename(&partial, target)
}
