//! What is announced of a descriptor: the process description of the native dialect, and the texts that a legacy
//! registration carries.

use serde_json::{Map, Value, json};
use wps_remote_protocol::{
    AllowedValues, BoundingBoxData, ComplexData, DataType, Format, InputDescription, LiteralData,
    LiteralType, Occurs, OutputDescription, ProcessDescription, Publication,
};

use super::model::{Checks, InputSpec, Kind, OutputSpec, Place, ServiceDescriptor};

impl ServiceDescriptor {
    /// What clients may know.
    pub fn description(&self) -> ProcessDescription {
        ProcessDescription {
            id: self.id.clone(),
            alias: None,
            title: self.shown_title(),
            summary: self.description.clone(),
            version: self.version.clone().unwrap_or_else(|| "1.0.0".to_owned()),
            keywords: self.keywords.clone(),
            inputs: self.inputs.iter().map(input).collect(),
            outputs: self.outputs.iter().map(output).collect(),
            weight: self.weight,
            repeatable: self.repeatable,
            max_running_time_s: self.max_running.map_or(0, |limit| limit.as_secs()),
            roles: self.roles.clone(),
        }
    }

    /// The title, or `namespace.service`.
    pub fn shown_title(&self) -> String {
        self.title.clone().unwrap_or_else(|| self.id.dotted())
    }

    /// Inputs as a legacy registration lists them: name and an object with the keys of the old agent, and ours after
    /// them where the descriptor has them.
    pub fn legacy_inputs(&self) -> Vec<(String, Value)> {
        self.inputs.iter().map(|spec| (spec.name.clone(), legacy_input(spec))).collect()
    }

    /// Outputs as a legacy registration lists them.
    pub fn legacy_outputs(&self) -> Vec<(String, Value)> {
        self.outputs.iter().map(|spec| (spec.name.clone(), self.legacy_output(spec))).collect()
    }

    fn legacy_output(&self, spec: &OutputSpec) -> Value {
        if spec.place == Place::Composed {
            // legacy: layer names, styles and workspaces as lists with a `;` after each; a blank for what is absent.
            let list = |pick: &dyn Fn(&OutputSpec) -> Option<&String>| -> String {
                let layers =
                    spec.layers.iter().filter_map(|name| self.outputs.iter().find(|o| o.name == *name));
                layers.map(|layer| format!("{};", pick(layer).map_or(" ", String::as_str))).collect()
            };
            return json!({
                "type": spec.declared,
                "description": spec.description,
                "title": spec.title,
                "output_mime_type": spec.declared_media_types,
                "publish_as_layer": spec.publish.as_layer,
                "publish_layer_name": spec.publish.layer,
                "files_to_publish": list(&|layer| layer.publish.layer.as_ref()),
                "default_styles": list(&|layer| layer.publish.style.as_ref()),
                "target_workspaces": list(&|layer| layer.publish.workspace.as_ref()),
            });
        }
        json!({
            "type": spec.declared,
            "description": spec.description,
            "title": spec.title,
            "output_mime_type": spec.declared_media_types,
            "publish_as_layer": spec.publish.as_layer,
            "publish_layer_name": spec.publish.layer,
            "publish_default_style": spec.publish.style,
            "publish_target_workspace": spec.publish.workspace,
        })
    }
}

fn legacy_input(spec: &InputSpec) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("type", json!(spec.declared));
    put("title", json!(spec.title));
    put("default", spec.default.first().map_or(Value::Null, |text| json!(text)));
    put("description", json!(spec.description));
    put("min", json!(spec.min));
    // GeoServer's code uses -1 for unbounded.
    put("max", spec.max.map_or(json!(-1), |max| json!(max)));
    put("input_mime_type", json!(spec.declared_media_types));
    if !spec.checks.allowed.is_empty() {
        put("enum", json!(spec.checks.allowed));
    }
    if let Some((low, high)) = &spec.checks.range {
        put("range", json!([low, high]));
    }
    if let Some(uom) = &spec.uom {
        put("uom", json!(uom));
    }
    if let Some(min) = spec.checks.min_length {
        put("min_length", json!(min));
    }
    if let Some(max) = spec.checks.max_length {
        put("max_length", json!(max));
    }
    Value::Object(object)
}

fn input(spec: &InputSpec) -> InputDescription {
    // A value that the agent fills in need not be sent.
    let min = if spec.default.is_empty() { spec.min } else { 0 };
    InputDescription {
        id: spec.name.clone(),
        title: spec.title.clone(),
        summary: spec.description.clone(),
        occurs: Occurs { min, max: spec.max },
        data: match spec.kind {
            Kind::Literal(kind) => DataType::Literal(LiteralData {
                kind,
                uom: spec.uom.clone(),
                allowed: allowed(&spec.checks),
                default: spec.default.first().cloned(),
            }),
            Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => {
                complex(&spec.media_types, spec.checks.max_bytes)
            }
            Kind::Box => bounding_box(&spec.crs),
        },
    }
}

fn allowed(checks: &Checks) -> AllowedValues {
    if !checks.allowed.is_empty() {
        return AllowedValues::Values(checks.allowed.clone());
    }
    match &checks.range {
        Some((None, None)) | None => AllowedValues::Any,
        Some((min, max)) => AllowedValues::Range { min: min.clone(), max: max.clone() },
    }
}

fn complex(media_types: &[String], max_bytes: Option<u64>) -> DataType {
    let mut formats: Vec<Format> = media_types.iter().map(|media_type| Format::new(media_type)).collect();
    if formats.is_empty() {
        formats.push(Format::new("application/octet-stream"));
    }
    DataType::Complex(ComplexData { formats, max_bytes })
}

fn output(spec: &OutputSpec) -> OutputDescription {
    let publish = &spec.publish;
    // legacy: a map context is published unless it says otherwise, everything else only if it says so.
    let wanted = match publish.as_layer.as_deref() {
        Some(text) => text.trim().eq_ignore_ascii_case("true"),
        None => spec.place == Place::Composed,
    };
    let publication = wanted.then(|| Publication {
        layer: publish.layer.clone(),
        style: publish.style.clone(),
        workspace: publish.workspace.clone(),
        layers: spec.layers.clone(),
    });
    OutputDescription {
        id: spec.name.clone(),
        title: spec.title.clone(),
        summary: spec.description.clone().unwrap_or_default(),
        data: match spec.kind {
            Kind::Literal(kind) => literal_output(kind),
            Kind::Json | Kind::Xml | Kind::Text | Kind::Binary => complex(&spec.media_types, None),
            Kind::Box => bounding_box(&spec.crs),
        },
        optional: !spec.required,
        publication,
    }
}

fn bounding_box(crs: &[String]) -> DataType {
    DataType::BoundingBox(BoundingBoxData { crs: crs.to_vec() })
}

fn literal_output(kind: LiteralType) -> DataType {
    DataType::Literal(LiteralData { kind, uom: None, allowed: AllowedValues::Any, default: None })
}
