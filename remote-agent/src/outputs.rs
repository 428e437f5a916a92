//! What a program has produced: every declared output is found, checked and turned into a value, inline or as a file in
//! the shared folder. Runs before success is reported; knows nothing of processes, rooms or descriptors.

mod find;
mod metadata;
mod text;
mod upload;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use wps_remote_protocol::{
    Content, DataType, ErrorKind, ExecutionError, ExecutionId, Format, Output, Outputs, SharedFile, Value,
};

use self::find::{Located, beside, find};
pub use self::metadata::Metadata;
use self::text::{MAX_BOX, bounding_box, checked_literal, no_box};
pub use self::upload::Parcel;
use crate::files;
use crate::supervise::record::is_disk_full;

/// Longest literal that travels inside a message when a shared folder could take it.
const MAX_LITERAL: u64 = 100_000;
/// Largest file that travels inside a message when there is no shared folder.
const MAX_INLINE: u64 = 64 * 1024;
/// What all inline values of one execution may take together, as JSON.
const INLINE_BUDGET: usize = 130_000;

/// One declared output, as it is expected on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Identifier that clients use.
    pub id: String,
    /// Where the program leaves it.
    pub place: Place,
    /// What it is.
    pub data: DataType,
    /// Whether a successful job may lack it.
    pub optional: bool,
    /// Folders of which it must be below one, links resolved.
    pub roots: Vec<PathBuf>,
    /// Fewest bytes it must have.
    #[serde(default)]
    pub min_bytes: u64,
    /// Most bytes it may have.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Whether files with the same stem go to the shared folder with it.
    #[serde(default)]
    pub sidecars: bool,
    /// It goes to the upload server, if there is one, below this directory there.
    #[serde(default)]
    pub upload: Option<String>,
    /// Where the program, or the descriptor's author, says more about it.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// Where a program leaves an output. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In this file.
    File(PathBuf),
    /// In the one file of this folder whose name matches; `*` stands for any text.
    Matching {
        /// The folder.
        folder: PathBuf,
        /// The name.
        pattern: String,
    },
    /// In the member of this folder's `outputs.json` that has the output's name (a scalar, or `{"file": …}`), else in a
    /// file with that name, with or without the extension.
    Contract {
        /// The folder.
        folder: PathBuf,
        /// Without dot; may be empty.
        extension: String,
    },
    /// It is this text, known beforehand.
    Given(String),
}

/// What is wrong with an output.
#[derive(Debug, Error)]
pub enum Fault {
    /// It is not there.
    #[error("output `{id}` was declared as {} but was not written", file.display())]
    Missing {
        /// The output.
        id: String,
        /// Where it should be.
        file: PathBuf,
    },
    /// It is something else than a file.
    #[error("output `{id}` is no regular file: {}", file.display())]
    NotAFile {
        /// The output.
        id: String,
        /// What it is not.
        file: PathBuf,
    },
    /// It lies, or a link leads, outside of what the descriptor may touch.
    #[error(
        "output `{id}` lies outside of the allowed folders: {} (add the folder to `allowed_paths` in remote.config)",
        file.display()
    )]
    Outside {
        /// The output.
        id: String,
        /// Where it really is.
        file: PathBuf,
    },
    /// Several files could be it.
    #[error("output `{id}` must be one file that matches `{pattern}`, but there are several: {names}")]
    Ambiguous {
        /// The output.
        id: String,
        /// What was looked for.
        pattern: String,
        /// Some of what was found.
        names: String,
    },
    /// The program's list of outputs cannot be used.
    #[error("output `{id}`: {} cannot be used: {why}", path.display())]
    Index {
        /// The output.
        id: String,
        /// The list.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Its size is out of bounds.
    #[error("output `{id}` has {bytes} bytes, {bound} are allowed: {}", file.display())]
    Size {
        /// The output.
        id: String,
        /// Where it is.
        file: PathBuf,
        /// How large it is.
        bytes: u64,
        /// What the descriptor says.
        bound: String,
    },
    /// Its text is not what its type asks for.
    #[error("output `{id}` is declared as {kind} but holds `{text}`")]
    Literal {
        /// The output.
        id: String,
        /// Its type.
        kind: &'static str,
        /// The beginning of its text.
        text: String,
    },
    /// It is too large for a message and there is nowhere else to put it.
    #[error(
        "output `{id}` has {bytes} bytes, too many for a message: set `wps_execution_shared_dir` in remote.config to a folder that the orchestrator also sees"
    )]
    NoSharedFolder {
        /// The output.
        id: String,
        /// How large it is.
        bytes: u64,
    },
    /// The shared folder is not there.
    #[error("the shared folder {} (`wps_execution_shared_dir`) is not there: is it mounted?", .0.display())]
    SharedFolderGone(PathBuf),
    /// There is no room left.
    #[error("no space left for output `{id}` at {}", path.display())]
    DiskFull {
        /// The output.
        id: String,
        /// Where it was to be written.
        path: PathBuf,
    },
    /// The upload server did not take it.
    #[error("output `{id}` could not be uploaded: {why}")]
    Upload {
        /// The first output that was to go there.
        id: String,
        /// Why.
        why: String,
    },
    /// Reading or writing failed.
    #[error("output `{id}` cannot be {verb} {}: {source}", path.display())]
    Io {
        /// The output.
        id: String,
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Fault {
    fn output(&self) -> &str {
        match self {
            Self::Missing { id, .. }
            | Self::NotAFile { id, .. }
            | Self::Outside { id, .. }
            | Self::Ambiguous { id, .. }
            | Self::Index { id, .. }
            | Self::Size { id, .. }
            | Self::Literal { id, .. }
            | Self::NoSharedFolder { id, .. }
            | Self::DiskFull { id, .. }
            | Self::Upload { id, .. }
            | Self::Io { id, .. } => id,
            Self::SharedFolderGone(_) => "",
        }
    }
}

/// Sends files somewhere else; gives the address of each, or says why not.
pub type Upload<'a> = dyn Fn(&[Parcel]) -> Result<Vec<String>, String> + 'a;

/// The ways that results can go.
#[derive(Clone, Copy, Default)]
pub struct Delivery<'a> {
    /// The folder that the orchestrator also sees.
    pub shared: Option<&'a Path>,
    /// Sends files to the upload server; gives the address of each, or says why not.
    pub uploader: Option<&'a Upload<'a>>,
    /// For a GeoServer, which opens files by their paths: without a shared folder a file stays where it is, and is named by
    /// its absolute path.
    pub in_place: bool,
}

/// All faults of one execution's outputs as the error that ends it.
pub fn as_error(faults: &[Fault]) -> ExecutionError {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let first = faults.iter().map(Fault::output).find(|id| !id.is_empty()).unwrap_or_default();
    ExecutionError { kind: ErrorKind::OutputMissing(first.to_owned()), text: lines.join("\n"), receipt: None }
}

/// Checks all outputs, then turns them into values; nothing is shipped if one is at fault. Order as declared.
pub fn collect(
    specs: &[Expected],
    execution: &ExecutionId,
    delivery: &Delivery<'_>,
) -> Result<Outputs, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut found = Vec::new();
    for spec in specs {
        match check(spec) {
            Ok(Some(it)) => found.push((spec, it)),
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut uploaded = upload::all(&found, execution, delivery)?;
    let shared = delivery.shared;
    let in_place = delivery.in_place;
    let mut shipper = Shipper { execution, shared, in_place, budget: INLINE_BUDGET, side_files: Vec::new() };
    let mut outputs = Vec::new();
    for (spec, found) in found {
        let shipped = match found {
            Found::File(_) if uploaded.contains_key(&spec.id) => {
                Ok(upload::value(spec, uploaded.remove(&spec.id).unwrap_or_default()))
            }
            Found::File(file) => shipper.value(spec, &file),
            Found::Text(text) => shipper.text(spec, text),
        };
        match shipped {
            Ok(value) => {
                let mut output = Output::new(spec.id.clone(), value);
                output.side_files = std::mem::take(&mut shipper.side_files);
                output.metadata =
                    spec.metadata.as_ref().and_then(|from| from.read(&spec.id, &mut shipper.budget));
                outputs.push(output);
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(outputs) } else { Err(faults) }
}

/// A file that passed the checks, links resolved; or a text that needs none.
enum Found {
    File(Checked),
    Text(String),
}

struct Checked {
    path: PathBuf,
    bytes: u64,
}

fn check(spec: &Expected) -> Result<Option<Found>, Fault> {
    let file = match find(spec)? {
        Located::File(file) => file,
        Located::Text(text) => {
            return match out_of_bounds(spec, text.len() as u64) {
                None => Ok(Some(Found::Text(text))),
                Some(bound) => {
                    let file = PathBuf::from("outputs.json");
                    Err(Fault::Size { id: spec.id.clone(), file, bytes: text.len() as u64, bound })
                }
            };
        }
    };
    let io_fault = |source| Fault::Io { id: spec.id.clone(), verb: "found at", path: file.clone(), source };
    let path = match file.canonicalize() {
        Ok(path) => path,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return if spec.optional { Ok(None) } else { Err(Fault::Missing { id: spec.id.clone(), file }) };
        }
        Err(error) => return Err(io_fault(error)),
    };
    let inside = spec.roots.iter().any(|root| root.canonicalize().is_ok_and(|root| path.starts_with(root)));
    if !inside {
        return Err(Fault::Outside { id: spec.id.clone(), file: path });
    }
    let metadata = fs::metadata(&path).map_err(io_fault)?;
    if !metadata.is_file() {
        return Err(Fault::NotAFile { id: spec.id.clone(), file: path });
    }
    let bytes = metadata.len();
    match out_of_bounds(spec, bytes) {
        Some(bound) => Err(Fault::Size { id: spec.id.clone(), file: path, bytes, bound }),
        None => Ok(Some(Found::File(Checked { path, bytes }))),
    }
}

fn out_of_bounds(spec: &Expected, bytes: u64) -> Option<String> {
    match spec.max_bytes {
        Some(most) if bytes > most => Some(format!("at most {most}")),
        _ if bytes < spec.min_bytes => Some(format!("at least {}", spec.min_bytes)),
        _ => None,
    }
}

struct Shipper<'a> {
    execution: &'a ExecutionId,
    shared: Option<&'a Path>,
    in_place: bool,
    budget: usize,
    /// What went along with the last output.
    side_files: Vec<SharedFile>,
}

impl Shipper<'_> {
    fn value(&mut self, spec: &Expected, file: &Checked) -> Result<Value, Fault> {
        match &spec.data {
            DataType::Literal(literal) => {
                // Without a shared folder a long text goes into the message as long as that can carry it.
                let most =
                    if self.shared.is_some() && !self.in_place { MAX_LITERAL } else { INLINE_BUDGET as u64 };
                if file.bytes <= most {
                    let text = String::from_utf8_lossy(&read(spec, file)?).into_owned();
                    let text = checked_literal(spec, literal.kind, text)?;
                    let value = Value::Literal { text, uom: literal.uom.clone() };
                    if self.fits(&value) {
                        return Ok(value);
                    }
                }
                self.ship(spec, file, Format::new("text/plain"))
            }
            DataType::Complex(complex) => self.complex(spec, file, complex.default_format()),
            DataType::BoundingBox(_) if file.bytes > MAX_BOX => {
                Err(no_box(spec, &format!("{} bytes", file.bytes)))
            }
            DataType::BoundingBox(_) => bounding_box(spec, &String::from_utf8_lossy(&read(spec, file)?)),
        }
    }

    fn text(&mut self, spec: &Expected, text: String) -> Result<Value, Fault> {
        let bytes = text.len() as u64;
        let value = match &spec.data {
            DataType::Literal(literal) => {
                Value::Literal { text: checked_literal(spec, literal.kind, text)?, uom: literal.uom.clone() }
            }
            DataType::Complex(complex) => complex_value(Content::Text(text), &complex.default_format()),
            DataType::BoundingBox(_) => bounding_box(spec, &text)?,
        };
        if self.fits(&value) { Ok(value) } else { Err(Fault::NoSharedFolder { id: spec.id.clone(), bytes }) }
    }

    fn complex(&mut self, spec: &Expected, file: &Checked, format: Format) -> Result<Value, Fault> {
        if self.shared.is_none() && !self.in_place && file.bytes <= MAX_INLINE {
            let bytes = read(spec, file)?;
            let content = match String::from_utf8(bytes) {
                Ok(text) if format.is_text() => Content::Text(text),
                Ok(text) => Content::Bytes(text.into_bytes()),
                Err(error) => Content::Bytes(error.into_bytes()),
            };
            let value = complex_value(content, &format);
            if self.fits(&value) {
                return Ok(value);
            }
        }
        self.ship(spec, file, format)
    }

    /// Whether a value still fits into the message, which it then takes its share of.
    fn fits(&mut self, value: &Value) -> bool {
        let cost = serde_json::to_vec(value).map_or(usize::MAX, |json| json.len());
        let fits = cost <= self.budget;
        if fits {
            self.budget -= cost;
        }
        fits
    }

    fn ship(&mut self, spec: &Expected, file: &Checked, format: Format) -> Result<Value, Fault> {
        let Some(shared) = self.shared else {
            if self.in_place && !matches!(spec.data, DataType::Literal(_)) {
                let path = file.path.to_string_lossy().into_owned();
                let content = Content::Shared(SharedFile { path, bytes: file.bytes, sha256: None });
                return Ok(complex_value(content, &format));
            }
            return Err(Fault::NoSharedFolder { id: spec.id.clone(), bytes: file.bytes });
        };
        // Never created here: an absent folder usually means that a mount is missing, and a local folder in its place
        // would swallow results.
        if !shared.is_dir() {
            return Err(Fault::SharedFolderGone(shared.to_owned()));
        }
        let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or("result");
        let relative = [self.execution.as_str(), &plain(&spec.id), &plain(name)].join("/");
        let target = shared.join(&relative);
        let (bytes, sha256) = transfer(&file.path, &target, shared).map_err(|source| {
            if is_disk_full(&source) {
                Fault::DiskFull { id: spec.id.clone(), path: target.clone() }
            } else {
                Fault::Io { id: spec.id.clone(), verb: "put to", path: target.clone(), source }
            }
        })?;
        if spec.sidecars {
            self.ship_sidecars(&file.path, &relative, shared).map_err(|source| Fault::Io {
                id: spec.id.clone(),
                verb: "put (with its side files) to",
                path: target.clone(),
                source,
            })?;
        }
        let content = Content::Shared(SharedFile { path: relative, bytes, sha256: Some(sha256) });
        Ok(complex_value(content, &format))
    }

    fn ship_sidecars(&mut self, file: &Path, relative: &str, shared: &Path) -> io::Result<()> {
        let place = relative.rsplit_once('/').map_or("", |(place, _)| place);
        for name in beside(file)? {
            let path = format!("{place}/{}", plain(&name));
            let (bytes, sha256) = transfer(&file.with_file_name(&name), &shared.join(&path), shared)?;
            self.side_files.push(SharedFile { path, bytes, sha256: Some(sha256) });
        }
        Ok(())
    }
}

fn complex_value(content: Content, format: &Format) -> Value {
    Value::Complex { content, media_type: format.media_type.clone(), schema: format.schema.clone() }
}

fn read(spec: &Expected, file: &Checked) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    File::open(&file.path).and_then(|opened| opened.take(file.bytes).read_to_end(&mut bytes)).map_err(
        |source| Fault::Io { id: spec.id.clone(), verb: "read from", path: file.path.clone(), source },
    )?;
    Ok(bytes)
}

/// A name as one part of a path on the wire: letters of any script, digits and a few signs; all else becomes `_`.
fn plain(name: &str) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ' ' | '+') { c } else { '_' })
        .collect();
    if plain.is_empty() || plain.chars().all(|c| c == '.') || is_device(&plain) {
        plain.insert(0, '_');
    }
    // Windows would drop them, and whoever looks for the name would not find it.
    if plain.ends_with(['.', ' ']) {
        plain.push('_');
    }
    plain
}

/// Whether Windows takes a name for a device, with or without an extension. On every system: the other side of a shared
/// folder may be one.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 1 && matches!(rest.as_bytes()[0], b'1'..=b'9'))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

/// Hard link or copy under a temporary name, sync, rename, sync of the folder: whoever sees the name sees the whole file.
fn transfer(source: &Path, target: &Path, shared: &Path) -> io::Result<(u64, String)> {
    let folder = target.parent().unwrap_or(shared);
    // Group members of the shared folder must be able to tidy up: set-group-id, so that everything keeps its group.
    for level in folder.ancestors().take_while(|level| *level != shared).collect::<Vec<_>>().iter().rev() {
        match files::folder(0o770).create(level) {
            Ok(()) => files::set_mode(level, 0o2770)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let temporary = folder.join(".part");
    let attempt = || -> io::Result<(u64, String)> {
        // Left by an agent that was interrupted here.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut from = File::open(source)?;
        let linked = fs::hard_link(source, &temporary).is_ok();
        let summed = if linked {
            // Whatever the program's umask was: the orchestrator is in the group, not the owner.
            files::add_mode(&temporary, 0o440)?;
            let summed = sum(&mut from, &mut io::sink())?;
            files::sync(&temporary)?;
            summed
        } else {
            let mut to = files::options(0o640).write(true).create_new(true).open(&temporary)?;
            let summed = sum(&mut from, &mut to)?;
            to.sync_all()?;
            summed
        };
        drop(from);
        files::replace(&temporary, target)?;
        // If the target was a link to the same file already, rename(2) did nothing and the temporary name is left.
        let _ = fs::remove_file(&temporary);
        files::sync_folder(folder)?;
        Ok(summed)
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

fn sum(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 128 * 1024];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                hash.update(&buffer[..length]);
                to.write_all(&buffer[..length])?;
                bytes += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests;
