//! What the old agent did not know: roles, conditions, limits; and what most likely is a typing error.

use super::*;

#[test]
fn roles_are_read_announced_and_never_silently_dropped() {
    let access = |lines: &str| dialect_a(&[], &format!("[Access]\n{lines}\n"));
    let descriptor = warned(&access("roles = [surveyor, gis:admin, surveyor]"), &["access-not-enforced"]);
    assert_eq!(descriptor.roles, ["surveyor", "gis:admin"]);
    assert_eq!(descriptor.description().roles, descriptor.roles);
    assert!(good(&dialect_a(&[], "")).description().roles.is_empty());
    refused(&access("roles = []"), "bad-value", "names no role");
    refused(&access("roles = two words"), "bad-name", "cannot name a role");
    refused(&access(""), "missing-key", "or remove the section");
    refused(&access("role = a"), "missing-key", "did you mean it by `role` in line 12?");
    let simple = warned(&simple("[ACCESS]\nRoles = a, b\n"), &["access-not-enforced"]);
    assert_eq!(simple.roles, ["a", "b"]);
}

#[test]
fn conditions_name_an_input_and_a_value_that_it_can_have() {
    let action = |when: &str| {
        dialect_a(
            &[],
            &format!(
                "{IN}enum = [fast, good]\n[Input2]\nclass = param\nname = a = b\ntype = int\ndescription = d\n\
                 [Input3]\nclass = param\nname = doc\ntype = application/json\ndescription = d\n\
                 [Action1]\nclass = cmdline\ninput_ref = x\ntemplate = value\nwhen = {when}\n"
            ),
        )
    };
    let condition = |when: &str| warned(&action(when), &[]).actions[0].when.clone().unwrap();
    let equals = |text: &str| Test::Equals(text.to_owned());
    for (when, input, test, negated) in [
        ("x", 0, Test::Given, false),
        ("not x", 0, Test::Given, true),
        ("x = fast", 0, equals("fast"), false),
        ("x=good", 0, equals("good"), false),
        ("x != fast", 0, equals("fast"), true),
        ("a = b", 1, Test::Given, false),
        ("not doc", 2, Test::Given, true),
    ] {
        assert_eq!(condition(when), Condition { input, test, negated }, "{when}");
    }
    refused(&action("y"), "bad-condition", "`y` is not an input");
    refused(&action("dox = 1"), "bad-condition", "did you mean `doc`?");
    refused(&action("x = slow"), "bad-condition", "can never be a value");
    refused(&action("doc = 1"), "bad-condition", "is a document");
    let unconditional =
        dialect_a(&[], &format!("{IN}[Action1]\nclass = cmdline\ninput_ref = x\ntemplate = value\n"));
    assert_eq!(good(&unconditional).actions[0].when, None);
}

#[test]
fn a_misspelled_key_is_told_where_it_is_missing() {
    let renamed = |old: &str, new: &str| dialect_a(&[(old, "-"), (new, "v")], "");
    refused(&renamed("executable_cmd", "exectuable_cmd"), "missing-key", "by `exectuable_cmd` in line 10?");
    refused(&renamed("namespace", "namespaec"), "missing-key", "did you mean it by `namespaec`");
    let error = load_text(&renamed("executable_cmd", "other")).unwrap_err().to_string();
    assert!(!error.contains("executable_path"), "a key that is right is not taken for another: {error}");
    let text = "[Description]\nservice = S\nexcutable = prog\n";
    refused(text, "missing-key", "did you mean it by `excutable` in line 3?");
    refused(&input("").replace("type =", "tpye ="), "missing-key", "did you mean it by `tpye` in line 14?");
    refused(&input("").replace("type = string", "type = strng"), "bad-type", "did you mean `string`?");
}

#[test]
fn a_misspelled_section_is_told_and_a_foreign_one_is_not() {
    for name in ["logging", "Loging", "Enviroment", "Limit", "Acess", "Inptu1", "Actoin12", "Ouput1"] {
        let descriptor = warned(&dialect_a(&[], &format!("[{name}]\nk = v\n")), &["unknown-section"]);
        let remedy = descriptor.warnings[0].remedy.as_deref().unwrap();
        assert!(remedy.starts_with("did you mean ["), "{name}: {remedy}");
    }
    warned(&dialect_a(&[], "[Author]\nname = N\n[History]\n2019 = first\n"), &[]);
}

#[test]
fn limits_leave_the_program_a_chance() {
    let limits = |lines: &str| dialect_a(&[], &format!("[Limits]\n{lines}\n"));
    let read =
        warned(&limits("cpu_seconds = 1\nmemory_mb = 2\noutput_mb = 3\nopen_files = 8\nnice = -20"), &[])
            .limits;
    assert_eq!((read.cpu_seconds, read.memory_mb, read.output_mb), (Some(1), Some(2), Some(3)));
    assert_eq!((read.open_files, read.nice), (Some(8), Some(-20)));
    assert_eq!(good(&dialect_a(&[], "")).limits, Default::default());
    for key in ["cpu_seconds = 0", "memory_mb = 0", "output_mb = 0", "open_files = 7"] {
        refused(&limits(key), "bad-value", "too little for any program");
    }
    refused(&limits("nice = 20"), "bad-value", "-20 to 19");
    refused(&limits("memory_mb = 1G"), "bad-value", "not a whole number");
    warned(&limits("memory = 1"), &["unknown-key"]);
}

#[test]
fn what_the_old_agent_loaded_still_loads() {
    let descriptor = warned(&input("min = -1\nmax = -1\n"), &["negative-count", "negative-count"]);
    assert_eq!((descriptor.inputs[0].min, descriptor.inputs[0].max), (0, None));
    warned(&input("title = null\ndefault = {x}\n"), &["json-like-text", "json-like-text"]);
    warned(&dialect_a(&[("title", "[draft] x")], ""), &["json-like-text"]);
    assert!(!warned(&dialect_a(&[("debug", "--level=3")], ""), &[]).debug, "a variable of the author");
    assert!(warned(&dialect_a(&[("debug", "True")], ""), &[]).debug);
    for weight in ["10", "heavy", "{weight: 10}", "[10]", ""] {
        assert_eq!(warned(&dialect_a(&[("process_weight", weight)], ""), &["weight-ignored"]).weight, 0.0);
    }
    refused(&simple("[Options]\nprocess_weight = 10\n"), "bad-weight", "JSON object");
}

#[test]
fn switches_are_booleans_and_constants_are_what_they_say() {
    let action = |kind: &str| {
        let input = IN.replace("string", kind);
        dialect_a(
            &[],
            &format!("{input}[Action1]\nclass = cmdline\ninput_ref = x\ntemplate = --name\nflag = true\n"),
        )
    };
    good(&action("boolean"));
    refused(&action("string"), "bad-value", "cannot be a switch");
    refused(
        &simple("[Input]\nx = {\"type\": \"int\", \"const\": \"five\"}\n"),
        "bad-value",
        "member `const`",
    );
    let descriptor = good(&simple("[Input]\nx = {\"type\": \"double\", \"const\": 4.5}\n"));
    assert_eq!(descriptor.consts[0].value.to_string(), "4.5");
}

#[test]
fn a_map_context_is_published_unless_it_says_otherwise() {
    let map = |more: &str| {
        let layer = "[Output1]\nname = result1\ntype = image/geotiff\nfilepath = %(workdir)s/a.tif\n";
        let map = format!(
            "[Output2]\nname = result2\ntype = application/owc\nlayers_to_publish = result1\n{more}\n"
        );
        good(&dialect_a(&[], &format!("{layer}{map}"))).description().outputs[1].publication.clone()
    };
    assert_eq!(map("").unwrap().layers, ["result1"]);
    assert_eq!(map("publish_as_layer = false"), None);
}

#[test]
fn a_file_in_another_encoding_names_its_line_and_the_key_to_set() {
    let mut bytes = dialect_a(&[("title", "x")], "").into_bytes();
    bytes.extend(b"# caf\xe9\n");
    let read = |context: &LoadContext| load_descriptor(Path::new("/etc/wps/s.config"), &bytes, context);
    let error = read(&context()).unwrap_err().to_string();
    assert!(error.contains("line 12") && error.contains("descriptor_encoding = latin1"), "{error}");
    assert!(read(&LoadContext { latin1: true, ..context() }).is_ok());
}
