//! A price of one's own: one line in the [prices] of a configuration, which else stays as it was written.

use crate::{cli::OutputError, config::FILE_DEFAULT};
use clap::Args;
use ingest::price::{PriceList, PriceTable, REQUEST_NANO_MAX, TOKEN_NANO_MAX};
use miette::Diagnostic;
use serde::Deserialize;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// Longest provider or model name, bytes.
const NAME_BYTES_MAX: usize = 256;

/// Which model, and what it costs.
#[derive(Debug, Args)]
#[command(
    after_help = "Prices are in USD per million tokens, --request in USD per request. A price that is left out falls \
                  back: cache read and write to --input, reasoning to --output.\n\nExamples:\n  \
                  tracegate prices add openai/house-model --input 0.15 --output 0.60 --cache-read 0.075\n  \
                  tracegate prices add perplexity/search --input 0 --output 0 --request 0.005 --config prod.toml"
)]
pub struct AddArgs {
    /// Provider and model, as spans name them
    #[arg(value_name = "PROVIDER/MODEL")]
    model: String,
    /// Prompt tokens, USD per million
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    input: f64,
    /// Completion tokens, USD per million
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    output: f64,
    /// Prompt tokens read from the provider's cache, USD per million
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    cache_read: Option<f64>,
    /// Prompt tokens written to the provider's cache, USD per million
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    cache_write: Option<f64>,
    /// Reasoning tokens, USD per million
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    reasoning: Option<f64>,
    /// Every request, USD
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    request: Option<f64>,
    /// Configuration to write to; made if it is the default and not there
    #[arg(long, value_name = "FILE", default_value = FILE_DEFAULT)]
    config: PathBuf,
}

/// Why no price was added. The file is as it was.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum AddError {
    /// Not `PROVIDER/MODEL`.
    #[error("`{0}` is no PROVIDER/MODEL")]
    #[diagnostic(help("write it as in openai/house-model; `tracegate prices unpriced` shows both"))]
    Name(String),
    /// No amount that a provider could ask.
    #[error("--{flag} {usd} is no price")]
    #[diagnostic(help("write USD {per}, from 0 to {max}, as in --{flag} 0.15"))]
    Amount {
        /// Which.
        flag: &'static str,
        /// What was given.
        usd: f64,
        /// What it is a price of.
        per: &'static str,
        /// The largest there is.
        max: f64,
    },
    /// The file cannot be read or written.
    #[error("cannot {what} the configuration {}: {cause}", path.display())]
    #[diagnostic(help("name the file that `serve --config` reads"))]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is not right as it stands.
    #[error("the configuration {} cannot be added to: {cause}", path.display())]
    #[diagnostic(help("`tracegate check FILE` shows what is wrong at its line"))]
    Wrong {
        /// File.
        path: PathBuf,
        /// What.
        cause: String,
    },
}

pub(super) fn run(args: &AddArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let (provider, model) = name(&args.model)?;
    let price = price(args)?;
    let before = read(&args.config)?;
    let wrong = |cause: String| AddError::Wrong {
        path: args.config.clone(),
        cause,
    };
    let (after, was_there) = added(before.as_deref().unwrap_or_default(), provider, model, price).map_err(wrong)?;
    write(&args.config, &after).map_err(|cause| AddError::File {
        what: "write",
        path: args.config.clone(),
        cause,
    })?;
    let done = if was_there { "replaced in" } else { "added to" };
    let text = format!(
        "the price of {provider}/{model} is {done} {}; it counts for spans that come after `serve` is started again\n",
        args.config.display()
    );
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn name(given: &str) -> Result<(&str, &str), AddError> {
    let is_name = |part: &str| {
        (1..=NAME_BYTES_MAX).contains(&part.len()) && part.trim() == part && !part.chars().any(char::is_control)
    };
    given
        .split_once('/')
        .filter(|(provider, model)| is_name(provider) && is_name(model))
        .ok_or_else(|| AddError::Name(given.to_owned()))
}

/// Every price in nano-USD, as the configuration has it.
fn price(args: &AddArgs) -> Result<InlineTable, AddError> {
    let per_token = (1e3, TOKEN_NANO_MAX, "per million tokens");
    let given = [
        ("input", Some(args.input), per_token),
        ("output", Some(args.output), per_token),
        ("cache_read", args.cache_read, per_token),
        ("cache_write", args.cache_write, per_token),
        ("reasoning", args.reasoning, per_token),
        ("request", args.request, (1e9, REQUEST_NANO_MAX, "per request")),
    ];
    let mut price = InlineTable::new();
    for (key, usd, (factor, nano_max, per)) in given {
        let Some(usd) = usd else { continue };
        if !(0.0..=nano_max / factor).contains(&usd) {
            let flag = match key {
                "cache_read" => "cache-read",
                "cache_write" => "cache-write",
                other => other,
            };
            return Err(AddError::Amount {
                flag,
                usd,
                per,
                max: nano_max / factor,
            });
        }
        // nine digits are finer than any price, and leave no trace of the decimal's binary form
        let nano = (usd * factor * 1e6).round() / 1e6;
        #[allow(clippy::cast_possible_truncation)]
        let value = if nano.fract() == 0.0 {
            Value::from(nano as i64)
        } else {
            Value::from(nano)
        };
        price.insert(key, value);
    }
    Ok(price)
}

/// The text with the price in it, and whether the model had one there.
fn added(text: &str, provider: &str, model: &str, price: InlineTable) -> Result<(String, bool), String> {
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    let mut at: &mut dyn TableLike = document.as_table_mut();
    for (key, is_header) in [("prices", false), ("provider", false), (provider, true)] {
        let mut table = Table::new();
        table.set_implicit(!is_header);
        at = at
            .entry(key)
            .or_insert(Item::Table(table))
            .as_table_like_mut()
            .ok_or_else(|| format!("`{key}` is not a table"))?;
    }
    let was_there = match at.get_mut(model) {
        // what stands around the old price, such as a remark, stays
        Some(Item::Value(old)) => {
            let decor = old.decor().clone();
            *old = Value::InlineTable(price);
            *old.decor_mut() = decor;
            true
        }
        Some(old) => {
            *old = Item::Value(Value::InlineTable(price));
            true
        }
        None => {
            at.insert(model, Item::Value(Value::InlineTable(price)));
            false
        }
    };
    let after = document.to_string();
    is_usable(&after)?;
    Ok((after, was_there))
}

/// Whether `serve` would take the prices of a text.
fn is_usable(text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Prices {
        prices: PriceList,
    }
    let read: Prices = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    PriceTable::empty().merge(&read.prices).map_err(|e| e.to_string())
}

/// The file's text; `None` if it is the default one and not there.
fn read(path: &Path) -> Result<Option<String>, AddError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && path == Path::new(FILE_DEFAULT) => Ok(None),
        Err(cause) => Err(AddError::File {
            what: "read",
            path: path.to_owned(),
            cause,
        }),
    }
}

/// Whole or not at all: beside the file, then in its place, with its permissions. A link stays a link.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    match std::fs::metadata(&path) {
        Ok(old) => file.as_file().set_permissions(old.permissions())?,
        Err(_) => set_readable(file.as_file())?,
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|e| e.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// A new configuration is no secret: temporary files are the owner's alone.
fn set_readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> InlineTable {
        let mut price = InlineTable::new();
        price.insert("input", Value::from(150));
        price.insert("output", Value::from(600.5));
        price
    }

    #[test]
    fn comments_and_order_stay_whatever_form_the_prices_have() {
        for (before, after) in [
            (
                "",
                "[prices.provider.openai]\nhouse = { input = 150, output = 600.5 }\n",
            ),
            (
                "# ours\n[server] # here\nhttp = \"127.0.0.1:1\"\n",
                "# ours\n[server] # here\nhttp = \"127.0.0.1:1\"\n\n[prices.provider.openai]\nhouse = { input = 150, output = 600.5 }\n",
            ),
            (
                "[prices.provider.openai]\n# bought\nhouse = { input = 1, output = 1 } # until May\nb = { input = 1, output = 1 }\n\n[server]\n",
                "[prices.provider.openai]\n# bought\nhouse = { input = 150, output = 600.5 } # until May\nb = { input = 1, output = 1 }\n\n[server]\n",
            ),
            (
                "prices = { provider = { openai = {} } }\n",
                "prices = { provider = { openai = { house = { input = 150, output = 600.5 } } } }\n",
            ),
            (
                "[prices]\nversion = \"ours\" # 1\n",
                "[prices]\nversion = \"ours\" # 1\n\n[prices.provider.openai]\nhouse = { input = 150, output = 600.5 }\n",
            ),
        ] {
            let (text, was_there) = added(before, "openai", "house", one()).unwrap();
            assert_eq!(text, after);
            assert_eq!(was_there, before.contains("house"));
            let (again, was_there) = added(&text, "openai", "house", one()).unwrap();
            assert!(was_there && again == text, "{again}");
        }
    }

    #[test]
    fn names_with_points_and_quotes_are_quoted() {
        let (text, _) = added("", "x.ai", "grok-\"4\".1", one()).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert!(
            table["prices"]["provider"]["x.ai"].get("grok-\"4\".1").is_some(),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        for before in [
            "[prices]\nprovider = 7\n",
            "prices = 1\n",
            "[[prices]]\n",
            "[broken\n",
            "[prices]\nx = 1\n",
        ] {
            assert!(added(before, "openai", "house", one()).is_err(), "{before}");
        }
        for wrong in ["house", "/house", "openai/", " openai/house", "openai/a\nb"] {
            assert!(matches!(name(wrong), Err(AddError::Name(_))), "{wrong}");
        }
        assert_eq!(name("openai/meta/llama").unwrap(), ("openai", "meta/llama"));
    }
}
