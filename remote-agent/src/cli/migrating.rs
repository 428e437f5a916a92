//! `migrate`: descriptors written anew, to standard output or beside the old ones. Existing files are safe unless `--force`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::fault::Fault;
use super::looking::{cannot_read, files, lent};
use super::{FAILED, Format, Migrate, complain, say};
use crate::explain::finding_json;
use crate::migrate::{MigrateError, Migrated, to_a};

pub(super) fn run(wanted: &Migrate) -> ExitCode {
    attempt(wanted).unwrap_or_else(|fault| fault.tell(wanted.format))
}

fn attempt(wanted: &Migrate) -> Result<ExitCode, Fault> {
    let mut context = lent(wanted.config.as_deref())?.context;
    context.latin1 = wanted.encoding == Some(super::LogEncoding::Latin1);
    let found = files(std::slice::from_ref(&wanted.file))?;
    let super::Target::A = wanted.to;
    let folder = wanted.file.is_dir();
    if found.is_empty() {
        return Err(Fault::nothing(
            "there is no service descriptor (*.config, *.ini, *.properties) at the given place",
        ));
    }
    if folder && wanted.output.is_none() {
        return Err(Fault::call("a whole folder needs --output FOLDER"));
    }
    let root = std::path::absolute(&wanted.file).map_err(|error| cannot_read(&wanted.file, &error))?;
    let (mut well, mut told) = (true, Vec::new());
    for file in found {
        let target = match &wanted.output {
            Some(output) if folder => {
                let inner = file.strip_prefix(&root).unwrap_or(&file).with_extension("config");
                Some(output.join(inner))
            }
            output => output.clone(),
        };
        let bytes = fs::read(&file).map_err(|error| cannot_read(&file, &error))?;
        let done = to_a(&file, &bytes, &context);
        let written = match (&done, &target) {
            (Ok(done), Some(target)) => write(target, &done.text, wanted.force),
            (Ok(_) | Err(_), _) => Ok(()),
        };
        well &= done.is_ok() && written.is_ok();
        match wanted.format {
            Format::Json => told.push(as_json(&file, target.as_deref(), &done, &written)),
            Format::Text => as_text(&file, target.as_deref(), &done, &written),
        }
    }
    if wanted.format == Format::Json {
        say(&Json::Array(told).to_string());
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Writes a file whole or not at all; an existing one only if that is wanted.
fn write(target: &Path, text: &str, force: bool) -> Result<(), String> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} is there already; --force overwrites it", target.display())
        }
        _ => format!("{} cannot be written: {error}", target.display()),
    };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(fail)?;
    let mut draft = tempfile::Builder::new().prefix(".migrate-").tempfile_in(folder).map_err(fail)?;
    draft.write_all(text.as_bytes()).map_err(fail)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As a descriptor usually is: others may read it, and it holds no secrets.
        draft.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(fail)?;
    }
    let kept = if force { draft.persist(target) } else { draft.persist_noclobber(target) };
    kept.map(drop).map_err(|error| fail(error.error))
}

fn as_text(
    file: &Path,
    target: Option<&Path>,
    done: &Result<Migrated, MigrateError>,
    written: &Result<(), String>,
) {
    match (done, target, written) {
        (Err(error), ..) => drop(complain(&error.to_string(), FAILED)),
        (Ok(_), Some(_), Err(why)) => drop(complain(why, FAILED)),
        (Ok(done), Some(target), Ok(())) => say(&format!(
            "{} -> {}: {} settled, {} left",
            file.display(),
            target.display(),
            done.settled.len(),
            done.left.len()
        )),
        (Ok(done), None, _) => say(&done.text),
    }
}

fn as_json(
    file: &Path,
    target: Option<&Path>,
    done: &Result<Migrated, MigrateError>,
    written: &Result<(), String>,
) -> Json {
    let why = match (done, written) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(_), Err(why)) => Some(why.clone()),
        (Ok(_), Ok(())) => None,
    };
    let list = |findings: &[wps_remote_protocol::ini::Finding]| {
        findings.iter().map(finding_json).collect::<Vec<_>>()
    };
    let done = done.as_ref().ok();
    let target: Option<PathBuf> = target.filter(|_| why.is_none()).map(Path::to_path_buf);
    json!({
        "file": file,
        "output": target,
        "migrated": why.is_none(),
        "why": why,
        "text": done.filter(|_| target.is_none()).map(|done| done.text.clone()),
        "settled": done.map(|done| list(&done.settled)).unwrap_or_default(),
        "left": done.map(|done| list(&done.left)).unwrap_or_default(),
    })
}
