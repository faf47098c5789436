//! `tracegate decisions` and `tracegate explain`: what was decided, and why.

use super::{
    Client, OutputError, ServerArgs,
    releases::{gates, segment},
    text::{number, table, word},
};
use clap::Args;
use proto::Nanos;
use serde_json::Value;
use std::io::Write;

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
}

pub(super) async fn list(args: DecisionsArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let answer = client.get("/api/v1/decisions").await?;
    let mut decisions = answer.as_array().cloned().unwrap_or_default();
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
    let client = Client::new(&args.server)?;
    let bundle = client.get(&format!("/api/v1/decisions/{}", segment(&args.id))).await?;
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
    text.push_str(&gates(bundle.pointer("/judgement/reports")));
    text.push_str(&format!("rules    {}\n", word(bundle, "/rules_hash")));
    text.push_str(&format!("before   {}\n", word(bundle, "/previous_hash")));
    text.push_str("the whole bundle, with the cells it was computed from: add --json\n");
    text
}
