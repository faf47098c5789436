//! `tracegate decisions` and `tracegate explain`: what was decided, and why.

use super::{
    Client, OutputError, ServerArgs,
    releases::{gates, segment},
    text::{table, word},
};
use clap::Args;
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
#[command(after_help = "Example:\n  tracegate decisions\n  tracegate explain 01JCZ6Y2V0Q7M4T8K3N5R9W1XB")]
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
        let mut shown = table(&["decided at", "route", "release", "action", "cohort", "actor", "id", "reason"]);
        for decision in &decisions {
            let keys = ["/decided_at", "/route", "/release", "/action", "/cohort", "/actor", "/decision_id", "/reason"];
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
    let text = if args.json { format!("{bundle:#}\n") } else { describe(&bundle) };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn describe(bundle: &Value) -> String {
    let mut text = format!(
        "{} of {} on {}, {} by {}\n  {}\n",
        word(bundle, "/action"), word(bundle, "/release"), word(bundle, "/route"),
        word(bundle, "/decided_at"), word(bundle, "/actor"), word(bundle, "/reason")
    );
    text.push_str(&gates(bundle.pointer("/evidence/gates").or_else(|| bundle.pointer("/gates"))));
    text.push_str(&format!("rules {}\n", word(bundle, "/rules_hash")));
    text.push_str("the whole bundle, with every count: add --json\n");
    text
}
