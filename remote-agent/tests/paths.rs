//! What a descriptor and its clients can make the agent write or give away: nothing outside of the folders that the agent's
//! administrator opened. Random paths, random values, links in the way; then the disk is looked at.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use wps_remote_agent::descriptor::LoadContext;
use wps_remote_agent::descriptor::load::load_descriptor;
use wps_remote_agent::outputs;
use wps_remote_agent::prepare::{Manner, prepare};
use wps_remote_protocol::{Content, ExecutionId, Input, Request, Value};

const RUN: &str = "0123456789abcdef";
const SECRET: &str = "{\"secret\": true}";

/// `work`, `allowed` and `shared` are open to descriptors; `outside` is not, though links lead there.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["work", "allowed/deep", "shared", "outside", "services"] {
            fs::create_dir_all(disk.at(folder)).unwrap();
        }
        for (name, text) in [
            ("outside/canary.txt", SECRET),
            ("allowed/canary.txt", "{\"old\": 1}"),
            ("services/t.json", "{\"a\": {\"b\": [1, 2]}}"),
            ("services/t.ini", "[s]\nk = 1\n"),
        ] {
            fs::write(disk.at(name), text).unwrap();
        }
        symlink(disk.at("outside"), disk.at("allowed/link")).unwrap();
        symlink(disk.at("outside/canary.txt"), disk.at("allowed/file")).unwrap();
        symlink(disk.at("outside/made.txt"), disk.at("allowed/lost")).unwrap();
        disk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything that no descriptor may change: names, contents, and where links lead.
    fn closed(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let open = [self.at("work").join(RUN), self.at("allowed"), self.at("shared").join(RUN)];
                if open.contains(&path) {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    found.insert(path.clone(), Vec::new());
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    fn context(&self) -> LoadContext {
        LoadContext {
            allowed_paths: vec![self.at("allowed")],
            shared_dir: Some(self.at("shared")),
            ..LoadContext::bare(self.at("work"))
        }
    }
}

/// A path from pieces, most of them harmless.
fn path() -> impl Strategy<Value = (Index, Vec<&'static str>)> {
    let piece = prop::sample::select(vec![
        "a",
        "b.txt",
        "..",
        ".",
        "${json_path_expr}",
        "x-${json_path_expr}.json",
        "canary.txt",
        "link",
        "file",
        "lost",
        "deep",
        "../../outside",
        "x/../y",
    ]);
    (any::<Index>(), prop::collection::vec(piece, 1..4))
}

/// What a client may try as a part of a file's name.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "../../outside/canary.txt",
            "..",
            ".",
            "/etc/passwd",
            "link",
            "lost",
            "file",
            "a",
            "7",
            "a/b"
        ])
        .prop_map(|text| serde_json::to_string(text).unwrap()),
        "-?[0-9]{1,4}",
        "\\PC{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ]
}

fn shown(disk: &Disk, (base, pieces): &(Index, Vec<&str>)) -> String {
    let bases = [
        "%(workdir)s".to_owned(),
        "%(workdir)s".to_owned(),
        disk.at("allowed").to_string_lossy().into_owned(),
        disk.at("outside").to_string_lossy().into_owned(),
        disk.at("work").to_string_lossy().into_owned(),
        ".".to_owned(),
    ];
    format!("{}/{}", base.get(&bases), pieces.join("/"))
}

fn request(inputs: &[(&str, &str)]) -> Request {
    let document = |text: &str| Value::Complex {
        content: Content::Text(text.to_owned()),
        media_type: String::new(),
        schema: None,
    };
    Request {
        execution: ExecutionId::new(RUN).unwrap(),
        process: "n:S".parse().unwrap(),
        inputs: inputs
            .iter()
            .map(|(id, text)| Input { id: (*id).to_owned(), value: document(text) })
            .collect(),
        base_url: String::new(),
    }
}

fn manner(disk: &Disk) -> Manner {
    Manner {
        shared: Some(disk.at("shared")),
        grace: Duration::from_secs(1),
        log_limit_bytes: 1,
        hidden_variables: Vec::new(),
        run_as: None,
        cgroup: None,
    }
}

const HEAD: &str = "[DEFAULT]\nservice = S\nnamespace = n\ndescription = d\nactive = true\nmax_running_time_seconds = 60\n\
                    workdir = %(output_dir)s/%(unique_exe_id)s\nexecutable_path = /\nexecutable_cmd = /bin/true\n\
                    [Input1]\nclass = param\nname = doc\ntype = application/json\ndescription = d\nmax = 9\n\
                    [Input2]\nclass = param\nname = text\ntype = text/plain\ndescription = d\npass_by = value\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_written_outside(
        actions in prop::collection::vec((0_usize..6, path()), 1..4),
        parts in prop::collection::vec(part(), 1..4),
        text in "\\PC{0,20}",
    ) {
        let disk = Disk::new();
        let mut file = HEAD.to_owned();
        for (index, (class, target)) in actions.iter().enumerate() {
            let dir = disk.at("services").to_string_lossy().into_owned();
            let lines = [
                "class = writefile\ninput_ref = text".to_owned(),
                "class = createJSONfile\ninput_ref = doc\njson_path_expr = ['id']".to_owned(),
                "class = createJSONfile\ninput_ref = doc".to_owned(),
                format!("class = copyfile\nsource_filepath = {dir}/t.json"),
                format!("class = updateJSONfile\ninput_ref = text\nsource_filepath = {dir}/t.json\njson_path_expr = ['a']['b'][0]"),
                format!("class = updateINIfile\ninput_ref = text\nsource_filepath = {dir}/t.ini\nsection = s\nalias = k"),
            ];
            file.push_str(&format!("[Action{index}]\n{}\ntarget_filepath = {}\n", lines[*class], shown(&disk, target)));
        }
        file.push_str("[Output1]\nname = result\ntype = string\nfilepath = %(workdir)s/r\n");
        let before = disk.closed();
        let loaded = load_descriptor(&disk.at("services/s.config"), file.as_bytes(), &disk.context());
        if let Ok(descriptor) = loaded {
            let documents: Vec<String> = parts.iter().map(|part| format!("{{\"id\": {part}}}")).collect();
            let mut inputs: Vec<(&str, &str)> = documents.iter().map(|document| ("doc", document.as_str())).collect();
            inputs.push(("text", &text));
            let control = disk.at("work");
            if let Ok(prepared) = prepare(&descriptor, &request(&inputs), "o", 0, &manner(&disk), &control) {
                fs::create_dir(&prepared.record.work_dir).unwrap();
                let _ = (prepared.fill)();
            }
        }
        prop_assert_eq!(disk.closed(), before, "{}", file);
        let canary = fs::read_to_string(disk.at("outside/canary.txt")).unwrap();
        prop_assert_eq!(canary, SECRET);
        // A file that stands in an open folder may be a link, but nothing may have come through it.
        let copied = fs::read_dir(disk.at("allowed")).unwrap().map(Result::unwrap);
        for entry in copied.filter(|entry| entry.file_type().unwrap().is_file()) {
            prop_assert!(!fs::read_to_string(entry.path()).unwrap().contains("secret"), "{}", file);
        }
    }

    #[test]
    fn nothing_from_outside_becomes_an_output(
        target in path(),
        metadata in path(),
        linked in prop::sample::select(vec!["outside/canary.txt", "outside", "work", "allowed/canary.txt"]),
        index in prop::option::of(part()),
        simple in any::<bool>(),
    ) {
        let disk = Disk::new();
        let no_part = |text: String| text.replace("${json_path_expr}", "a");
        let mut file = HEAD.to_owned();
        if simple {
            file = "[Description]\nservice = S\nnamespace = n\nexecutable = /bin/true\n[Output]\nresult = {\"type\": \"text/plain\"}\n".to_owned();
        } else {
            let (target, metadata) = (no_part(shown(&disk, &target)), no_part(shown(&disk, &metadata)));
            file.push_str(&format!("[Output1]\nname = result\ntype = text/plain\nfilepath = {target}\nsidecars = stem\npublish_metadata = {metadata}\n"));
        }
        let Ok(descriptor) = load_descriptor(&disk.at("services/s.config"), file.as_bytes(), &disk.context()) else {
            return Ok(());
        };
        let inputs: &[(&str, &str)] = if simple { &[] } else { &[("doc", "{}"), ("text", "t")] };
        let prepared = prepare(&descriptor, &request(inputs), "o", 0, &manner(&disk), &disk.at("work"));
        let Ok(prepared) = prepared else { return Ok(()) };
        let work = prepared.record.work_dir.clone();
        // The program's part: links to everything, and a list that names what it likes.
        fs::create_dir_all(work.join("deep")).unwrap();
        for name in ["a", "b.txt", "link", "file", "canary.txt", "deep/a", "result.txt"] {
            symlink(disk.at(linked), work.join(name)).unwrap();
        }
        if let Some(part) = index {
            fs::write(work.join("outputs.json"), format!("{{\"result\": {{\"file\": {part}}}}}")).unwrap();
        }
        let execution = ExecutionId::new(RUN).unwrap();
        if let Ok(found) = outputs::collect(&prepared.record.outputs, &execution, &outputs::Delivery { shared: Some(&disk.at("shared")), uploader: None, in_place: false }) {
            prop_assert!(!format!("{found:?}").contains("secret"), "{}", file);
        }
        prop_assert!(!holds_secret(&disk.at("shared")), "{}", file);
    }
}

fn holds_secret(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().map(Result::unwrap).any(|entry| match entry.file_type().unwrap().is_dir() {
        true => holds_secret(&entry.path()),
        false => fs::read_to_string(entry.path()).unwrap().contains("secret"),
    })
}
