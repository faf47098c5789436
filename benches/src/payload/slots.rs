//! What is different in every request, as places in encoded bytes: filled anew without encoding anything again.

/// A place in the bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub at: usize,
    pub len: usize,
    pub fill: Fill,
}

/// What goes there. Numbers tell slots of a request apart: equal ones get equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Id of the trace of this number, 16 bytes.
    Trace(u32),
    /// Id of the span of this number, 8 bytes.
    Span(u32),
    /// A time so many nanoseconds ago, fixed64.
    Ago(u64),
    /// Digits and small letters, as in ids that services make.
    Word(u64),
    /// Hexadecimal digits, dashes left alone: a UUID.
    Hex(u64),
    /// A number with as many digits as there is room for, and none in front that is 0.
    Number(u64),
    /// The same number as a varint.
    Varint(u64, u32),
    /// Digits behind a decimal point.
    Digits(u64),
    /// A small amount, a double.
    Amount(u64),
    /// Words of a text.
    Text(u64),
}

impl Slot {
    /// Fills the place; `id` makes numbers that no other request has, `now` is in nanoseconds.
    pub fn fill(&self, bytes: &mut [u8], id: impl Fn(u64) -> u64, now: u64) {
        let into = &mut bytes[self.at..self.at + self.len];
        match self.fill {
            Fill::Trace(trace) => {
                into[..8].copy_from_slice(&id(0).to_be_bytes());
                into[8..].copy_from_slice(&mix(id(u64::from(trace))).to_be_bytes());
            }
            Fill::Span(span) => into.copy_from_slice(&mix(!id(u64::from(span))).to_be_bytes()),
            Fill::Ago(ns) => into.copy_from_slice(&(now - ns).to_le_bytes()),
            Fill::Word(key) => each(into, id(key), |_, random| BASE36[(random % 36) as usize]),
            Fill::Hex(key) => each(into, id(key), |old, random| match old {
                b'-' => old,
                _ => BASE36[(random % 16) as usize],
            }),
            Fill::Number(key) => {
                let number = number(id(key), self.len as u32).to_string();
                into.copy_from_slice(number.as_bytes());
            }
            Fill::Varint(key, digits) => varint(into, number(id(key), digits)),
            Fill::Digits(key) => each(into, id(key), |_, random| BASE36[(random % 10) as usize]),
            Fill::Amount(key) => {
                let amount = (mix(id(key)) % 1_000_000 + 1) as f64 / 1e10;
                into.copy_from_slice(&amount.to_le_bytes());
            }
            Fill::Text(key) => text(into, id(key)),
        }
    }
}

const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn each(into: &mut [u8], seed: u64, new: impl Fn(u8, u64) -> u8) {
    let mut state = seed;
    for byte in into {
        state = mix(state);
        *byte = new(*byte, state >> 32);
    }
}

/// A number of so many digits, whose varint has as many bytes as every other of them: so none of three digits below 128.
fn number(seed: u64, digits: u32) -> u64 {
    let least = if digits == 3 { 128 } else { 10_u64.pow(digits - 1) };
    let beyond = if digits == 5 { 1 << 14 } else { 10_u64.pow(digits) };
    least + mix(seed) % (beyond - least)
}

fn varint(into: &mut [u8], mut value: u64) {
    let last = into.len() - 1;
    for (at, byte) in into.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8 | if at < last { 0x80 } else { 0 };
        value >>= 7;
    }
}

/// Words of made-up syllables: they compress about as text does, not as a few words over and over do.
fn text(into: &mut [u8], seed: u64) {
    let (mut state, mut at) = (seed, 0);
    while at < into.len() {
        state = mix(state);
        let syllable = SYLLABLES[(state >> 32) as usize % SYLLABLES.len()].as_bytes();
        let len = syllable.len().min(into.len() - at);
        into[at..at + len].copy_from_slice(&syllable[..len]);
        at += len;
        if at < into.len() && state.is_multiple_of(2) {
            into[at] = b' ';
            at += 1;
        }
    }
}

/// SplitMix64.
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[rustfmt::skip]
const SYLLABLES: [&str; 32] = [
    "the", "or", "der", "re", "fund", "in", "voice", "ad", "dress", "cus", "to", "mer", "ship", "ment", "de", "liv", "er", "ed",
    "be", "cause", "yes", "day", "of", "pay", "ing", "ly", "con", "firm", "num", "ber", "can", "not",
];
