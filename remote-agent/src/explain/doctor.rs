//! What is likely to go wrong with a descriptor on this host although it can be read: a missing program and what may have
//! been meant, folders that are not there or not writable, templates through which a value could become more than a value.
//! Looks at the disk, changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use wps_remote_protocol::ini::{Finding, nearest};

use crate::command::program;
use crate::descriptor::ServiceDescriptor;
use crate::descriptor::model::{ActionKind, Operand, Word};
use crate::files;

/// Most names of programs among which a near one is sought.
const MAX_NAMES: usize = 20_000;

/// Programs that take an argument for code, and the arguments that say so.
const INTERPRETERS: [(&[&str], &[&str]); 6] = [
    (&["sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "busybox"], &["-c", "-lc", "-ec", "-xc"]),
    (&["python", "python2", "python3", "pypy3"], &["-c"]),
    (&["perl", "ruby", "node", "Rscript", "lua"], &["-e", "-E", "--eval"]),
    (&["php"], &["-r"]),
    (&["powershell", "pwsh"], &["-Command", "-c", "-EncodedCommand"]),
    (&["cmd"], &["/c", "/C", "/k", "/K"]),
];

/// Programs that hand their arguments to a shell or to another program.
const FORWARDERS: [&str; 6] = ["ssh", "eval", "xargs", "su", "parallel", "watch"];

/// Environment variables that make a program load or run something.
const VARIABLES: [&str; 18] = [
    "PATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYOPT",
    "NODE_OPTIONS",
    "BASH_ENV",
    "ENV",
    "IFS",
    "SHELLOPTS",
    "JAVA_TOOL_OPTIONS",
    "GDAL_DRIVER_PATH",
];

/// Everything that can be said about one descriptor on this host.
pub fn examine(descriptor: &ServiceDescriptor) -> Vec<Finding> {
    let mut found = Vec::new();
    the_program(descriptor, &mut found);
    folders(descriptor, &mut found);
    templates(descriptor, &mut found);
    found
}

/// Descriptors that offer a process which an earlier one offers already: the first in the order of paths counts. Those
/// that are switched off do not count. Gives for each file what is to be said of it.
pub fn doubles(descriptors: &[ServiceDescriptor]) -> BTreeMap<PathBuf, Finding> {
    let mut found = BTreeMap::new();
    let mut first: BTreeMap<String, &Path> = BTreeMap::new();
    for descriptor in descriptors.iter().filter(|descriptor| descriptor.active) {
        let name = descriptor.id.to_string();
        if let Some(other) = first.get(&name) {
            let why = format!("{} offers {name} already; this file is left out", other.display());
            let finding = Finding::warning("duplicate-service", why).key("service");
            found.insert(
                descriptor.source.clone(),
                finding.remedy("rename the service in one of the two, or switch one off"),
            );
        } else {
            first.insert(name, &descriptor.source);
        }
    }
    found
}

fn the_program(descriptor: &ServiceDescriptor, found: &mut Vec<Finding>) {
    let at = |finding: Finding| finding.at(descriptor.program.line).key(descriptor.program.key);
    match program::resolve(descriptor) {
        Ok(located) if program::is_writable_by_others(&located.program) => {
            let why = format!("every user of this host can replace {}", located.program.display());
            found.push(at(Finding::warning("program-writable", why).remedy("chmod o-w it and its folder")));
        }
        Ok(_) => {}
        Err(held) => {
            let missing = !held.looked.iter().any(|path| path.exists());
            let near = if missing { similar(&held.program, &held.looked) } else { None };
            let remedy = match near {
                Some(near) => format!("did you mean `{near}`? The process is not announced until then"),
                None => "install it, or correct the path; the process is not announced until then".to_owned(),
            };
            found.push(at(Finding::warning("program-missing", held.to_string()).remedy(remedy)));
        }
    }
}

/// The program of a similar name in the places that were looked at. A path comes back with its folder.
fn similar(written: &str, looked: &[PathBuf]) -> Option<String> {
    let name = Path::new(written).file_name()?.to_str()?;
    let mut names = Vec::new();
    for folder in looked.iter().filter_map(|path| path.parent()) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if names.len() < MAX_NAMES
                && entry.path().is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
    }
    // Most often the ending was forgotten, or is another one.
    let stem = Path::new(name).file_stem()?.to_str()?;
    let same_stem = names.iter().find(|other| {
        Path::new(other).file_stem().is_some_and(|other| other.eq_ignore_ascii_case(stem)) && *other != name
    });
    let near = same_stem.map(String::as_str).or_else(|| nearest(name, names.iter().map(String::as_str)))?;
    Some(Path::new(written).with_file_name(near).to_string_lossy().into_owned())
}

fn folders(descriptor: &ServiceDescriptor, found: &mut Vec<Finding>) {
    if let Err((place, why)) = can_be_written(&descriptor.output_dir) {
        let why =
            format!("run directories cannot be made in {}: {place} {why}", descriptor.output_dir.display());
        let remedy = "make it and give it to the agent's user, or set another directory";
        found.push(Finding::warning("folder-unwritable", why).key("output_dir").remedy(remedy));
    }
    if let Some(cwd) = descriptor.cwd.as_ref().and_then(|cwd| cwd.fixed()) {
        let cwd = crate::descriptor::paths::absolute(Path::new(&cwd), descriptor.dir());
        if !cwd.is_dir() {
            let why = format!("the working directory {} is not there, so no run can start", cwd.display());
            let finding = Finding::warning("folder-missing", why).key("cwd");
            found.push(finding.remedy("make it, or correct the path"));
        }
    }
}

/// Whether files can be made in a folder, or it can be made itself. The place that does not allow it, and why.
pub fn can_be_written(folder: &Path) -> Result<(), (String, String)> {
    for place in folder.ancestors() {
        let shown = place.display().to_string();
        match fs::metadata(place) {
            Ok(meta) if !meta.is_dir() => return Err((shown, "is no directory".to_owned())),
            Ok(_) => {
                return files::takes_files(place)
                    .map_err(|error| (shown, format!("is not writable: {error}")));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err((shown, format!("cannot be looked at: {error}"))),
        }
    }
    Err((folder.display().to_string(), "has no parent that exists".to_owned()))
}

fn templates(descriptor: &ServiceDescriptor, found: &mut Vec<Finding>) {
    value_as_code(descriptor, found);
    for action in &descriptor.actions {
        let at = |finding: Finding| finding.at(action.line).section(&action.section);
        match &action.what {
            ActionKind::CommandLine { operand: Operand::Input(index), words, flag: false } => {
                let Some(input) = descriptor.inputs.get(*index) else { continue };
                if input.checks.allow_leading_dash && words.iter().any(Word::begins_with_value) {
                    let why = format!(
                        "a value of `{}` begins an argument and may begin with `-`: a client can give any option",
                        input.name
                    );
                    let remedy = "remove allow_leading_dash, or put `--` before it (as a const) if the program knows that";
                    found.push(at(Finding::warning("option-injection", why).remedy(remedy)));
                }
            }
            ActionKind::Env { operand: Operand::Input(index), variable } => {
                let name = descriptor.inputs.get(*index).map_or("", |input| input.name.as_str());
                if VARIABLES.iter().any(|known| known.eq_ignore_ascii_case(variable)) {
                    let why = format!(
                        "clients set `{variable}` by `{name}`, which can make the program run other code"
                    );
                    found.push(at(Finding::warning("dangerous-variable", why)
                        .key("variable")
                        .remedy("use a variable of the program's own, or a list of allowed values (enum)")));
                }
            }
            _ => {}
        }
    }
    for input in &descriptor.inputs {
        if input.checks.url_schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("file")) {
            let why = format!("`{}` accepts file: addresses: clients name files of this host", input.name);
            let finding = Finding::warning("file-urls", why).at(input.line).key("url_schemes");
            found.push(finding.remedy("leave file out, or give a list of allowed values (enum)"));
        }
    }
}

/// A value that a shell or an interpreter would read as code.
fn value_as_code(descriptor: &ServiceDescriptor, found: &mut Vec<Finding>) {
    let mut fixed: Vec<String> = descriptor.program.words.iter().map(ToString::to_string).collect();
    // A wrapper passes on what follows its own options; what stands behind it is what counts.
    while fixed.len() > 1
        && matches!(base(&fixed[0]).as_str(), "env" | "nice" | "nohup" | "sudo" | "timeout" | "time")
    {
        let skip = 1 + fixed[1..]
            .iter()
            .take_while(|word| word.starts_with('-') || word.contains('=') || word.parse::<f64>().is_ok())
            .count();
        fixed.drain(..skip.min(fixed.len() - 1));
    }
    let Some(name) = fixed.first().map(|word| base(word)) else { return };
    let known = INTERPRETERS.iter().find(|(programs, _)| programs.contains(&name.as_str()));
    let forwards = FORWARDERS.contains(&name.as_str());
    if known.is_none() && !forwards {
        return;
    }
    let switches = known.map_or(&[][..], |(_, switches)| switches);
    // The word that stands before the first argument of each action, and whether the code was given already.
    let mut before = fixed.last().cloned().unwrap_or_default();
    for action in &descriptor.actions {
        let ActionKind::CommandLine { operand, words, flag } = &action.what else { continue };
        for word in words {
            let takes_value = word.has_value() && !flag && matches!(operand, Operand::Input(_));
            let is_code = forwards || switches.contains(&before.as_str());
            if takes_value && is_code {
                let Operand::Input(index) = operand else { continue };
                let input = descriptor.inputs.get(*index);
                // One of a list that the author wrote is as good as written by the author.
                if input.is_none_or(|input| input.checks.allowed.is_empty()) {
                    let shown = input.map_or("", |input| input.name.as_str());
                    let why =
                        format!("`{name}` reads the value of `{shown}` as code: a client can run anything");
                    let remedy = "write a script that takes the value as an argument of its own, or give a list of allowed values (enum)";
                    let finding =
                        Finding::warning("value-as-code", why).at(action.line).section(&action.section);
                    found.push(finding.remedy(remedy));
                }
            }
            before = if word.has_value() { String::new() } else { literal(word) };
        }
    }
}

fn literal(word: &Word) -> String {
    use crate::descriptor::model::WordPart;
    let part = |part: &WordPart| match part {
        WordPart::Literal(template) => template.to_string(),
        WordPart::Value => String::new(),
    };
    word.0.iter().map(part).collect()
}

/// The name of a program without folder, `.exe` and version (`python3.11`).
fn base(program: &str) -> String {
    let name = program.rsplit(['/', '\\']).next().unwrap_or(program);
    let name = name.strip_suffix(".exe").unwrap_or(name);
    match name.split_once('.') {
        Some((stem, version)) if version.bytes().all(|b| b.is_ascii_digit() || b == b'.') => stem.to_owned(),
        _ => name.to_owned(),
    }
}
