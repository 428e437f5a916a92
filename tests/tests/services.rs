//! The ready services: every descriptor passes `check`, and every sample request gives what lies in `expected`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::http::Answer;
use e2e::program::binary;
use e2e::{installed, root, skip};

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root().join("services"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("service.ini").exists())
        .collect();
    folders.sort();
    folders
}

#[test]
fn every_folder_is_complete_and_every_descriptor_is_sound() {
    let folders = folders();
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        for part in ["README.md", "sample-request.xml", "expected"] {
            assert!(folder.join(part).exists(), "{} lacks {part}", folder.display());
        }
        let gdal = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gdal-"));
        if gdal && !installed("gdal_contour") {
            skip(&format!("check of {}", folder.display()), "GDAL is not installed");
            continue;
        }
        let output = Command::new(binary("wps-remote-agent"))
            .arg("check")
            .arg(folder.join("service.ini"))
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {said}", folder.display());
        assert!(!said.to_lowercase().contains("warning:"), "{}: {said}", folder.display());
    }
}

#[test]
fn every_page_shows_a_trial_that_works() {
    let scratch = tempfile::tempdir().unwrap();
    for folder in folders() {
        let gdal = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gdal-"));
        if gdal && !installed("gdal_contour") {
            skip(&format!("trial of {}", folder.display()), "GDAL is not installed");
            continue;
        }
        let page = fs::read_to_string(folder.join("README.md")).unwrap();
        let line = page.lines().find(|line| line.starts_with("wps-remote-agent try ")).unwrap();
        let output = Command::new(binary("wps-remote-agent"))
            .args(line.split_whitespace().skip(1))
            .current_dir(root())
            .env("TMPDIR", scratch.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("completed"), "{line}: {output:?}");
    }
}

#[test]
fn every_sample_request_gives_the_expected_result() {
    e2e::run("services", |site| {
        let orchestrator = site.orchestrator().start();
        let gdal = installed("gdal_contour") && installed("gdalinfo") && installed("ogrinfo");
        let mut agent = site.agent("a");
        let mut offered = Vec::new();
        let mut shown = Vec::new();
        for (folder, process) in [
            ("echo", "demo:Echo"),
            ("sleep", "demo:Sleep"),
            ("dem-statistics", "demo:DemStatistics"),
            ("gdal-contour", "gdal:Contour"),
            ("gdal-hillshade", "gdal:Hillshade"),
            ("gdal-warp", "gdal:Warp"),
        ] {
            if folder.starts_with("gdal-") && !gdal {
                skip(&format!("sample of {folder}"), "GDAL is not installed");
                continue;
            }
            agent = agent.service(folder);
            offered.push(process);
            shown.push(folder);
        }
        assert_eq!(shown.len(), if gdal { folders().len() } else { 3 }, "a service is missing in this test");
        let _agent = agent.start();
        orchestrator.wait_for(&offered);
        let mut wps = orchestrator.wps();
        for folder in shown {
            let path = root().join("services").join(folder);
            let answer = wps.post(&fs::read_to_string(path.join("sample-request.xml")).unwrap());
            assert_eq!(answer.status, 200, "{folder}: {}", answer.text());
            compare(folder, &path.join("expected"), &answer, site.folder());
        }
    });
}

/// Compares an answer with the file of the expected folder, by the measure that suits its kind.
fn compare(folder: &str, expected: &Path, answer: &Answer, scratch: &Path) {
    let wanted = |name: &str| fs::read_to_string(expected.join(name)).unwrap();
    match folder {
        "echo" => {
            let response = e2e::client::document(answer, "ExecuteResponse");
            let text =
                e2e::client::output(&response, "result_text").find("LiteralData").unwrap().text.clone();
            assert_eq!(text, wanted("result_text.txt"));
        }
        "sleep" => {
            let response = e2e::client::document(answer, "ExecuteResponse");
            let text = e2e::client::output(&response, "result").text_of("LiteralData").unwrap().to_owned();
            assert_eq!(text, wanted("result.txt").trim());
        }
        "dem-statistics" => assert_eq!(answer.text(), wanted("statistics.json")),
        _ => {
            let (file, tool, options, name): (_, _, &[&str], _) = match folder {
                "gdal-contour" => {
                    ("contours.geojson", "ogrinfo", &["-ro", "-so", "-al"], "result_geojson.txt")
                }
                _ => ("raster.tif", "gdalinfo", &[], "result.txt"),
            };
            let file = scratch.join(file);
            fs::write(&file, &answer.body).unwrap();
            let output = Command::new(tool).args(options).arg(&file).output().unwrap();
            // The layout of a file in blocks depends on the library.
            let described: String = String::from_utf8_lossy(&output.stdout)
                .split_inclusive([' ', '\n'])
                .filter(|word| !word.starts_with("Block="))
                .collect();
            for line in wanted(name).lines() {
                let (key, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
                let found = described.lines().any(|l| same_line(l, key, value));
                assert!(found, "{folder}: not found: {line}\n{described}");
            }
        }
    }
}

/// Whether a line says the same; numbers may differ in the ninth digit, which depends on the library.
fn same_line(line: &str, key: &str, value: &str) -> bool {
    let key = key.trim();
    if !line.trim_start().starts_with(key.split_whitespace().next().unwrap_or(key)) {
        return false;
    }
    let numbers = |text: &str| -> Vec<f64> {
        text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e')))
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    let wanted = numbers(&format!("{key}={value}"));
    let found = numbers(line);
    if wanted.is_empty() || wanted.len() > found.len() {
        return line.contains(key) && line.contains(value.trim());
    }
    found.windows(wanted.len()).any(|some| {
        some.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0))
    })
}
