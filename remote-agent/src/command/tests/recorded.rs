//! Plans against the fixtures: what a new agent must give, and what the old one gave.

use super::*;

fn expected(name: &str) -> Json {
    let path = fixtures().join("expected").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

fn texts(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// One case of `new-agent.json`, files included.
fn check_case(name: &str, case: &Json) {
    let label = format!("{name}, {}", case["case"]);
    let (descriptor, moved) = match name {
        "04-shell-json-files.config" => relocated(name, "/opt/wps/sampling"),
        _ => (fixture(name), String::new()),
    };
    let outcome = plan(&descriptor, &case["inputs"]);
    if let Some(error) = case.get("error") {
        match outcome {
            Err(PrepareError::Input(found)) => {
                assert_eq!(found.code.as_str(), error["code"].as_str().unwrap(), "{label}: {found}");
                assert_eq!(found.locator, error["locator"].as_str().unwrap(), "{label}: {found}");
            }
            other => panic!("{label}: {other:?}"),
        }
        return;
    }
    let plan = outcome.unwrap_or_else(|error| panic!("{label}: {error}"));
    let wanted: Vec<String> = texts(&case["argv"])
        .iter()
        .map(|word| word.replace("<descriptor directory>", &fixtures().to_string_lossy()))
        .map(|word| if moved.is_empty() { word } else { word.replace("/opt/wps/sampling", &moved) })
        .collect();
    let mut found = plan.argv();
    if wanted[0].starts_with("<interpreter") {
        assert!(found[0].ends_with("python3"), "{label}: {}", found[0]);
        found[0].clone_from(&wanted[0]);
    }
    assert_eq!(found, wanted, "{label}");
    if let Some(cwd) = case.get("cwd") {
        assert_eq!(plan.cwd, Path::new(cwd.as_str().unwrap()), "{label}");
    }
    check_files(&label, &plan, case);
}

fn check_files(label: &str, plan: &Plan, case: &Json) {
    for (name, wanted) in case.get("files_json").and_then(Json::as_object).into_iter().flatten() {
        let found: Json = serde_json::from_str(&planned(plan, name)).unwrap();
        assert_eq!(found, *wanted, "{label}, {name}");
    }
    for (name, wanted) in case.get("files_ini").and_then(Json::as_object).into_iter().flatten() {
        let options = wps_remote_protocol::ini::Options::new(name.as_str()).ignoring_case();
        let found =
            wps_remote_protocol::ini::Document::parse(planned(plan, name).as_bytes(), &options).unwrap();
        for (section, keys) in wanted.as_object().unwrap() {
            for (key, value) in keys.as_object().unwrap() {
                let found = found.section(section).and_then(|found| found.raw(key));
                assert_eq!(found, value.as_str(), "{label}, {name}, {key}");
            }
        }
    }
}

#[test]
fn every_case_of_the_new_agent_holds() {
    let mut count = 0;
    for (name, cases) in expected("new-agent.json").as_object().unwrap() {
        for case in cases.as_array().into_iter().flatten().filter(|case| case.get("inputs").is_some()) {
            check_case(name, case);
            count += 1;
        }
    }
    assert_eq!(count, 24, "all cases were looked at");
}

#[test]
fn cases_that_are_the_same_as_legacy_equal_the_recordings() {
    let mut count = 0;
    for (name, cases) in expected("new-agent.json").as_object().unwrap() {
        for case in
            cases.as_array().into_iter().flatten().filter(|case| case["same_as_legacy"] == json!(true))
        {
            let recording = expected(&format!("{}.legacy.json", &name[..2]));
            let old = recording["cases"]
                .as_array()
                .unwrap()
                .iter()
                .find(|old| old["case"] == case["case"])
                .unwrap();
            let plan = plan(&fixture(name), &case["inputs"]).unwrap();
            assert_eq!(plan.argv(), texts(&old["argv"]), "{name}");
            assert_eq!(plan.cwd, Path::new(old["cwd"].as_str().unwrap()), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, 3);
}

#[test]
fn registrations_equal_the_recordings() {
    let sorted = |list: &Json| {
        let mut list: Vec<(String, Json)> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone()))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    };
    for name in [
        "01-gdal-contour.config",
        "02-gdalwarp-reproject.config",
        "04-shell-json-files.config",
        "05-multi-valued-translate.config",
        "09-all-outputs.config",
    ] {
        let descriptor = fixture(name);
        let old = expected(&format!("{}.legacy.json", &name[..2]));
        // Inputs come in the same order; extension keys stand beside those of the old agent.
        let found = descriptor.legacy_inputs();
        let wanted: Vec<(String, Json)> = old["register_input"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].clone()))
            .collect();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for ((id, found), (wanted_id, wanted)) in found.iter().zip(&wanted) {
            assert_eq!(id, wanted_id, "{name}");
            for (key, value) in wanted.as_object().unwrap() {
                assert_eq!(&found[key], value, "{name}, {id}, {key}");
            }
        }
        let mut found = descriptor.legacy_outputs();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, sorted(&old["register_output"]), "{name}");
        assert_eq!(descriptor.id.name(), old["service"].as_str().unwrap());
        assert_eq!(descriptor.id.namespace(), old["namespace"].as_str().unwrap());
        assert_eq!(descriptor.description, old["description"].as_str().unwrap());
        assert_eq!(descriptor.active, old["active"].as_bool().unwrap());
        let seconds = descriptor.max_running.unwrap().as_secs();
        assert_eq!(seconds, old["max_running_time_seconds"].as_u64().unwrap());
        assert_eq!(descriptor.output_dir, Path::new(old["output_dir"].as_str().unwrap()));
        let rules: Vec<(String, String)> = descriptor
            .rules
            .rules
            .iter()
            .map(|rule| (rule.pattern.source().to_owned(), rule.action.word().to_owned()))
            .collect();
        let old_rules: Vec<(String, String)> =
            serde_json::from_value(old["cases"][0]["logging"].clone()).unwrap();
        assert_eq!(rules, old_rules, "{name}");
        check_output_files(&descriptor, &old["cases"][0]);
    }
}

fn check_output_files(descriptor: &ServiceDescriptor, case: &Json) {
    let Ok(plan) = plan(descriptor, &case["inputs"]) else { return };
    for output in &plan.outputs {
        if let PlannedPlace::File(path) = &output.place {
            assert_eq!(path.to_str(), case["output_files"][&output.name].as_str(), "{}", output.name);
        }
    }
}

#[test]
fn the_simple_dialect_registers_as_documented() {
    let descriptor = fixture("08-simple-greeting.properties");
    let cases = expected("new-agent.json");
    let register = &cases["08-simple-greeting.properties"][0];
    assert_eq!(descriptor.id.dotted(), register["service"].as_str().unwrap());
    let register = &register["register"];
    assert_eq!(descriptor.title.as_deref(), register["title"].as_str());
    let inputs: Vec<Json> =
        descriptor.legacy_inputs().into_iter().map(|(id, text)| json!([id, text])).collect();
    assert_eq!(Json::Array(inputs), register["input"]);
    let outputs: Vec<Json> =
        descriptor.legacy_outputs().into_iter().map(|(id, text)| json!([id, text])).collect();
    assert_eq!(Json::Array(outputs), register["output"]);
}

#[test]
fn outputs_of_every_kind_are_planned() {
    let descriptor = fixture("09-all-outputs.config");
    let case = &expected("new-agent.json")["09-all-outputs.config"][0];
    let plan = plan(&descriptor, &case["inputs"]).unwrap();
    for output in &plan.outputs {
        let wanted = case["completed"][&output.name].as_str().unwrap();
        let kind = case["completed_type"][&output.name].as_str().unwrap();
        assert_eq!(output.textual, kind == "textual", "{}", output.name);
        assert!(output.textual || output.declared == kind, "{}", output.name);
        match &output.place {
            PlannedPlace::File(path) if output.backup => {
                let name = path.file_name().unwrap().to_str().unwrap();
                assert_eq!(wanted, format!("<shared>/{EXECUTION}/{}/{name}", output.name));
            }
            PlannedPlace::File(path) if !output.textual => {
                assert!(wanted.ends_with(path.to_str().unwrap()), "{wanted}");
            }
            PlannedPlace::File(_) => {}
            PlannedPlace::Composed => assert_eq!(output.layers, ["result2", "result4"]),
            other => panic!("{other:?}"),
        }
    }
}
