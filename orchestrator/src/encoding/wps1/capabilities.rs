//! The capabilities document of WPS 1.0.0 (§8.3).

use std::sync::Arc;

use wps_remote_protocol::ProcessDescription;

use super::super::ows::{self, LANGUAGE, ServiceInfo};
use super::super::xml::Writer;

/// Writes the document. `url` is the address of the service without query; `sequence` the `updateSequence`.
pub fn document<'a>(
    info: &ServiceInfo,
    url: &str,
    sequence: u64,
    processes: impl Iterator<Item = &'a Arc<ProcessDescription>>,
) -> String {
    let mut writer = Writer::new();
    let sequence = sequence.to_string();
    super::open_root(
        &mut writer,
        "wps:Capabilities",
        "wpsGetCapabilities_response.xsd",
        &[("updateSequence", &sequence)],
    );
    // Only this version: the conformance suite holds the highest one listed against the document's own.
    ows::write_identification(&mut writer, info, &[super::VERSION]);
    ows::write_provider(&mut writer, info);
    let operations = [("GetCapabilities", true), ("DescribeProcess", true), ("Execute", true)];
    ows::write_operations(&mut writer, url, &operations);
    writer.open("wps:ProcessOfferings", &[]);
    for process in processes {
        writer.open("wps:Process", &[("wps:processVersion", &process.version)]);
        write_brief(&mut writer, process);
        writer.close();
    }
    writer.close();
    writer.open("wps:Languages", &[]);
    writer.open("wps:Default", &[]).leaf("ows:Language", &[], LANGUAGE).close();
    writer.open("wps:Supported", &[]).leaf("ows:Language", &[], LANGUAGE).close();
    writer.finish()
}

/// Identifier, title and abstract, as every document about a process begins.
pub(super) fn write_brief(writer: &mut Writer, process: &ProcessDescription) {
    writer.leaf("ows:Identifier", &[], &process.identifier());
    writer.leaf("ows:Title", &[], or_else(&process.title, || process.id.dotted()).as_str());
    writer.leaf("ows:Abstract", &[], ows::or_dash(&process.summary));
}

pub(in crate::encoding) fn or_else(text: &str, other: impl FnOnce() -> String) -> String {
    if text.trim().is_empty() { other() } else { text.to_owned() }
}
