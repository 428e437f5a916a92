//! What no value and no file may ever do, tried with random ones.

use proptest::prelude::*;
use serde_json::Map;

use super::*;

proptest! {
    /// Whatever a client sends, the number of arguments is that of the template, and each value is one argument byte for
    /// byte, or the request is refused.
    #[test]
    fn no_value_changes_the_number_of_arguments(value in "\\PC{0,60}|[ -~\\t\\n\\r\\x00]{0,60}") {
        let descriptor = sample(&format!(
            "{}{}{}{}",
            param("a", "string", ""), action("a", "-name value", ""),
            param("b", "text/plain", "pass_by = value"), action("b", "--name=value", ""),
        ));
        match plan(&descriptor, &json!({"a": value, "b": value})) {
            Ok(plan) => {
                prop_assert_eq!(plan.args.len(), 4);
                prop_assert_eq!(&plan.args[2], &value);
                let inline = format!("--b={value}");
                prop_assert_eq!(&plan.args[3], &inline);
            }
            Err(PrepareError::Input(error)) => {
                prop_assert!(value.chars().any(char::is_control), "{error}: {value:?}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Several values never change how many arguments each of them makes.
    #[test]
    fn several_values_make_as_many_arguments(values in prop::collection::vec("\\PC{0,20}", 1..6)) {
        let descriptor = sample(&format!("{}{}", param("x", "string", "max = 0"), action("x", "-name value", "")));
        if let Ok(plan) = plan(&descriptor, &json!({"x": values})) {
            prop_assert_eq!(plan.args.len(), 1 + 2 * values.len());
        }
    }

    /// Several values make as many arguments as `multi` says of the template, and exactly these.
    #[test]
    fn several_values_make_what_multi_says(
        values in prop::collection::vec("\\PC{1,12}|[ -~]{1,12}", 2..6),
        multi in "(repeat|spread|join:,|join: and|json)",
        words in prop::collection::vec(prop::sample::select(vec!["-name", "value", "--name=value", "-o", "[value]"]), 1..4),
    ) {
        let more = format!("max = 0\nmulti = {multi}");
        let descriptor = sample(&format!("{}{}", param("x", "string", &more), action("x", &words.join(" "), "alias = q")));
        let fill = |word: &str, value: &str| word.replace("name", "q").replace("value", value);
        let one = |value: &str| words.iter().map(|word| fill(word, value)).collect::<Vec<_>>();
        let expected: Vec<String> = match multi.as_str() {
            _ if !words.iter().any(|word| word.contains("value")) => one(""),
            "repeat" => values.iter().flat_map(|value| one(value)).collect(),
            "spread" => words
                .iter()
                .flat_map(|word| match word.contains("value") {
                    true => values.iter().map(|value| fill(word, value)).collect(),
                    false => vec![fill(word, "")],
                })
                .collect(),
            "json" => one(&json!(values).to_string()),
            join => one(&values.join(join.strip_prefix("join:").unwrap())),
        };
        match plan(&descriptor, &json!({"x": values})) {
            Ok(plan) => prop_assert_eq!(&plan.args[1..], &expected[..]),
            Err(PrepareError::Input(error)) => {
                prop_assert!(values.iter().any(|value| value.starts_with('-')), "{error}: {values:?}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// A value in a file, in the environment or on standard input makes no argument; with a template, its path does.
    #[test]
    fn values_in_files_make_the_arguments_of_the_template_only(value in "\\PC{0,40}|[ -~\\n]{0,40}", plain in "[ -~]{0,20}") {
        let file = |class: &str, of: &str, name: &str, more: &str| {
            format!("[Action_{name}]\nclass = {class}\ninput_ref = {of}\ntarget_filepath = %(workdir)s/{name}\n{more}\n")
        };
        let descriptor = sample(&format!(
            "{}{}{}{}{}{}{}",
            param("t", "text/plain", "pass_by = file"), param("s", "string", ""),
            file("writefile", "t", "a.txt", "template = -i value"),
            file("createJSONfile", "s", "b.json", "template = --j=value"),
            file("writefile", "s", "c.txt", ""),
            "[Action_e]\nclass = env\ninput_ref = s\nvariable = V\n",
            "[Action_s]\nclass = stdin\ninput_ref = t\n",
        ));
        let plan = plan(&descriptor, &json!({"t": value, "s": plain})).unwrap();
        let at = |name: &str| plan.work_dir.join(name).to_string_lossy().into_owned();
        prop_assert_eq!(&plan.args[1..], &["-i".to_owned(), at("a.txt"), format!("--j={}", at("b.json"))][..]);
        prop_assert_eq!(planned(&plan, "a.txt"), value.clone());
        prop_assert_eq!(serde_json::from_str::<Json>(&planned(&plan, "b.json")).unwrap(), json!(plain));
        prop_assert_eq!(plan.stdin.as_deref(), Some(value.as_bytes()));
        prop_assert!(plan.env.contains(&("V".to_owned(), plain)));
    }

    /// Values that the old agent handled correctly (no blank, no control character) give its arguments.
    #[test]
    fn legacy_values_give_legacy_arguments(value in "[!-~]{1,30}", template in "(-name value|--name=value|-namevalue|name=value|--name)") {
        let descriptor = sample(&format!("{}{}", param("x", "string", ""), action("x", &template, "alias = q")));
        let object: Map<String, Json> = [("x".to_owned(), json!(value))].into_iter().collect();
        let plan = prepare(&descriptor, &run_context(), &from_json::inputs(&descriptor, &object)).unwrap();
        // The old agent replaced `name` first, then `value`, and split the whole line at white space.
        let line = template.replace("name", "q").replace("value", &value);
        let old: Vec<&str> = line.split_whitespace().collect();
        prop_assert_eq!(&plan.args[1..], &old[..]);
    }

    /// Random files that the old agent could read give the arguments that its documented reading gives: sections of a role
    /// in byte order of their names, each template replaced and split.
    #[test]
    fn legacy_files_give_legacy_arguments(
        inputs in prop::collection::btree_map("[A-Za-z0-9_]{1,4}", ("[a-z]{2,6}", "[!-~]{1,12}"), 1..6),
        actions in prop::collection::btree_map(
            "[A-Za-z0-9_]{1,4}",
            (any::<prop::sample::Index>(), "(-name value|--name=value|value|-o name=value|--name)", prop::option::of("[a-z]{1,3}")),
            0..8,
        ),
    ) {
        let mut sections = String::new();
        let mut values: Map<String, Json> = Map::new();
        let names: Vec<String> = inputs.values().map(|(name, _)| name.clone()).collect();
        for (suffix, (name, value)) in &inputs {
            sections.push_str(&format!(
                "[Input{suffix}]\nclass = param\nname = {name}\ntype = string\ndescription = d\nallow_leading_dash = true\n"
            ));
            values.insert(name.clone(), json!(value));
        }
        let mut line = "/bin/prog -q".to_owned();
        for (suffix, (which, template, alias)) in &actions {
            let name = which.get(&names);
            let shown = alias.as_ref().unwrap_or(name);
            let alias = alias.as_ref().map(|alias| format!("alias = {alias}\n")).unwrap_or_default();
            sections.push_str(&format!(
                "[Action{suffix}]\nclass = cmdline\ninput_ref = {name}\ntemplate = {template}\n{alias}"
            ));
            let value = values[name].as_str().unwrap_or_default();
            // `name` and `value` stand apart in these templates, so the order of replacing does not matter.
            let text: Vec<String> = template
                .split(' ')
                .map(|word| word.replacen("value", "\u{1}", 1).replacen("name", shown, 1).replace('\u{1}', value))
                .collect();
            line.push(' ');
            line.push_str(&text.join(" "));
        }
        let descriptor = sample(&sections);
        let plan = prepare(&descriptor, &run_context(), &from_json::inputs(&descriptor, &values)).unwrap();
        let old: Vec<&str> = line.split_whitespace().collect();
        let found = plan.argv();
        prop_assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), old);
    }
}
