//! Tokens and money of a call: the sources that need reading of their own, and the price of what was called.

use super::{
    keys::rank_of,
    resolve,
    slot::Slot,
    slots::Slots,
    sources::{COST_DETAILS, USAGE_DETAILS, USAGE_OBJECT},
    value::{BadNumber, Number},
};
use crate::price::{MONEY_NANO_MAX, Price, PriceTable};
use hashbrown::HashMap;

/// Which model was called, by every name that is known.
pub(super) struct Called<'a> {
    pub(super) provider: Option<&'a [u8]>,
    pub(super) request: Option<&'a [u8]>,
    pub(super) response: Option<&'a [u8]>,
    /// What a gateway says it really called, `provider/model`.
    pub(super) really: Option<&'a [u8]>,
}

/// Codes of provider, request model and response model in their columns' dictionaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Names {
    pub(super) provider: u32,
    pub(super) request: u32,
    pub(super) response: u32,
}

/// Stands for the code of a word that a row does not have.
pub(super) const NO_WORD: u32 = u32::MAX;

/// Prices found for the batch being gathered, by dictionary codes: looking one up by name takes longer.
#[derive(Default)]
pub(super) struct PricedCache {
    last: Option<(Names, Option<Price>)>,
    known: HashMap<Names, Option<Price>, ahash::RandomState>,
}

impl PricedCache {
    /// Forgets everything: codes are about to change.
    pub(super) fn clear(&mut self) {
        self.last = None;
        self.known.clear();
    }

    pub(super) fn price(&mut self, prices: &PriceTable, names: Names, called: &Called<'_>) -> Option<Price> {
        let is_coded = |code: u32, text: Option<&[u8]>| (code == NO_WORD) == text.is_none();
        let all_coded = is_coded(names.provider, called.provider)
            && is_coded(names.request, called.request)
            && is_coded(names.response, called.response);
        if called.really.is_some() || !all_coded {
            return find(prices, called);
        }
        if let Some((last, price)) = self.last
            && last == names
        {
            return price;
        }
        let price = *self.known.entry(names).or_insert_with(|| find(prices, called));
        self.last = Some((names, price));
        price
    }
}

/// By what was really called, else by response model, else by request model.
fn find(prices: &PriceTable, called: &Called<'_>) -> Option<Price> {
    let text = |bytes: Option<&'_ [u8]>| bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let provider = text(called.provider);
    let by_name = |model: &str| prices.price(provider.as_deref(), model).copied();
    if let Some(really) = text(called.really) {
        let price = if really.contains('/') {
            prices.price(None, &really).copied()
        } else {
            by_name(&really)
        };
        if price.is_some() {
            return price;
        }
    }
    let of = |model| text(model).and_then(|model| by_name(&model));
    of(called.response).or_else(|| of(called.request))
}

// Sources that are texts with the number somewhere in them.
const CACHE_READ_IN_USAGE: u8 = rank_of(Slot::CacheReadTokens, USAGE_OBJECT);
const REASONING_IN_USAGE: u8 = rank_of(Slot::ReasoningTokens, USAGE_OBJECT);
const PROMPT_IN_DETAILS: u8 = rank_of(Slot::PromptTokens, USAGE_DETAILS);
const COMPLETION_IN_DETAILS: u8 = rank_of(Slot::CompletionTokens, USAGE_DETAILS);
const COST_IN_DETAILS: u8 = rank_of(Slot::EmitterCost, COST_DETAILS);

/// A count of tokens, `None` if no source has one.
pub(super) fn token_count(slots: &Slots<'_>, slot: Slot) -> Option<Number<i64>> {
    let value = slots.get(slot)?;
    let rank = slots.rank(slot);
    let in_usage = match slot {
        Slot::CacheReadTokens if rank == CACHE_READ_IN_USAGE => "cached_tokens",
        Slot::ReasoningTokens if rank == REASONING_IN_USAGE => "reasoning_tokens",
        Slot::PromptTokens if rank == PROMPT_IN_DETAILS => "input",
        Slot::CompletionTokens if rank == COMPLETION_IN_DETAILS => "output",
        _ => return Some(value.count()),
    };
    Some(resolve::usage_number(value.text()?, in_usage)?.count())
}

/// The emitter's total in nano-USD, `None` if it says none.
pub(super) fn emitter_cost(slots: &Slots<'_>) -> Option<Number<i64>> {
    let value = match slots.get(Slot::EmitterCost) {
        Some(value) if slots.rank(Slot::EmitterCost) == COST_IN_DETAILS => {
            resolve::json_number(value.text()?, "total")?
        }
        Some(value) => value,
        None => resolve::json_number(slots.text(Slot::HiddenParams)?, "response_cost")?,
    };
    Some(value.amount().and_then(|usd| {
        let nano = (usd * 1e9).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        if nano < MONEY_NANO_MAX as f64 {
            Ok(nano as i64)
        } else {
            Err(BadNumber::OutOfRange)
        }
    }))
}
