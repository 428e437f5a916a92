//! Matches a request's inputs with what the descriptor declares: counts, defaults, type checks, documents that become
//! files. What comes out can no longer be wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use wps_remote_protocol::ini::{Finding, nearest};
use wps_remote_protocol::{Content, Inputs, LiteralType, SharedFile, Value};

use super::{FileContent, InputError, InputFault, PlannedFile, PrepareError, Run, check, invalid};
use crate::bbox;
use crate::descriptor::model::{InputSpec, Kind, PassBy, ServiceDescriptor};
use crate::descriptor::{paths, types};

/// The values of all inputs, in the descriptor's order.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// For each input its values; empty = absent.
    pub inputs: Vec<Vec<BoundValue>>,
    /// Documents that become files.
    pub files: Vec<PlannedFile>,
    /// Texts that must not be shown.
    pub sensitive: Vec<String>,
    /// What was odd.
    pub warnings: Vec<Finding>,
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct BoundValue {
    /// What the program is given: the text, or the path of the file that holds it.
    pub argument: String,
    /// What it is, for actions that write files.
    pub content: FileContent,
    /// Whether the descriptor's author wrote it.
    pub from_descriptor: bool,
    /// It is the word for an absent value.
    pub stands_for_nothing: bool,
}

impl BoundValue {
    fn text(text: String, from_descriptor: bool) -> Self {
        let content = FileContent::Bytes(text.clone().into_bytes());
        Self { content, argument: text, from_descriptor, stands_for_nothing: false }
    }
}

/// Binds all inputs, or says which one is at fault.
pub(super) fn bind(
    descriptor: &ServiceDescriptor,
    run: &Run<'_>,
    inputs: &Inputs,
) -> Result<Bound, PrepareError> {
    let mut bound = Bound::default();
    let mut given: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for input in inputs {
        given.entry(input.id.as_str()).or_default().push(&input.value);
    }
    for name in given.keys() {
        if descriptor.consts.iter().any(|known| known.name == *name)
            && !descriptor.inputs.iter().any(|known| known.name == *name)
        {
            return Err(invalid(name, "is a constant of the service, not an input").into());
        }
        if !descriptor.inputs.iter().any(|known| known.name == *name) {
            // legacy: names that are not declared are ignored.
            let known = descriptor.inputs.iter().map(|input| input.name.as_str());
            let mut warning =
                Finding::warning("undeclared-input", format!("`{name}` is not an input; it is ignored"));
            warning.remedy = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
            bound.warnings.push(warning);
        }
    }
    for spec in &descriptor.inputs {
        let values = given.get(spec.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let values = one_input(run, spec, values, &mut bound)?;
        // The path of a file that holds it gives nothing away.
        if spec.sensitive && spec.pass_by == PassBy::Value {
            bound.sensitive.extend(values.iter().map(|value| value.argument.clone()));
        }
        bound.inputs.push(values);
    }
    Ok(bound)
}

fn one_input(
    run: &Run<'_>,
    spec: &InputSpec,
    values: &[&Value],
    bound: &mut Bound,
) -> Result<Vec<BoundValue>, PrepareError> {
    if values.is_empty() {
        if !spec.default.is_empty() {
            let texts = spec.default.iter().enumerate();
            return texts.map(|(index, text)| default_value(run, spec, text, index, bound)).collect();
        }
        if spec.min >= 1 {
            let why = "is required; it has no default".to_owned();
            let code = InputFault::MissingParameterValue;
            return Err(InputError { code, locator: spec.name.clone(), why }.into());
        }
        if spec.missing_is_none {
            let nothing = BoundValue::text("None".to_owned(), true);
            return Ok(vec![BoundValue { stands_for_nothing: true, ..nothing }]);
        }
        return Ok(Vec::new());
    }
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let too_many = spec.max.is_some_and(|max| count > max);
    if count < spec.min || too_many {
        let wanted = match (spec.min, spec.max) {
            (min, None) => format!("at least {min}"),
            (min, Some(max)) if min == max => format!("exactly {min}"),
            (min, Some(max)) => format!("{min} to {max}"),
        };
        return Err(invalid(&spec.name, format!("has {count} values; it takes {wanted}")).into());
    }
    let several = values.len() > 1;
    values
        .iter()
        .enumerate()
        .map(|(index, value)| one_value(run, spec, value, several.then_some(index + 1), bound))
        .collect()
}

/// A default was checked when the descriptor was loaded; only its form on the way to the program is decided here.
fn default_value(
    run: &Run<'_>,
    spec: &InputSpec,
    text: &str,
    index: usize,
    bound: &mut Bound,
) -> Result<BoundValue, PrepareError> {
    let several = spec.default.len() > 1;
    let text = &run.fill_text(text);
    let text = match spec.kind {
        Kind::Literal(kind @ (LiteralType::Boolean | LiteralType::DateTime)) => {
            check::literal(spec, kind, text).map_err(|why| invalid(&spec.name, why))?
        }
        Kind::Box => check::bounding_box(spec, text).map_err(|why| invalid(&spec.name, why))?,
        _ => text.to_owned(),
    };
    let content = FileContent::Bytes(text.clone().into_bytes());
    match spec.pass_by {
        PassBy::Value => Ok(BoundValue::text(text, true)),
        PassBy::File => Ok(as_file(run, spec, content, "", several.then_some(index + 1), bound, true)),
    }
}

fn one_value(
    run: &Run<'_>,
    spec: &InputSpec,
    value: &Value,
    number: Option<usize>,
    bound: &mut Bound,
) -> Result<BoundValue, PrepareError> {
    match spec.kind {
        Kind::Literal(kind) => {
            let text = match value {
                Value::Literal { text, .. } => text,
                Value::Complex { .. } | Value::BoundingBox(_) | Value::Reference { .. } => {
                    return Err(invalid(&spec.name, "takes a literal value, not a document").into());
                }
            };
            let text = check::literal(spec, kind, text).map_err(|why| invalid(&spec.name, why))?;
            let content = FileContent::Bytes(text.clone().into_bytes());
            match spec.pass_by {
                PassBy::Value => Ok(BoundValue::text(text, false)),
                PassBy::File => Ok(as_file(run, spec, content, "", number, bound, false)),
            }
        }
        Kind::Box => {
            let text = match value {
                Value::BoundingBox(area) => bbox::text(area, &spec.crs),
                Value::Literal { text, .. } => check::bounding_box(spec, text),
                Value::Complex { .. } | Value::Reference { .. } => {
                    Err("takes a bounding box, not a document".to_owned())
                }
            };
            let text = text.map_err(|why| invalid(&spec.name, why))?;
            let content = FileContent::Bytes(text.clone().into_bytes());
            match spec.pass_by {
                PassBy::Value => Ok(BoundValue::text(text, false)),
                PassBy::File => Ok(as_file(run, spec, content, "", number, bound, false)),
            }
        }
        Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => document(run, spec, value, number, bound),
    }
}

fn document(
    run: &Run<'_>,
    spec: &InputSpec,
    value: &Value,
    number: Option<usize>,
    bound: &mut Bound,
) -> Result<BoundValue, PrepareError> {
    let fault = |why: String| PrepareError::from(invalid(&spec.name, why));
    let (content, media_type) = match value {
        Value::Literal { text, .. } => (FileContent::Bytes(text.clone().into_bytes()), ""),
        Value::Complex { content: Content::Text(text), media_type, .. } => {
            (FileContent::Bytes(text.clone().into_bytes()), media_type.as_str())
        }
        Value::Complex { content: Content::Bytes(bytes), media_type, .. } => {
            (FileContent::Bytes(bytes.clone()), media_type.as_str())
        }
        Value::Complex { content: Content::Shared(file), media_type, .. } => {
            (FileContent::CopyOf(shared(run, spec, file)?), media_type.as_str())
        }
        Value::BoundingBox(_) => return Err(fault("takes a document, not a bounding box".to_owned())),
        Value::Reference { href, .. } => {
            return Err(fault(format!("was given by reference ({href}), which this agent does not fetch")));
        }
    };
    if let FileContent::Bytes(bytes) = &content {
        size(spec, bytes.len() as u64).map_err(fault)?;
    }
    // Texts are checked wherever they can be: a file in the shared folder only up to the bound for documents.
    let kind = kind_of(spec, media_type);
    let text_kind = !matches!(kind, Kind::Binary);
    let checked = check::asks_of_text(spec);
    let small = match &content {
        FileContent::Bytes(_) => true,
        FileContent::CopyOf(path) => length(path) <= run.context.max_document,
    };
    if checked && !small {
        let max = run.context.max_document;
        return Err(fault(format!(
            "has more than {max} bytes, too many for what the descriptor asks of its text (max_bytes can say so)"
        )));
    }
    if small && (text_kind || checked) {
        let text = read_text(run, &content).map_err(fault)?;
        check::document(spec, kind, &text).map_err(fault)?;
    }
    match spec.pass_by {
        PassBy::File => match &content {
            FileContent::CopyOf(path) => {
                let argument = path.to_string_lossy().into_owned();
                Ok(BoundValue { argument, content, from_descriptor: false, stands_for_nothing: false })
            }
            FileContent::Bytes(_) => Ok(as_file(run, spec, content, media_type, number, bound, false)),
        },
        PassBy::Value => {
            let text = read_text(run, &content).map_err(fault)?;
            if text.contains('\0') {
                return Err(fault("holds a NUL character, which no argument can carry".to_owned()));
            }
            Ok(BoundValue::text(text, false))
        }
    }
}

/// What sort of document a value is: the MIME type of the value says so where the input lists it as another format than its
/// default; else the input's own type does.
fn kind_of(spec: &InputSpec, media_type: &str) -> Kind {
    let plain = |text: &str| text.split_whitespace().collect::<String>().to_ascii_lowercase();
    let wanted = plain(media_type);
    let other = spec.media_types.iter().skip(1).any(|known| plain(known) == wanted);
    if other { types::kind_of_media_type(media_type).unwrap_or(spec.kind) } else { spec.kind }
}

fn size(spec: &InputSpec, bytes: u64) -> Result<(), String> {
    match spec.checks.max_bytes {
        Some(max) if bytes > max => Err(format!("has {bytes} bytes; at most {max} are accepted")),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(u64::MAX, |meta| meta.len())
}

/// The place of a file in the shared folder. Its path was checked by the codec; here it is checked again, because a
/// path that climbs out of the folder would let a client read any file of this host.
fn shared(run: &Run<'_>, spec: &InputSpec, file: &SharedFile) -> Result<PathBuf, PrepareError> {
    let fault = |why: String| PrepareError::from(invalid(&spec.name, why));
    let Some(root) = &run.context.shared_dir else {
        return Err(PrepareError::Setup(format!(
            "input `{}` lies in the shared folder, but this agent has none; set wps_execution_shared_dir",
            spec.name
        )));
    };
    if !paths::is_inner(&file.path) {
        return Err(fault("lies outside the shared folder".to_owned()));
    }
    let path = root.join(&file.path);
    let inside =
        path.canonicalize().ok().zip(root.canonicalize().ok()).map(|(path, root)| path.starts_with(root));
    match inside {
        Some(true) => {}
        Some(false) => return Err(fault("lies outside the shared folder".to_owned())),
        None => {
            return Err(PrepareError::Setup(format!(
                "input `{}`: {} is not there; is the shared folder mounted?",
                spec.name,
                path.display()
            )));
        }
    }
    size(spec, length(&path)).map_err(fault)?;
    Ok(path)
}

/// The text of a document, bounded.
pub(super) fn read_text(run: &Run<'_>, content: &FileContent) -> Result<String, String> {
    let bytes = match content {
        FileContent::Bytes(bytes) => bytes.clone(),
        FileContent::CopyOf(path) => read_bounded(path, run.context.max_document)?,
    };
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// Reads a file of at most `max` bytes.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let fault = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    // A pipe would never end, and a device has no end.
    if !path.metadata().map_err(fault)?.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fault)?.take(max + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > max {
        return Err(format!("{} has more than {max} bytes", path.display()));
    }
    Ok(bytes)
}

/// Plans `<run directory>/in/<id>[-n].<ext>`.
fn as_file(
    run: &Run<'_>,
    spec: &InputSpec,
    content: FileContent,
    media_type: &str,
    number: Option<usize>,
    bound: &mut Bound,
    from_descriptor: bool,
) -> BoundValue {
    let named = [media_type.to_owned()];
    let list = if media_type.is_empty() { spec.media_types.as_slice() } else { named.as_slice() };
    let extension = types::extension(kind_of(spec, media_type), list);
    let safe: String = spec
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' })
        .collect();
    let stem = number.map_or_else(|| safe.clone(), |number| format!("{safe}-{number}"));
    let folder = run.work_dir.join("in");
    // `a b` and `a_b` are two inputs, and so are the second value of `a` and the one of `a-2`.
    let taken = |path: &PathBuf| bound.files.iter().any(|file| file.path == *path);
    let mut path = folder.join(format!("{stem}.{extension}"));
    let mut more = 0;
    while taken(&path) {
        more += 1;
        path = folder.join(format!("{stem}_{more}.{extension}"));
    }
    bound.files.push(PlannedFile { path: path.clone(), content: content.clone() });
    let argument = path.to_string_lossy().into_owned();
    BoundValue { argument, content, from_descriptor, stands_for_nothing: false }
}

/// The value as JSON: numbers as numbers, documents as documents, everything else as text.
pub(super) fn as_json(run: &Run<'_>, kind: Kind, value: &BoundValue) -> Result<Json, String> {
    let number = |text: &str| {
        let text = text.trim();
        let number = text.parse::<i64>().map(Json::from).ok();
        number.or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number))
    };
    match kind {
        Kind::Literal(literal) => match literal {
            LiteralType::Boolean => Ok(Json::Bool(value.argument == "true")),
            LiteralType::Byte | LiteralType::Short | LiteralType::Integer | LiteralType::Long => {
                number(&value.argument).ok_or_else(|| "is no number that JSON can hold".to_owned())
            }
            LiteralType::Float | LiteralType::Double => {
                let text = value.argument.trim();
                // `8` stays 8 and `8.0` stays 8.0.
                number(text).ok_or_else(|| "is no number that JSON can hold".to_owned())
            }
            LiteralType::String | LiteralType::Char | LiteralType::Uri | LiteralType::DateTime => {
                Ok(Json::String(value.argument.clone()))
            }
        },
        Kind::Json => {
            let text = read_text(run, &value.content)?;
            serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))
        }
        Kind::Box => Ok(Json::String(value.argument.clone())),
        Kind::Xml | Kind::Text | Kind::Binary => read_text(run, &value.content).map(Json::String),
    }
}
