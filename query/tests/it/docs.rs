//! The table of `docs/metrics.md` is that of the code, every metric has its view, and what `docs/sql.md` shows can be asked.

use crate::{
    encoded, engine, view,
    world::{Held, World},
};
use proto::{Metric, metric::MetricKind, schema};
use query::{metrics::METRICS, output::Format, views::VIEWS};
use std::{fmt::Write as _, fs, path::Path};

/// Set it to write the table instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- from here on written by the test `the_table_of_the_docs_is_that_of_the_code` -->\n";

fn table() -> String {
    let mut out = String::from(
        "\n## Every metric\n\n| view | grain | unit | an event is true when, or a value is | made of |\n| --- | --- | --- | --- | --- |\n",
    );
    for metric in METRICS {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            metric.view,
            metric.grain.as_str(),
            metric.unit,
            metric.doc,
            metric.fed_by
        );
    }
    out
}

#[test]
fn the_table_of_the_docs_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let docs = fs::read_to_string(&path).unwrap();
    let (before, written) = docs.split_once(BEGIN).unwrap_or((&docs, ""));
    let table = table();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}")).unwrap();
        return;
    }
    assert!(
        written == table,
        "docs/metrics.md no longer says what metrics.rs says; write its table anew with\n  \
         {UPDATE}=1 cargo test -p query the_table_of_the_docs"
    );
}

#[test]
fn every_metric_has_a_view_of_its_kind_and_names_real_columns() {
    let plain = Metric::PLAIN.iter().filter(|metric| **metric != Metric::AttemptSeconds);
    let names: Vec<String> = plain.map(ToString::to_string).chain(["eval_fail".to_owned()]).collect();
    let documented: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(documented, names);
    for metric in METRICS {
        let kind = match metric.name {
            "eval_fail" => MetricKind::Rate,
            name => name.parse::<Metric>().unwrap().kind(),
        };
        assert_eq!(kind == MetricKind::Rate, metric.unit == "event", "{}", metric.name);
        assert!(
            VIEWS.iter().all(|view| view.name != metric.view),
            "{} twice",
            metric.view
        );
        let columns = metric.fed_by.split('`').skip(1).step_by(2);
        for column in columns.filter(|column| !column.contains('=') && *column != "match") {
            assert!(schema::SPANS.index_of(column).is_ok(), "{}: {column}", metric.name);
        }
    }
}

#[test]
fn every_view_is_explained() {
    let docs = include_str!("../../../docs/sql.md");
    let explained: Vec<&str> = docs
        .lines()
        .skip_while(|line| *line != "## Views")
        .take_while(|line| *line != "## Functions")
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .filter(|name| *name != "metric_NAME")
        .collect();
    let views: Vec<&str> = VIEWS.iter().map(|view| view.name).collect();
    assert_eq!(explained, views);
}

#[tokio::test]
async fn every_question_of_the_docs_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, view) = (
        engine(dir.path()),
        view(&World { traces: 40 }.write(dir.path(), Held::Half)),
    );
    let docs = [include_str!("../../../README.md"), include_str!("../../../docs/sql.md")].concat();
    let questions = docs.lines().filter_map(|line| {
        let said = line.strip_prefix("tracegate sql \"")?;
        said.split_once('"').map(|(question, _)| question)
    });
    let mut asked = 0;
    for question in questions {
        let answer = encoded(&engine, view.clone(), question, Format::Json).await;
        answer.unwrap_or_else(|e| panic!("{question}: {e}"));
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
}
