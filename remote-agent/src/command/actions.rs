//! Performs a descriptor's actions on bound values: words for the argument vector, files, environment, standard input.
//! Writes nothing; files are planned.

use serde_json::Value as Json;
use wps_remote_protocol::LiteralType;
use wps_remote_protocol::ini::{Finding, Template};

use super::documents::Documents;
use super::json_path::JsonPath;
use super::values::{self, Bound, BoundValue, as_json, read_text};
use super::{FileContent, PlannedFile, PrepareError, Run, ini_edit, invalid, schema};
use crate::descriptor::model::{
    ActionKind, Condition, Kind, Multi, Operand, ServiceDescriptor, Test, Word, WordPart,
};

/// Longest single argument in bytes: what Linux passes to a program, less the closing NUL.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// What the actions gave.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub files: Vec<PlannedFile>,
    pub stdin: Option<Vec<u8>>,
    pub sensitive: Vec<String>,
    pub warnings: Vec<Finding>,
}

/// One input or const with its values.
struct Subject<'a> {
    name: &'a str,
    kind: Kind,
    values: &'a [BoundValue],
    multi: &'a Multi,
    many: bool,
    guard_dash: bool,
}

struct Performer<'a> {
    run: &'a Run<'a>,
    descriptor: &'a ServiceDescriptor,
    bound: &'a Bound,
    consts: Vec<[BoundValue; 1]>,
    documents: Documents,
    done: Done,
}

/// Performs all actions in order.
pub(super) fn perform(
    descriptor: &ServiceDescriptor,
    run: &Run<'_>,
    mut bound: Bound,
) -> Result<Done, PrepareError> {
    let mut documents = Documents::default();
    for file in std::mem::take(&mut bound.files) {
        documents.put(file.path, file.content);
    }
    let consts = descriptor
        .consts
        .iter()
        .map(|spec| {
            let argument = run.fill(&spec.value);
            let content = FileContent::Bytes(argument.clone().into_bytes());
            [BoundValue { argument, content, from_descriptor: true, stands_for_nothing: false }]
        })
        .collect();
    let done = Done {
        sensitive: std::mem::take(&mut bound.sensitive),
        warnings: std::mem::take(&mut bound.warnings),
        ..Done::default()
    };
    let mut performer = Performer { run, descriptor, bound: &bound, consts, documents, done };
    for action in &descriptor.actions {
        if action.when.as_ref().is_none_or(|condition| performer.holds(condition)) {
            performer.action(&action.what)?;
        }
    }
    let Performer { documents, mut done, .. } = performer;
    done.files = documents.into_files();
    Ok(done)
}

impl Performer<'_> {
    fn subject(&self, operand: Operand) -> Subject<'_> {
        match operand {
            Operand::Input(index) => {
                let spec = &self.descriptor.inputs[index];
                Subject {
                    name: &spec.name,
                    kind: spec.kind,
                    values: &self.bound.inputs[index],
                    multi: &spec.multi,
                    many: spec.max != Some(1),
                    // Values that the author lists are the author's.
                    guard_dash: !spec.checks.allow_leading_dash
                        && spec.checks.allowed.is_empty()
                        && !is_number(spec.kind),
                }
            }
            Operand::Const(index) => {
                let spec = &self.descriptor.consts[index];
                Subject {
                    name: &spec.name,
                    kind: spec.kind,
                    values: &self.consts[index],
                    multi: &Multi::Repeat,
                    many: false,
                    guard_dash: false,
                }
            }
        }
    }

    /// Whether a condition is met by the values of this run, defaults included.
    fn holds(&self, condition: &Condition) -> bool {
        let spec = &self.descriptor.inputs[condition.input];
        let values = &self.bound.inputs[condition.input];
        // The word None stands for nothing. A literal's content is its text, also where the program is given a file.
        let mut texts =
            values.iter().filter(|value| !value.stands_for_nothing).map(|value| match &value.content {
                FileContent::Bytes(bytes) => String::from_utf8_lossy(bytes),
                FileContent::CopyOf(path) => path.to_string_lossy(),
            });
        let met = match &condition.test {
            Test::Given if spec.kind == Kind::Literal(LiteralType::Boolean) => {
                texts.any(|text| text == "true")
            }
            Test::Given => texts.next().is_some(),
            Test::Equals(wanted) if is_number(spec.kind) => {
                let wanted = wanted.trim().parse::<f64>();
                texts.any(|text| wanted.is_ok() && text.trim().parse::<f64>() == wanted)
            }
            Test::Equals(wanted) => texts.any(|text| text == wanted.as_str()),
        };
        met != condition.negated
    }

    fn action(&mut self, what: &ActionKind) -> Result<(), PrepareError> {
        match what {
            ActionKind::CommandLine { operand, words, flag } => {
                let subject = self.subject(*operand);
                let args = if *flag {
                    flag_words(self.run, &subject, words)
                } else {
                    let texts: Vec<String> =
                        subject.values.iter().map(|value| value.argument.clone()).collect();
                    self.guard(&subject, words)?;
                    self.words(&subject, words, &texts)?
                };
                self.done.args.extend(args);
            }
            ActionKind::CreateJson { operand, target, path, schema, overwrite, words } => {
                self.create_json(*operand, target, path.as_ref(), schema.as_ref(), *overwrite, words)?;
            }
            ActionKind::UpdateJson { operand, source, target, path, create_parents } => {
                self.update_json(*operand, source, target, path, *create_parents)?;
            }
            ActionKind::CopyFile { source, target } => {
                let from = self.run.source(source);
                let to = self.run.inside(&self.run.fill(target), "target_filepath")?;
                if !from.is_file() {
                    return Err(PrepareError::Setup(format!(
                        "source_filepath {} is not there",
                        from.display()
                    )));
                }
                self.documents.put(to, FileContent::CopyOf(from));
            }
            ActionKind::UpdateIni { operand, source, target, section, key, as_list } => {
                let (section, key) = (self.run.fill(section), self.run.fill(key));
                self.update_ini(*operand, source, target, &section, &key, *as_list)?;
            }
            ActionKind::WriteFile { operand, target, words } => {
                let subject = self.subject(*operand);
                let path = self.run.inside(&self.run.fill(target), "target_filepath")?;
                let several = subject.values.len() > 1;
                let mut files = Vec::new();
                for (index, value) in subject.values.iter().enumerate() {
                    let path = if several { numbered(&path, index + 1) } else { path.clone() };
                    files.push((path, value.content.clone()));
                }
                self.put_files(*operand, files, words)?;
            }
            ActionKind::Env { operand, variable } => {
                let subject = self.subject(*operand);
                if let Some(text) = joined(&subject) {
                    let text = text.map_err(|why| invalid(subject.name, why))?;
                    self.done.env.push((variable.clone(), text));
                }
            }
            ActionKind::Stdin { operand } => {
                let subject = self.subject(*operand);
                let mut bytes = Vec::new();
                for value in subject.values {
                    match &value.content {
                        FileContent::Bytes(more) => bytes.extend_from_slice(more),
                        FileContent::CopyOf(path) => {
                            let max = self.run.context.max_document;
                            let more =
                                values::read_bounded(path, max).map_err(|why| invalid(subject.name, why))?;
                            bytes.extend(more);
                        }
                    }
                }
                if !subject.values.is_empty() {
                    self.done.stdin = Some(bytes);
                }
            }
        }
        Ok(())
    }

    /// A client's value must not become an option of the program. After a word that looks like an option it is taken for
    /// that option's argument.
    fn guard(&self, subject: &Subject<'_>, words: &[Word]) -> Result<(), PrepareError> {
        let several = *subject.multi == Multi::Spread && subject.values.len() > 1;
        let after_option = |index: usize| index > 0 && words[index - 1].begins_like_option();
        let mut exposed = words.iter().enumerate().filter(|(_, word)| word.begins_with_value());
        if !subject.guard_dash || !exposed.any(|(index, _)| several || !after_option(index)) {
            return Ok(());
        }
        match subject.values.iter().find(|value| value.argument.starts_with('-') && !value.from_descriptor) {
            Some(_) => Err(invalid(
                subject.name,
                "begins with `-`, so the program would take it for an option (the descriptor can allow it with allow_leading_dash = true)",
            )
            .into()),
            None => Ok(()),
        }
    }

    /// The words of a template with values filled in.
    fn words(
        &self,
        subject: &Subject<'_>,
        words: &[Word],
        texts: &[String],
    ) -> Result<Vec<String>, PrepareError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let fill = |word: &Word, value: &str| fill_word(self.run, word, value);
        let uses_value = words.iter().any(Word::has_value);
        let out: Vec<String> = match (subject.multi, texts) {
            _ if !uses_value => words.iter().map(|word| fill(word, "")).collect(),
            (_, [one]) => words.iter().map(|word| fill(word, one)).collect(),
            (Multi::Repeat, _) => texts
                .iter()
                .flat_map(|text| words.iter().map(move |word| (word, text)))
                .map(|(w, t)| fill(w, t))
                .collect(),
            (Multi::Spread, _) => words
                .iter()
                .flat_map(|word| {
                    let count = if word.has_value() { texts.len() } else { 1 };
                    texts.iter().take(count).map(move |text| (word, text))
                })
                .map(|(word, text)| fill(word, text))
                .collect(),
            (Multi::Join(separator), _) => {
                let text = texts.join(separator);
                words.iter().map(|word| fill(word, &text)).collect()
            }
            (Multi::Json, _) => {
                let array = self.json_values(subject)?;
                let text = Json::Array(array).to_string();
                words.iter().map(|word| fill(word, &text)).collect()
            }
        };
        if let Some(long) = out.iter().find(|word| word.len() > MAX_ARGUMENT) {
            let why = format!(
                "makes an argument of {} bytes; at most {MAX_ARGUMENT} can be passed (the descriptor can use pass_by = file)",
                long.len()
            );
            return Err(invalid(subject.name, why).into());
        }
        Ok(out)
    }

    fn json_values(&self, subject: &Subject<'_>) -> Result<Vec<Json>, PrepareError> {
        let json =
            |value| as_json(self.run, subject.kind, value).map_err(|why| invalid(subject.name, why).into());
        subject.values.iter().map(json).collect()
    }

    fn create_json(
        &mut self,
        operand: Operand,
        target: &Template,
        path: Option<&JsonPath>,
        schema: Option<&Template>,
        overwrite: bool,
        words: &[Word],
    ) -> Result<(), PrepareError> {
        let subject = self.subject(operand);
        if subject.values.is_empty() {
            return Ok(());
        }
        let fault = |why: String| PrepareError::from(invalid(subject.name, why));
        // legacy: a value that is itself an array is a list of documents.
        let mut documents: Vec<(Json, Option<String>)> = Vec::new();
        for (value, json) in subject.values.iter().zip(self.json_values(&subject)?) {
            match json {
                Json::Array(list) => documents.extend(list.into_iter().map(|document| (document, None))),
                document => documents.push((document, read_text(self.run, &value.content).ok())),
            }
        }
        if let Some(schema) = schema {
            let validator = schema::load(&self.run.source(schema)).map_err(PrepareError::Setup)?;
            for (document, _) in &documents {
                schema::check(&validator, document).map_err(fault)?;
            }
        }
        let target = self.run.fill(target);
        let several = documents.len() > 1;
        let mut files = Vec::new();
        for (index, (document, written)) in documents.into_iter().enumerate() {
            let file = match path {
                Some(path) => {
                    let part = path
                        .find(&document)
                        .and_then(file_part)
                        .ok_or_else(|| fault(format!("has no whole number or plain name at {path}")))?;
                    self.run.inside(&target.replace("${json_path_expr}", &part), "target_filepath")?
                }
                None => {
                    let file = self.run.inside(&target, "target_filepath")?;
                    if several && !overwrite { numbered(&file, index + 1) } else { file }
                }
            };
            // The text as it was received keeps every digit of its numbers.
            let text = match (subject.kind, written) {
                (Kind::Json, Some(text)) => text,
                _ => document.to_string(),
            };
            files.push((file, FileContent::Bytes(text.into_bytes())));
        }
        self.put_files(operand, files, words)
    }

    /// Plans files and puts their paths onto the command line, if the action has a template.
    fn put_files(
        &mut self,
        operand: Operand,
        files: Vec<(std::path::PathBuf, FileContent)>,
        words: &[Word],
    ) -> Result<(), PrepareError> {
        if !words.is_empty() {
            let mut paths: Vec<String> = Vec::new();
            for (path, _) in &files {
                let path = path.to_string_lossy().into_owned();
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
            let subject = self.subject(operand);
            let args = self.words(&subject, words, &paths)?;
            self.done.args.extend(args);
        }
        for (path, content) in files {
            self.documents.put(path, content);
        }
        Ok(())
    }

    fn update_json(
        &mut self,
        operand: Operand,
        source: &Template,
        target: &Template,
        path: &JsonPath,
        create_parents: bool,
    ) -> Result<(), PrepareError> {
        let subject = self.subject(operand);
        if subject.values.is_empty() {
            return Ok(());
        }
        let mut values = self.json_values(&subject)?;
        let value = if subject.many || values.len() > 1 { Json::Array(values) } else { values.remove(0) };
        let target = self.run.inside(&self.run.fill(target), "target_filepath")?;
        let source = self.run.source(source);
        let text = self.documents.text(&target, &source).map_err(PrepareError::Setup)?;
        let mut document: Json = serde_json::from_str(&text)
            .map_err(|error| PrepareError::Setup(format!("{} is not JSON: {error}", source.display())))?;
        path.set(&mut document, value, create_parents)
            .map_err(|why| PrepareError::Setup(format!("{}: {why}", source.display())))?;
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(&document, &mut writer).map_err(|error| {
            PrepareError::Setup(format!("{} cannot be written: {error}", target.display()))
        })?;
        bytes.push(b'\n');
        self.documents.put(target, FileContent::Bytes(bytes));
        Ok(())
    }

    fn update_ini(
        &mut self,
        operand: Operand,
        source: &Template,
        target: &Template,
        section: &str,
        key: &str,
        as_list: bool,
    ) -> Result<(), PrepareError> {
        let subject = self.subject(operand);
        if subject.values.is_empty() {
            return Ok(());
        }
        let texts: Vec<&str> = subject.values.iter().map(|value| value.argument.as_str()).collect();
        let value = if as_list {
            let pieces: Vec<Json> = match texts.as_slice() {
                [one] => one.split(',').map(|piece| Json::from(piece.trim())).collect(),
                several => several.iter().map(|text| Json::from(*text)).collect(),
            };
            // legacy: no blank after the comma.
            Json::Array(pieces).to_string()
        } else {
            let separator = if let Multi::Join(separator) = subject.multi { separator } else { ", " };
            texts.join(separator)
        };
        if value.contains(['\n', '\r']) {
            return Err(invalid(subject.name, "holds a line break, which an INI value cannot have").into());
        }
        let target = self.run.inside(&self.run.fill(target), "target_filepath")?;
        let text = self.documents.text(&target, &self.run.source(source)).map_err(PrepareError::Setup)?;
        let text = ini_edit::set(&text, section, key, &value);
        self.documents.put(target, FileContent::Bytes(text.into_bytes()));
        Ok(())
    }
}

fn is_number(kind: Kind) -> bool {
    use wps_remote_protocol::LiteralType as L;
    match kind {
        Kind::Literal(literal) => match literal {
            L::Byte | L::Short | L::Integer | L::Long | L::Float | L::Double => true,
            L::String | L::Char | L::Uri | L::Boolean | L::DateTime => false,
        },
        Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => false,
        // It begins with a number.
        Kind::Box => true,
    }
}

fn fill_word(run: &Run<'_>, word: &Word, value: &str) -> String {
    let mut text = String::new();
    for part in &word.0 {
        match part {
            WordPart::Literal(template) => text.push_str(&run.fill(template)),
            WordPart::Value => text.push_str(value),
        }
    }
    text
}

/// The words of a switch: the template without its value, and without the sign that stood before it.
fn flag_words(run: &Run<'_>, subject: &Subject<'_>, words: &[Word]) -> Vec<String> {
    if !subject.values.iter().any(|value| value.argument == "true") {
        return Vec::new();
    }
    let strip = |word: &Word| {
        let text = fill_word(run, word, "");
        if word.has_value() { text.trim_end_matches(['=', ':']).to_owned() } else { text }
    };
    words.iter().map(strip).filter(|word| !word.is_empty()).collect()
}

/// One text for all values; `None` = absent.
fn joined(subject: &Subject<'_>) -> Option<Result<String, String>> {
    if subject.values.is_empty() {
        return None;
    }
    let separator = if let Multi::Join(separator) = subject.multi { separator.as_str() } else { "," };
    let text = subject.values.iter().map(|value| value.argument.as_str()).collect::<Vec<_>>().join(separator);
    if text.contains('\0') {
        return Some(Err("holds a NUL character, which the environment cannot carry".to_owned()));
    }
    Some(if text.len() > MAX_ARGUMENT - 256 {
        Err(format!("has {} bytes, too many for the environment", text.len()))
    } else {
        Ok(text)
    })
}

/// `dir/name.ext` becomes `dir/name-3.ext`.
fn numbered(path: &std::path::Path, number: usize) -> std::path::PathBuf {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

/// What may distinguish file names: a whole number, or a plain name that cannot climb.
fn file_part(value: &Json) -> Option<String> {
    match value {
        Json::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        Json::String(text) => {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            (plain && (1..=128).contains(&text.len()) && !text.bytes().all(|b| b == b'.'))
                .then(|| text.clone())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    }
}
