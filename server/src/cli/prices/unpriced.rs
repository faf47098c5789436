//! Models that were called, used tokens, and have no price.

use crate::{
    cli::{Client, Format, OutputError, ServerArgs, text},
    offline,
};
use clap::Args;
use serde_json::{Value, json};
use std::{io::Write, path::PathBuf};

/// Models that are listed.
const MODELS_MAX: usize = 200;

/// Whom to ask.
#[derive(Debug, Args)]
#[command(
    after_help = "A cost of such a call is NULL, never 0, and its trace is not `priced`.\n\nExamples:\n  \
                  tracegate prices unpriced\n  tracegate prices unpriced --data-dir ./tracegate-data"
)]
pub struct UnpricedArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Read this data directory instead of asking a server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The answer to a question of ours has another form.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the server's answer cannot be read: {0}")]
#[diagnostic(help("is it of another version? ask with its own `tracegate`"))]
struct Foreign(String);

pub(super) async fn run(args: UnpricedArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let sql = format!(
        "SELECT provider, coalesce(response_model, request_model) AS model, count(*) AS calls, \
         sum(prompt_tokens) AS prompt_tokens, sum(completion_tokens) AS completion_tokens, \
         CAST(sum(emitter_cost_usd) AS DOUBLE) AS emitter_cost_usd FROM spans \
         WHERE role = 'call' AND cost_usd IS NULL AND repeats_span_id IS NULL \
         AND (prompt_tokens IS NOT NULL OR completion_tokens IS NOT NULL) \
         GROUP BY 1, 2 ORDER BY calls DESC, 1, 2 LIMIT {MODELS_MAX}"
    );
    let answer: Value = match &args.data_dir {
        Some(dir) => {
            let bytes = offline::sql(dir, &sql, Format::Json).await?;
            serde_json::from_slice(&bytes).map_err(|e| Foreign(e.to_string()))?
        }
        None => {
            let client = Client::new(&args.server)?;
            client.post("/api/v1/sql", &json!({ "sql": sql })).await?
        }
    };
    let rows = answer["rows"]
        .as_array()
        .ok_or_else(|| Foreign("it has no rows".to_owned()))?;
    out.write_all(shown(rows).as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn shown(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "every model that used tokens has a price\n".to_owned();
    }
    let header = [
        "provider",
        "model",
        "calls",
        "prompt tokens",
        "completion tokens",
        "emitter's cost, USD",
    ];
    let mut table = text::table(&header);
    for row in rows {
        table.add_row((0..header.len()).map(|i| printable(&text::word(row, &format!("/{i}")))));
    }
    format!(
        "{table}\ngive a model a price: tracegate prices add PROVIDER/MODEL --input USD --output USD (per million tokens)\n"
    )
}

/// Names come from spans: nothing in them may move the cursor.
fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_to_the_terminal_and_unknown_is_a_dash() {
        let text = shown(&[json!([null, "evil\u{1b}[2J", 3, 10, null, 0.25])]);
        assert!(!text.contains('\u{1b}') && text.contains('3') && text.contains("0.250") && text.contains('-'));
        assert!(shown(&[]).contains("every model"));
    }
}
