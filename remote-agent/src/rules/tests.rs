//! What records mean: rules, presets, built-in rules.

use super::*;

fn rules(list: &[(&str, RuleAction)], preset: Option<Preset>) -> Rules {
    let rules = list
        .iter()
        .map(|(source, action)| Rule {
            pattern: Pattern::new(source, Anchor::Start).unwrap(),
            action: *action,
            line: 1,
        })
        .collect();
    Rules { rules, preset, ..Rules::default() }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(
        &[
            (r".*\[DEBUG\](.*)", RuleAction::Ignore),
            (r".*\[INFO\] ProgressInfo\:([-+]?[0-9]*\.?[0-9]*)\%", RuleAction::Progress),
            (r".*\[(INFO)\](.*)", RuleAction::Log),
            (r"plain (.*)", RuleAction::Log),
            (r"whole", RuleAction::Log),
            (r".*\[(CRITICAL)\](.*)", RuleAction::Abort),
            (r"stop (.*)", RuleAction::Abort),
            (r"halt", RuleAction::Abort),
        ],
        None,
    );
    let check = |record: &str, expected: Decision| assert_eq!(rules.decide(record), expected, "{record}");
    check("x [DEBUG] y", Decision::Ignore);
    check("  [INFO] ProgressInfo:12.5% \r", Decision::Progress(12.5));
    check("[INFO] ProgressInfo:250%", Decision::Progress(100.0));
    check("[INFO] ProgressInfo:%", Decision::NoNumber(String::new()));
    check("[INFO] ready & = 100 %", Decision::Log(LogLevel::Info, "ready & = 100 %".into()));
    check("plain text", Decision::Log(LogLevel::Info, "text".into()));
    check("whole line", Decision::Log(LogLevel::Info, "whole line".into()));
    check("a [CRITICAL] disk full", Decision::Abort("disk full".into()));
    check("stop now", Decision::Abort("now".into()));
    check("halt here", Decision::Abort("halt here".into()));
    check("something else", Decision::Unmatched);
    check("", Decision::Unmatched);
}

#[test]
fn gdal_dots_are_progress_even_before_the_line_ends() {
    let rules = rules(&[(r".*", RuleAction::Ignore)], Some(Preset::Gdal));
    for (record, percent) in [
        ("0", 0.0),
        ("0.", 2.5),
        ("0...10", 10.0),
        ("0...10..", 15.0),
        ("0...10...20...30...40...50...60...70...80...90...100 - done.", 100.0),
    ] {
        assert_eq!(rules.decide_unfinished(record), Some(percent), "{record}");
        assert_eq!(rules.decide(record), Decision::Progress(percent), "{record}");
    }
    for other in ["", "10", "0...x", "0 files", "...", "00", "0...500", "0...20...10"] {
        assert_eq!(rules.decide_unfinished(other), None, "{other}");
    }
}

#[test]
fn percent_bars_are_progress() {
    let otb = rules(&[], Some(Preset::Otb));
    assert_eq!(otb.decide("Writing a.tif...: 45% [*****     ] (1s)"), Decision::Progress(45.0));
    assert_eq!(otb.decide("45% of all"), Decision::Unmatched);
    let percent =
        rules(&[(r"ERROR (.*)", RuleAction::Abort), (".*", RuleAction::Ignore)], Some(Preset::Percent));
    assert_eq!(percent.decide("done 12.5 % of"), Decision::Progress(12.5));
    assert_eq!(percent.decide("ä99%"), Decision::Progress(99.0));
    assert_eq!(percent.decide("ERROR at 50%"), Decision::Abort("at 50%".into()));
    assert_eq!(percent.decide("no %"), Decision::Ignore);
}

#[test]
fn programs_without_rules_are_understood() {
    let rules = Rules::simple();
    assert_eq!(rules.rules.len(), 7, "all built-in expressions compile");
    let check = |record: &str, expected: Decision| assert_eq!(rules.decide(record), expected, "{record}");
    check("progress: 50", Decision::Progress(50.0));
    check("progress: 12.5%", Decision::Progress(12.5));
    check("PROGRESS 7", Decision::Progress(7.0));
    check("2024 ProgressInfo:99%", Decision::Progress(99.0));
    check("progress: 1.2.3", Decision::NoNumber("1.2.3".into()));
    check("[INFO] hello", Decision::Log(LogLevel::Info, "hello".into()));
    check("[WARNING] hm", Decision::Log(LogLevel::Warning, "hm".into()));
    check("[ERROR] bad", Decision::Log(LogLevel::Error, "bad".into()));
    check("[FATAL] end", Decision::Abort("end".into()));
    check("work in progress: 5", Decision::Unmatched);
    assert_eq!(rules.decide_unfinished("[FATAL] end"), None);
}

#[cfg(not(windows))]
#[test]
fn bytes_are_decoded_as_the_descriptor_says() {
    let mut rules = Rules::default();
    assert_eq!(rules.decode(b"a\xe4"), "a\u{fffd}");
    rules.encoding = Encoding::Latin1;
    assert_eq!(rules.decode(b"a\xe4"), "aä");
}
