//! Where the program of a descriptor is on this host, and why it cannot be started if it cannot. Looks at the disk, starts
//! nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::nearest;

use crate::descriptor::model::ServiceDescriptor;
use crate::descriptor::paths;

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// What to start; absolute.
    pub program: PathBuf,
    /// Arguments that come first: the script, if `program` is its interpreter, then the fixed ones.
    pub args: Vec<String>,
}

/// A program that was not found: the descriptor is loaded, but its process is not offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The program as written.
    pub program: String,
    /// Where it was looked for.
    pub looked: Vec<PathBuf>,
    /// What is the matter.
    pub why: String,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "program `{}` {}", self.program, self.why)
    }
}

/// Finds the program of a descriptor whose fixed words hold no run variables, or hold placeholders for them. A descriptor
/// without outputs is not offered either: OGC 05-007r7 §9.3.1 wants at least one.
pub fn resolve(descriptor: &ServiceDescriptor) -> Result<Located, Held> {
    if descriptor.outputs.is_empty() {
        let program = descriptor.program.words.first().map(ToString::to_string).unwrap_or_default();
        let why = "cannot be offered: the descriptor declares no output, and a WPS process needs at least one; add one \
                   ([Output1], or a line in [Output])";
        return Err(Held { program, looked: Vec::new(), why: why.to_owned() });
    }
    let words: Vec<String> = descriptor.program.words.iter().map(ToString::to_string).collect();
    locate(descriptor, &words).map_err(|missing| missing.2)
}

/// Finds the program that the first word names. If it is missing, what would be started all the same comes back: the
/// program, its first arguments, and why it cannot be.
pub(super) fn locate(
    descriptor: &ServiceDescriptor,
    words: &[String],
) -> Result<Located, Box<(PathBuf, Vec<String>, Held)>> {
    let Some((written, fixed)) = words.split_first() else {
        let held = Held { program: String::new(), looked: Vec::new(), why: "is not named".to_owned() };
        return Err(Box::new((PathBuf::new(), Vec::new(), held)));
    };
    let candidates = candidates(descriptor, written);
    let found = candidates.iter().find(|path| path.is_file());
    let Some(path) = found else {
        // Nothing was found: the first place that was looked at stands for it.
        let guess = if descriptor.program.beside {
            candidates.first().cloned().unwrap_or_else(|| PathBuf::from(written))
        } else {
            as_written(descriptor, written)
        };
        let (program, args) = with_interpreter(descriptor, &guess, fixed, true);
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        let meant = match similar(&candidates) {
            Some(near) => format!("; did you mean {}?", near.display()),
            None => String::new(),
        };
        let why = format!("does not exist; looked at {}{meant}", join_some(&looked));
        return Err(Box::new((program, args, Held { program: written.clone(), looked: candidates, why })));
    };
    if is_batch(path) && !descriptor.program.allow_batch && cfg!(windows) {
        let why = "is a batch file, whose quoting is not safe; set allow_batch = true to use it all the same"
            .to_owned();
        let held = Held { program: written.clone(), looked: vec![path.clone()], why };
        return Err(Box::new((path.clone(), fixed.to_vec(), held)));
    }
    if is_executable(path) {
        return Ok(Located { program: path.clone(), args: fixed.to_vec() });
    }
    let (program, args) = with_interpreter(descriptor, path, fixed, true);
    if program == *path {
        let why = format!("is not executable: {}; chmod +x it", path.display());
        let held = Held { program: written.clone(), looked: vec![path.clone()], why };
        return Err(Box::new((program, args, held)));
    }
    match find_in_path(&program) {
        Some(interpreter) => Ok(Located { program: interpreter, args }),
        None => {
            let why = format!("needs {}, which is not in PATH", program.display());
            let held = Held { program: written.clone(), looked: vec![program.clone()], why };
            Err(Box::new((program, args, held)))
        }
    }
}

/// A file that is there and whose name is nearly that of one that is not.
fn similar(candidates: &[PathBuf]) -> Option<PathBuf> {
    /// Most names that are looked at in one folder.
    const MOST: usize = 10_000;
    let name = candidates.first()?.file_name()?.to_str()?;
    candidates.iter().find_map(|path| {
        let folder = path.parent()?;
        let files = fs::read_dir(folder).ok()?.flatten().take(MOST);
        let names: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
        let near =
            nearest(name, names.iter().map(String::as_str).filter(|name| folder.join(name).is_file()))?;
        Some(folder.join(near))
    })
}

fn join_some(list: &[String]) -> String {
    match list.len() {
        0..=4 => list.join(", "),
        more => format!("{} and {} more places", list[..3].join(", "), more - 3),
    }
}

/// Where a program may be, in order.
fn candidates(descriptor: &ServiceDescriptor, written: &str) -> Vec<PathBuf> {
    let path = Path::new(written);
    if path.is_absolute() || has_separator(written) {
        return vec![as_written(descriptor, written)];
    }
    let beside = descriptor.program.beside.then(|| paths::absolute(path, descriptor.dir()));
    beside.into_iter().chain(in_path(path)).collect()
}

fn as_written(descriptor: &ServiceDescriptor, written: &str) -> PathBuf {
    let path = Path::new(written);
    if path.is_absolute() {
        path.to_path_buf()
    } else if has_separator(written) {
        paths::absolute(path, descriptor.dir())
    } else {
        PathBuf::from(written)
    }
}

fn has_separator(text: &str) -> bool {
    text.contains('/') || (cfg!(windows) && text.contains('\\'))
}

fn in_path(name: &Path) -> Vec<PathBuf> {
    let folders =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let endings: &[&str] = if cfg!(windows) && name.extension().is_none() { &["exe", "com"] } else { &[""] };
    folders
        .iter()
        .filter(|folder| folder.is_absolute())
        .flat_map(|folder| endings.iter().map(move |ending| folder.join(name).with_extension_if(ending)))
        .collect()
}

trait WithExtension {
    fn with_extension_if(self, ending: &str) -> PathBuf;
}

impl WithExtension for PathBuf {
    fn with_extension_if(self, ending: &str) -> PathBuf {
        if ending.is_empty() { self } else { self.with_extension(ending) }
    }
}

fn find_in_path(program: &Path) -> Option<PathBuf> {
    if program.is_absolute() {
        return is_executable(program).then(|| program.to_path_buf());
    }
    in_path(program).into_iter().find(|path| is_executable(path))
}

/// The interpreter of a file's extension in front of it, if the descriptor may use one.
fn with_interpreter(
    descriptor: &ServiceDescriptor,
    path: &Path,
    fixed: &[String],
    wanted: bool,
) -> (PathBuf, Vec<String>) {
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let table = &descriptor.program.interpreters;
    let known = table.iter().find(|(extension, _)| *extension == ending);
    match known.and_then(|(_, words)| words.split_first()) {
        Some((interpreter, options)) if wanted && descriptor.program.beside => {
            let program = find_in_path(Path::new(interpreter)).unwrap_or_else(|| PathBuf::from(interpreter));
            let script = path.to_string_lossy().into_owned();
            let args = options.iter().cloned().chain([script]).chain(fixed.iter().cloned()).collect();
            (program, args)
        }
        _ => (path.to_path_buf(), fixed.to_vec()),
    }
}

fn is_batch(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bat") || e.eq_ignore_ascii_case("cmd"))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    let known = ["exe", "com", "bat", "cmd"];
    fs::metadata(path).is_ok_and(|meta| meta.is_file())
        && path.extension().is_some_and(|e| known.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Whether others than the owner may replace the program: its file or its directory is writable by everybody.
#[cfg(unix)]
pub fn is_writable_by_others(program: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path, sticky_is_fine: bool| {
        fs::metadata(path).is_ok_and(|meta| {
            let mode = meta.permissions().mode();
            mode & 0o002 != 0 && !(sticky_is_fine && mode & 0o1000 != 0)
        })
    };
    open(program, false) || program.parent().is_some_and(|folder| open(folder, true))
}

/// Whether others than the owner may replace the program; not known on this system.
#[cfg(not(unix))]
pub fn is_writable_by_others(_program: &Path) -> bool {
    false
}
