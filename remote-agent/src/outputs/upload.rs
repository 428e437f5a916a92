//! Outputs that go to an upload server: which files, under which names, and what the client gets instead. Speaks no
//! protocol: who sends is lent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wps_remote_protocol::{DataType, ExecutionId, Value};

use super::{Delivery, Expected, Fault, Found, beside, plain};

/// One file and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The file here.
    pub file: PathBuf,
    /// Its path there: parts without slashes, the last is the file's name. With an empty first part it is absolute.
    pub path: Vec<String>,
}

impl Parcel {
    /// The path as servers take it.
    pub fn target(&self) -> String {
        self.path.join("/")
    }
}

/// Sends everything that goes that way, in one go. The addresses of documents, by output; a literal's file goes up too,
/// but its text stays the value.
pub(super) fn all(
    found: &[(&Expected, Found)],
    execution: &ExecutionId,
    delivery: &Delivery<'_>,
) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let mut addresses = BTreeMap::new();
    let Some(send) = delivery.uploader else { return Ok(addresses) };
    let (mut parcels, mut owners) = (Vec::new(), Vec::new());
    for (spec, found) in found {
        let (Some(root), Found::File(file)) = (&spec.upload, found) else { continue };
        let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or("result");
        let folder = folder(root, execution, &spec.id);
        let parcel = |file: PathBuf, name: &str| {
            let path = folder.iter().cloned().chain([plain(name)]).collect();
            Parcel { file, path }
        };
        owners.push(matches!(spec.data, DataType::Complex(_)).then_some(spec));
        parcels.push(parcel(file.path.clone(), name));
        if spec.sidecars {
            let io_fault = |source| {
                vec![Fault::Io { id: spec.id.clone(), verb: "found beside", path: file.path.clone(), source }]
            };
            for name in beside(&file.path).map_err(io_fault)? {
                owners.push(None);
                parcels.push(parcel(file.path.with_file_name(&name), &name));
            }
        }
    }
    if parcels.is_empty() {
        return Ok(addresses);
    }
    let first = found.iter().find(|(spec, _)| spec.upload.is_some()).map(|(spec, _)| spec.id.clone());
    let sent = send(&parcels).map_err(|why| vec![Fault::Upload { id: first.unwrap_or_default(), why }])?;
    for (owner, address) in owners.into_iter().zip(sent) {
        if let Some(spec) = owner {
            addresses.insert(spec.id.clone(), address);
        }
    }
    Ok(addresses)
}

/// `<root>/<execution>/<output>`; a root that begins with a slash is absolute.
fn folder(root: &str, execution: &ExecutionId, output: &str) -> Vec<String> {
    let mut parts = Vec::new();
    if root.starts_with('/') {
        parts.push(String::new());
    }
    parts.extend(root.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | "..")).map(plain));
    parts.extend([plain(execution.as_str()), plain(output)]);
    parts
}

/// What a client gets: where the document lies.
pub(super) fn value(spec: &Expected, address: String) -> Value {
    let media_type = match &spec.data {
        DataType::Complex(complex) => complex.default_format().media_type,
        DataType::Literal(_) | DataType::BoundingBox(_) => String::new(),
    };
    Value::reference(address, media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_cannot_lead_out_of_itself() {
        let execution = ExecutionId::new("e1").expect("an id");
        let check =
            |root: &str, expected: &str| assert_eq!(folder(root, &execution, "out put").join("/"), expected);
        check("", "e1/out put");
        check("/srv/results", "/srv/results/e1/out put");
        check("a//b/./../c", "a/b/c/e1/out put");
        check("a\\b", "a/b/e1/out put");
    }
}
