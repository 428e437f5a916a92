//! Outputs of dialect A.

use std::path::Path;

use wps_remote_protocol::ini::Finding;

use super::inputs::media_types;
use crate::descriptor::common::{Reading, SAMPLE_ID};
use crate::descriptor::model::{OutputSpec, Place, Publish, ServiceDescriptor};
use crate::descriptor::{paths, types};

const OUTPUT_KEYS: [&str; 21] = [
    "source",
    "name",
    "type",
    "title",
    "description",
    "filepath",
    "output_mime_type",
    "backup_on_wps_execution_shared_dir",
    "upload_data",
    "upload_data_root",
    "publish_as_layer",
    "publish_layer_name",
    "publish_default_style",
    "publish_target_workspace",
    "publish_metadata",
    "layers_to_publish",
    "required",
    "sidecars",
    "min_bytes",
    "max_bytes",
    "class",
];

/// Reads the sections in order.
pub(super) fn read(reading: &mut Reading<'_>, sections: &[String]) -> Vec<OutputSpec> {
    let mut outputs: Vec<OutputSpec> = Vec::new();
    for section in sections {
        let Some(output) = output(reading, section) else { continue };
        if let Some(at) = outputs.iter().position(|other| other.name == output.name) {
            let why = format!("`{}` is defined more than once; this definition counts", output.name);
            reading.warn("duplicate-name", section, "name", why, "give each output its own name");
            outputs.remove(at);
        }
        outputs.push(output);
    }
    let names: Vec<String> = outputs.iter().map(|output| output.name.clone()).collect();
    for output in &outputs {
        for layer in output.layers.iter().filter(|layer| !names.contains(layer)) {
            reading.warnings.push(
                Finding::warning("unknown-layer", format!("`{layer}` in layers_to_publish is not an output"))
                    .at(output.line)
                    .key("layers_to_publish")
                    .remedy("list names of outputs of this file, separated by ;"),
            );
        }
    }
    outputs
}

fn output(reading: &mut Reading<'_>, section: &str) -> Option<OutputSpec> {
    reading.unknown_keys(section, &OUTPUT_KEYS);
    let name = reading.required(section, "name", "add `name = result…`")?;
    if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
        reading.error(
            "bad-name",
            section,
            "name",
            "is empty, too long or holds a control character",
            "use letters, digits and _",
        );
        return None;
    }
    let Some(declared) = reading.text(section, "type") else {
        let why = format!("output `{name}` has no type and is left out");
        reading.warn("output-without-type", section, "type", why, "add `type = string`, or a MIME type");
        return None;
    };
    let Some(entry) = types::look_up(&declared) else {
        let why = format!("`{declared}` is not a type");
        reading.error("bad-type", section, "type", why, &types::remedy(&declared));
        return None;
    };
    if !entry.known_to_geoserver {
        let why = format!("`{declared}` is not known to GeoServer, which will be told `complex`");
        reading.warn(
            "geoserver-type",
            section,
            "type",
            why,
            "nothing to do unless a GeoServer is to run this service",
        );
    }
    if !name.starts_with("result") {
        let why = format!("GeoServer drops outputs whose names do not begin with `result`, such as `{name}`");
        reading.warn(
            "geoserver-drops-output",
            section,
            "name",
            why,
            "nothing to do unless a GeoServer is to run this service",
        );
    }
    let composed = declared.trim().eq_ignore_ascii_case("application/owc");
    let layers =
        reading.text(section, "layers_to_publish").map(|text| split_layers(&text)).unwrap_or_default();
    let place = match (reading.template(section, "filepath"), source(reading, section)) {
        (None, Some(place)) => place,
        (Some(_), Some(_)) => {
            reading.error("bad-value", section, "source", "contradicts filepath", "keep one of the two");
            Place::Contract
        }
        (Some(template), None) => Place::File(template),
        (None, None) if composed => Place::Composed,
        (None, None) => {
            let why =
                "there is no filepath; a file named after the output is looked for in the run directory";
            reading.warn("no-filepath", section, "filepath", why, "add `filepath = %(workdir)s/…`");
            Place::Contract
        }
    };
    let yes = |text: Option<String>| text.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    let upload = yes(reading.text(section, "upload_data")).then(|| reading.text(section, "upload_data_root"));
    if upload.is_some() && !reading.context.uploads {
        let why = "no upload server is configured; the file goes the usual way";
        reading.warn("no-uploader", section, "upload_data", why, "add [UPLOADER] to remote.config");
    }
    let declared_media_types = reading.text(section, "output_mime_type");
    Some(OutputSpec {
        title: reading.text(section, "title"),
        description: reading.text(section, "description"),
        kind: entry.kind,
        media_types: media_types(declared_media_types.as_deref(), &entry),
        declared_media_types,
        crs: types::systems(entry.kind),
        declared,
        place,
        required: reading.flag(section, "required", true),
        min_bytes: reading.count(section, "min_bytes"),
        max_bytes: reading.count(section, "max_bytes"),
        backup: yes(reading.text(section, "backup_on_wps_execution_shared_dir")),
        sidecars: sidecars(reading, section),
        upload,
        publish: Publish {
            as_layer: reading.text(section, "publish_as_layer"),
            layer: reading.text(section, "publish_layer_name"),
            style: reading.text(section, "publish_default_style"),
            workspace: reading.text(section, "publish_target_workspace"),
            metadata: reading.template(section, "publish_metadata"),
        },
        layers,
        line: reading.doc.section(section).map_or(0, |section| section.line),
        name,
    })
}

/// `source`: where an output without `filepath` comes from, as in dialect B.
fn source(reading: &mut Reading<'_>, section: &str) -> Option<Place> {
    match reading.text(section, "source")?.as_str() {
        "json" => Some(Place::Contract),
        "stdout" => Some(Place::Stdout),
        other => {
            let why = format!("`{other}` is not a place of results");
            reading.error("bad-value", section, "source", why, "write json or stdout, or use filepath");
            None
        }
    }
}

fn split_layers(text: &str) -> Vec<String> {
    text.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn sidecars(reading: &mut Reading<'_>, section: &str) -> bool {
    match reading.text(section, "sidecars").as_deref() {
        None | Some("none" | "false") => false,
        Some("stem") => true,
        Some(other) => {
            let why = format!("`{other}` is not a way to find side files");
            reading.error("bad-value", section, "sidecars", why, "write stem, or remove the key");
            false
        }
    }
}

/// Every output must lie where the agent may take it from, and metadata where it may read it.
pub(super) fn check_places(reading: &mut Reading<'_>, descriptor: &ServiceDescriptor) {
    let run_dir = descriptor.output_dir.join(SAMPLE_ID);
    let sample =
        |template: &wps_remote_protocol::ini::Template| template.fill(|_| Some(SAMPLE_ID.to_owned()));
    let extra = descriptor.extra_dir.as_ref().map(sample).map(std::path::PathBuf::from);
    let roots: Vec<_> = [Some(descriptor.output_dir.clone()), extra]
        .into_iter()
        .flatten()
        .chain(descriptor.allowed_paths.iter().cloned())
        .collect();
    for output in &descriptor.outputs {
        let section = reading.doc.sections().iter().find(|section| section.line == output.line);
        let section = section.map(|section| section.name.clone()).unwrap_or_default();
        let mut say = |fatal: bool, code, key: &str, why: String, remedy: &str| {
            if fatal {
                reading.error(code, &section, key, why, remedy);
            } else {
                reading.warn(code, &section, key, why, remedy);
            }
        };
        if let Place::File(template) = &output.place {
            let text = sample(template);
            if !Path::new(&text).is_absolute() {
                let why = format!(
                    "`{template}` of output `{}` is relative; it is taken as relative to the run directory",
                    output.name
                );
                say(false, "relative-path", "filepath", why, "begin with %(workdir)s");
            }
            let path = paths::absolute(Path::new(&text), &run_dir);
            if !roots.iter().any(|root| path.starts_with(root)) {
                let why = format!("`{template}` of output `{}` lies outside output_dir", output.name);
                say(
                    true,
                    "path-outside",
                    "filepath",
                    why,
                    "write below %(workdir)s, or add the directory to allowed_paths in remote.config",
                );
            }
        }
        if let Some(template) = &output.publish.metadata {
            let dir = descriptor.dir();
            let path = paths::absolute(Path::new(&sample(template)), dir);
            if !path.starts_with(dir) && !roots.iter().any(|root| path.starts_with(root)) {
                let why = format!(
                    "`{template}` of output `{}` lies outside the allowed directories and is not read",
                    output.name
                );
                say(
                    false,
                    "metadata-outside",
                    "publish_metadata",
                    why,
                    "add the directory to allowed_paths in remote.config",
                );
            }
        }
    }
}
