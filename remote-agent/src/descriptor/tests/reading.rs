//! Random files that the old agent could read, against its documented reading: a second reader, written down as plainly as
//! possible and sharing no code with the first.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value as Json, json};
use wps_remote_protocol::ExecutionId;

use super::*;
use crate::command::{RunContext, from_json, prepare};

type Keys = BTreeMap<String, String>;

/// The old agent's reading of a file.
struct Old {
    default: Keys,
    sections: BTreeMap<String, Keys>,
}

impl Old {
    /// Comments, continuation, separators; the last of repeated keys counts, repeated sections are merged.
    fn read(text: &str) -> Self {
        let mut old = Self { default: Keys::new(), sections: BTreeMap::new() };
        let (mut section, mut key) = (String::new(), None::<String>);
        for line in text.lines() {
            if line.trim().is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let (true, Some(key)) = (line.starts_with([' ', '\t']), &key) {
                let value = old.keys(&section).get_mut(key).unwrap();
                value.push('\n');
                value.push_str(line.trim());
            } else if let Some(rest) = line.strip_prefix('[') {
                section = rest.split(']').next().unwrap().to_owned();
                old.keys(&section);
                key = None;
            } else {
                let at = line.find(['=', ':']).unwrap();
                let mut value = line[at + 1..].to_owned();
                if let Some(cut) =
                    value.find(';').filter(|cut| *cut > 0 && value[..*cut].ends_with([' ', '\t']))
                {
                    value.truncate(cut);
                }
                let name = line[..at].trim_end().to_owned();
                old.keys(&section).insert(name.clone(), value.trim().to_owned());
                key = Some(name);
            }
        }
        old
    }

    fn keys(&mut self, section: &str) -> &mut Keys {
        match section {
            "DEFAULT" => &mut self.default,
            other => self.sections.entry(other.to_owned()).or_default(),
        }
    }

    /// The value of a key as the job process saw it.
    fn get(&self, section: &str, key: &str) -> Option<String> {
        let own = self.sections.get(section);
        let raw = |key: &str| own.and_then(|own| own.get(key)).or_else(|| self.default.get(key)).cloned();
        let mut value = raw(key)?;
        while value.contains("%(") {
            // One round of Python's formatting: references are replaced, and a doubled sign becomes one.
            let mut next = String::new();
            let mut rest = value.as_str();
            while let Some(at) = rest.find('%') {
                next.push_str(&rest[..at]);
                rest = &rest[at + 1..];
                if let Some(after) = rest.strip_prefix('%') {
                    next.push('%');
                    rest = after;
                } else {
                    let (name, after) = rest.strip_prefix('(').unwrap().split_once(")s").unwrap();
                    let found = if name == "unique_exe_id" { Some(RUN.to_owned()) } else { raw(name) };
                    next.push_str(&found.unwrap());
                    rest = after;
                }
            }
            value = next + rest;
        }
        Some(value)
    }

    /// The sections whose names hold one of these words, in byte order.
    fn role(&self, words: &[&str]) -> Vec<&str> {
        let holds = |name: &&String| words.iter().any(|word| name.to_lowercase().contains(word));
        self.sections.keys().filter(holds).map(String::as_str).collect()
    }

    fn class(&self, section: &str, class: &str) -> bool {
        self.sections[section].get("class").is_some_and(|found| found == class)
    }

    /// `[a, b]`: the first and last sign dropped, cut at every comma.
    fn list(&self, key: &str) -> Vec<String> {
        let text = self.get("Logging", key).unwrap();
        let inner = &text[1..text.len() - 1];
        inner.split(',').map(|piece| piece.trim().to_owned()).collect()
    }
}

const RUN: &str = "0123456789abcde";
const TYPES: [(&str, &str); 4] =
    [("string", "word"), ("int", "-7"), ("float", "2.5"), ("url", "http://h/p?q=1,2")];
const TEMPLATES: [&str; 6] =
    ["-name value", "--name=value", "value", "name value", "-o name=value", "-Xnamevalue"];
const RULES: [(&str, &str); 5] = [
    (r".*\[INFO\] ProgressInfo\:([-+]?[0-9]*\.?[0-9]*)\%", "progress"),
    (r"(ERROR) [0-9]+\: (.*)", "log"),
    (r".*\[(CRITICAL)\](.*)", "abort"),
    (r"\s*#.*", "ignore"),
    (r"x{2}[a-c]|y", "ignore"),
];

/// One line or a few: key and value, with what a file may have around them.
fn written(key: &str, value: &str, style: u8) -> String {
    let separator = ["=", " = ", ": ", " : "][usize::from(style & 3)];
    let comment = if style & 4 != 0 { " ; remark = 1" } else { "" };
    let before = ["", "# remark\n", "\n", "; [Input] = 1\n"][usize::from(style >> 3 & 3)];
    format!("{before}{key}{separator}{value}{comment}\n")
}

#[derive(Debug, Clone)]
struct Parameter {
    suffix: String,
    name: String,
    kind: Index,
    constant: bool,
    texts: [String; 2],
    counts: (u8, u8),
    default: bool,
    more: Option<String>,
    styles: [u8; 4],
    turned: usize,
}

fn parameter() -> impl Strategy<Value = Parameter> {
    let text = "[A-Za-z][A-Za-z0-9 ,./-]{0,14}[a-z]";
    (
        ("[A-Za-z0-9]{1,3}", "[a-z]{2,5}", any::<Index>(), any::<bool>(), [text, text]),
        (
            (0_u8..3, 1_u8..4),
            any::<bool>(),
            prop::option::of("[a-z=;#\\[]{1,8}"),
            any::<[u8; 4]>(),
            0_usize..8,
        ),
    )
        .prop_map(|((suffix, name, kind, constant, texts), (counts, default, more, styles, turned))| {
            Parameter { suffix, name, kind, constant, texts, counts, default, more, styles, turned }
        })
}

fn section(parameter: &Parameter, variables: usize) -> String {
    let (kind, sample) = TYPES[parameter.kind.index(TYPES.len())];
    let reference = match parameter.kind.index(97) % (variables + 1) {
        0 => String::new(),
        // In a second round the old agent would have failed at the single sign.
        1 => " %(v0)s 5%%".to_owned(),
        n => format!(" %(v{})s", n - 1),
    };
    let mut lines: Vec<(&str, String)> = vec![
        ("class", if parameter.constant { "const" } else { "param" }.to_owned()),
        ("name", parameter.name.clone()),
        ("type", kind.to_owned()),
        ("title", parameter.texts[0].clone()),
        ("description", format!("{}{reference}", parameter.texts[1])),
    ];
    if parameter.constant {
        lines.push((
            "value",
            if kind == "string" { format!("{sample}/%(unique_exe_id)s") } else { sample.to_owned() },
        ));
    } else {
        lines.push(("min", parameter.counts.0.to_string()));
        lines.push(("max", parameter.counts.1.max(parameter.counts.0).to_string()));
        if parameter.default {
            lines.push(("default", sample.to_owned()));
        }
    }
    let turned = parameter.turned % lines.len();
    lines.rotate_left(turned);
    let mut text = format!("[{}{}]\n", if parameter.constant { "Const" } else { "Input" }, parameter.suffix);
    // A key that is replaced later, and a section that is opened twice.
    if parameter.styles[0] & 64 != 0 {
        text.push_str("title = replaced\n");
    }
    for (index, (key, value)) in lines.iter().enumerate() {
        if index == 3 && parameter.styles[1] & 64 != 0 {
            let again = text.split_once('\n').unwrap().0.to_owned();
            text.push_str(&format!("[Notes]\nx = 1\n{again}\n"));
        }
        text.push_str(&written(key, value, parameter.styles[index % 4]));
        if let (&"description", Some(more)) = (key, &parameter.more) {
            text.push_str(&format!("   {more}\n"));
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_model_is_the_documented_reading(
        variables in prop::collection::vec(("[a-z/]{0,6}", any::<Index>()), 0..5),
        parameters in prop::collection::vec(parameter(), 0..7),
        actions in prop::collection::vec(("[A-Za-z0-9]{1,3}", any::<Index>(), any::<Index>(), prop::option::of("[a-z]{1,3}")), 0..7),
        outputs in prop::collection::vec(("[A-Za-z0-9]{1,2}", "[a-z]{1,4}", 0_usize..4), 0..4),
        rules in prop::collection::vec(any::<Index>(), 1..6),
    ) {
        let mut parameters = parameters;
        parameters.sort_by_key(|parameter| (parameter.constant, parameter.suffix.clone()));
        parameters.dedup_by_key(|parameter| (parameter.constant, parameter.suffix.clone()));
        parameters.sort_by_key(|parameter| parameter.styles);
        let mut text = dialect_a(&[("executable_cmd", "/bin/prog -q %(workdir)s")], "");
        for (index, (letters, which)) in variables.iter().enumerate() {
            // Each refers to an earlier one.
            let reference = if index > 0 { format!("%(v{})s", which.index(index)) } else { String::new() };
            text.push_str(&format!("v{index} = {letters}{reference}\n"));
        }
        for parameter in &parameters {
            text.push_str(&section(parameter, variables.len()));
        }
        for (suffix, which, template, alias) in &actions {
            if parameters.is_empty() { break }
            let name = &which.get(&parameters).name;
            let alias = alias.as_ref().map(|alias| format!("alias = {alias}\n")).unwrap_or_default();
            text.push_str(&format!("[Action{suffix}]\nclass = cmdline\ninput_ref = {name}\n{alias}"));
            text.push_str(&format!("template = {}\n", template.get(&TEMPLATES)));
        }
        for (suffix, name, kind) in &outputs {
            let kind = ["string", "image/geotiff", "text/xml;subtype=gml/3.1.1", "application/zip"][*kind];
            text.push_str(&format!("[Output{suffix}]\nname = result{name}\ntype = {kind}\ndescription = d\n"));
            text.push_str(&format!("filepath = %(workdir)s/{name}.out\npublish_layer_name = l{name}\n"));
        }
        let chosen: Vec<_> = rules.iter().map(|index| *index.get(&RULES)).collect();
        let join = |pick: fn(&(&'static str, &'static str)) -> &'static str| chosen.iter().map(pick).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("[Logging]\nstdout_parser = [{}]\nstdout_action = [{}]\n", join(|rule| rule.0), join(|rule| rule.1)));

        let old = Old::read(&text);
        let new = good(&text);

        // Inputs and consts: of those with one name the later section counts.
        let last = |class: &str| {
            let all = old.role(&["input", "const"]);
            let name = |section: &str| old.get(section, "name").unwrap();
            let shadowed = |at: usize| all[at + 1..].iter().any(|later| name(later) == name(all[at]));
            (0..all.len()).filter(|at| !shadowed(*at)).map(|at| all[at]).filter(|s| old.class(s, class)).collect::<Vec<_>>()
        };
        let params = last("param");
        prop_assert_eq!(new.inputs.iter().map(|i| i.name.clone()).collect::<Vec<_>>(), params.iter().map(|s| old.get(s, "name").unwrap()).collect::<Vec<_>>(), "{}", text);
        for (input, section) in new.inputs.iter().zip(&params) {
            let seen = |key: &str| old.get(section, key);
            prop_assert_eq!(Some(input.declared.clone()), seen("type"));
            prop_assert_eq!(&input.title, &seen("title"));
            prop_assert_eq!(Some(input.description.clone()), seen("description"), "{}", text);
            prop_assert_eq!(Some(input.min.to_string()), seen("min"));
            prop_assert_eq!(input.max.map(|max| max.to_string()), seen("max"));
            prop_assert_eq!(input.default.first().cloned(), seen("default"));
        }
        let consts = last("const");
        prop_assert_eq!(new.consts.len(), consts.len());
        for (constant, section) in new.consts.iter().zip(&consts) {
            prop_assert_eq!(Some(constant.value.fill(|_| Some(RUN.to_owned()))), old.get(section, "value"));
        }
        let mut files: Vec<(String, String, String)> = Vec::new();
        for section in old.role(&["output"]) {
            let get = |key: &str| old.get(section, key).unwrap();
            files.retain(|file| file.0 != get("name"));
            files.push((get("name"), get("type"), get("filepath")));
        }
        let found: Vec<_> = new.outputs.iter().map(|output| {
            let Place::File(file) = &output.place else { panic!("{output:?}") };
            (output.name.clone(), output.declared.clone(), file.fill(|_| Some(RUN.to_owned())))
        }).collect();
        prop_assert_eq!(found, files);
        let pairs: Vec<_> = new.rules.rules.iter().map(|rule| (rule.pattern.source().to_owned(), rule.action.word().to_owned())).collect();
        prop_assert_eq!(pairs, old.list("stdout_parser").into_iter().zip(old.list("stdout_action")).collect::<Vec<_>>());

        // The command line, where every input has one value that the old agent handled (and its template does not swallow).
        let mut values: Map<String, Json> = Map::new();
        for input in &new.inputs {
            let sample = TYPES.iter().find(|(kind, _)| *kind == input.declared).unwrap().1;
            values.insert(input.name.clone(), json!(vec![sample; input.min.max(1) as usize]));
        }
        if new.inputs.iter().any(|input| input.min > 1) {
            return Ok(());
        }
        let mut line = old.get("DEFAULT", "executable_cmd").unwrap();
        for section in old.role(&["action"]) {
            let name = old.get(section, "input_ref").unwrap();
            let alias = old.get(section, "alias").unwrap_or_else(|| name.clone());
            let value = match new.inputs.iter().find(|input| input.name == name) {
                Some(input) => TYPES.iter().find(|(kind, _)| *kind == input.declared).unwrap().1.to_owned(),
                None => old.get(consts.iter().find(|s| old.get(s, "name").as_ref() == Some(&name)).unwrap(), "value").unwrap(),
            };
            // The placeholders of these templates do not overlap: what is put in is not looked at again.
            let template = old.get(section, "template").unwrap().replace("value", "\u{1}").replace("name", &alias);
            line.push(' ');
            line.push_str(&template.replace('\u{1}', &value));
        }
        let run = RunContext::new(ExecutionId::new(RUN).unwrap());
        let plan = prepare(&new, &run, &from_json::inputs(&new, &values)).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(plan.argv(), line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), "{}", text);
    }
}
