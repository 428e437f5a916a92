//! The rules of the INI language, one test each, and property tests against a plain model of the documented reading.

use proptest::prelude::*;

use super::settings::{Key, Kind, Part, Schema, Surroundings};
use super::*;

fn read(text: &str) -> Document {
    Document::parse(text.as_bytes(), &Options::new("t.config")).unwrap_or_else(|e| panic!("{e}"))
}

fn fails(text: &str) -> IniError {
    Document::parse(text.as_bytes(), &Options::new("t.config")).expect_err("must not be readable")
}

fn raw<'a>(doc: &'a Document, section: &str, key: &str) -> &'a str {
    doc.section(section).and_then(|s| s.raw(key)).unwrap_or_else(|| panic!("no [{section}] {key}"))
}

fn codes(doc: &Document) -> Vec<&'static str> {
    doc.warnings().iter().map(|w| w.code).collect()
}

#[test]
fn line_ends_and_byte_order_mark_do_not_matter() {
    let doc = read("\u{feff}[A]\r\nx = 1 \r\ny=2\n");
    assert_eq!((raw(&doc, "A", "x"), raw(&doc, "A", "y")), ("1", "2"));
    assert_eq!(doc.section("A").unwrap().entry("y").unwrap().line, 3);
}

#[test]
fn bytes_that_are_not_utf8_name_their_line() {
    let error = Document::parse(b"[A]\nx = \xe4\n", &Options::new("f")).unwrap_err();
    assert_eq!((error.findings[0].code, error.findings[0].line), ("not-utf8", 2));
    let options = Options { latin1: true, ..Options::new("f") };
    let doc = Document::parse(b"[A]\nx = \xe4\n", &options).unwrap();
    assert_eq!(raw(&doc, "A", "x"), "ä");
}

#[test]
fn comments_blank_lines_and_rem() {
    let doc = read("# c\n; c\n[A]\nREM = no\nrem anything\nremark = yes\nx = 1\n\n# c\n  2\n");
    assert_eq!(raw(&doc, "A", "x"), "1\n2", "neither a blank line nor a comment ends a value");
    assert_eq!(raw(&doc, "A", "remark"), "yes");
    assert!(doc.section("A").unwrap().entry("REM").is_none());
}

#[test]
fn continuation_lines_are_text_whatever_they_look_like() {
    let doc = read("[A]\nx = 1\n  ; not a comment\n\t# nor this\n  [B]\n  k = v ; w\n y\\\ny = 2\n");
    assert_eq!(raw(&doc, "A", "x"), "1\n; not a comment\n# nor this\n[B]\nk = v ; w\ny\\");
    assert_eq!(raw(&doc, "A", "y"), "2");
    assert_eq!(doc.sections().len(), 1);
    assert_eq!(raw(&read("[A]\nx =\n  a\n"), "A", "x"), "\na");
}

#[test]
fn headers_keep_blanks_and_capitals_and_ignore_what_follows() {
    let doc = read("[ A b ] ignored\nx = 1\n[default]\ny = 2\n[a\\]\nz = 3\n");
    let names: Vec<_> = doc.sections().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, [" A b ", "default", "a\\"]);
    assert_eq!(doc.entry(" A b ", "y"), None, "[default] is an ordinary section");
}

#[test]
fn the_first_separator_counts() {
    let doc = read("[A]\na: x=y\nhttp://x = 1\nmany words  = v\ne =\n");
    assert_eq!(raw(&doc, "A", "a"), "x=y");
    assert_eq!(raw(&doc, "A", "http"), "//x = 1");
    assert_eq!(raw(&doc, "A", "many words"), "v");
    assert_eq!(raw(&doc, "A", "e"), "");
}

#[test]
fn only_the_first_semicolon_can_begin_a_comment() {
    let doc =
        read("[A]\na = v ; c\nb = one;two ; three\nc = ; x\nd = v # no\ne = \"\"\nf = \"q\"\ng = \"\" ; c\n");
    let values: Vec<_> = "abcdefg".chars().map(|k| raw(&doc, "A", &k.to_string())).collect();
    assert_eq!(values, ["v", "one;two ; three", "; x", "v # no", "", "\"q\"", ""]);
}

#[test]
fn quotes_backslashes_and_brackets_stay() {
    let doc = read("[A]\na = \\d+ C:\\new \\\nb = 'x'\nc = [\\[[A-Z]+\\], .*]\nd = a\u{a0}\n");
    assert_eq!(raw(&doc, "A", "a"), "\\d+ C:\\new \\");
    assert_eq!(raw(&doc, "A", "b"), "'x'");
    assert_eq!(raw(&doc, "A", "c"), "[\\[[A-Z]+\\], .*]");
    assert_eq!(raw(&doc, "A", "d"), "a\u{a0}", "only ASCII white space is trimmed");
}

#[test]
fn every_line_that_cannot_be_read_is_named() {
    let error = fails("x = 1\n[A]\n  indented\nnonsense\n= 5\n");
    let found: Vec<_> = error.findings.iter().map(|f| (f.code, f.line)).collect();
    assert_eq!(found, [("no-section", 1), ("indented-line", 3), ("no-separator", 4), ("no-key", 5)]);
    let text = error.to_string();
    assert!(text.contains("t.config, line 4: [A]: `nonsense` is neither"), "{text}");
}

#[test]
fn repeated_sections_merge_and_the_last_key_counts() {
    let doc = read("[A]\nx = 1\ny = 1\n[B]\nz = 1\n[A]\nx = 2\nx = 3\n");
    let names: Vec<_> = doc.sections().iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["A", "B"]);
    assert_eq!((raw(&doc, "A", "x"), raw(&doc, "A", "y")), ("3", "1"));
    assert_eq!(doc.section("A").unwrap().entry("x").unwrap().line, 8);
    assert_eq!(codes(&doc), ["duplicate-section", "duplicate-key", "duplicate-key"]);
    assert_eq!(doc.warnings()[0].line, 6);
}

#[test]
fn keys_differ_by_capitals_only_where_they_should() {
    let doc = read("[A]\nActive = 1\nactive = 2\n");
    assert_eq!((raw(&doc, "A", "Active"), raw(&doc, "A", "active")), ("1", "2"));
    assert_eq!(codes(&doc), ["case-only-difference"]);
    let doc =
        Document::parse(b"[A]\nmucService = x.%(Host)s\nHOST = h\n", &Options::new("f").ignoring_case());
    let doc = doc.unwrap();
    let value = doc.resolve("A", "mucservice", &Variables::default()).unwrap().unwrap();
    assert_eq!(value.fixed().as_deref(), Some("x.h"));
}

#[test]
fn indented_files_are_dedented() {
    let doc = read("   # c\n   [A]\n   x = 1\n\n     2\n");
    assert_eq!(raw(&doc, "A", "x"), "1\n2");
    assert_eq!(codes(&doc), ["dedented"]);
    fails(" [A]\n\tx = 1\n");
}

#[test]
fn objects_run_until_their_braces_balance() {
    let options = Options { object_sections: &["Input"], ..Options::new("f") };
    let text = "[input]\na = {\"x\": \"}; {\",\n\"y\": [1,\n; no comment\n2]}\nb = {} ; tail\nc = plain ; c\n[Other]\nd = {\n";
    let doc = Document::parse(text.as_bytes(), &options).unwrap();
    assert_eq!(raw(&doc, "input", "a"), "{\"x\": \"}; {\",\n\"y\": [1,\n; no comment\n2]}");
    assert_eq!(raw(&doc, "input", "b"), "{} ; tail");
    assert_eq!((raw(&doc, "input", "c"), raw(&doc, "Other", "d")), ("plain", "{"));
    for open in ["[Input]\nx = 1\na = {\"b\":\n[Output]\nc = {}\n", "[Input]\n\na = {{\n"] {
        let error = Document::parse(open.as_bytes(), &options).unwrap_err();
        assert_eq!((error.findings[0].code, error.findings[0].line), ("object-not-closed", 3));
    }
}

#[test]
fn sizes_are_bounded() {
    let long = format!("[A]\nx = {}\n", "y".repeat(MAX_LINE));
    assert_eq!(fails(&long).findings[0].code, "line-too-long");
    assert_eq!(fails(&"#\n".repeat(MAX_FILE)).findings[0].code, "too-large");
    assert_eq!(fails(&"[A]\n".repeat(MAX_SECTIONS + 1)).findings[0].code, "too-many");
    assert_eq!(fails(&format!("[A]\n{}", "x=\n".repeat(MAX_KEYS + 1))).findings[0].code, "too-many");
    assert_eq!(fails("[A]\nx = \0\n").findings[0].code, "control-character");
}

/// Resolves `[S] x` with `unique` known only at run time and `host` = `h`.
fn resolve(text: &str) -> Result<String, Finding> {
    let vars = Variables::default()
        .with("unique", Variable::AtRun)
        .with("host", Variable::Text("h".into()))
        .with("shared", Variable::Unset("set wps_execution_shared_dir".into()));
    read(text).resolve("S", "x", &vars).map(|value| value.unwrap().fill(|name| Some(format!("<{name}>"))))
}

#[test]
fn text_without_references_stays_as_written() {
    for text in ["100%", "%%", "%Y-%m-%d", "\\%", "a%b", "(\\d+)%(?:done)", "%(x)d", "%("] {
        assert_eq!(resolve(&format!("[S]\nx = {text}\n")).unwrap(), text);
    }
}

#[test]
fn references_are_looked_up_in_section_then_default_then_program() {
    assert_eq!(resolve("[DEFAULT]\na = d\nb = %(a)s\n[S]\nx = %(b)s\na = s\n").unwrap(), "s");
    assert_eq!(resolve("[DEFAULT]\na = d\n[S]\nx = %(a)s/%(host)s\n").unwrap(), "d/h");
    assert_eq!(resolve("[DEFAULT]\nhost = mine\n[S]\nx = %(host)s\n").unwrap(), "mine");
    assert_eq!(resolve("[S]\nx = %(__name__)s\n").unwrap(), "S");
    assert_eq!(resolve("[DEFAULT]\nid = %(unique)s\n[S]\nx = /w/%(id)s/f%%\n").unwrap(), "/w/<unique>/f%");
}

#[test]
fn per_cent_signs_beside_references_survive() {
    assert_eq!(resolve("[S]\nb = 1\nx = 100% %(b)s\n").unwrap(), "100% 1");
    assert_eq!(resolve("[S]\nb = 1\nx = 100%% %(b)s\n").unwrap(), "100% 1");
    assert_eq!(resolve("[S]\nb = 50%%\nx = %(b)s\n").unwrap(), "50%%", "one round, as the old reader");
}

#[test]
fn faults_in_references_say_where_and_what_to_do() {
    let finding = resolve("[DEFAULT]\noutput_dir = /o\n[S]\ny = 1\nx = %(output_dri)s\n").unwrap_err();
    assert_eq!((finding.code, finding.line), ("unknown-reference", 5));
    assert_eq!(
        finding.to_string(),
        "line 5: [S] x: refers to `%(output_dri)s`, which no key defines; did you mean `%(output_dir)s`?"
    );
    assert_eq!(resolve("[S]\nx = %(shared)s\n").unwrap_err().code, "reference-unset");
    assert_eq!(resolve("[S]\nx = %(y)s\ny = %(x)s\n").unwrap_err().code, "reference-too-deep");
    let bomb = format!("[S]\nx = {0}\ny = {0}\n", "%(y)s".repeat(400));
    assert_eq!(resolve(&bomb).unwrap_err().code, "reference-too-long");
    assert_eq!(resolve("[DEFAULT]\na = %(__name__)s\n[S]\nx = %(a)s\n").unwrap(), "S");
}

#[test]
fn lists_are_split_by_the_number_that_is_wanted() {
    assert_eq!(bracket_list("[a, b ,c]"), ["a", "b", "c"]);
    assert_eq!(bracket_list("[]"), [""; 0]);
    assert_eq!(bracket_list(""), [""; 0]);
    assert_eq!(pattern_list("[[A-Z]+, b]", 2).items, ["[A-Z]+", "b"]);
    assert_eq!(pattern_list("[a{1,3}, b]", 2).items, ["a{1,3}", "b"]);
    assert_eq!(pattern_list("[a{1,3}, b]", 3).items, ["a{1", "3}", "b"], "legacy reading where it fits");
    assert_eq!(pattern_list("[(a\\,b), c\\,d]", 2).items, ["(a\\,b)", "c\\,d"]);
    assert_eq!(pattern_list("[a,\n b]", 2).items, ["a", "b"]);
    let bare = pattern_list("abc, def", 2);
    assert_eq!(
        (bare.items, bare.warnings[0].code),
        (vec!["abc".into(), "def".into()], "list-without-brackets")
    );
}

#[test]
fn mistyped_names_are_recognised() {
    assert_eq!(nearest("max_runing_time", ["max_running_time", "min"]), Some("max_running_time"));
    assert_eq!(nearest("lisetn", ["listen", "port"]), Some("listen"));
    assert_eq!(nearest("colour", ["port", "listen"]), None);
}

static PARTS: &[Part] = &[
    Part {
        name: "http",
        doc: "Where clients come in.",
        keys: &[
            Key::new("listen", Kind::Text, "Address and port").or("127.0.0.1:8080"),
            Key::new("max_body", Kind::Integer { min: 1, max: 100 }, "Largest body").or("10").unit("MiB"),
            Key::new("log", Kind::Choice(&["plain", "json"]), "Form of log lines").or("plain"),
        ],
        open: false,
    },
    Part {
        name: "xmpp",
        doc: "The bus.",
        keys: &[
            Key::new("domain", Kind::Text, "Domain of all addresses").required(),
            Key::new("password", Kind::Secret("password"), "Password of the account"),
            Key::new("rooms", Kind::List, "Rooms to join"),
            Key::new("insecure", Kind::Boolean, "Do not check certificates").or("false"),
        ],
        open: false,
    },
    Part { name: "users", doc: "Names and roles.", keys: &[], open: true },
];
static SCHEMA: Schema = Schema { env_prefix: "PROG", parts: PARTS };

fn settings(text: &str, env: &[(&str, &str)]) -> Result<settings::Settings, IniError> {
    let doc = Document::parse(text.as_bytes(), &Options::new("o.ini").ignoring_case()).unwrap();
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let file =
        |path: &str| if path == "/p" { Ok("from file\n".to_owned()) } else { Err("no such file".into()) };
    let credential = |name: &str| match lookup("CREDENTIALS") {
        Some(text) if name == "password" => {
            Some(if text == "?" { Err("not yours".to_owned()) } else { Ok(text) })
        }
        _ => None,
    };
    SCHEMA.read(&doc, &Surroundings { env: &lookup, file: &file, credential: &credential })
}

#[test]
fn of_the_places_of_a_secret_the_first_counts() {
    let text = "[xmpp]\ndomain = d\npassword = in the file\n";
    let check = |env: &[(&str, &str)], expected: &str, warnings: &[&str]| {
        let found = settings(text, env).unwrap();
        assert_eq!(found.secret("xmpp", "password").unwrap().expose(), expected);
        let codes: Vec<&str> = found.warnings().iter().map(|finding| finding.code).collect();
        assert_eq!(codes, warnings, "{env:?}");
        assert!(!format!("{found:?}").contains(expected));
    };
    check(&[], "in the file", &[]);
    check(&[("CREDENTIALS", "handed over\n")], "handed over", &["unused-secret"]);
    check(&[("CREDENTIALS", "handed over"), ("PROG_XMPP_PASSWORD", "overriding")], "overriding", &[]);
    check(&[("PROG_XMPP_PASSWORD_FILE", "/p")], "from file", &[]);
    check(&[("PROG_XMPP_PASSWORD_ENV", "X"), ("X", "of a variable")], "of a variable", &[]);
    let fails = |env: &[(&str, &str)], expected: &str| {
        let error = settings(text, env).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    fails(&[("CREDENTIALS", "?")], "cannot be read: not yours (credential password)");
    fails(&[("CREDENTIALS", "\n")], "is empty (credential password)");
    fails(&[("PROG_XMPP_PASSWORD_FILE", "/p"), ("PROG_XMPP_PASSWORD", "x")], "more than once");
}

#[test]
fn settings_come_from_environment_file_and_table() {
    let text = "[http]\nmax_body = 5\nLog = JSON\n[xmpp]\ndomain = d\npassword_file = /p\nrooms = [a, b]\n[users]\nada = admin\n";
    let found = settings(text, &[("PROG_HTTP_MAX_BODY", "7"), ("PROG_XMPP_INSECURE", "yes")]).unwrap();
    assert_eq!(found.string("http", "listen"), "127.0.0.1:8080");
    assert_eq!(found.integer("http", "max_body"), Some(7));
    assert_eq!(found.text("http", "log"), Some("json"));
    assert_eq!(found.list("xmpp", "rooms"), ["a", "b"]);
    assert!(found.is_true("xmpp", "insecure"));
    assert_eq!(found.secret("xmpp", "password").unwrap().expose(), "from file");
    assert_eq!(found.open("users"), [("ada".to_owned(), "admin".to_owned())]);
    assert!(!format!("{found:?}").contains("from file"), "{found:?}");
}

#[test]
fn settings_name_every_fault_with_its_remedy() {
    let text = "[http]\nlisetn = x\nmax_body = 1000\n[xmp]\n[xmpp]\npassword = a\npassword_env = B\n";
    let error = settings(text, &[]).unwrap_err();
    let found: Vec<_> = error.findings.iter().map(|f| (f.code, f.line)).collect();
    assert_eq!(
        found,
        [("unknown-key", 2), ("bad-value", 3), ("unknown-section", 4), ("missing-key", 5), ("bad-value", 6)]
    );
    let text = error.to_string();
    assert!(
        text.contains("o.ini, line 2: [http] lisetn: is not a key of this section; did you mean `listen`?"),
        "{text}"
    );
    assert!(text.contains("did you mean [xmpp]?"), "{text}");
    let error = settings("[xmpp]\ndomain = d\npassword_file = /none\n", &[]).unwrap_err().to_string();
    assert!(error.contains("/none cannot be read: no such file"), "{error}");
}

#[test]
fn the_sample_can_be_read_back() {
    let sample = SCHEMA.sample();
    assert!(sample.contains("# Largest body (whole number, 1 to 100, in MiB)\n#max_body = 10\n"), "{sample}");
    let found = settings(&sample, &[]).unwrap();
    assert_eq!(found.string("http", "listen"), "127.0.0.1:8080");
}

/// The documented reading of one physical line, written down as plainly as possible.
fn model_value(text: &str) -> String {
    let blank = [' ', '\t', '\r', '\u{b}', '\u{c}'];
    let text = text.trim_start_matches(blank);
    let text = match text.find(';') {
        Some(at) if at > 0 && blank.contains(&(text.as_bytes()[at - 1] as char)) => &text[..at],
        _ => text,
    };
    match text.trim_matches(blank) {
        "\"\"" => String::new(),
        text => text.to_owned(),
    }
}

proptest! {
    #[test]
    fn any_value_is_read_as_documented(values in prop::collection::vec("[ -~\täß€\\\\;\"'%=:\\[\\]]{0,40}", 1..8)) {
        let mut text = "[A]\n".to_owned();
        for (index, value) in values.iter().enumerate() {
            text.push_str(&format!("k{index} ={value}\n  more {value}\n"));
        }
        let doc = read(&text);
        for (index, value) in values.iter().enumerate() {
            let blank = [' ', '\t', '\r', '\u{b}', '\u{c}'];
            let expected = format!("{}\n{}", model_value(value), format!("more {value}").trim_matches(blank));
            prop_assert_eq!(raw(&doc, "A", &format!("k{index}")), expected);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Document::parse(&bytes, &Options { latin1: true, ..Options::new("f") });
        let _ = Document::parse(&bytes, &Options { object_sections: &["A"], ..Options::new("f") });
    }

    #[test]
    fn structured_noise_keeps_every_key(lines in prop::collection::vec("(\\[[A-C]\\]|[a-c] ?[=:].{0,12}| .{0,8}|[#;].{0,8}|)", 0..30)) {
        let text = format!("[A]\na=1\n{}", lines.join("\n"));
        if let Ok(doc) = Document::parse(text.as_bytes(), &Options::new("f")) {
            let keys: usize = doc.sections().iter().map(|s| s.entries.len()).sum();
            let repeated = doc.warnings().iter().filter(|w| w.code == "duplicate-key").count();
            let written = lines.iter().filter(|l| l.starts_with(['a', 'b', 'c'])).count();
            prop_assert_eq!(keys + repeated, written + 1);
            let _ = doc.resolve("A", "a", &Variables::default());
        }
    }
}

#[test]
fn a_part_can_stand_for_many_sections() {
    static PARTS: &[Part] = &[
        Part { name: "http", doc: "", open: false, keys: &[] },
        Part {
            name: "role NAME",
            doc: "A role.",
            open: false,
            keys: &[Key::new("most", Kind::Integer { min: 1, max: 9 }, "How many").or("4")],
        },
    ];
    let schema = Schema { env_prefix: "PROG", parts: PARTS };
    let env = |name: &str| (name == "PROG_ROLE_GUEST_MOST").then(|| "9".to_owned());
    let around = Surroundings { env: &env, file: &|_| Err("no files".to_owned()), credential: &|_| None };
    let settings = schema.read(&read("[role guest]\nmost=2\n[role all hands]\n"), &around).unwrap();
    assert_eq!(settings.members("role NAME"), ["guest", "all hands"]);
    assert_eq!(settings.integer("role guest", "most"), Some(2));
    assert_eq!(settings.integer("role all hands", "most"), Some(4));
    let error = schema.read(&read("[role guest]\nmots=2\n[rolle x]\n[role ]\n"), &around).unwrap_err();
    let codes: Vec<_> = error.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["unknown-key", "unknown-section", "unknown-section"]);
    assert!(schema.sample().contains("#[role NAME]"));
}
