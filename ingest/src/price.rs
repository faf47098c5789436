//! What a call costs: a versioned table of list prices, and the arithmetic over it.
//!
//! The table is shipped as `prices.toml` (nano-USD per token) and may be overridden from the configuration. Inside,
//! prices are whole **pico**-USD, since a few list prices are fractions of a nano-USD; a cost is rounded once, at the end.
//!
//! ```text
//! cost = uncached x input + cache_read x cache_read price + cache_write x cache_write price
//!      + visible x output + reasoning x reasoning price
//!      + request price
//! uncached = prompt - cache_read - cache_write        visible = completion - reasoning
//! ```
//!
//! Cached tokens are inside prompt tokens and reasoning inside completion tokens. Where a client reports them beside
//! instead (their sum exceeds the whole), nothing is subtracted. A price that is absent falls back: cache_read and
//! cache_write to input, reasoning to output. Above a tier's threshold the whole request has the tier's prices.

mod unpriced;

use hashbrown::HashMap;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

pub use unpriced::{NO_MODEL, OTHER_MODELS, UNPRICED_MAX, Unpriced};

/// The shipped table, as text.
const SHIPPED: &str = include_str!("../prices.toml");

/// Names by which conventions call a provider of the table.
const PROVIDER_ALIASES: &[(&str, &str)] = &[
    ("amazon-bedrock", "bedrock"),
    ("aws", "bedrock"),
    ("aws.bedrock", "bedrock"),
    ("aws_bedrock", "bedrock"),
    ("az.ai.inference", "azure_ai"),
    ("az.ai.openai", "azure"),
    ("azure.ai.inference", "azure_ai"),
    ("azure.ai.openai", "azure"),
    ("azure-openai", "azure"),
    ("azure_openai", "azure"),
    ("bedrock_converse", "bedrock"),
    ("cohere_chat", "cohere"),
    ("fireworks", "fireworks_ai"),
    ("gcp.gemini", "gemini"),
    ("gcp.gen_ai", "gemini"),
    ("gcp.vertex_ai", "vertex_ai"),
    ("google", "gemini"),
    ("google-gla", "gemini"),
    ("google-vertex", "vertex_ai"),
    ("mistral_ai", "mistral"),
    ("mistralai", "mistral"),
    ("together", "together_ai"),
    ("vertex_ai-anthropic_models", "vertex_ai"),
    ("vertex_ai-language-models", "vertex_ai"),
    ("vertexai", "vertex_ai"),
    ("x_ai", "xai"),
    ("x.ai", "xai"),
];

/// Tokens of one call. `None` is unknown, which is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub prompt: Option<i64>,
    /// Completion tokens, reasoning included.
    pub completion: Option<i64>,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: Option<i64>,
    /// Prompt tokens written to the provider's cache.
    pub cache_write: Option<i64>,
    /// Completion tokens spent on reasoning.
    pub reasoning: Option<i64>,
}

/// Prices of one model as they stand in TOML, nano-USD per token; `request` per request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedPrice {
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
    reasoning: Option<f64>,
    request: Option<f64>,
    tier: Option<ListedTier>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedTier {
    above_tokens: i64,
    input: f64,
    output: f64,
    cache_read: Option<f64>,
}

/// Overrides and the shipped table have this form: `version`, then one table a provider, one line a model.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    version: Option<String>,
    #[serde(default)]
    provider: BTreeMap<String, BTreeMap<String, ListedPrice>>,
}

/// Prices of one model, pico-USD per token and per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    plain: Rates,
    tier: Option<(i64, Rates)>,
    request: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    input: i64,
    output: i64,
    cache_read: i64,
    cache_write: i64,
    reasoning: i64,
}

/// Why a price list was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PriceError {
    /// Not the documented form.
    #[error("the price list cannot be read: {0}")]
    Syntax(String),
    /// A price that is no amount of money.
    #[error("the price of `{provider}/{model}` must be a finite number of nano-USD, not negative")]
    Amount {
        /// Provider of the refused entry.
        provider: String,
        /// Model of the refused entry.
        model: String,
    },
}

/// Prices by provider and model, with the version that rows carry.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceTable {
    version: String,
    by_provider: HashMap<String, HashMap<String, Price, ahash::RandomState>, ahash::RandomState>,
    /// The price of a model name whose provider is unknown; `None` where providers ask different prices.
    by_model: HashMap<String, Option<Price>, ahash::RandomState>,
}

static SHIPPED_TABLE: LazyLock<Arc<PriceTable>> = LazyLock::new(|| {
    let mut table = PriceTable::empty();
    match toml::from_str::<PriceList>(SHIPPED) {
        Ok(list) => match table.merge(&list) {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "the shipped price table is not usable"),
        },
        Err(error) => tracing::error!(%error, "the shipped price table is not usable"),
    }
    Arc::new(table)
});

impl PriceTable {
    /// No prices: every call is unpriced.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: "none".to_owned(),
            by_provider: HashMap::default(),
            by_model: HashMap::default(),
        }
    }

    /// The table that comes with the program, parsed once.
    #[must_use]
    pub fn shipped() -> Arc<Self> {
        Arc::clone(&SHIPPED_TABLE)
    }

    /// What `price_version` says of a row priced from this table.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Number of priced (provider, model) pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_provider.values().map(HashMap::len).sum()
    }

    /// Whether nothing has a price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lays a list in the form of `prices.toml` over the table; its version counts from then on, if it has one.
    ///
    /// # Errors
    /// [`PriceError`]; the table is unchanged then.
    pub fn merge_toml(&mut self, text: &str) -> Result<(), PriceError> {
        let list = toml::from_str(text).map_err(|e| PriceError::Syntax(e.to_string()))?;
        self.merge(&list)
    }

    /// Lays a parsed list over the table; see [`Self::merge_toml`].
    ///
    /// # Errors
    /// [`PriceError::Amount`]; the table is unchanged then.
    pub fn merge(&mut self, list: &PriceList) -> Result<(), PriceError> {
        let mut read = Vec::new();
        for (provider, models) in &list.provider {
            for (model, listed) in models {
                let price = listed.price().ok_or_else(|| PriceError::Amount {
                    provider: provider.clone(),
                    model: model.clone(),
                })?;
                read.push((known_provider(provider), model.clone(), price));
            }
        }
        for (provider, model, price) in read {
            self.by_provider.entry(provider).or_default().insert(model, price);
        }
        if let Some(version) = &list.version {
            self.version.clone_from(version);
        }
        self.by_model.clear();
        for (model, &price) in self.by_provider.values().flatten() {
            self.by_model
                .entry_ref(model.as_str())
                .and_modify(|known| *known = known.filter(|&other| other == price))
                .or_insert(Some(price));
        }
        Ok(())
    }

    /// Price of `model`. A model name may carry its provider (`openai/gpt-4o-mini`), a path as Google writes it
    /// (`models/gemini-2.5-flash`) and a trailing date, which falls back to the undated name. Without a provider a name
    /// has a price only if every provider asks the same.
    #[must_use]
    pub fn price(&self, provider: Option<&str>, model: &str) -> Option<&Price> {
        let model = model.trim();
        match provider.map(str::trim).filter(|p| !p.is_empty()) {
            Some(provider) => self.of_provider(provider, model),
            None => dated(model, |name| self.by_model.get(name).and_then(Option::as_ref)).or_else(|| {
                let (provider, name) = model.split_once('/')?;
                self.of_provider(provider, name)
            }),
        }
    }

    fn of_provider(&self, provider: &str, model: &str) -> Option<&Price> {
        let known = known_provider(provider);
        let models = self.by_provider.get(&known)?;
        // a provider may sell a model that has its own name in front: the name without it comes first
        let unprefixed = [known.as_str(), provider]
            .iter()
            .find_map(|prefix| model.strip_prefix(prefix)?.strip_prefix('/'));
        let in_path = model.rsplit_once("models/").map(|(_, name)| name);
        [unprefixed, Some(model), in_path]
            .into_iter()
            .flatten()
            .find_map(|name| dated(name, |name| models.get(name)))
    }

    /// Every priced provider and model, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Price)> {
        let mut all: Vec<_> = self
            .by_provider
            .iter()
            .flat_map(|(provider, models)| models.iter().map(move |(model, price)| (&**provider, &**model, price)))
            .collect();
        all.sort_unstable_by_key(|(provider, model, _)| (*provider, *model));
        all.into_iter()
    }
}

impl Price {
    /// Nano-USD per prompt token, per completion token, per cached token read and written, and per reasoning token.
    #[must_use]
    pub fn per_token(&self) -> [f64; 5] {
        let rates = &self.plain;
        [
            rates.input,
            rates.output,
            rates.cache_read,
            rates.cache_write,
            rates.reasoning,
        ]
        .map(nano)
    }

    /// Nano-USD per request.
    #[must_use]
    pub fn per_request(&self) -> f64 {
        nano(self.request)
    }

    /// Length of a prompt above which other prices count.
    #[must_use]
    pub fn tier_above(&self) -> Option<i64> {
        self.tier.as_ref().map(|(above, _)| *above)
    }

    /// Cost in nano-USD, rounded half up. `None` if a count that has a price is unknown, if nothing is known and nothing
    /// is asked per request, or if the sum is no amount of money.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<i64> {
        if usage.prompt.is_none() && usage.completion.is_none() && self.request == 0 {
            return None;
        }
        let prompt = usage.prompt.or(if self.plain.input == 0 { Some(0) } else { None })?;
        let completion = usage
            .completion
            .or(if self.plain.output == 0 { Some(0) } else { None })?;
        let rates = match &self.tier {
            Some((above, tier)) if prompt > *above => tier,
            _ => &self.plain,
        };
        let (read, written, reasoning) = (
            usage.cache_read.unwrap_or(0),
            usage.cache_write.unwrap_or(0),
            usage.reasoning.unwrap_or(0),
        );
        let cached = read.checked_add(written)?;
        let uncached = if cached <= prompt { prompt - cached } else { prompt };
        let visible = if reasoning <= completion {
            completion - reasoning
        } else {
            completion
        };
        let parts = [
            (uncached, rates.input),
            (read, rates.cache_read),
            (written, rates.cache_write),
            (visible, rates.output),
            (reasoning, rates.reasoning),
        ];
        // 2^63 pico-USD are nine million dollars: a call that costs more is none
        let start = self.request.checked_add(500)?;
        let pico = parts
            .into_iter()
            .try_fold(start, |sum, (tokens, rate)| sum.checked_add(tokens.checked_mul(rate)?))?;
        let nano = pico / 1_000;
        (0..=MONEY_NANO_MAX).contains(&nano).then_some(nano)
    }
}

/// Largest amount that the money columns hold, nano-USD: a billion dollars less one nano-dollar.
pub const MONEY_NANO_MAX: i64 = 999_999_999_999_999_999;

impl ListedPrice {
    fn price(&self) -> Option<Price> {
        let rates = |input: f64, output: f64, cache_read: Option<f64>| {
            Some(Rates {
                input: pico(input, TOKEN_NANO_MAX)?,
                output: pico(output, TOKEN_NANO_MAX)?,
                cache_read: pico(cache_read.unwrap_or(input), TOKEN_NANO_MAX)?,
                cache_write: pico(self.cache_write.unwrap_or(input), TOKEN_NANO_MAX)?,
                reasoning: pico(self.reasoning.unwrap_or(output), TOKEN_NANO_MAX)?,
            })
        };
        let plain = rates(self.input, self.output, self.cache_read)?;
        let tier = match &self.tier {
            Some(tier) => {
                let mut above = rates(tier.input, tier.output, tier.cache_read)?;
                // A tier lists no reasoning price: reasoning is output there, never cheaper than in the plain tier.
                above.reasoning = above.output.max(plain.reasoning);
                above.cache_write = above.cache_write.max(above.input);
                Some((tier.above_tokens, above))
            }
            None => None,
        };
        let request = pico(self.request.unwrap_or(0.0), REQUEST_NANO_MAX)?;
        Some(Price { plain, tier, request })
    }
}

#[allow(clippy::cast_precision_loss)]
fn nano(pico: i64) -> f64 {
    pico as f64 / 1_000.0
}

/// Largest price of a token, nano-USD: one dollar.
pub const TOKEN_NANO_MAX: f64 = 1e9;
/// Largest price of a request, nano-USD: a thousand dollars.
pub const REQUEST_NANO_MAX: f64 = 1e12;

/// Nano-USD as whole pico-USD.
fn pico(nano: f64, max: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation)]
    (nano.is_finite() && (0.0..=max).contains(&nano)).then(|| (nano * 1_000.0).round() as i64)
}

fn known_provider(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    match PROVIDER_ALIASES.iter().find(|(alias, _)| *alias == name) {
        Some((_, provider)) => (*provider).to_owned(),
        None => name,
    }
}

fn dated<'t>(model: &str, find: impl Fn(&str) -> Option<&'t Price>) -> Option<&'t Price> {
    find(model).or_else(|| find(undated(model)?))
}

/// The name without a trailing `-2024-07-18`, `-20240718` or `@20240718`; `None` if there is none.
fn undated(model: &str) -> Option<&str> {
    let bytes = model.as_bytes();
    let digits = |from: usize, to: usize| bytes.get(from..to).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let n = bytes.len();
    if n > 11 && bytes[n - 11] == b'-' && bytes[n - 6] == b'-' && bytes[n - 3] == b'-' {
        let date = digits(n - 10, n - 6) && digits(n - 5, n - 3) && digits(n - 2, n);
        return date.then(|| &model[..n - 11]);
    }
    let short = n > 9 && matches!(bytes[n - 9], b'-' | b'@') && digits(n - 8, n);
    short.then(|| &model[..n - 9])
}

#[cfg(test)]
mod tests;
