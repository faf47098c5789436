//! `tracegate decisions` and `tracegate explain`: what was decided, and why.

use super::{
    Client, OutputError, ServerArgs,
    releases::{gates, segment},
    text::{number, table, word},
    verify::{Before, Chain},
};
use crate::offline;
use clap::Args;
use gates::ledger::{Ledger, LedgerError};
use proto::{Nanos, layout};
use serde_json::{Value, json};
use std::{io::Write, path::PathBuf};

/// Decisions read by a command at most, from a data directory.
const DECISIONS_MAX: usize = 10_000;

/// Where a command reads: a running server, or the data directory of one that does not run.
pub(super) enum Source {
    Server(Client),
    Directory { dir: PathBuf, ledger: Box<Ledger> },
}

/// The ledger of a data directory cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error(transparent)]
#[diagnostic(help("while a server runs on the directory ask it instead: leave --data-dir out"))]
struct LedgerUnread(#[from] LedgerError);

/// No such decision.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no decision `{0}`")]
#[diagnostic(help("`tracegate decisions` lists them"))]
struct NoDecision(String);

impl Source {
    pub fn of(data_dir: Option<PathBuf>, server: &ServerArgs) -> miette::Result<Self> {
        let Some(dir) = data_dir else {
            return Ok(Self::Server(Client::new(server)?));
        };
        let path = dir.join(layout::LEDGER);
        if !path.is_file() {
            return Err(offline::OfflineError::NotThere { path: dir }.into());
        }
        let ledger = Box::new(Ledger::open(&path).map_err(LedgerUnread)?);
        Ok(Self::Directory { dir, ledger })
    }

    /// The newest decisions, as `GET /api/v1/decisions` lists them.
    async fn decisions(&self) -> miette::Result<Vec<Value>> {
        match self {
            Self::Server(client) => {
                let answer = client.get("/api/v1/decisions").await?;
                Ok(answer.as_array().cloned().unwrap_or_default())
            }
            Self::Directory { ledger, .. } => {
                let rows = ledger.decisions(DECISIONS_MAX).map_err(LedgerUnread)?;
                Ok(rows.iter().map(crate::http::decision_line).collect())
            }
        }
    }

    /// The evidence of a decision as text, and its place in the chain.
    pub async fn evidence(&self, id: &str) -> miette::Result<(String, Option<Chain>)> {
        let text = match self {
            Self::Server(client) => client.text(&format!("/api/v1/decisions/{}", segment(id))).await?,
            Self::Directory { ledger, .. } => {
                let found = ledger.decision(id).map_err(LedgerUnread)?;
                found.ok_or_else(|| NoDecision(id.to_owned()))?.1
            }
        };
        // newest first: what stands after it in the list came before it
        let all = self.decisions().await?;
        let at = all.iter().position(|d| d["decision_id"] == json!(id));
        let hash = |d: &Value, key: &str| d[key].as_str().map(str::to_owned);
        let chain = at.map(|at| Chain {
            evidence_hash: hash(&all[at], "evidence_hash").unwrap_or_default(),
            previous_hash: hash(&all[at], "previous_hash"),
            before: match (hash(&all[at], "before_expired"), all.get(at + 1)) {
                (Some(when), _) => Before::Expired(when),
                (None, Some(before)) => Before::Has(hash(before, "evidence_hash")),
                // the list may end before the chain does
                (None, None) if all.len() < gates::desk::ROWS_MAX => Before::Has(None),
                (None, None) => Before::Unlisted,
            },
        });
        Ok((text, chain))
    }

    /// A question in SQL, answered as the API answers it.
    pub async fn sql(&self, sql: &str) -> miette::Result<Value> {
        match self {
            Self::Server(client) => Ok(client.post("/api/v1/sql", &json!({ "sql": sql })).await?),
            Self::Directory { dir, .. } => {
                let bytes = offline::sql(dir, sql, super::Format::Json).await?;
                Ok(serde_json::from_slice(&bytes).unwrap_or_default())
            }
        }
    }
}

/// What to list.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate decisions --route support-chat")]
pub struct DecisionsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only this route
    #[arg(long)]
    route: Option<String>,
    /// The server's answer as it is
    #[arg(long)]
    json: bool,
    /// Read a data directory whose server does not run
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
}

/// Which decision.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate decisions\n  tracegate explain dec_01JCZ6Y2V0Q7M4T8K3N5R9W1XB")]
pub struct ExplainArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Id of the decision
    #[arg(value_name = "ID")]
    id: String,
    /// The whole evidence bundle
    #[arg(long)]
    json: bool,
    /// Read a data directory whose server does not run
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
}

pub(super) async fn list(args: DecisionsArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let mut decisions = Source::of(args.data_dir, &args.server)?.decisions().await?;
    if let Some(route) = &args.route {
        decisions.retain(|d| word(d, "/route") == *route);
    }
    let text = if args.json {
        format!("{:#}\n", Value::Array(decisions))
    } else if decisions.is_empty() {
        "no decisions yet; `tracegate status` shows how far each gate is\n".to_owned()
    } else {
        let mut shown = table(&[
            "decided at",
            "route",
            "release",
            "action",
            "cohort",
            "actor",
            "id",
            "reason",
        ]);
        for decision in &decisions {
            let keys = [
                "/decided_at",
                "/route",
                "/release",
                "/action",
                "/cohort",
                "/actor",
                "/decision_id",
                "/reason",
            ];
            shown.add_row(keys.map(|key| word(decision, key)).to_vec());
        }
        format!("{shown}\n")
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

pub(super) async fn explain(args: ExplainArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let (text, _) = Source::of(args.data_dir, &args.server)?.evidence(&args.id).await?;
    let bundle: Value = serde_json::from_str(&text).unwrap_or_default();
    let text = if args.json {
        format!("{bundle:#}\n")
    } else {
        describe(&bundle)
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn describe(bundle: &Value) -> String {
    let at = bundle
        .pointer("/decision/decided_at")
        .and_then(Value::as_i64)
        .map_or_else(|| "-".to_owned(), |at| Nanos(at).rfc3339());
    let by = match word(bundle, "/decision/actor/name") {
        nobody if nobody == "-" => "tracegate".to_owned(),
        person => person,
    };
    let green = bundle
        .pointer("/decision/green_ppm")
        .and_then(Value::as_f64)
        .map(|ppm| ppm / 1e4);
    let mut text = format!(
        "{} of {} on {}, {at} by {by}\n  {}\n  green gets {} % from then on\n",
        word(bundle, "/decision/action"),
        word(bundle, "/decision/release"),
        word(bundle, "/decision/route"),
        word(bundle, "/decision/reason"),
        number(green)
    );
    text.push_str(&paths(bundle));
    text.push_str(&gates(bundle.pointer("/judgement/reports")));
    text.push_str(&breaker(bundle));
    text.push_str(&worst(bundle));
    text.push_str(&visible(bundle));
    text.push_str(&format!("rules     {}\n", word(bundle, "/rules_hash")));
    text.push_str(&format!("before    {}\n", word(bundle, "/previous_hash")));
    text.push_str(&statements(bundle));
    text.push_str(
        "`tracegate verify` computes it again; the whole bundle, with the cells it was computed from: add --json\n",
    );
    text
}

/// Where blue's and green's manifests differ.
fn paths(bundle: &Value) -> String {
    let (Some(blue), Some(green)) = (bundle["blue"].as_object(), bundle["green"].as_object()) else {
        return String::new();
    };
    let differs: Vec<String> = blue
        .iter()
        .filter(|(key, value)| *key != "match" && green.get(*key) != Some(value))
        .map(|(key, _)| {
            format!(
                "{key} {} -> {}",
                word(&bundle["blue"], &format!("/{key}")),
                word(&bundle["green"], &format!("/{key}"))
            )
        })
        .collect();
    format!("  blue -> green: {}\n", differs.join(", "))
}

fn breaker(bundle: &Value) -> String {
    let Some(read) = bundle.get("breaker").filter(|b| !b.is_null()) else {
        return String::new();
    };
    let evidence = |key: &str| number(read[key].as_f64());
    format!(
        "breaker   limit {}, evidence {} of {} against green, {} against blue\n",
        evidence("limit"),
        evidence("log_e_green"),
        evidence("threshold"),
        evidence("log_e_blue")
    )
}

fn worst(bundle: &Value) -> String {
    let traces = bundle["worst"].as_array().map(Vec::as_slice).unwrap_or_default();
    traces
        .iter()
        .filter(|t| t["color"] == "green")
        .take(3)
        .map(|t| format!("worst     {}  {}\n", word(t, "/trace_id"), word(t, "/what")))
        .collect()
}

fn visible(bundle: &Value) -> String {
    let from = &bundle["provenance"];
    format!(
        "data      journal up to record {}, {} sealed files\n",
        word(from, "/journal_lsn"),
        word(from, "/files_total")
    )
}

/// The SQL that shows the numbers of the first failing gate, or of the first.
fn statements(bundle: &Value) -> String {
    let reports = bundle.pointer("/judgement/reports").and_then(Value::as_array);
    let failing = reports.and_then(|all| all.iter().find(|r| r["verdict"] == "fail"));
    let name = failing.map(|r| r["name"].clone());
    let all = bundle["sql"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = all.iter().find(|s| name.as_ref().is_none_or(|name| s["gate"] == *name));
    match of.and_then(|s| s["cells"].as_str().or_else(|| s["rows"].as_str())) {
        Some(sql) => format!("the same numbers: tracegate sql \"{sql}\"\n"),
        None => String::new(),
    }
}
