//! Every way in which an output can be wrong, and the two ways in which it travels.

#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, symlink};

use wps_remote_protocol::{BoundingBoxData, ComplexData, LiteralData, LiteralType};

use super::*;

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        Self { folder }
    }

    fn work(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    fn complex(&self, name: &str, media_type: &str) -> Expected {
        self.expect(
            DataType::Complex(ComplexData { formats: vec![Format::new(media_type)], max_bytes: None }),
            name,
        )
    }

    fn literal(&self, name: &str, kind: LiteralType) -> Expected {
        self.expect(
            DataType::Literal(LiteralData { kind, uom: None, allowed: Default::default(), default: None }),
            name,
        )
    }

    fn expect(&self, data: DataType, name: &str) -> Expected {
        Expected {
            id: "result1".into(),
            place: Place::File(self.work(name)),
            data,
            optional: false,
            roots: vec![self.folder.path().join("work")],
            min_bytes: 0,
            max_bytes: None,
            sidecars: false,
            upload: None,
            metadata: None,
        }
    }

    fn collect(&self, spec: Expected, with_shared: bool) -> Result<Outputs, Vec<Fault>> {
        let shared = self.shared();
        let delivery =
            Delivery { shared: with_shared.then_some(shared.as_path()), uploader: None, in_place: false };
        collect(&[spec], &ExecutionId::new("e1").unwrap(), &delivery)
    }

    fn fault(&self, spec: Expected) -> String {
        as_error(&self.collect(spec, true).unwrap_err()).text
    }
}

fn content(outputs: Outputs) -> Content {
    match outputs.into_iter().next().unwrap().value {
        Value::Complex { content, .. } => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_output_is_named_with_its_file() {
    let world = World::new();
    let error = as_error(&world.collect(world.complex("contour.zip", "application/zip"), true).unwrap_err());
    assert_eq!(error.kind, ErrorKind::OutputMissing("result1".into()));
    assert!(error.text.contains("`result1`") && error.text.contains("contour.zip"), "{}", error.text);
    let optional = Expected { optional: true, ..world.complex("contour.zip", "application/zip") };
    assert_eq!(world.collect(optional, true).unwrap(), vec![]);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_or_lies_elsewhere_is_refused() {
    let world = World::new();
    fs::create_dir(world.work("folder")).unwrap();
    assert!(world.fault(world.complex("folder", "a/b")).contains("no regular file"));
    symlink("/etc/passwd", world.work("link")).unwrap();
    assert!(
        world.fault(world.complex("link", "a/b")).contains("outside of the allowed folders: /etc/passwd")
    );
    assert!(world.fault(world.complex("../../../../../etc/passwd", "a/b")).contains("outside"));
    symlink("loop", world.work("loop")).unwrap();
    assert!(world.fault(world.complex("loop", "a/b")).contains("`result1`"));
    fs::write(world.work("real"), "x").unwrap();
    symlink("real", world.work("inside")).unwrap();
    assert!(world.collect(world.complex("inside", "a/b"), true).is_ok(), "a link that stays inside is fine");
}

#[test]
fn sizes_are_bounds() {
    let world = World::new();
    fs::write(world.work("file"), "12345").unwrap();
    let most = Expected { max_bytes: Some(4), ..world.complex("file", "a/b") };
    assert!(world.fault(most).contains("at most 4"));
    let least = Expected { min_bytes: 6, ..world.complex("file", "a/b") };
    assert!(world.fault(least).contains("at least 6"));
}

#[test]
fn a_file_goes_to_the_shared_folder_whole_and_summed() {
    let world = World::new();
    // A colon is no letter of a name on Windows.
    let name = if cfg!(windows) { "a b&c.tif" } else { "a b:c.tif" };
    fs::write(world.work(name), "abc").unwrap();
    let outputs = world.collect(world.complex(name, "image/tiff"), true).unwrap();
    let Content::Shared(file) = content(outputs) else { panic!() };
    assert_eq!(file.path, "e1/result1/a b_c.tif");
    assert!(wps_remote_protocol::native::is_relative(&file.path));
    assert_eq!(
        (file.bytes, file.sha256.as_deref()),
        (3, Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
    );
    let shipped = world.shared().join(&file.path);
    assert_eq!(fs::read_to_string(&shipped).unwrap(), "abc");
    let folder = shipped.parent().unwrap();
    #[cfg(unix)]
    assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "no temporary file is left");
    // Done again after a restart of the agent, it gives the same.
    assert!(world.collect(world.complex(name, "image/tiff"), true).is_ok());
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn without_a_shared_folder_small_files_travel_inline_and_large_ones_name_the_key() {
    let world = World::new();
    fs::write(world.work("small.xml"), "<a/>").unwrap();
    let outputs = world.collect(world.complex("small.xml", "text/xml"), false).unwrap();
    assert_eq!(content(outputs), Content::Text("<a/>".into()));
    fs::write(world.work("small.tif"), [0, 159]).unwrap();
    let outputs = world.collect(world.complex("small.tif", "image/tiff"), false).unwrap();
    assert_eq!(content(outputs), Content::Bytes(vec![0, 159]));
    fs::write(world.work("large"), vec![0; 70_000]).unwrap();
    let faults = world.collect(world.complex("large", "image/tiff"), false).unwrap_err();
    assert!(as_error(&faults).text.contains("`wps_execution_shared_dir`"));
}

#[test]
fn several_inline_outputs_share_one_message() {
    let world = World::new();
    fs::write(world.work("file"), "x".repeat(60_000)).unwrap();
    let specs: Vec<Expected> =
        (0..3).map(|n| Expected { id: format!("r{n}"), ..world.complex("file", "text/plain") }).collect();
    let faults = collect(&specs, &ExecutionId::new("e1").unwrap(), &Delivery::default()).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(as_error(&faults).kind, ErrorKind::OutputMissing("r2".into()));
}

#[test]
fn literals_are_read_and_checked() {
    let world = World::new();
    let read = |text: &str, kind| {
        fs::write(world.work("text"), text).unwrap();
        world.collect(world.literal("text", kind), true).map(|outputs| outputs[0].value.clone())
    };
    assert_eq!(read(" a\n", LiteralType::String).unwrap(), Value::literal(" a\n"));
    assert_eq!(read(" 42\n", LiteralType::Integer).unwrap(), Value::literal("42"));
    assert_eq!(read("true\n", LiteralType::Boolean).unwrap(), Value::literal("true"));
    let text = as_error(&read("n/a", LiteralType::Double).unwrap_err()).text;
    assert!(text.contains("declared as double but holds `n/a`"), "{text}");
    let long = "y".repeat(100_001);
    assert!(matches!(
        read(&long, LiteralType::String).unwrap(),
        Value::Complex { content: Content::Shared(file), .. } if file.bytes == 100_001
    ));
}

#[test]
fn boxes_are_read_and_checked() {
    let world = World::new();
    let spec = || world.expect(DataType::BoundingBox(BoundingBoxData { crs: vec![] }), "box.txt");
    fs::write(world.work("box.txt"), "-1.5,2,3,4,EPSG:4326\n").unwrap();
    let outputs = world.collect(spec(), true).unwrap();
    let Value::BoundingBox(area) = &outputs[0].value else { panic!("{outputs:?}") };
    assert_eq!((area.crs.as_deref(), area.lower.as_slice()), (Some("EPSG:4326"), [-1.5, 2.0].as_slice()));
    fs::write(world.work("box.txt"), "1,2,3").unwrap();
    assert!(world.fault(spec()).contains("holds `1,2,3`"));
    fs::write(world.work("box.txt"), "1,".repeat(3000)).unwrap();
    assert!(world.fault(spec()).contains("6000 bytes"));
}

#[test]
fn a_vanished_shared_folder_is_not_made_anew() {
    let world = World::new();
    fs::write(world.work("file"), "x").unwrap();
    fs::remove_dir(world.shared()).unwrap();
    assert!(world.fault(world.complex("file", "a/b")).contains("is it mounted?"));
    assert!(!world.shared().exists());
}

#[test]
fn names_on_the_wire_are_always_relative() {
    for name in ["", ".", "..", "...", "a/b", "c:\\d", "\u{1}x\n", "ä ö+漢"] {
        let plain = plain(name);
        assert!(wps_remote_protocol::native::is_relative(&plain), "{name:?} became {plain:?}");
    }
    // What Windows would take for a device, or shorten.
    for (name, expected) in
        [("NUL", "_NUL"), ("com1.txt", "_com1.txt"), ("a.", "a._"), ("a ", "a _"), ("null", "null")]
    {
        assert_eq!(plain(name), expected);
    }
}

#[cfg(not(windows))]
#[test]
fn a_pattern_must_match_one_file() {
    let world = World::new();
    let place = Place::Matching { folder: world.work(""), pattern: "out_*.tif".into() };
    let spec = Expected { place, ..world.complex("", "image/tiff") };
    assert!(world.fault(spec.clone()).contains("was not written"));
    fs::write(world.work("out_1.tif"), "x").unwrap();
    assert!(world.collect(spec.clone(), true).is_ok());
    fs::write(world.work("out_2.tif"), "x").unwrap();
    assert!(world.fault(spec).contains("several: out_1.tif, out_2.tif"));
    for (name, pattern, expected) in [
        ("a", "a", true),
        ("ab", "a", false),
        ("a.b.c", "a*.c", true),
        ("ac", "a*b*c", false),
        ("abc", "a*b*c", true),
        ("aa", "a*aa", false),
    ] {
        assert_eq!(find::matches(name, pattern), expected, "{name} {pattern}");
    }
}

#[cfg(not(windows))]
#[test]
fn a_program_may_list_its_outputs() {
    let world = World::new();
    let place = Place::Contract { folder: world.work(""), extension: "json".into() };
    let literal = Expected { place: place.clone(), ..world.literal("", LiteralType::Double) };
    fs::write(world.work("outputs.json"), r#"{"result1": 1.5}"#).unwrap();
    assert_eq!(world.collect(literal.clone(), true).unwrap()[0].value, Value::literal("1.5"));
    fs::write(world.work("outputs.json"), r#"{"result1": [1]}"#).unwrap();
    assert!(world.fault(literal.clone()).contains("outputs.json cannot be used"));
    fs::write(world.work("outputs.json"), r#"{"result1": {"file": "/etc/passwd"}}"#).unwrap();
    assert!(world.fault(literal).contains("outside"));
    fs::remove_file(world.work("outputs.json")).unwrap();
    fs::write(world.work("result1.json"), "{}").unwrap();
    let complex = Expected { place, ..world.complex("", "application/json") };
    assert_eq!(content(world.collect(complex, false).unwrap()), Content::Text("{}".into()));
}

#[test]
fn side_files_go_along() {
    let world = World::new();
    for name in ["a.shp", "a.dbf", "ab.dbf"] {
        fs::write(world.work(name), name).unwrap();
    }
    let spec = Expected { sidecars: true, ..world.complex("a.shp", "application/x-shp") };
    let outputs = world.collect(spec, true).unwrap();
    let folder = world.shared().join("e1/result1");
    assert!(folder.join("a.dbf").exists() && !folder.join("ab.dbf").exists());
    let files: Vec<_> = outputs[0].side_files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    assert_eq!(files, [("e1/result1/a.dbf", 5)]);
    assert!(outputs[0].side_files[0].sha256.as_ref().is_some_and(|sum| sum.len() == 64));
}

#[cfg(unix)]
#[test]
fn metadata_is_read_from_allowed_folders_only_and_its_want_is_no_fault() {
    let world = World::new();
    fs::write(world.work("r.txt"), "x").unwrap();
    fs::write(world.work("m.json"), "{\"a\": 1}").unwrap();
    fs::write(world.folder.path().join("secret"), "s").unwrap();
    symlink(world.folder.path().join("secret"), world.work("link")).unwrap();
    fs::write(world.work("huge"), vec![b'x'; 300_000]).unwrap();
    let read = |file: PathBuf| {
        let metadata = Some(Metadata { file, roots: vec![world.work("")] });
        let spec = Expected { metadata, ..world.literal("r.txt", LiteralType::String) };
        world.collect(spec, true).unwrap()[0].metadata.clone()
    };
    assert_eq!(read(world.work("m.json")).as_deref(), Some("{\"a\": 1}"));
    for file in ["link", "none", "huge", "."] {
        assert_eq!(read(world.work(file)), None, "{file}");
    }
    assert_eq!(read(world.folder.path().join("secret")), None);
}

#[cfg(unix)]
#[test]
fn a_list_of_outputs_that_is_a_link_or_a_pipe_is_not_read() {
    let world = World::new();
    let place = Place::Contract { folder: world.work(""), extension: "txt".into() };
    let literal = Expected { place, max_bytes: Some(3), ..world.literal("", LiteralType::String) };
    fs::write(world.folder.path().join("list"), r#"{"result1": "s"}"#).unwrap();
    symlink(world.folder.path().join("list"), world.work("outputs.json")).unwrap();
    assert!(world.fault(literal.clone()).contains("was not written"));
    fs::remove_file(world.work("outputs.json")).unwrap();
    fs::write(world.work("outputs.json"), r#"{"result1": "four"}"#).unwrap();
    assert!(world.fault(literal).contains("has 4 bytes, at most 3"));
}
