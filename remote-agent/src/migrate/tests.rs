//! Every fixture and many odd files mean the same afterwards, and what could be settled is.

use std::path::PathBuf;

use proptest::prelude::*;

use super::same::meaning;
use super::*;

fn context() -> LoadContext {
    LoadContext { shared_dir: Some("/srv/wps/shared".into()), ..LoadContext::bare("/srv/wps/work".into()) }
}

fn fixture(name: &str) -> (PathBuf, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/descriptors").join(name);
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

/// Warnings that no rewriting can settle: about this host, about a GeoServer, about what only the author knows.
const BEYOND: [&str; 13] = [
    "schema-unusable",
    "no-uploader",
    "access-not-enforced",
    "unknown-layer",
    "rule-groups",
    "file-missing",
    "geoserver-drops-output",
    "geoserver-type",
    "json-like-text",
    "no-time-limit",
    "workdir-differs",
    "min-above-max",
    "metadata-outside",
];

fn migrated(file: &Path, text: &[u8]) -> Migrated {
    let old = load_descriptor(file, text, &context()).unwrap();
    let done = to_a(file, text, &context()).unwrap_or_else(|error| panic!("{error}"));
    let new = load_descriptor(file, done.text.as_bytes(), &context()).unwrap();
    assert_eq!(new.dialect, Dialect::A);
    assert_eq!(meaning(&old), meaning(&new), "{}", done.text);
    for left in &new.warnings {
        assert!(BEYOND.contains(&left.code), "{left:?}\n{}", done.text);
    }
    // What is clean stays as it is, but for the heading.
    let again = to_a(file, done.text.as_bytes(), &context()).unwrap();
    let body = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(body(&again.text), body(&done.text));
    done
}

#[test]
fn every_fixture_means_the_same_afterwards() {
    for name in [
        "01-gdal-contour.config",
        "02-gdalwarp-reproject.config",
        "04-shell-json-files.config",
        "05-multi-valued-translate.config",
        "08-simple-greeting.properties",
        "09-all-outputs.config",
    ] {
        let (path, bytes) = fixture(name);
        let done = migrated(&path, &bytes);
        assert!(done.text.starts_with(&format!("# {name}, ")), "{}", done.text);
    }
}

#[test]
fn whatever_an_old_file_is_warned_of_is_settled() {
    let text = "[DEFAULT]\nservice = Old\nnamespace = n\ndescription = d\nactive = yes\nmax_running_time_seconds = 9\n\
        descripton = typo\nexecutable_path = bin\nexecutable_cmd = bin/run %(opts)s\nopts = -a -b\n\
        workdir = %(output_dir)s/%(unique_exe_id)s\n\
        [Input1]\nclass = param\nname = many\ntype = string\ndescription = d\nmax = 0\nmni = 3\n\
        [Input2]\nclass = param\nname = n\ntype = int\ndescription = d\ndefault = x\n\
        [Const1]\nclass = const\nname = c\ntype = string\ndescription = d\nvalue = 100 %% (of it)\n\
        [Action1]\nclass = cmdline\ninput_ref = many\ntemplate = --filename=value\n\
        [Action2]\nclass = cmdline\ninput_ref = n\ntemplate = value:name\n\
        [Action2]\nclass = cmdline\nalias = x\n\
        [Action3]\nclass = cmdline\ninput_ref = nothing\ntemplate = value\n\
        [Action10]\nclass = cmdline\ninput_ref = c\ntemplate = --flag\n\
        [Reconstructed]\nclass = const\nname = d\ntype = string\ndescription = d\nvalue = v\n\
        [Output1]\nname = result\ntype = string\nfilepath = r.txt\n[Output2]\nname = untyped\n\
        [Logging]\nstdout_parser = (a), (b), c\nstdout_action = [progress, log, nonsense, ignore]\n";
    let done = migrated(Path::new("/etc/wps/old.config"), text.as_bytes());
    let settled: Vec<&str> = done.settled.iter().map(|finding| finding.code).collect();
    for code in [
        "duplicate-section",
        "duplicate-key",
        "unknown-key",
        "active-not-boolean",
        "relative-path",
        "blank-in-command",
        "max-zero",
        "bad-default",
        "template-substring",
        "template-order",
        "template-constant",
        "unknown-input-ref",
        "text-order",
        "role-by-substring",
        "output-without-type",
        "list-lengths",
        "unknown-action",
    ] {
        assert!(settled.contains(&code), "{code} is not among {settled:?}");
        assert!(done.text.contains(&format!("({code})")), "{code} is not told:\n{}", done.text);
    }
}

#[test]
fn what_dialect_a_cannot_say_is_named() {
    let text = "[Description]\nservice = S\nexecutable = /bin/true\nprocess_buffer = 7\n[Output]\nr = {}\n";
    let error = to_a(Path::new("/x/s.ini"), text.as_bytes(), &context()).unwrap_err().to_string();
    assert!(error.contains("/x/s.ini cannot be written in dialect A") && error.contains('7'), "{error}");
    let broken = to_a(Path::new("/x/s.ini"), b"[Description]\nservice = S\n", &context()).unwrap_err();
    assert!(matches!(broken, MigrateError::Unusable(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever a file of dialect B says: its migration means the same, or is refused, but never means something else.
    #[test]
    fn a_migration_means_the_same_or_is_refused(
        text in "[ -~]{0,12}", arg in "(--key=value|-key value|value|\\{key\\}:\\{value\\}|)", max in 0u8..4,
        default in proptest::option::of("[a-z%();# ]{1,8}"), program in "[a-z'\" ]{1,8}", custom in "[-a-z%=.]{0,8}",
    ) {
        let input = serde_json::json!({"description": text, "arg": arg, "max": max, "default": default});
        let text = format!(
            "[Description]\nservice = S\nexecutable = /opt/{program}\n[Options]\ncustomargs = {custom}\n\
             [Input]\na = {input}\n[Output]\nresult = {{\"file\": \"r\"}}\n"
        );
        let file = Path::new("/x/s.ini");
        if let Ok(old) = load_descriptor(file, text.as_bytes(), &context())
            && let Ok(done) = to_a(file, text.as_bytes(), &context())
        {
            let new = load_descriptor(file, done.text.as_bytes(), &context()).unwrap();
            prop_assert_eq!(meaning(&old), meaning(&new));
        }
    }
}
