//! Everything that the fuzz targets have been fed or have found, once more, without a fuzzer: the inputs in
//! `tests/fuzz/corpus` through the same checks. A finding that was repaired stays repaired on every machine.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_input_of_the_corpora_keeps_what_its_target_promises() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    for (name, target) in fuzz::TARGETS {
        let folder = fs::read_dir(corpora.join(name)).unwrap_or_else(|_| panic!("{name} has no corpus"));
        for file in folder.map(|entry| entry.unwrap().path()) {
            let bytes = fs::read(&file).unwrap();
            if catch_unwind(|| target(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_target_is_a_program_of_the_package_and_the_other_way_round() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for (name, _) in fuzz::TARGETS {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let program = fs::read_to_string(package.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("wps_fuzz::{name}(data)")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), fuzz::TARGETS.len());
}
