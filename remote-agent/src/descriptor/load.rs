//! From the bytes of a file to a descriptor: which dialect it is, what the agent lends it, and the checks that hold for
//! both dialects. The loaders themselves are next door.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wps_remote_protocol::ini::{Document, Finding, IniError, Options, Variable, Variables};

use super::common::Reading;
use super::model::{Dialect, ServiceDescriptor};
use super::{dialect_a, dialect_b};

/// What the agent lends to its descriptors.
#[derive(Debug, Clone)]
pub struct LoadContext {
    /// Parent of run directories for descriptors that name none; absolute.
    pub work_root: PathBuf,
    /// The folder shared with the orchestrator.
    pub shared_dir: Option<PathBuf>,
    /// Name of this host.
    pub host_name: String,
    /// Directories outside the run directory that descriptors may use.
    pub allowed_paths: Vec<PathBuf>,
    /// Interpreters by extension.
    pub interpreters: Vec<(String, Vec<String>)>,
    /// Weight of descriptors that name none.
    pub default_weight: f64,
    /// Files are ISO 8859-1.
    pub latin1: bool,
    /// There is an upload server.
    pub uploads: bool,
}

impl LoadContext {
    /// A context for looking at single files: everything beside them, nothing configured.
    pub fn bare(work_root: PathBuf) -> Self {
        Self {
            work_root,
            shared_dir: None,
            host_name: "localhost".to_owned(),
            allowed_paths: Vec::new(),
            interpreters: crate::config::default_interpreters(),
            default_weight: 0.0,
            latin1: false,
            uploads: true,
        }
    }

    fn variables(&self, file: &Path) -> Variables {
        let dir = file.parent().unwrap_or(Path::new("."));
        let shared = match &self.shared_dir {
            Some(dir) => Variable::Text(dir.to_string_lossy().into_owned()),
            None => Variable::Unset("set wps_execution_shared_dir in remote.config".to_owned()),
        };
        Variables::default()
            .with("unique_exe_id", Variable::AtRun)
            .with("wps_execution_shared_dir", shared)
            .with("descriptor_dir", Variable::Text(dir.to_string_lossy().into_owned()))
            .with("host_name", Variable::Text(self.host_name.clone()))
            .with("output_dir", Variable::Text(self.work_root.to_string_lossy().into_owned()))
    }
}

/// What a file turned out to be.
#[derive(Debug, Clone)]
pub enum Loaded {
    /// A descriptor.
    Descriptor(Box<ServiceDescriptor>),
    /// Something else: the agent's own configuration, a logger's, a template. Not an error in a watched folder.
    Other,
    /// A descriptor that cannot be used.
    Broken(IniError),
}

/// Which kind of file a text is, by the headers and keys that only one kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A descriptor of this dialect.
    Descriptor(Dialect),
    /// Marks of both dialects.
    BothDialects,
    /// No descriptor.
    Other,
}

/// Recognises a file without reading it in full.
pub fn recognise(bytes: &[u8]) -> FileKind {
    let (mut a, mut b, mut other) = (false, false, false);
    let mut section = String::new();
    for line in bytes.split(|byte| *byte == b'\n').map(String::from_utf8_lossy) {
        let line = line.trim_start_matches('\u{feff}').trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name)
        {
            section = name.to_owned();
            other |= name == "loggers" || name == "formatters";
            continue;
        }
        let Some(at) = line.find(['=', ':']) else { continue };
        let key = line[..at].trim_end();
        if section == "DEFAULT" {
            a |= matches!(key, "service" | "executable_cmd" | "executable_path");
            other |= matches!(
                key.to_ascii_lowercase().as_str(),
                "mucservice" | "bus_class_name" | "resource_file_dir"
            );
        } else if section.eq_ignore_ascii_case("description") {
            b |= key.eq_ignore_ascii_case("service") || key.eq_ignore_ascii_case("executable");
        }
    }
    match (a, b, other) {
        (true, true, _) => FileKind::BothDialects,
        (_, true, _) => FileKind::Descriptor(Dialect::B),
        (true, _, false) => FileKind::Descriptor(Dialect::A),
        _ => FileKind::Other,
    }
}

/// Reads a file that may be a descriptor. `file` should be absolute: relative paths inside are placed by its directory.
pub fn load(file: &Path, bytes: &[u8], context: &LoadContext) -> Loaded {
    match recognise(bytes) {
        FileKind::Other => Loaded::Other,
        FileKind::Descriptor(_) | FileKind::BothDialects => match load_descriptor(file, bytes, context) {
            Ok(descriptor) => Loaded::Descriptor(Box::new(descriptor)),
            Err(error) => Loaded::Broken(error),
        },
    }
}

/// Which dialect a file has, and its sections and keys, whether or not they make a descriptor.
pub fn read_document(
    file: &Path,
    bytes: &[u8],
    context: &LoadContext,
) -> Result<(Dialect, Document), IniError> {
    let name = file.to_string_lossy().into_owned();
    let whole = |finding: Finding| IniError { file: name.clone(), findings: vec![finding] };
    let dialect = match recognise(bytes) {
        FileKind::Descriptor(dialect) => dialect,
        FileKind::BothDialects => {
            let why = "has both [DEFAULT] and [Description] with the keys of a service";
            return Err(whole(Finding::error("two-dialects", why).remedy("keep one of the two forms")));
        }
        // Let the reader name what cannot be read at all; else the file just lacks the marks of a descriptor.
        FileKind::Other => {
            Document::parse(bytes, &Options { latin1: context.latin1, ..Options::new(&name) })?;
            let why = "is not a service descriptor: neither [DEFAULT] nor [Description] has a key `service`";
            let remedy = "add `service = NAME` to [DEFAULT] (or [Description])";
            return Err(whole(Finding::error("not-a-descriptor", why).remedy(remedy)));
        }
    };
    let object_sections: &'static [&'static str] = match dialect {
        Dialect::A => &[],
        Dialect::B => &["Input", "Output"],
    };
    let folded_sections: &'static [(&'static str, bool)] = match dialect {
        Dialect::A => &[],
        Dialect::B => dialect_b::SECTIONS,
    };
    let options = Options { latin1: context.latin1, object_sections, folded_sections, ..Options::new(&name) };
    let doc = Document::parse(bytes, &options).map_err(|mut error| {
        for finding in error.findings.iter_mut().filter(|finding| finding.code == "not-utf8") {
            let remedy =
                "save the file as UTF-8, or set descriptor_encoding = latin1 in remote.config for all";
            finding.remedy = Some(remedy.to_owned());
        }
        error
    })?;
    Ok((dialect, doc))
}

/// Reads a file that is meant to be a descriptor; every fault is reported.
pub fn load_descriptor(
    file: &Path,
    bytes: &[u8],
    context: &LoadContext,
) -> Result<ServiceDescriptor, IniError> {
    let name = file.to_string_lossy().into_owned();
    let (dialect, doc) = read_document(file, bytes, context)?;
    let mut reading = Reading {
        doc: &doc,
        vars: context.variables(file),
        context,
        file,
        errors: Vec::new(),
        warnings: doc.warnings().to_vec(),
        known: &[],
    };
    let found = match dialect {
        Dialect::A => dialect_a::read(&mut reading),
        Dialect::B => dialect_b::read(&mut reading),
    };
    let Reading { mut errors, mut warnings, .. } = reading;
    errors.sort_by_key(|finding| finding.line);
    errors.dedup();
    warnings.sort_by_key(|finding| finding.line);
    match found {
        Some(mut descriptor) if errors.is_empty() => {
            descriptor.hash = hash(bytes);
            descriptor.warnings = warnings;
            Ok(descriptor)
        }
        _ => {
            if errors.is_empty() {
                errors.push(Finding::error("not-readable", "cannot be read"));
            }
            Err(IniError { file: name, findings: errors })
        }
    }
}

/// SHA-256 of a file's bytes, lower-case hex.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
