//! What is said about good and bad descriptors.

use serde_json::json;

use super::*;
use crate::command::from_json;

fn fixture(name: &str) -> (std::path::PathBuf, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/descriptors").join(name);
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

fn context() -> LoadContext {
    LoadContext {
        shared_dir: Some("/srv/wps/shared".into()),
        uploads: false,
        ..LoadContext::bare("/srv/wps/work".into())
    }
}

#[test]
fn every_key_of_every_fixture_is_explained() {
    for name in [
        "01-gdal-contour.config",
        "02-gdalwarp-reproject.config",
        "04-shell-json-files.config",
        "05-multi-valued-translate.config",
        "08-simple-greeting.properties",
        "09-all-outputs.config",
    ] {
        let (path, bytes) = fixture(name);
        let said = check(&path, &bytes, &context(), &[]);
        assert!(said.usable, "{}", said.text);
        for key in said.json["keys"].as_array().unwrap() {
            let meaning = key["meaning"].as_str().unwrap();
            assert!(!meaning.contains("not known") && !meaning.contains("without meaning"), "{name}: {key}");
        }
        assert!(
            said.json["sample"]["argv"].is_array() || name.starts_with("04"),
            "{name}: {}",
            said.json["sample"]
        );
    }
}

#[test]
fn a_check_shows_places_meanings_command_line_and_the_missing_program() {
    let (path, bytes) = fixture("01-gdal-contour.config");
    let bytes = String::from_utf8(bytes).unwrap().replace("/usr/bin/gdal_contour", "/none/gdal_contour");
    let said = check(&path, bytes.as_bytes(), &context(), &[]);
    for part in [
        "process terrain:DemContour, dialect A",
        "     6  [DEFAULT] service = DemContour\n        name of the process",
        "[DEFAULT] dem_file = /srv/wps/dem/alps_25m.tif\n        a variable; used in line 44",
        "interval (optional): float, default `50` - Vertical distance between two lines, in metres",
        "result_contours: text/xml; subtype=gml/3.1.1 - Contour lines as GML 3.1.1",
        "/none/gdal_contour -f GML -dsco FORMAT=GML3 -i 50 -a elev /srv/wps/dem/alps_25m.tif /srv/wps/work/sample-run/contour.gml",
        "Held back: line 10: program `/none/gdal_contour` does not exist; looked at /none/gdal_contour",
    ] {
        assert!(said.text.contains(part), "{part}\nnot in\n{}", said.text);
    }
    assert!(said.json["held"].as_str().unwrap().contains("does not exist"));
}

#[test]
fn every_fault_is_named_with_its_remedy() {
    let text = "[DEFAULT]\nservice = A B\nnamespace = n\n[Input1]\nclass = parm\n[Action1]\nclass = cmdlin\n";
    let said = check(Path::new("/x/bad.config"), text.as_bytes(), &context(), &[]);
    assert!(!said.usable);
    for part in [
        "bad.config: cannot be used",
        "/x/bad.config:2: [DEFAULT] service: `A B` cannot be part of an address; use 1 to 64",
        "/x/bad.config:1: [DEFAULT] executable_cmd: is required; add the program",
        "/x/bad.config:5: [Input1] class: `parm` is neither param nor const",
    ] {
        assert!(said.text.contains(part), "{part}\nnot in\n{}", said.text);
    }
    let error = &said.json["errors"][0];
    assert!(error["line"].is_u64() && error["code"].is_string() && error["remedy"].is_string(), "{error}");
    let said = describe(Path::new("/x/bad.config"), text.as_bytes(), &context());
    assert!(!said.usable && said.json["errors"].is_array());
    let said = check(Path::new("/x/none.config"), b"[A]\nx=1\n", &context(), &[]);
    assert!(said.text.contains("is not a service descriptor"), "{}", said.text);
}

#[test]
fn a_description_is_what_would_be_announced() {
    let (path, bytes) = fixture("08-simple-greeting.properties");
    let said = describe(&path, &bytes, &context());
    assert!(said.text.contains("demo:Greeter - Greeting service"), "{}", said.text);
    assert!(said.text.contains("guest (0 to 10 times): string - Further guest"), "{}", said.text);
    assert_eq!(said.json["id"], json!("demo:Greeter"));
    assert_eq!(
        said.json["inputs"][0]["data"]["literal"]["allowed"]["values"],
        json!(["Ada", "Grace", "Edsger"])
    );
    assert_eq!(said.json["offered"], json!(false), "greet.py is not there");
}

#[test]
fn a_dry_run_is_one_object() {
    let (path, bytes) = fixture("04-shell-json-files.config");
    let support = path.parent().unwrap().join("support");
    let text = String::from_utf8(bytes).unwrap().replace("/opt/wps/sampling", support.to_str().unwrap());
    let descriptor = load_descriptor(&path, text.as_bytes(), &context()).unwrap();
    let run = |inputs: Json| {
        let inputs = from_json::inputs(&descriptor, inputs.as_object().unwrap());
        let context = RunContext::new(ExecutionId::new("0123456789abcde").unwrap());
        dry_run(&descriptor, &command::prepare(&descriptor, &context, &inputs))
    };
    let station = "{\"station\": {\"number\": 4, \"lon\": 1.5, \"lat\": 43.0}}";
    let good = run(json!({"campaign": "C7", "station": [station]}));
    assert_eq!(good["argv"][0], json!("/bin/sh"));
    let file = |name: &str| {
        let files = good["files"].as_array().unwrap();
        let path = format!("/srv/wps/work/0123456789abcde/{name}");
        files.iter().find(|file| file["path"] == json!(path)).unwrap()["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(file("README.txt"), "Files copied into each run directory.\n");
    assert!(file("site.ini").contains("Owner = sea lab"), "untouched lines stay as they are");
    let warning = &good["warnings"][0];
    assert!(
        warning["code"].is_string() && warning["line"].is_u64() && warning["text"].is_string(),
        "{warning}"
    );
    let bad = run(json!({"campaign": "a\tb", "station": [station]}));
    assert_eq!(bad["error"]["code"], json!("InvalidParameterValue"));
    assert_eq!(bad["error"]["locator"], json!("campaign"));
    assert!(bad.get("argv").is_none());
}

#[test]
fn a_made_up_value_is_no_secret_and_a_default_may_be_one() {
    let text = "[Description]\nservice = S\nexecutable = /bin/echo\n[Input]\nkey = {\"sensitive\": true}\n\
        other = {\"sensitive\": true, \"default\": \"hush\"}\nplain = {}\n[Output]\nr = {}\n";
    let explanation = check(Path::new("/etc/wps/s.ini"), text.as_bytes(), &context(), &[]);
    let line = explanation.text.lines().find(|line| line.contains("--key=")).unwrap_or_default();
    assert_eq!(line.trim(), "/bin/echo --key=sample --other=**** --plain=sample");
}
