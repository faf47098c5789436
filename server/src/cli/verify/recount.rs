//! A decision's numbers counted again: by the statements in its evidence, from cells and from rows.

use crate::cli::{decisions::Source, text::table};
use comfy_table::Table;
use gates::desk::Statement;
use serde_json::Value;
use std::collections::BTreeMap;

/// What counting again found.
pub(super) struct Recount {
    pub text: String,
    /// The rows hold the same units with other events.
    pub differs: bool,
}

/// (n, events) by color and split in ppm; null where no split is known.
type Counts = BTreeMap<(String, Option<i64>), (i64, i64)>;

/// Amounts: a quantile's exceedances and a mean's sums are in the bundle only.
const AMOUNTS: [&str; 5] = ["latency", "ttft", "cost", "prompt_tokens", "completion_tokens"];
/// Events that may still come long after the decision.
const LATE: [&str; 5] = ["eval_fail", "thumbs_down", "escalation", "abandoned", "override"];

/// What the rows can confirm of a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Confirms {
    Events,
    LateEvents,
    Units,
}

pub(super) async fn from_data(bundle: &Value, source: &Source) -> miette::Result<Recount> {
    let statements: Vec<Statement> = serde_json::from_value(bundle["sql"].clone()).unwrap_or_default();
    let mut found = Found {
        shown: table(&["gate", "color", "split", "judged", "in cells", "in rows", ""]),
        differs: false,
        gone: false,
    };
    for statement in &statements {
        let name = statement.gate.as_deref().unwrap_or("all traces");
        match (&statement.cells, &statement.rows) {
            (Some(cells), Some(rows)) => {
                let counts = [counted(&source.sql(cells).await?), counted(&source.sql(rows).await?)];
                let judged = judged(bundle, statement.gate.as_deref());
                found.compare(name, confirms(bundle, statement), &judged, &counts);
            }
            (None, Some(_)) => found.only_said(name, "counted by its own statement; see the bundle"),
            _ => found.only_said(name, "pairs and sessions are in the bundle only"),
        }
    }
    Ok(found.closed(statements.is_empty()))
}

struct Found {
    shown: Table,
    differs: bool,
    gone: bool,
}

impl Found {
    fn only_said(&mut self, gate: &str, what: &str) {
        self.shown.add_row([gate, "", "", "", "", "", what]);
    }

    fn compare(&mut self, gate: &str, confirms: Confirms, judged: &Counts, [cells, rows]: &[Counts; 2]) {
        for (place, now) in judged {
            let (color, split) = place;
            let said = self.verdict(confirms, *now, rows.get(place).copied());
            let show =
                |c: Option<&(i64, i64)>| c.map_or_else(|| "-".to_owned(), |(n, events)| format!("{events} of {n}"));
            let split = split.map_or_else(|| "unknown".to_owned(), |ppm| format!("{} %", ppm as f64 / 1e4));
            let (judged, cells, rows) = (show(Some(now)), show(cells.get(place)), show(rows.get(place)));
            self.shown.add_row([gate, color, &split, &judged, &cells, &rows, said]);
        }
    }

    /// In words, what the rows say beside what was judged.
    fn verdict(&mut self, confirms: Confirms, judged: (i64, i64), rows: Option<(i64, i64)>) -> &'static str {
        let Some(found) = rows else {
            self.gone |= judged.0 > 0;
            return if judged.0 > 0 { "expired since" } else { "none" };
        };
        if found.0 < judged.0 {
            self.gone = true;
            "fewer rows: expired since"
        } else if found.0 > judged.0 {
            "more since: late spans"
        } else if confirms == Confirms::Units {
            "same count"
        } else if found.1 == judged.1 {
            "same"
        } else if confirms == Confirms::LateEvents {
            "other events since: late evaluations"
        } else {
            self.differs = true;
            "OTHER EVENTS"
        }
    }

    fn closed(self, nothing_judged: bool) -> Recount {
        let mut text = if nothing_judged {
            "data      nothing was judged, so there is nothing to count\n".to_owned()
        } else {
            format!("data      counted again from the tables:\n{}\n", self.shown)
        };
        if self.gone {
            text.push_str(
                "          what a retention has removed cannot be counted again; the bundle still holds its cells\n",
            );
        }
        Recount {
            text,
            differs: self.differs,
        }
    }
}

fn confirms(bundle: &Value, statement: &Statement) -> Confirms {
    let gates = bundle.pointer("/rules/gate").and_then(Value::as_array);
    let of = |g: &&Value| g["name"].as_str() == statement.gate.as_deref();
    let gate = gates.and_then(|all| all.iter().find(of));
    match gate.and_then(|g| g["metric"].as_str()) {
        Some(metric) if AMOUNTS.contains(&metric) => Confirms::Units,
        Some(metric) if LATE.iter().any(|late| metric.starts_with(late)) => Confirms::LateEvents,
        _ => Confirms::Events,
    }
}

/// What the judgement counted of one gate, all cohorts together.
fn judged(bundle: &Value, gate: Option<&str>) -> Counts {
    let strata = bundle.pointer("/judgement/strata").and_then(Value::as_array);
    let mut out = Counts::new();
    for s in strata.into_iter().flatten() {
        if s["gate"].as_str() != gate || !s["cohort"].is_null() {
            continue;
        }
        for color in ["blue", "green"] {
            let of = |what: &str| s[format!("{what}_{color}")].as_i64().unwrap_or(0);
            out.insert((color.to_owned(), s["split_ppm"].as_i64()), (of("n"), of("events")));
        }
    }
    out
}

/// Rows of color, split, n, events as the statements answer them.
fn counted(answer: &Value) -> Counts {
    let of = |row: &Value| {
        let split = row[1].as_f64().map(|share| (share * 1e6).round() as i64);
        let number = |at: usize| row[at].as_i64().or_else(|| row[at].as_f64().map(|x| x as i64));
        let counts = (number(2)?, number(3).unwrap_or(0));
        Some(((row[0].as_str()?.to_owned(), split), counts))
    };
    let rows = answer["rows"].as_array();
    rows.into_iter().flatten().filter_map(of).collect()
}
