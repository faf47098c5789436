use super::*;
use ingest::read::{ContentConfig, ContentPolicy, ContentRule, ExtraKeys};
use miette::{GraphicalReportHandler, GraphicalTheme, Report};
use std::time::Duration;

fn shown(text: &str) -> String {
    let problems = Config::parse(text, "tracegate.toml").unwrap_err();
    let mut out = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(100)
        .render_report(&mut out, Report::new(problems).as_ref())
        .unwrap();
    out
}

#[test]
fn everything_wrong_with_a_file_is_shown_at_once() {
    let text = r#"
databases = 1

[server]
data_dir = 7
otlp_grpc = "4317"
otlp-http = "127.0.0.1:4318"
cell_resolution = "7s"
ingest_bytes_max = "lots"
pgwire = "127.0.0.1:4322"

[webhooks]
allow = ["10.0.0.0/8", "everywhere"]

[content]
policy = "burn"

[prices.provider.openai]
"m" = { input = -1, output = 2 }

[auth]
tokens = []
"#;
    insta::assert_snapshot!(shown(text));
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    insta::assert_snapshot!(shown("[server\nhttp = \"127.0.0.1:1\"\n"));
}

#[test]
fn ages_and_shares_that_make_no_sense_are_refused() {
    for (line, problem) in [
        ("text = \"10m\"", "`text`: `10m` is less than an hour"),
        ("spans = \"soon\"", "`spans`: "),
        ("cells = 400", "`cells` is a text in quotes"),
        ("disk_max = 80.0", "`disk_max`: 80 is no share above 0 and up to 1"),
        ("disk_max = 0.0", "`disk_max`: 0 is no share"),
        ("disk_max = \"80 %\"", "`disk_max`: "),
        ("traces = \"30d\"", "unknown key `traces` in [retention]"),
    ] {
        let shown = shown(&format!("[retention]\n{line}\n"));
        assert!(shown.contains(problem), "{line}: {shown}");
    }
}

#[test]
fn a_missing_include_is_shown_at_its_line() {
    insta::assert_snapshot!(shown("include = [\"no-such-folder/*.toml\"]\n"));
}

#[test]
fn a_full_file_is_read_to_the_last_key() {
    let text = r#"
[server]
data_dir = "/var/lib/tracegate"
otlp_grpc = "0.0.0.0:14317"
otlp_http = "localhost:14318"
http = "[::1]:14320"
hosts = ["tracegate.internal"]
public_url = "https://tracegate.internal/"
cell_resolution = "10s"
ingest_bytes_max = "64 MiB"
seal_age = "5m"

[retention]
text = "36h"
spans = "14d"
cells = "500d"
decisions = "900d"
disk_max = 0.9

[attributes]
cohort = ["customer.tier"]
prompt_tokens = ["acme.tokens.in"]
feature_flag = ["support-chat"]
content = ["acme.note"]

[content]
policy = "keep"
error_text = "hash"

[[content.rule]]
service = "billing"
route = "invoices"
policy = "drop"

[prices]
version = "ours-1"

[prices.provider.openai]
"house-model" = { input = 150, output = 600 }

[[eval]]
name = "Groundedness"
pass_min = 0.7

[[eval]]
name = "correctness"
pass_labels = ["correct"]
fail_labels = ["incorrect"]

[webhooks]
allow = ["127.0.0.0/8"]
"#;
    let config = Config::parse(text, "t").unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/tracegate"));
    assert_eq!(config.address(Door::OtlpHttp), "127.0.0.1:14318".parse().unwrap());
    assert_eq!(config.http, "[::1]:14320".parse().unwrap());
    assert_eq!(config.public_url.as_deref(), Some("https://tracegate.internal"));
    assert_eq!(
        (config.pipeline.assembly.resolution.as_secs(), config.doors.budget_bytes),
        (10, 64 << 20)
    );
    assert_eq!(config.pipeline.seal_age.as_secs(), 300);
    let hours = |age: Duration| age.as_secs() / 3_600;
    let kept = &config.pipeline.retention;
    assert_eq!(
        (hours(kept.texts), hours(kept.rows), hours(kept.cells)),
        (36, 14 * 24, 500 * 24)
    );
    assert_eq!(hours(config.decisions_kept), 900 * 24);
    assert!((kept.disk_max - 0.9).abs() < f64::EPSILON);
    let mut keys = ExtraKeys::default();
    for (column, key) in [
        ("prompt_tokens", "acme.tokens.in"),
        ("cohort", "customer.tier"),
        ("feature_flag", "support-chat"),
        ("content", "acme.note"),
    ] {
        keys.add(column, key).unwrap();
    }
    assert_eq!(config.read.keys, keys);
    let rule = ContentRule {
        service: Some("billing".to_owned()),
        route: Some("invoices".to_owned()),
        policy: ContentPolicy::Drop,
    };
    let content = ContentConfig {
        policy: ContentPolicy::Keep,
        rules: vec![rule],
        error_text: Some(ContentPolicy::Hash),
    };
    assert_eq!(config.read.content, content);
    assert_eq!(config.read.prices.version(), "ours-1");
    assert!(config.read.prices.price(Some("openai"), "house-model").is_some());
    assert_eq!((config.webhooks_allow.len(), config.read.evals.len()), (1, 2));
}

#[test]
fn attributes_and_content_that_cannot_be_meant_are_shown_at_their_lines() {
    let text = r#"
[attributes]
cohorts = ["customer.tier"]
route = ["acme.route", "release.color", "acme.route"]
version = ["acme.route", ""]
trace_id = ["acme.trace"]

[content]
error_text = "show"

[[content.rule]]
policy = "keep"

[[content.rule]]
service = "billing"
policy = "hide"

[[content.rule]]
servise = "billing"
policy = "keep"
"#;
    insta::assert_snapshot!(shown(text));
}

#[test]
fn evaluation_rules_that_cannot_be_meant_are_shown_at_their_lines() {
    let text = r#"
[[eval]]
name = "Groundedness"
pass_min = 0.9
pass_max = 0.7

[[eval]]
name = "tone"
pass_labels = "friendly"

[[eval]]
name = "Relevance"
"#;
    insta::assert_snapshot!(shown(text));
}

#[test]
fn includes_are_read_relative_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("releases")).unwrap();
    std::fs::write(dir.path().join("releases/a.toml"), "[server]\n").unwrap();
    let main = dir.path().join("main.toml");
    std::fs::write(&main, "include = [\"releases/*.toml\"]\n").unwrap();
    let LoadError::Wrong(wrong) = Config::load(&main).unwrap_err() else {
        panic!("readable")
    };
    assert_eq!(wrong.problems.len(), 1);
    assert!(
        wrong.problems[0].message.contains("unknown key `server`"),
        "{}",
        wrong.problems[0]
    );
}

#[test]
fn schemas_that_cannot_be_used_are_all_shown_at_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.json"), r#"{"type": "object"}"#).unwrap();
    std::fs::write(dir.path().join("torn.json"), "{\n  \"type\":").unwrap();
    let main = dir.path().join("main.toml");
    let text = r##"
[[json_schema]]
route = "chat"
file = "good.json"

[[json_schema]]
route = "chat"
schema = "true"

[[json_schema]]
route = "torn"
file = "torn.json"

[[json_schema]]
route = "gone"
file = "gone.json"

[[json_schema]]
route = "remote"
schema = '''{"$ref": "https://example.com/answer.json"}'''

[[json_schema]]
route = "both"
file = "good.json"
schema = "true"

[[json_schema]]
route = "none"

[[json_schema]]
schema = "true"

[[json_schema]]
route = "slip"
shema = "true"
"##;
    std::fs::write(&main, text).unwrap();
    let LoadError::Wrong(wrong) = Config::load(&main).unwrap_err() else {
        panic!("readable")
    };
    let expected = [
        ("\"chat\"", "has a schema already"),
        ("\"torn.json\"", "`torn.json`: the schema is not JSON"),
        ("\"gone.json\"", "cannot read the schema `gone.json`"),
        ("{\"$ref\"", "nothing is fetched"),
        ("\"true\"", "not in both"),
        ("[[json_schema]]", "has no schema"),
        ("[[json_schema]]", "for no route"),
        ("shema", "unknown key `shema`"),
    ];
    assert_eq!(wrong.problems.len(), expected.len(), "{:#?}", wrong.problems);
    for (problem, (at, says)) in wrong.problems.iter().zip(expected) {
        assert!(problem.message.contains(says), "{}", problem.message);
        let span = problem.span.clone().unwrap();
        assert!(
            text[span.clone()].contains(at),
            "{} at {:?}",
            problem.message,
            &text[span]
        );
    }
    let good = "[[json_schema]]\nroute = \"chat\"\nfile = \"good.json\"\n";
    std::fs::write(&main, good).unwrap();
    assert_eq!(Config::load(&main).unwrap().read.schemas.len(), 1);
}
