//! Release files: what a good one becomes, and everything a bad one is told, at once and at its line.

use gates::check::{Checked, canonical, check, check_files, check_spec, rules_hash};
use proto::release::{Approval, Margin, Mode, NoData, OnFail};
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
