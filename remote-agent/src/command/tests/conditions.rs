//! When actions are performed, and what is said of a program that is not there.

use super::*;

#[test]
fn actions_are_performed_when_their_condition_holds() {
    let descriptor = sample(&format!(
        "{}{}{}{}{}{}{}{}",
        param("mode", "string", "enum = [fast, good]\ndefault = fast"),
        param("level", "double", "min = 0"),
        param("loud", "boolean", "min = 0\npass_by = file"),
        param("word", "string", "min = 0\nmissing = none"),
        "[Action1]\nclass = cmdline\ninput_ref = mode\ntemplate = --quick\nwhen = mode = fast\n",
        "[Action2]\nclass = cmdline\ninput_ref = mode\ntemplate = --one\nwhen = level = 1\n",
        "[Action3]\nclass = cmdline\ninput_ref = mode\ntemplate = --loud\nwhen = loud\n",
        "[Action4]\nclass = cmdline\ninput_ref = mode\ntemplate = --wordless\nwhen = not word\n\
         [Action5]\nclass = cmdline\ninput_ref = mode\ntemplate = --unlike\nwhen = mode != fast\n\
         [Action6]\nclass = env\ninput_ref = mode\nvariable = MODE\nwhen = level\n",
    ));
    let given = |inputs: Json| {
        let plan = plan(&descriptor, &inputs).unwrap();
        (plan.args[1..].join(" "), plan.env.iter().any(|(name, _)| name == "MODE"))
    };
    assert_eq!(given(json!({})), ("--quick --wordless".to_owned(), false));
    assert_eq!(given(json!({"mode": "good", "word": "w"})), ("--unlike".to_owned(), false));
    assert_eq!(
        given(json!({"level": "1.0", "loud": "true", "word": "None"})),
        ("--quick --one --loud".to_owned(), true)
    );
    assert_eq!(given(json!({"level": 2, "loud": "false", "word": "w"})), ("--quick".to_owned(), true));
}

#[test]
fn a_program_that_is_nearly_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("greet.py"), "").unwrap();
    let text = "[Description]\nservice = S\nexecutable = gret.py\n[Output]\no = {}\n";
    let held = program::resolve(&load(&folder.path().join("s.ini"), text)).unwrap_err();
    let meant = format!("did you mean {}?", folder.path().join("greet.py").display());
    assert!(held.to_string().ends_with(&meant), "{held}");
    let text = text.replace("gret.py", "something-else");
    let held = program::resolve(&load(&folder.path().join("s.ini"), &text)).unwrap_err();
    assert!(!held.to_string().contains("did you mean"), "{held}");
}

#[test]
fn every_draft_of_json_schema_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let check = |schema: Json, good: Json, bad: Json| {
        let file = folder.path().join("schema.json");
        std::fs::write(&file, schema.to_string()).unwrap();
        let descriptor = sample(&format!(
            "{}[Action1]\nclass = createJSONfile\ninput_ref = x\ntarget_filepath = %(workdir)s/x.json\njson_schema = {}\n",
            param("x", "application/json", ""),
            file.display()
        ));
        assert!(plan(&descriptor, &json!({"x": good.to_string()})).is_ok(), "{schema} refuses {good}");
        assert_eq!(fault(&descriptor, &json!({"x": bad.to_string()})).1, "x", "{schema} accepts {bad}");
    };
    let of = |uri: &str, rest: Json| {
        let mut schema = rest;
        schema["$schema"] = json!(uri);
        schema
    };
    // What only this draft, or one before or after it, reads like this.
    let bound = json!({"properties": {"n": {"minimum": 1, "exclusiveMinimum": true}}});
    check(bound.clone(), json!({"n": 2}), json!({"n": 1}));
    check(of("http://json-schema.org/draft-04/schema#", bound), json!({"n": 2}), json!({"n": 1}));
    let bound = json!({"properties": {"n": {"exclusiveMinimum": 1}}, "propertyNames": {"maxLength": 3}});
    check(of("http://json-schema.org/draft-06/schema#", bound), json!({"n": 2}), json!({"n": 1}));
    let either = json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}});
    check(of("http://json-schema.org/draft-07/schema#", either), json!({"a": 1, "b": 1}), json!({"a": 1}));
    let dependent = json!({"dependentRequired": {"a": ["b"]}, "$defs": {}});
    check(
        of("https://json-schema.org/draft/2019-09/schema", dependent),
        json!({"a": 1, "b": 1}),
        json!({"a": 1}),
    );
    let tuple = json!({"prefixItems": [{"type": "string"}], "items": false});
    let pair = json!({"properties": {"t": tuple}});
    check(
        of("https://json-schema.org/draft/2020-12/schema", pair),
        json!({"t": ["a"]}),
        json!({"t": ["a", 1]}),
    );
    // The old agent did not look at formats.
    let date = json!({"properties": {"d": {"type": "string", "format": "date-time"}}});
    check(date, json!({"d": "soon"}), json!({"d": 1}));
}

#[test]
fn a_schema_reads_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("other.json"), "{}").unwrap();
    for reference in ["other.json", "file:///etc/hostname", "http://127.0.0.1:9/x.json"] {
        let file = folder.path().join("schema.json");
        std::fs::write(&file, json!({"$ref": reference}).to_string()).unwrap();
        let descriptor = sample(&format!(
            "{}[Action1]\nclass = createJSONfile\ninput_ref = x\ntarget_filepath = %(workdir)s/x.json\njson_schema = {}\n",
            param("x", "application/json", ""),
            file.display()
        ));
        assert!(descriptor.warnings.iter().any(|warning| warning.code == "schema-unusable"), "{reference}");
        match plan(&descriptor, &json!({"x": "{}"})) {
            Err(PrepareError::Setup(why)) => {
                assert!(why.contains("schema.json is not a usable schema"), "{why}")
            }
            other => panic!("{reference}: {other:?}"),
        }
    }
}
