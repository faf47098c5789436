//! Release files: what a good one becomes, and everything a bad one is told, at once and at its line.

use gates::check::{Checked, canonical, check, check_files, check_spec, rules_hash};
use proto::release::{Approval, Margin, Mode, NoData, OnFail, Unit};
use std::time::Duration;

pub const GOOD: &str = include_str!("release.toml");

fn said(checked: &Checked, text: &str) -> String {
    checked
        .problems
        .iter()
        .map(|p| format!("{}: {}\n   {}\n", p.line(text), p.message, p.help))
        .collect()
}

#[test]
fn a_whole_config_with_a_good_release_passes_with_every_default_filled_in() {
    let checked = check(GOOD, "tracegate.toml");
    assert_eq!(said(&checked, GOOD), "");
    let r = &checked.releases[0];
    assert_eq!(r.alpha, 0.02);
    assert_eq!(r.alpha_promote, 0.05);
    assert_eq!(r.timeout, Duration::from_secs(30));
    assert_eq!(r.grace, Duration::from_secs(10));
    assert_eq!(r.horizon, Duration::from_secs(7 * 86_400));
    assert_eq!(
        (r.mode, r.no_data, r.approval),
        (Mode::Act, NoData::Hold, Approval::None)
    );
    assert_eq!(r.min_traces, 500);
    assert_eq!(r.gates[0].margin, Margin::MaxRatio(1.2));
    assert_eq!(r.gates[1].metric.to_string(), "eval_fail:task_completion");
    assert_eq!(r.gates[1].on_fail, OnFail::Fallback);
    assert!(r.gates[1].by_cohort);
    assert_eq!(r.breaker.alpha_share, 0.2);
}

#[test]
fn the_examples_of_the_documentation_are_accepted_as_they_stand() {
    for text in [
        include_str!("../../../docs/examples/release.toml"),
        include_str!("../../../docs/examples/mirrored.toml"),
    ] {
        let checked = check(text, "example");
        assert_eq!(said(&checked, text), "");
        assert_eq!(check_spec(&checked.releases[0]), Ok(()));
    }
}

#[test]
fn every_mistake_is_named_at_once_with_its_line() {
    let text = r#"[defaults]
alpha = 0.9
tiemout = "60s"

[[release]]
route = "chat"
id = "chat/2"
mode = "act"
unit = "session"
steps = [{ green = 0.3 }, { green = 0.2 }, { green = 1.5 }]
horizon = "1m"
warmup = "five minutes"
shadow = true

[release.blue]
version = "1"
provider = "openai"
modle = "gpt"

[[release.gate]]
name = "latency"
metric = "latecny"
max_ratio = 1.2
on_fail = "hold"

[[release.gate]]
name = "latency"
metric = "error"
quantile = 0.99
max_ratio = 0.9
max = 0.1
on_fail = "rolback"

[[release.gate]]
name = "evals"
metric = "eval_fail"
max_ratio = 1.0
by = "cohort"
on_fail = "hold"

[[release.gate]]
name = "refunds"
sql = "SELECT 1"
max = 0.02
on_fail = "hold"

[[release]]
route = "chat"
id = "chat/2"
steps = 5
"#;
    let checked = check(text, "bad.toml");
    assert!(checked.releases.is_empty());
    let expected = include_str!("check_expected.txt");
    let got = said(&checked, text);
    assert!(got == expected, "\n{got}");
}

/// `GOOD` with lines of the release changed and gates added.
fn with(changes: &[(&str, &str)], gates: &str) -> String {
    let mut text = GOOD.to_owned();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    text.replacen("[release.webhook]", &format!("{gates}\n[release.webhook]"), 1)
}

const STEPS: &str = r#"steps = [{ green = 0.05, min = "30m" }, { green = 0.25, min = "1h" }, { green = 1.0 }]"#;
const MIRRORED: &str = r#"
[[release.gate]]
name = "pairs: p99"
metric = "latency"
quantile = 0.99
max_ratio = 1.2
paired = true
on_fail = "rollback"
"#;

#[test]
fn every_new_key_is_read_and_inherited() {
    let gates = r#"
[[release.gate]]
name = "refunds"
sql = "SELECT blue_events, blue_n, green_events, green_n FROM r WHERE release = $release AND t < $admitted_before"
max_increase = 0.02
on_fail = "hold"

[[release.gate]]
name = "pairs: errors"
metric = "error"
max_increase = 0.01
paired = true
on_fail = "rollback"

[[release.gate]]
name = "late rubric"
metric = "eval_fail"
eval = "Rubric"
max_ratio = 1.5
lateness = "1h"
dry_run = true
on_fail = "hold"
"#;
    let text = with(
        &[
            (
                "timeout = \"30s\"",
                "timeout = \"30s\"\nmin_duration = \"2h\"\ncool_down = \"15m\"\nmirror = \"20m\"\nunit = \"user\"",
            ),
            ("mode = \"act\"", "mode = \"act\"\nmirror = \"30m\"\nunit = \"session\""),
        ],
        gates,
    );
    let checked = check(&text, "new");
    assert_eq!(said(&checked, &text), "");
    let r = &checked.releases[0];
    assert_eq!(r.unit, Unit::Session);
    assert_eq!(r.mirror, Some(Duration::from_secs(1_800)));
    assert_eq!(r.min_duration, Duration::from_secs(7_200));
    assert_eq!(r.cool_down, Duration::from_secs(900));
    let [.., sql, paired, late] = &r.gates[..] else {
        panic!("{:?}", r.gates)
    };
    assert_eq!(sql.metric.to_string(), "sql:refunds");
    assert!(sql.sql.as_ref().unwrap().starts_with("SELECT"));
    assert_eq!(sql.margin, Margin::MaxIncrease(0.02));
    assert!(paired.paired && !paired.dry_run);
    assert_eq!((late.lateness, late.dry_run), (Duration::from_secs(3_600), true));
    assert_eq!(check_spec(r), Ok(()));
}

#[test]
fn a_paired_gate_implies_mirroring_and_mirrored_traffic_alone_needs_no_steps() {
    let text = with(&[], MIRRORED);
    assert_eq!(check(&text, "x").releases[0].mirror, Some(Duration::ZERO));
    assert_eq!(check(GOOD, "x").releases[0].mirror, None);
    let served = "[[release.gate]]\nname = \"p99 latency\"";
    let dry = "[[release.gate]]\ndry_run = true\nname = \"p99 latency\"";
    let evals = "eval = \"TaskCompletion\"";
    let dry_evals = "eval = \"TaskCompletion\"\ndry_run = true";
    for none in ["", "steps = []", "steps = [{ green = 1.0, min = \"1h\" }]"] {
        let text = with(&[(STEPS, none), (served, dry), (evals, dry_evals)], MIRRORED);
        assert_eq!(said(&check(&text, "x"), &text), "", "{none}");
    }
    let blind = with(&[(STEPS, "")], MIRRORED);
    let messages = said(&check(&blind, "x"), &blind);
    assert!(
        messages.starts_with("44: gate `p99 latency` compares what both colors serve"),
        "{messages}"
    );
    let unmirrored = with(&[(STEPS, "steps = []")], "");
    assert!(said(&check(&unmirrored, "x"), &unmirrored).contains("has 0 steps"));
    let without = with(&[(STEPS, "")], "");
    assert!(said(&check(&without, "x"), &without).contains("lacks `steps`"));
}

#[test]
fn what_the_new_keys_cannot_say_is_refused() {
    let gate = |lines: &str| format!("[[release.gate]]\nname = \"g\"\non_fail = \"hold\"\n{lines}\n");
    let sql = "sql = \"SELECT 1 FROM r WHERE r = $release AND t < $admitted_before\"\n";
    for (lines, expected) in [
        (
            "metric = \"error\"\npaired = true\nmax_ratio = 1.2",
            "`max_ratio` of gate `g` does not go with paired = true",
        ),
        (
            "metric = \"error\"\npaired = true\nmax = 0.2",
            "`max` of gate `g` does not go with paired = true",
        ),
        ("metric = \"error\"\npaired = true", "gate `g` lacks `max_increase`"),
        (
            "metric = \"cost\"\npaired = true\nmax_increase = 0.1",
            "`max_increase` of gate `g` does not go with paired = true",
        ),
        (
            "metric = \"latency\"\nquantile = 0.9\npaired = true\nmin = 3",
            "`min` of gate `g` does not go with paired = true",
        ),
        (
            "metric = \"ttft\"\npaired = true\nmax_ratio = 1.2",
            "gate `g` compares single calls, and a pair is two traces",
        ),
        (
            "metric = \"error\"\npaired = 1\nmax_ratio = 1.2",
            "`paired` of gate `g` is an integer, not true or false",
        ),
        (
            "metric = \"error\"\nlateness = \"1h\"\nmax_ratio = 1.2",
            "`lateness` of gate `g` goes with evaluations only",
        ),
        (
            "metric = \"sampled\"\nmax = 0.2",
            "`sampled` says whether the numbers can be trusted",
        ),
        (
            "metric = \"session_same\"\nmax = 0.2",
            "`session_same` says whether sessions stick",
        ),
        (
            "metric = \"attempt_seconds\"\nmax = 0.2",
            "`attempt_seconds` is what the breaker reads",
        ),
        ("metric = \"unmarked\"\nmax = 0.2", "`unmarked` belongs to no color"),
        ("metric = \"sql:refunds\"\nmax = 0.2", "unknown metric `sql:refunds`"),
        ("metric = \"paired:x\"\nmax = 0.2", "unknown metric `paired:x`"),
        ("sql = \"DELETE\"\nmax = 0.2", "`sql` of gate `g` is not a query"),
        (&format!("{sql}max = 2"), "`max` of gate `g` is 2: it is not in (0, 1)"),
        (
            &format!("{sql}max = 0.1\nmetric = \"error\""),
            "`metric` of gate `g` does not go with `sql`",
        ),
        (
            &format!("{sql}max = 0.1\nby = \"cohort\""),
            "`by` of gate `g` does not go with `sql`",
        ),
        (
            &format!("{sql}max = 0.1\npaired = true"),
            "`paired` of gate `g` does not go with `sql`",
        ),
        (
            &format!("{sql}max = 0.1\nlateness = \"1h\""),
            "`lateness` of gate `g` does not go with `sql`",
        ),
        (
            &format!("{sql}max = 0.1\nmin_coverage = 0.5"),
            "`min_coverage` of gate `g` does not go with `sql`",
        ),
        (sql, "gate `g` lacks `max_ratio`"),
    ] {
        let text = with(&[], &gate(lines));
        let checked = check(&text, "x");
        assert!(
            said(&checked, &text).contains(expected),
            "{lines}\n{}",
            said(&checked, &text)
        );
        let place = text.lines().position(|l| l == "name = \"g\"").unwrap();
        assert!(checked.problems.iter().all(|p| p.line(&text) >= place), "at its line");
    }
    let sent_back = with(&[], &gate(&format!("{sql}max = 0.1")).replace("hold", "fallback"));
    assert!(said(&check(&sent_back, "x"), &sent_back).contains("cannot send one of them back"));
}

#[test]
fn a_release_by_session_has_no_gates_on_single_calls() {
    for metric in ["attempt_error", "rate_limited", "ttft"] {
        let gate =
            format!("[[release.gate]]\nname = \"g\"\nmetric = \"{metric}\"\nmax_ratio = 1.2\non_fail = \"hold\"");
        for (unit, refused) in [("trace", false), ("session", true), ("user", true)] {
            let unit = format!("mode = \"act\"\nunit = \"{unit}\"");
            let text = with(&[("mode = \"act\"", &unit)], &gate);
            let messages = said(&check(&text, "x"), &text);
            assert_eq!(
                messages.contains("compares single calls"),
                refused,
                "{metric}: {messages}"
            );
        }
    }
}

#[test]
fn dry_runs_roll_nothing_back_and_the_horizon_counts_all_that_comes_first() {
    let rollback = "max_ratio = 1.20";
    let text = with(&[(rollback, "max_ratio = 1.20\ndry_run = true")], "");
    assert!(said(&check(&text, "x"), &text).contains("has no rollback rule"));

    let horizon = |h: &str, more: &str| {
        let mode = format!("mode = \"act\"\nhorizon = \"{h}\"\n{more}");
        let text = with(&[("mode = \"act\"", &mode)], "");
        said(&check(&text, "x"), &text)
    };
    // warm-up 5m, steps 90m, timeout 30s, grace 10s
    assert_eq!(horizon("96m", ""), "");
    let early = horizon("96m", "mirror = \"10m\"");
    let expected = "the horizon of 1h 36m is over before its warm-up, mirroring, steps, timeout and grace (1h 45m 40s)";
    assert!(early.contains(expected), "{early}");
    let early = horizon("3h", "min_duration = \"3h\"");
    assert!(early.contains("the rest of min_duration"), "{early}");
    assert!(horizon("900000d", "").contains("longer than ten years"));
}

#[test]
fn broken_toml_is_a_problem_and_not_a_panic() {
    for text in [
        "[[release]\nid=",
        "release = 3",
        "a = \"\u{0}",
        "[release]\nid = 'x'",
        "defaults = []",
    ] {
        assert!(!check(text, "x").problems.is_empty(), "{text:?}");
    }
    assert!(check("", "x").problems.is_empty());
}

#[test]
fn releases_of_included_files_share_the_defaults_and_the_names() {
    let body = GOOD.split_once("[[release]]").unwrap().1;
    let release = format!("[[release]]{body}");
    let files = [
        ("tracegate.toml".to_owned(), GOOD.to_owned()),
        ("releases/again.toml".to_owned(), release.clone()),
    ];
    let checked = check_files(&files);
    let messages: Vec<&str> = checked.problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the route `support-chat` already has a release",
            "the release id `support-chat-42` is taken"
        ]
    );
    assert_eq!(checked.problems[0].file, "releases/again.toml");

    let files = [
        ("tracegate.toml".to_owned(), "[defaults]\ngrace = \"3s\"".to_owned()),
        ("releases/one.toml".to_owned(), release),
    ];
    let checked = check_files(&files);
    assert_eq!(checked.problems, []);
    assert_eq!(checked.releases[0].grace, Duration::from_secs(3));
}

#[test]
fn the_hash_of_the_rules_changes_with_any_rule_and_with_nothing_else() {
    let spec = check(GOOD, "a").releases.remove(0);
    let spaced = GOOD.replace("max_ratio = 1.20", "max_ratio   =   1.2  # a comment");
    assert_eq!(rules_hash(&spec), rules_hash(&check(&spaced, "b").releases[0]));
    let other = GOOD.replace("max_ratio = 1.20", "max_ratio = 1.21");
    assert_ne!(rules_hash(&spec), rules_hash(&check(&other, "c").releases[0]));
    assert_eq!(rules_hash(&spec).len(), 64);
    // a stored release hashes as the declared one did
    let stored: proto::release::ReleaseSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(rules_hash(&spec), rules_hash(&stored));
    assert_eq!(
        canonical(&serde_json::json!({"b": [1, {"z": null, "a": "x\"y"}], "a": 0.5})),
        r#"{"a":0.5,"b":[1,{"a":"x\"y","z":null}]}"#
    );
}

#[test]
fn a_release_declared_as_a_value_is_checked_like_a_file() {
    let mut spec = check(GOOD, "a").releases.remove(0);
    assert_eq!(check_spec(&spec), Ok(()));
    spec.gates.retain(|g| g.on_fail != OnFail::Rollback);
    spec.blue.prompt = "support".into();
    let problems = check_spec(&spec).unwrap_err();
    let messages: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
    assert!(messages.iter().any(|m| m.contains("no rollback rule")), "{messages:?}");
    assert!(messages.iter().any(|m| m.contains("name@version")), "{messages:?}");
}

#[test]
fn a_release_declared_as_json_has_the_shape_of_the_file() {
    let table: toml::Table = GOOD.parse().unwrap();
    let mut release = serde_json::to_value(&table["release"][0]).unwrap();
    let checked = gates::check::check_json(&release);
    assert_eq!(checked.problems, []);
    assert_eq!(checked.releases[0].id, "support-chat-42");
    release["gate"][0]["quantile"] = 99.into();
    release["blue"]["tools"] = serde_json::Value::Null;
    assert_eq!(gates::check::check_json(&release).problems.len(), 2);
    for odd in [serde_json::json!(null), serde_json::json!([1]), serde_json::json!("x")] {
        assert!(!gates::check::check_json(&odd).problems.is_empty(), "{odd}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 300, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn no_file_makes_the_check_panic(
        at in 0..GOOD.len(),
        len in 0usize..60,
        new in "[a-z0-9.=\"'\\[\\]{}, \n-]{0,12}|\\PC{0,6}",
    ) {
        let end = (at + len).min(GOOD.len());
        let text = format!("{}{new}{}", &GOOD[..at], &GOOD[end..]);
        let checked = check(&text, "mutated");
        for p in &checked.problems {
            proptest::prop_assert!(p.span.end <= text.len() && p.line(&text) >= 1);
        }
        let _ = gates::webhook::parse_url(&new);
    }
}
