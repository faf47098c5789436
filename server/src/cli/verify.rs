//! `tracegate verify`: computes a decision again from its evidence, and on request counts its numbers anew from the rows.

use super::{OutputError, ServerArgs, decisions::Source, text::table};
use clap::Args;
use gates::desk::{Statement, Verified, verify_bundle};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, io::Write, path::PathBuf, process::ExitCode};

/// Which decision, and how far to go.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 if the bundle does not come out the same, or if the rows hold the same units with other events. \
                  What came late, or was removed by a retention, is said and is no failure.\n\nExamples:\n  tracegate verify dec_01JCZ6Y2V0Q7M4T8K3N5R9W1XB\n  \
                  tracegate verify dec_01JCZ6Y2V0Q7M4T8K3N5R9W1XB --from-data"
)]
pub struct VerifyArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Id of the decision; a file that holds an evidence bundle will do as well
    #[arg(value_name = "ID")]
    id: String,
    /// Also count the numbers again from the tables
    #[arg(long)]
    from_data: bool,
    /// Read a data directory whose server does not run
    #[arg(long, value_name = "D", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
}

/// Does not come out the same.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{id} cannot be confirmed: {why}")]
#[diagnostic(help(
    "the evidence was changed after it was written, or written by another version; compare with a backup"
))]
struct Unconfirmed {
    id: String,
    why: String,
}

pub(super) async fn run(args: VerifyArgs, out: &mut (dyn Write + Send)) -> miette::Result<ExitCode> {
    let source = Source::of(args.data_dir.clone(), &args.server)?;
    let path = PathBuf::from(&args.id);
    let evidence = if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(OutputError)?;
        (text, None)
    } else {
        source.evidence(&args.id).await?
    };
    let (text, chain) = evidence;
    let unconfirmed = |why: String| Unconfirmed {
        id: args.id.clone(),
        why,
    };
    let bundle: Value =
        serde_json::from_str(&text).map_err(|e| unconfirmed(format!("its evidence is not JSON: {e}")))?;
    let mut said = String::new();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    if let Some(chain) = chain {
        chain.check(&hash, &bundle).map_err(unconfirmed)?;
        said.push_str("chain     the evidence has the hash that the ledger names, and names the one before it\n");
    }
    match verify_bundle(&text).map_err(unconfirmed)? {
        Verified::Same => said.push_str(
            "verdict   rules, judgement, breaker and decision come out the same, bit for bit, from the cells in the bundle\n",
        ),
        Verified::NothingJudged => {
            said.push_str("verdict   a person decided before anything was judged: rules and decision come out the same\n");
        }
    }
    said.push_str(&format!("evidence  {hash}\n"));
    let mut differs = false;
    if args.from_data {
        let recount = recount(&bundle, &source).await?;
        differs = recount.differs;
        said.push_str(&recount.text);
    }
    out.write_all(said.as_bytes()).map_err(OutputError)?;
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Recount {
    text: String,
    differs: bool,
}

/// (n, events) by color and split.
type Counts = BTreeMap<(String, Option<i64>), (i64, i64)>;

async fn recount(bundle: &Value, source: &Source) -> miette::Result<Recount> {
    let statements: Vec<Statement> = serde_json::from_value(bundle["sql"].clone()).unwrap_or_default();
    if statements.is_empty() {
        return Ok(Recount {
            text: "data      nothing was judged, so there is nothing to count\n".to_owned(),
            differs: false,
        });
    }
    let mut shown = table(&["gate", "color", "split", "judged", "in cells", "in rows", ""]);
    let (mut differs, mut gone) = (false, false);
    for statement in &statements {
        let name = statement.gate.clone().unwrap_or_else(|| "all traces".to_owned());
        let judged = judged(bundle, statement.gate.as_deref());
        let Some(over_rows) = &statement.rows else {
            shown.add_row([
                name.as_str(),
                "",
                "",
                "",
                "",
                "",
                "pairs and sessions are in the bundle only",
            ]);
            continue;
        };
        if statement.cells.is_none() {
            shown.add_row([
                name.as_str(),
                "",
                "",
                "",
                "",
                "",
                "counted by its own statement; see the bundle",
            ]);
            continue;
        }
        let kind = kind_of(bundle, statement);
        let rows = counted(&source.sql(over_rows).await?);
        let cells = match &statement.cells {
            Some(sql) => counted(&source.sql(sql).await?),
            None => Counts::new(),
        };
        for ((color, split), (n, events)) in &judged {
            let at = |counts: &Counts| counts.get(&(color.clone(), *split)).copied();
            let (in_rows, in_cells) = (at(&rows), at(&cells));
            let verdict = match in_rows {
                Some(found) if found == (*n, *events) => "same",
                Some(found) if found.0 < *n => {
                    gone = true;
                    "fewer rows: expired since, or not sealed when asked"
                }
                // a quantile's exceedances and a mean's sums are in the bundle only
                Some(found) if found.0 == *n && kind != Kind::Events => "same count",
                Some(found) if found.0 == *n && kind == Kind::Events && !is_late(statement) => {
                    differs = true;
                    "OTHER EVENTS"
                }
                Some(_) => "more since: late spans or evaluations",
                None => {
                    gone = true;
                    "expired since"
                }
            };
            let show = |c: Option<(i64, i64)>| c.map_or_else(|| "-".to_owned(), |(n, e)| format!("{e} of {n}"));
            let split = split.map_or_else(|| "unknown".to_owned(), |ppm| format!("{} %", ppm as f64 / 1e4));
            shown.add_row([
                name.as_str(),
                color,
                &split,
                &format!("{events} of {n}"),
                &show(in_cells),
                &show(in_rows),
                verdict,
            ]);
        }
    }
    let mut text = format!("data      counted again from the tables:\n{shown}\n");
    if gone {
        text.push_str(
            "          rows that a retention has removed cannot be counted again; the bundle still holds their cells\n",
        );
    }
    Ok(Recount { text, differs })
}

/// What a statement over rows can confirm of a gate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Events,
    UnitsOnly,
}

fn kind_of(bundle: &Value, statement: &Statement) -> Kind {
    let gates = bundle.pointer("/rules/gate").and_then(Value::as_array);
    let gate = gates.and_then(|all| all.iter().find(|g| g["name"].as_str() == statement.gate.as_deref()));
    let amount = ["latency", "ttft", "cost", "prompt_tokens", "completion_tokens"];
    match gate.and_then(|g| g["metric"].as_str()) {
        Some(metric) if amount.contains(&metric) => Kind::UnitsOnly,
        _ => Kind::Events,
    }
}

/// Whether its events may still come after the decision: evaluations and what users report.
fn is_late(statement: &Statement) -> bool {
    let late = ["eval_fail", "thumbs_down", "escalation", "abandoned", "override"];
    let rows = statement.rows.as_deref().unwrap_or_default();
    late.iter().any(|metric| rows.contains(&format!("metric_{metric}")))
}

/// What the judgement counted of one gate, all cohorts together.
fn judged(bundle: &Value, gate: Option<&str>) -> Counts {
    let strata = bundle.pointer("/judgement/strata").and_then(Value::as_array);
    let mut out = Counts::new();
    for s in strata.into_iter().flatten() {
        if s["gate"].as_str() != gate || !s["cohort"].is_null() {
            continue;
        }
        let split = s["split_ppm"].as_i64();
        for color in ["blue", "green"] {
            let of = |what: &str| s[format!("{what}_{color}")].as_i64().unwrap_or(0);
            out.insert((color.to_owned(), split), (of("n"), of("events")));
        }
    }
    out
}

/// Rows of color, split, n, events as the statements answer them.
fn counted(answer: &Value) -> Counts {
    let rows = answer["rows"].as_array();
    let of = |row: &Value| {
        let split = row[1].as_f64().map(|share| (share * 1e6).round() as i64);
        let number = |at: usize| row[at].as_i64().or_else(|| row[at].as_f64().map(|x| x as i64));
        Some((
            (row[0].as_str()?.to_owned(), split),
            (number(2)?, number(3).unwrap_or(0)),
        ))
    };
    rows.into_iter().flatten().filter_map(of).collect()
}

/// What the ledger says of a decision.
pub(super) struct Chain {
    pub evidence_hash: String,
    pub previous_hash: Option<String>,
    /// Hash of the decision before it, if there is one.
    pub before: Option<String>,
}

impl Chain {
    fn check(&self, hash: &str, bundle: &Value) -> Result<(), String> {
        if self.evidence_hash != hash {
            return Err("its evidence does not have the hash that the ledger names".to_owned());
        }
        if bundle["previous_hash"].as_str() != self.previous_hash.as_deref() || self.previous_hash != self.before {
            return Err("it does not name the hash of the decision before it".to_owned());
        }
        Ok(())
    }
}
