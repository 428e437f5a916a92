//! OWSLib, unmodified, through everything that WPS 1.0.0 offers, and its contours against those of `gdal_contour` run by
//! hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::path::Path;
use std::process::Command;

use e2e::fixtures::{FAIL, descriptor};
use e2e::{installed, python, root, skip};

#[test]
fn owslib_walks_through_everything() {
    let name = "owslib_walks_through_everything";
    if !installed("gdal_contour") || !installed("ogrinfo") {
        return skip(name, "GDAL is not installed (Debian: gdal-bin)");
    }
    let python = match python::owslib() {
        Ok(python) => python,
        Err(why) => return skip(name, &why),
    };
    e2e::run("owslib", |site| {
        site.expect_warning("test:Fail");
        let orchestrator = site.orchestrator().start();
        let _agent = site
            .agent("a")
            .service("echo")
            .service("sleep")
            .service("gdal-contour")
            .file("fail.ini", &descriptor("Fail", "fail.sh", ""))
            .file("fail.sh", FAIL)
            .start();
        orchestrator.wait_for(&["demo:Echo", "demo:Sleep", "gdal:Contour", "test:Fail"]);
        let results = site.make_folder("contours");
        let output = Command::new(python)
            .arg(root().join("tests/clients/owslib_wps1.py"))
            .arg(orchestrator.url())
            .arg(&results)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));

        // By hand, with the same values.
        let by_hand = site.folder().join("by-hand.geojson");
        let status = Command::new("gdal_contour")
            .args(["-q", "-i", "100", "-a", "height"])
            .arg(root().join("services/data/jacksboro-dem.tif"))
            .arg(&by_hand)
            .status()
            .unwrap();
        assert!(status.success());
        let expected = features(&by_hand);
        assert!(expected.len() > 100, "gdal_contour gave {} features", expected.len());
        for file in ["raw.geojson", "inline.geojson", "reference.geojson"] {
            assert_eq!(features(&results.join(file)), expected, "{file}");
        }
        for file in ["format.gml", "format.shz"] {
            assert_eq!(features(&results.join(file)).len(), expected.len(), "{file}");
        }
    });
}

/// Every feature with its attributes and geometry, as ogrinfo shows it, sorted.
fn features(file: &Path) -> Vec<String> {
    let output = Command::new("ogrinfo").args(["-ro", "-al", "-q"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut features: Vec<String> = text
        .split("OGRFeature(")
        .skip(1)
        .map(|f| f.split_once("):").map_or(f, |(_, rest)| rest).trim().to_owned())
        .collect();
    features.sort();
    features
}
