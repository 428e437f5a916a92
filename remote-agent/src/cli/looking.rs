//! `check` and `describe`: files and folders in, explanations out. What is explained, and how, is decided in `explain`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value as Json;
use wps_remote_protocol::ini::{DEFAULT_SECTION, Document, Finding, Options};

use super::fault::Fault;
use super::{Check, FAILED, Format, Looking, say};
use crate::config::AgentConfig;
use crate::descriptor::load::{FileKind, load_descriptor, recognise};
use crate::descriptor::{LoadContext, ServiceDescriptor};
use crate::explain::{self, Explanation, doctor, log};
use crate::rules::Encoding;

/// Deepest folder that is looked into; the same as when serving.
const MAX_DEPTH: usize = 8;

pub(super) fn check(wanted: &Check) -> ExitCode {
    let format = wanted.looking.format;
    let done = match &wanted.log {
        Some(file) => check_log(wanted, file),
        None => check_files(wanted),
    };
    done.unwrap_or_else(|fault| fault.tell(format))
}

pub(super) fn describe(looking: &Looking) -> ExitCode {
    let done = lent(looking.config.as_deref()).and_then(|lent| {
        let mut said = Vec::new();
        for file in existing(files(&looking.files)?)? {
            said.push(match &file {
                Seen::Read(file, bytes) => explain::describe(file, bytes, &lent.context),
                Seen::Unreadable(file, finding) => unreadable(file, finding),
            });
        }
        Ok(answer(said, looking.format, false))
    });
    done.unwrap_or_else(|fault| fault.tell(looking.format))
}

fn check_files(wanted: &Check) -> Result<ExitCode, Fault> {
    let lent = lent(wanted.looking.config.as_deref())?;
    let seen = existing(files(&wanted.looking.files)?)?;
    let loaded: Vec<ServiceDescriptor> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Read(file, bytes) => load_descriptor(file, bytes, &lent.context).ok(),
            Seen::Unreadable(..) => None,
        })
        .collect();
    let doubles = doctor::doubles(&loaded);
    let mut said: Vec<Explanation> = lent.said.into_iter().collect();
    for seen in &seen {
        said.push(match seen {
            Seen::Read(file, bytes) if is_configuration(file, bytes) => configuration(file),
            Seen::Read(file, bytes) => explain::check(
                file,
                bytes,
                &lent.context,
                doubles.get(file).map_or(&[], std::slice::from_ref),
            ),
            Seen::Unreadable(file, finding) => unreadable(file, finding),
        });
    }
    Ok(answer(said, wanted.looking.format, wanted.strict))
}

/// Prints everything; 1 if a file cannot be used or, when the caller is `strict`, if there is a warning.
fn answer(said: Vec<Explanation>, format: Format, strict: bool) -> ExitCode {
    let well = said.iter().all(|said| said.usable && !(strict && said.warned));
    match format {
        Format::Text => said.iter().for_each(|said| say(&said.text)),
        Format::Json => say(&Json::Array(said.into_iter().map(|said| said.json).collect()).to_string()),
    }
    if well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Runs the `[Logging]` rules of one descriptor over a log of any length.
fn check_log(wanted: &Check, path: &Path) -> Result<ExitCode, Fault> {
    let lent = lent(wanted.looking.config.as_deref())?;
    let [place] = wanted.looking.files.as_slice() else {
        return Err(Fault::call("--log needs one descriptor: check FILE --log LOG"));
    };
    let place = std::path::absolute(place).map_err(|error| cannot_read(place, &error))?;
    let bytes = fs::read(&place).map_err(|error| cannot_read(&place, &error))?;
    let descriptor = match load_descriptor(&place, &bytes, &lent.context) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let said = explain::findings_only(&place, "descriptor", &[], &error.findings);
            return Ok(answer(vec![said], wanted.looking.format, false));
        }
    };
    let input: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        if file.metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Fault::call(format!("{} is a folder; give one log", path.display())));
        }
        Box::new(file)
    };
    let encoding = match wanted.encoding {
        Some(super::LogEncoding::Utf8) => Encoding::Utf8,
        Some(super::LogEncoding::Latin1) => Encoding::Latin1,
        None => descriptor.rules.encoding,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match tell_log(&descriptor, input, encoding, wanted, path, &mut out) {
        Ok(tally) if wanted.strict && tally.has_idle_rules(&descriptor.rules) => Ok(ExitCode::from(FAILED)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(LogError::Read(error)) => Err(cannot_read(path, &error)),
        // A closed pipe (`| head`) is no fault.
        Err(LogError::Write) => Ok(ExitCode::SUCCESS),
    }
}

enum LogError {
    Read(io::Error),
    Write,
}

/// Writes the answer piece by piece: neither the log nor the answer is ever held as a whole.
fn tell_log(
    descriptor: &ServiceDescriptor,
    input: impl io::Read,
    encoding: Encoding,
    wanted: &Check,
    path: &Path,
    out: &mut impl Write,
) -> Result<log::Tally, LogError> {
    let json = wanted.looking.format == Format::Json;
    let lost = |_| LogError::Write;
    if json {
        let (file, path) =
            (Json::from(descriptor.source.to_string_lossy()), Json::from(path.to_string_lossy()));
        write!(out, "{{\"file\":{file},\"log\":{path},\"lines\":[").map_err(lost)?;
    }
    let (mut first, mut gone) = (true, false);
    let tally = log::read(input, &descriptor.rules, encoding, |met| {
        if wanted.summary {
            return Ok(());
        }
        let written = if json {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            write!(out, "{comma}\n{}", met.json())
        } else {
            writeln!(out, "{}", met.text_line())
        };
        written.inspect_err(|_| gone = true)
    });
    let tally = match tally {
        Ok(tally) => tally,
        Err(_) if gone => return Err(LogError::Write),
        Err(error) if json => {
            // The answer has begun already; it still ends as one JSON document.
            let why = Json::from(error.to_string());
            let _ = writeln!(out, "],\"error\":{{\"code\":\"WrongCall\",\"locator\":null,\"why\":{why}}}}}");
            return Err(LogError::Read(error));
        }
        Err(error) => return Err(LogError::Read(error)),
    };
    if json {
        let rest = log::tally_json(descriptor, &tally).to_string();
        writeln!(out, "],{}", rest.trim_start_matches('{')).map_err(lost)?;
    } else {
        out.write_all(log::tally_text(descriptor, &tally).as_bytes()).map_err(lost)?;
    }
    out.flush().map_err(lost)?;
    Ok(tally)
}

/// What an agent lends to descriptors, and what is to be said of its configuration.
pub(super) struct Lent {
    pub context: LoadContext,
    said: Option<Explanation>,
}

pub(super) fn lent(config: Option<&Path>) -> Result<Lent, Fault> {
    let Some(path) = config else {
        let context = LoadContext::bare(std::env::temp_dir().join("wps-remote-agent").join("work"));
        return Ok(Lent { context, said: None });
    };
    let config = AgentConfig::load(path).map_err(|error| Fault::configuration(&error))?;
    Ok(Lent { context: config.load_context(), said: Some(of_config(&config)) })
}

/// The configuration's warnings, and which of its folders cannot be used.
fn of_config(config: &AgentConfig) -> Explanation {
    let mut warnings = config.warnings.clone();
    let folders = [
        ("work_root", Some(&config.work_root)),
        ("resource_file_dir", Some(&config.resource_file_dir)),
        ("wps_execution_shared_dir", config.shared_dir.as_ref()),
    ];
    for (key, folder) in folders.into_iter().filter_map(|(key, folder)| Some((key, folder?))) {
        if let Err((place, why)) = doctor::can_be_written(folder) {
            let why = format!("{} cannot be used: {place} {why}", folder.display());
            let remedy = "make it and give it to the agent's user, or set another directory";
            warnings.push(Finding::warning("folder-unwritable", why).key(key).remedy(remedy));
        }
    }
    explain::findings_only(&config.source, "configuration", &warnings, &[])
}

/// An agent's own configuration among the files.
fn configuration(file: &Path) -> Explanation {
    match AgentConfig::load(file) {
        Ok(config) => of_config(&config),
        Err(error) => explain::findings_only(file, "configuration", &[], &error.findings),
    }
}

/// By its name, or by keys that no descriptor needs.
fn is_configuration(file: &Path, bytes: &[u8]) -> bool {
    let marked = || {
        let options = Options::new(file.to_string_lossy()).ignoring_case();
        Document::parse(bytes, &options).is_ok_and(|doc| {
            let has =
                |key: &str| doc.section(DEFAULT_SECTION).is_some_and(|found| found.entry(key).is_some());
            has("mucservice") || has("bus_class_name") || (has("domain") && has("user"))
        })
    };
    recognise(bytes) == FileKind::Other
        && (file.file_name().is_some_and(|name| name.eq_ignore_ascii_case("remote.config")) || marked())
}

/// A file that was found.
enum Seen {
    Read(PathBuf, Vec<u8>),
    Unreadable(PathBuf, Finding),
}

fn existing(files: Vec<PathBuf>) -> Result<Vec<Seen>, Fault> {
    if files.is_empty() {
        return Err(Fault::nothing(
            "there is no service descriptor (*.config, *.ini, *.properties) at the given places",
        ));
    }
    let read = |file: PathBuf| match fs::read(&file) {
        Ok(bytes) => Seen::Read(file, bytes),
        Err(error) => {
            let finding = Finding::error("not-readable", format!("cannot be read: {error}"));
            Seen::Unreadable(file, finding.remedy("give it to the agent's user (chmod, chown)"))
        }
    };
    Ok(files.into_iter().map(read).collect())
}

fn unreadable(file: &Path, finding: &Finding) -> Explanation {
    explain::findings_only(file, "descriptor", &[], std::slice::from_ref(finding))
}

pub(super) fn cannot_read(path: &Path, error: &io::Error) -> Fault {
    Fault::call(format!("{} cannot be read: {error}", path.display()))
}

/// Named files as they are; of folders, what looks like a descriptor.
pub(super) fn files(places: &[PathBuf]) -> Result<Vec<PathBuf>, Fault> {
    let mut files = Vec::new();
    for place in places {
        let fail = |error: io::Error| cannot_read(place, &error);
        let place = std::path::absolute(place).map_err(fail)?;
        let kind = fs::metadata(&place).map_err(fail)?;
        if kind.is_dir() {
            walk(&place, 0, &mut files).map_err(fail)?;
        } else if kind.is_file() {
            files.push(place);
        } else {
            // Reading a pipe would wait for a writer that never comes.
            return Err(Fault::call(format!("{} is no regular file", place.display())));
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() && depth < MAX_DEPTH {
            // A subfolder that cannot be read is none of ours.
            let _ = walk(&path, depth + 1, files);
        } else if has_the_extension(&path) && fs::metadata(&path).is_ok_and(|kind| kind.is_file()) {
            // One that cannot be read may be a descriptor; the agent would not serve it either.
            if fs::read(&path).map_or(true, |bytes| recognise(&bytes) != FileKind::Other) {
                files.push(path);
            }
        }
    }
    Ok(())
}

fn has_the_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| ["config", "ini", "properties"].contains(&extension.as_str()))
}
