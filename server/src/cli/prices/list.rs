//! The list: the shipped table with the overrides of a configuration over it.

use crate::{
    cli::{OutputError, text::table},
    config::Config,
};
use ingest::price::{Price, PriceTable};
use std::{collections::HashMap, io::Write, path::Path};

/// Nano-USD of one US dollar.
const NANO: f64 = 1e9;

pub(super) fn run(config: Option<&Path>, model: Option<&str>, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let config = Config::load_or_default(config)?;
    let (prices, shipped) = (&config.read.prices, PriceTable::shipped());
    let shipped: HashMap<(&str, &str), &Price> = shipped.iter().map(|(p, m, price)| ((p, m), price)).collect();
    let wanted = model.unwrap_or_default().to_lowercase();
    let mut shown = table(&[
        "provider",
        "model",
        "input",
        "output",
        "cache read",
        "cache write",
        "reasoning",
        "request",
        "",
    ]);
    let mut n = 0;
    for (provider, model, price) in prices
        .iter()
        .filter(|(_, model, _)| model.to_lowercase().contains(&wanted))
    {
        let mut row = vec![provider.to_owned(), model.to_owned()];
        row.extend(price.per_token().map(|nano| format!("{}", nano / 1_000.0)));
        row.push(match price.per_request() {
            0.0 => "-".to_owned(),
            nano => format!("{}", nano / NANO),
        });
        row.push(remark(price, shipped.get(&(provider, model)).copied()));
        shown.add_row(row);
        n += 1;
    }
    let version = prices.version();
    let text = if n == 0 {
        format!(
            "no priced model (version {version}) contains `{wanted}`; give it a price: tracegate prices add \
             PROVIDER/MODEL --input USD --output USD\n"
        )
    } else {
        format!(
            "{shown}\n{n} prices, version {version}, USD per million tokens and per request; change one with \
             `tracegate prices add`\n"
        )
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

/// Where a price is from, if not from the shipped table, and whether long prompts have others.
fn remark(price: &Price, shipped: Option<&Price>) -> String {
    let source = match shipped {
        None => Some("added".to_owned()),
        Some(shipped) if shipped != price => Some("overridden".to_owned()),
        Some(_) => None,
    };
    let tier = price.tier_above().map(|tokens| format!("other above {tokens} tokens"));
    [source, tier].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
