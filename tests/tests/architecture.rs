//! The rules of the house, checked against the source text: who may know whom (the table in the README), a `//!` paragraph
//! at the top of every file, file sizes, the form of citations, and that `conformance.txt` names tests that exist. Reads
//! files only; compiles and starts nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// No source file is longer, tests included.
const MAX_LINES: usize = 600;
/// Where the source of the workspace lies, and the short name of the crate in the table.
const CRATES: [(&str, &str); 6] = [
    ("protocol/src", "protocol"),
    ("protocol/xmpp/src", "xmpp"),
    ("orchestrator/src", "orchestrator"),
    ("remote-agent/src", "agent"),
    ("tests", "tests"),
    ("examples/quickstart/src", "quickstart"),
];
/// How the crates are called in the source.
const NAMES: [(&str, &str); 4] = [
    ("wps_remote_protocol", "protocol"),
    ("wps_remote_xmpp", "xmpp"),
    ("wps_orchestrator", "orchestrator"),
    ("wps_remote_agent", "agent"),
];

#[test]
fn every_module_keeps_to_the_layer_table() {
    let table = layer_table();
    assert!(table.len() >= 10, "the layer table of README.md was not found");
    let reexports = reexports();
    let mut wrong = Vec::new();
    for source in sources() {
        if source.is_test {
            continue;
        }
        let Some(row) = row_of(&table, &source.module) else {
            if matches!(source.module.split("::").next(), Some("tests" | "quickstart")) {
                continue;
            }
            wrong.push(format!(
                "{}: no row of the layer table covers {}",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for (number, line) in code_lines(&source.text) {
            for path in paths_of(&line, &source.module, &reexports) {
                if let Some(why) = row.objection(&path, &source.module) {
                    wrong.push(format!("{}:{number}: {why}", source.path.display()));
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "the layer table of README.md is not kept:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_with_a_paragraph_and_is_short() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{}: the first line is no `//!` paragraph", source.path.display()));
        }
        if lines > MAX_LINES {
            wrong.push(format!(
                "{}: {lines} lines; {MAX_LINES} is the limit, split it",
                source.path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_undone_in_the_source() {
    // Spelled in halves, so that this file does not find itself.
    let forbidden =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimpl", "emented!"), concat!("to", "do!(")];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in forbidden {
                if line.contains(word) {
                    wrong.push(format!("{}:{}: {word}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn citations_have_the_form_that_can_be_searched_for() {
    let mut wrong = Vec::new();
    for source in sources() {
        // This file quotes wrong ones.
        if source.module == "tests::tests::architecture" {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            let Some(comment) = line.find("//").map(|at| &line[at..]) else { continue };
            if let Some(why) = citation_fault(comment) {
                wrong.push(format!("{}:{}: {why}: {}", source.path.display(), number + 1, comment.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn conformance_names_tests_that_exist() {
    let root = root();
    let text = fs::read_to_string(root.join("tests/conformance.txt")).unwrap();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        rows += 1;
        let cells: Vec<&str> = line.split('·').map(str::trim).collect();
        let [_, _, state, test] = cells[..] else {
            wrong.push(format!("line {}: not `standard · requirement · state · test`", number + 1));
            continue;
        };
        match state {
            "yes" | "partial" => {}
            "no" | "planned" if test == "-" => continue,
            _ => wrong.push(format!("line {}: `{state}` with test `{test}`", number + 1)),
        }
        for test in test.split(',').map(str::trim) {
            let found = test.split_once("::").is_some_and(|(file, name)| {
                fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {name}(")))
            });
            if !found {
                wrong.push(format!("line {}: there is no test `{test}`", number + 1));
            }
        }
    }
    assert!(rows > 0 && wrong.is_empty(), "tests/conformance.txt:\n{}", wrong.join("\n"));
}

#[test]
fn links_in_pages_lead_somewhere() {
    let root = root();
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["orchestrator", "remote-agent", "protocol", "services", "examples", "deploy", "tests"] {
        files(&root.join(folder), "md", &mut pages);
    }
    let mut wrong = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !page.parent().unwrap().join(file).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One row: a module, what of the workspace it may use, and which crates it must not see.
struct Row {
    module: String,
    may: Vec<String>,
    never: Vec<String>,
}

impl Row {
    fn objection(&self, path: &str, module: &str) -> Option<String> {
        if self.may.iter().any(|may| may == "everything") {
            return None;
        }
        let krate = path.split("::").next().unwrap_or_default();
        if CRATES.iter().any(|(_, name)| *name == krate) {
            // What lies at the root of a crate itself is its vocabulary, for all of its modules.
            let at_root = path.split("::").nth(1).is_none_or(|name| name.starts_with(char::is_uppercase));
            let own = under(path, &self.module)
                || under(path, module)
                || at_root && module.split("::").next() == Some(krate);
            let allowed = own || self.may.iter().any(|may| under(path, may));
            return (!allowed).then(|| format!("{} must not know {path}", self.module));
        }
        self.never
            .iter()
            .find(|never| under(path, never))
            .map(|never| format!("{} must not see {never}", self.module))
    }
}

/// Whether `path` is `module` or something inside of it.
fn under(path: &str, module: &str) -> bool {
    path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
}

/// The table between the two markers of the README; each cell lists names between backticks.
fn layer_table() -> Vec<Row> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let Some((_, rest)) = readme.split_once("<!-- layers -->") else { return Vec::new() };
    let table = rest.split("<!-- /layers -->").next().unwrap_or_default();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let names = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        };
        for module in names(cells[0]) {
            rows.push(Row { module, may: names(cells[1]), never: names(cells[2]) });
        }
    }
    rows
}

/// The row with the longest name that covers the module.
fn row_of<'a>(table: &'a [Row], module: &str) -> Option<&'a Row> {
    table.iter().filter(|row| under(module, &row.module)).max_by_key(|row| row.module.len())
}

struct Source {
    path: PathBuf,
    /// `orchestrator::engine::job`.
    module: String,
    text: String,
    is_test: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    for (folder, krate) in CRATES {
        let mut files = Vec::new();
        crate::files(&root.join(folder), "rs", &mut files);
        for file in files {
            let inner = file.strip_prefix(root.join(folder)).unwrap().with_extension("");
            let mut parts: Vec<String> = vec![krate.to_owned()];
            parts.extend(inner.iter().map(|part| part.to_string_lossy().into_owned()));
            let is_test = parts.iter().skip(1).any(|part| part.ends_with("tests") || part == "fixtures");
            if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
                parts.pop();
            }
            let text = fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&root).unwrap().to_owned();
            sources.push(Source { path, module: parts.join("::"), text, is_test });
        }
    }
    assert!(sources.len() > 20, "the source was not found");
    sources
}

/// All files with this ending, in order, build folders left out.
fn files(folder: &Path, ending: &str, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                files(&path, ending, into);
            }
        } else if path.extension().is_some_and(|other| other == ending) {
            into.push(path);
        }
    }
    into.sort();
}

/// Lines of code with their numbers: comments and the unit tests at the end of a file left out, `use` trees joined into
/// one line (the number is that of their first line).
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open_use = false;
    let mut test_next = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.trim() == "#[cfg(test)]" {
            test_next = true;
            continue;
        }
        if test_next && !code.trim().is_empty() {
            test_next = false;
            // A test module in the file itself stands at its end.
            if code.trim_start().starts_with("mod ") && code.contains('{') {
                break;
            }
            continue;
        }
        let starts_use = code
            .trim_start()
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .starts_with("use ");
        if open_use {
            if let Some((_, last)) = lines.last_mut() {
                last.push_str(code.trim());
            }
        } else {
            lines.push((index + 1, code.to_owned()));
        }
        if (open_use || starts_use) && !code.trim().is_empty() {
            open_use = !code.contains(';');
        }
    }
    lines
}

/// Absolute paths (`orchestrator::store::Store`, `tokio::net`) that a line names.
fn paths_of(line: &str, module: &str, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let trimmed = line.trim_start();
    let visibility =
        trimmed.strip_prefix("pub(crate) ").or_else(|| trimmed.strip_prefix("pub ")).unwrap_or(trimmed);
    let raw = match visibility.strip_prefix("use ") {
        Some(tree) => {
            let mut found = Vec::new();
            expand("", tree.trim_end_matches(';').trim(), &mut found);
            found
        }
        None => qualified(line),
    };
    raw.into_iter().filter_map(|path| absolute(&path, module, reexports)).collect()
}

/// Expands `a::{b, c::{d, e}}`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        if !path.is_empty() {
            found.push(format!("{prefix}{}", path.trim_start_matches("::")));
        }
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, &inner[start..], found);
}

/// Paths with at least one `::` in ordinary code.
fn qualified(line: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    line.split(|c: char| !is_part(c))
        .filter(|word| word.contains("::") && word.starts_with(|c: char| c.is_lowercase()))
        .map(|word| word.trim_end_matches(':').to_owned())
        .collect()
}

fn absolute(path: &str, module: &str, reexports: &BTreeMap<String, String>) -> Option<String> {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let joined = |base: &str| if rest.is_empty() { base.to_owned() } else { format!("{base}::{rest}") };
    let own = module.split("::").next().unwrap_or_default();
    let absolute = match first {
        "crate" => joined(own),
        "self" => return None,
        "super" => {
            let mut parts: Vec<&str> = module.split("::").collect();
            let mut rest = path;
            while let Some(next) = rest.strip_prefix("super") {
                parts.pop();
                rest = next.trim_start_matches("::");
            }
            if parts.len() < 2 && rest.starts_with(|c: char| c.is_uppercase()) {
                return None;
            }
            format!("{}::{rest}", parts.join("::"))
        }
        name => match NAMES.iter().find(|(long, _)| *long == name) {
            Some((_, short)) => joined(short),
            None => return Some(path.to_owned()),
        },
    };
    // `protocol::ProcessId` is a re-export of `protocol::process::ProcessId`.
    let mut parts = absolute.splitn(3, "::");
    let (krate, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match reexports.get(&format!("{krate}::{second}")) {
        Some(real) => Some(real.clone()),
        None => Some(absolute),
    }
}

/// What the crate roots re-export, by the short path.
fn reexports() -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    let sources = sources();
    let modules: Vec<&str> = sources.iter().map(|source| source.module.as_str()).collect();
    for source in sources.iter().filter(|source| !source.module.contains("::")) {
        for (_, line) in code_lines(&source.text) {
            if let Some(tree) = line.trim().strip_prefix("pub use ") {
                let mut found = Vec::new();
                expand("", tree.trim_end_matches(';'), &mut found);
                for path in found {
                    let name = path.rsplit("::").next().unwrap_or_default();
                    let first = path.split("::").next().unwrap_or_default();
                    // Either an item of an own module, or one of another crate under a name of ours.
                    let own = modules.iter().any(|module| *module == format!("{}::{first}", source.module));
                    let real = if own { format!("{}::{path}", source.module) } else { path.clone() };
                    map.insert(format!("{}::{name}", source.module), real);
                }
            }
        }
    }
    map
}

/// `OGC 05-007r7 §10.3.1`, `OGC 18-062r2 /req/core/job-results`, `XEP-0045 §7.2`, `RFC 6120 §6.4`.
fn citation_fault(comment: &str) -> Option<&'static str> {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
    for (at, _) in comment.match_indices("RFC") {
        let rest = &comment[at + 3..];
        let number = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('\u{a0}')).unwrap_or("");
        if digits(rest) > 0 || rest.starts_with('-') {
            return Some("an RFC is cited as `RFC 6120 §6.4`");
        }
        if number[digits(number)..].trim_start().starts_with("section") {
            return Some("a section is cited with §");
        }
    }
    for (at, _) in comment.match_indices("XEP") {
        let rest = &comment[at + 3..];
        if !rest.starts_with('-') || digits(&rest[1..]) != 4 {
            return Some("an extension is cited as `XEP-0045 §7.2`");
        }
        if rest[5..].trim_start().starts_with("section") {
            return Some("a section is cited with §");
        }
    }
    for word in ["05-007", "06-121", "14-065", "18-062"] {
        for (at, _) in comment.match_indices(word) {
            if !comment[..at].ends_with("OGC ")
                && !comment[..at].ends_with("OGC\u{a0}")
                && !comment[..at].ends_with('/')
            {
                return Some("an OGC standard is cited as `OGC 05-007r7 §10.3.1`");
            }
        }
    }
    None
}

#[test]
fn the_reader_of_paths_reads_paths() {
    let none = BTreeMap::new();
    let read = |line: &str| paths_of(line, "orchestrator::http::wps", &none);
    assert_eq!(
        read("use crate::{jobs::Jobs, store::{Store, sqlite as db}};"),
        ["orchestrator::jobs::Jobs", "orchestrator::store::Store", "orchestrator::store::sqlite"]
    );
    assert_eq!(
        read("    let x = tokio::spawn(crate::store::open());"),
        ["tokio::spawn", "orchestrator::store::open"]
    );
    assert_eq!(read("use super::files::Page;"), ["orchestrator::http::files::Page"]);
    assert_eq!(read("use wps_remote_protocol::message::ToAgent;"), ["protocol::message::ToAgent"]);
    assert!(citation_fault("// RFC 6120 §6.4, XEP-0045 §7.2, OGC 05-007r7 §10.3.1").is_none());
    assert!(citation_fault("// RFC6120").is_some() && citation_fault("// XEP 45").is_some());
    assert!(
        citation_fault("// see 05-007r7 10.3").is_some() && citation_fault("// RFC 6120 section 6").is_some()
    );
}
