//! `tracegate prices`: the table that costs are computed from.

use super::{OutputError, text::table};
use clap::Args;
use std::io::Write;

/// What to list.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate prices gpt-4o")]
pub struct PricesArgs {
    /// Only models whose name contains this
    #[arg(value_name = "MODEL")]
    model: Option<String>,
}

/// The shipped table, as it stands beside the reader that uses it.
const SHIPPED: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ingest/prices.toml"));

/// The shipped table cannot be read: a fault of the build.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the shipped price table cannot be read: {0}")]
struct Unreadable(#[from] toml::de::Error);

pub(super) fn run(args: &PricesArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let list: toml::Table = toml::from_str(SHIPPED).map_err(Unreadable)?;
    let wanted = args.model.as_deref().unwrap_or_default().to_lowercase();
    let mut shown = table(&[
        "provider",
        "model",
        "input",
        "output",
        "cache read",
        "cache write",
        "reasoning",
    ]);
    let mut n = 0;
    for (provider, models) in list
        .get("provider")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flatten()
    {
        for (model, price) in models.as_table().into_iter().flatten() {
            if !model.to_lowercase().contains(&wanted) {
                continue;
            }
            let of = |key: &str| per_million(price.get(key));
            shown.add_row(vec![
                provider.clone(),
                model.clone(),
                of("input"),
                of("output"),
                of("cache_read"),
                of("cache_write"),
                of("reasoning"),
            ]);
            n += 1;
        }
    }
    let version = list.get("version").and_then(toml::Value::as_str).unwrap_or("-");
    let text = if n == 0 {
        format!(
            "no model in the shipped table (version {version}) contains `{wanted}`; give it a price under [prices]\n"
        )
    } else {
        format!("{shown}\n{n} prices, version {version}, USD per million tokens; override them under [prices]\n")
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

/// Nano-USD per token as USD per million tokens.
fn per_million(nano: Option<&toml::Value>) -> String {
    let nano = nano.and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)));
    nano.map_or_else(|| "-".to_owned(), |nano| format!("{}", nano / 1_000.0))
}
