//! From an attribute's key to what it means: one lookup in a small open-addressing table.
//!
//! The table holds every key of `sources` and of the configuration. Keys it does not know are judged once by the
//! content rules and then remembered, up to a limit, so that a span's attributes cost one hash and one comparison each.

use super::{
    ExtraKeys, annotation,
    resolve::json_text,
    sources::{
        COHORT_PREFIXES, CONTENT_KEYS, CONTENT_PREFIXES, FIRST_TOKEN_EVENT, Place, RAW_CONTENT_FIELDS, SLOTS, SOURCES,
        Slot,
    },
    value::Value,
};

/// Slots that one key may fill.
const USES_MAX: usize = 3;
/// Unknown keys that are remembered.
const LEARNED_MAX: usize = 1_024;
/// Cells of the table; a power of two, and sparse even when all that can be learned is.
const CELLS: usize = 1 << 12;
/// Cells looked at before a key counts as unknown: bounds the cost of keys made to collide.
const PROBES_MAX: usize = 8;

/// Rank of the first configured key of a slot; built-in keys come before.
const CONFIGURED: u8 = 32;
/// Rank of the first key looked up on the resource.
const ON_RESOURCE: u8 = 96;
/// Rank of the first key looked up in the resource's `metadata`.
const IN_METADATA: u8 = ON_RESOURCE + CONFIGURED / 2;
/// Rank of the first key that is trusted less than the resource.
const LATE: u8 = 224;

/// One slot a key fills, and how far down in its order of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) slot: Slot,
    pub(super) rank: u8,
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The value is content: prompts, outputs, tool arguments.
    pub(super) content: bool,
    /// The value is part of an evaluation.
    pub(super) judges: bool,
    uses: [Use; USES_MAX],
    used: u8,
}

impl Meaning {
    const fn nothing(content: bool) -> Self {
        Self {
            content,
            judges: false,
            uses: [Use {
                slot: Slot::Role,
                rank: 0,
            }; USES_MAX],
            used: 0,
        }
    }

    #[inline]
    pub(super) fn uses(&self) -> &[Use] {
        &self.uses[..usize::from(self.used)]
    }

    fn add(&mut self, slot: Slot, rank: u8) {
        if usize::from(self.used) < USES_MAX {
            self.uses[usize::from(self.used)] = Use { slot, rank };
            self.used += 1;
        }
    }
}

struct Entry {
    print: Print,
    meaning: Meaning,
    key: Box<[u8]>,
}

impl Entry {
    #[inline]
    fn is(&self, key: &[u8], print: &Print) -> bool {
        self.print.is(print) && (print.len <= PRINTED_MAX || *self.key == *key)
    }
}

/// Meanings by key.
pub(super) struct KeyTable {
    /// Index into `entries` plus one; zero is empty.
    cells: Box<[u16]>,
    entries: Vec<Entry>,
    learned: usize,
    /// Content keys of the configuration.
    content: Vec<Box<[u8]>>,
}

/// Three words of a key and its length. They cover a key of 8 to 24 bytes whole.
#[derive(Debug, Clone, Copy)]
struct Print {
    front: u64,
    middle: u64,
    back: u64,
    len: usize,
}

/// Longest key that its print covers, bytes.
const PRINTED_MAX: usize = 24;

impl Print {
    #[inline]
    fn of(key: &[u8]) -> Self {
        let load = |at: usize| {
            let eight = key.get(at..at + 8).and_then(<[u8]>::first_chunk);
            eight.map_or(0, |&eight| u64::from_le_bytes(eight))
        };
        let len = key.len();
        let (front, middle, back) = if len >= 8 {
            (load(0), load(len / 2 - 4), load(len - 8))
        } else {
            let mut eight = [0; 8];
            eight[..len].copy_from_slice(key);
            (u64::from_le_bytes(eight), 0, 0)
        };
        Self {
            front,
            middle,
            back,
            len,
        }
    }

    /// Word by word: compared as one block, the words would first have to reach memory.
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let words = self.front ^ other.front | self.middle ^ other.middle | self.back ^ other.back;
        words == 0 && self.len == other.len
    }

    #[inline]
    fn cell(&self) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let ends = self.front ^ self.middle.rotate_left(41) ^ self.back.rotate_left(23);
        let mixed = ends ^ self.len as u64;
        #[allow(clippy::cast_possible_truncation)]
        let high = (mixed.wrapping_mul(ODD) >> 32) as usize;
        high & (CELLS - 1)
    }
}

impl KeyTable {
    /// Keys of spans.
    pub(super) fn of_spans(extra: &ExtraKeys) -> Self {
        let mut table = Self::new(extra);
        for source in SOURCES.iter().filter(|s| s.place != Place::Resource) {
            table.add_all(source.slot, 0, source.keys);
            table.add_all(source.slot, LATE, source.late);
        }
        for (slot, keys) in extra.by_slot() {
            table.add_all(slot, CONFIGURED, keys);
        }
        for prefix in COHORT_PREFIXES {
            let copies: Vec<String> = extra.cohort.iter().map(|key| format!("{prefix}{key}")).collect();
            table.add_all(Slot::Cohort, LATE + 2, &copies);
        }
        table
    }

    /// Keys of resources. Their ranks come after those of the span's own keys.
    pub(super) fn of_resources(extra: &ExtraKeys) -> Self {
        let mut table = Self::new(extra);
        for source in SOURCES.iter().filter(|s| s.place != Place::Span) {
            table.add_all(source.slot, ON_RESOURCE, source.keys);
        }
        for (slot, keys) in extra.by_slot() {
            table.add_all(slot, ON_RESOURCE + CONFIGURED, keys);
        }
        table
    }

    fn new(extra: &ExtraKeys) -> Self {
        let mut table = Self {
            cells: vec![0; CELLS].into(),
            entries: Vec::new(),
            learned: 0,
            content: extra.content.iter().map(|key| key.as_bytes().into()).collect(),
        };
        for key in CONTENT_KEYS
            .iter()
            .copied()
            .chain(extra.content.iter().map(String::as_str))
        {
            table.insert(key.as_bytes(), Meaning::nothing(true));
        }
        // a source is content only by name, never by how it starts
        for key in SOURCES.iter().flat_map(|source| source.keys.iter().chain(source.late)) {
            if table.find(key.as_bytes()).is_none() {
                table.insert(key.as_bytes(), Meaning::nothing(false));
            }
        }
        table
    }

    fn add_all<S: AsRef<str>>(&mut self, slot: Slot, rank: u8, keys: &[S]) {
        let room = if rank >= LATE {
            u8::MAX - rank
        } else {
            ON_RESOURCE - CONFIGURED
        };
        for (i, key) in (0..room).zip(keys) {
            if key.as_ref() == FIRST_TOKEN_EVENT {
                continue;
            }
            let key = key.as_ref().as_bytes();
            match self.find(key) {
                Some(entry) => self.entries[entry].meaning.add(slot, rank + i),
                None => {
                    let mut meaning = Meaning::nothing(false);
                    meaning.add(slot, rank + i);
                    self.insert(key, meaning);
                }
            }
        }
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<usize> {
        let print = Print::of(key);
        let mut cell = print.cell();
        for _ in 0..PROBES_MAX {
            let entry = usize::from(self.cells[cell]).checked_sub(1)?;
            if self.entries[entry].is(key, &print) {
                return Some(entry);
            }
            cell = (cell + 1) & (CELLS - 1);
        }
        None
    }

    /// False if the key's neighbourhood is full; it then stays unknown.
    fn insert(&mut self, key: &[u8], meaning: Meaning) -> bool {
        let print = Print::of(key);
        let mut cell = print.cell();
        for _ in 0..PROBES_MAX {
            if self.cells[cell] == 0 {
                self.entries.push(Entry {
                    print,
                    meaning,
                    key: key.into(),
                });
                self.cells[cell] = u16::try_from(self.entries.len()).unwrap_or(0);
                return true;
            }
            cell = (cell + 1) & (CELLS - 1);
        }
        false
    }

    /// What a key means.
    #[inline]
    pub(super) fn meaning(&mut self, key: &[u8]) -> Meaning {
        match self.find(key) {
            Some(entry) => self.entries[entry].meaning,
            None => self.learn(key),
        }
    }

    #[cold]
    fn learn(&mut self, key: &[u8]) -> Meaning {
        let mut meaning = Meaning::nothing(self.is_content(key));
        meaning.judges = annotation::part(key).is_some();
        if self.learned < LEARNED_MAX && self.insert(key, meaning) {
            self.learned += 1;
        }
        meaning
    }

    fn is_content(&self, key: &[u8]) -> bool {
        CONTENT_PREFIXES.iter().any(|prefix| key.starts_with(prefix.as_bytes()))
            || self.content.iter().any(|content| **content == *key)
            || is_raw_content(key)
    }
}

/// `llm.<provider>.<field>` with a field of [`RAW_CONTENT_FIELDS`].
fn is_raw_content(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(b"llm.") else {
        return false;
    };
    let mut parts = rest.split(|&byte| byte == b'.').skip(1);
    parts
        .next()
        .is_some_and(|field| RAW_CONTENT_FIELDS.iter().any(|content| content.as_bytes() == field))
}

/// The best value seen so far for each slot.
pub(super) struct Slots<'a> {
    pub(super) present: u64,
    values: [Value<'a>; SLOTS],
    ranks: [u8; SLOTS],
}

impl<'a> Slots<'a> {
    pub(super) const fn new() -> Self {
        Self {
            present: 0,
            values: [Value::Empty; SLOTS],
            ranks: [0; SLOTS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.present = 0;
    }

    #[inline]
    pub(super) fn offer(&mut self, of: Use, value: Value<'a>) {
        let at = of.slot as usize;
        if value.says_something() && (self.present & 1 << at == 0 || of.rank < self.ranks[at]) {
            self.present |= 1 << at;
            self.values[at] = value;
            self.ranks[at] = of.rank;
        }
    }

    #[inline]
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.present & 1 << slot as usize != 0
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<Value<'a>> {
        self.has(slot).then(|| self.values[slot as usize])
    }

    #[inline]
    pub(super) fn text(&self, slot: Slot) -> Option<&'a [u8]> {
        self.get(slot)?.text()
    }

    /// Rank of the value that [`Self::get`] returns.
    pub(super) fn rank(&self, slot: Slot) -> u8 {
        self.ranks[slot as usize]
    }

    /// Offers everything that another set holds.
    #[inline]
    pub(super) fn offer_all(&mut self, other: &Self) {
        let mut left = other.present;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.present & 1 << at == 0 || other.ranks[at] < self.ranks[at] {
                self.present |= 1 << at;
                self.values[at] = other.values[at];
                self.ranks[at] = other.ranks[at];
            }
        }
    }
}

/// Offers the stamps that traceAI puts into the JSON text of a resource's `metadata`.
pub(super) fn offer_stamps<'a>(metadata: &'a [u8], slots: &mut Slots<'a>) {
    let stamps = [Slot::Route, Slot::Color, Slot::Version, Slot::Cohort];
    for source in SOURCES.iter().filter(|s| stamps.contains(&s.slot)) {
        for (rank, key) in (IN_METADATA..).zip(source.keys) {
            if let Some(text) = json_text(metadata, key) {
                let slot = source.slot;
                slots.offer(Use { slot, rank }, Value::Text(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_found_with_its_slot_and_rank() {
        let extra = ExtraKeys {
            route: vec!["app.route".into()],
            cohort: vec!["customer.tier".into()],
            ..ExtraKeys::default()
        };
        let mut table = KeyTable::of_spans(&extra);
        for source in SOURCES.iter().filter(|s| s.place != Place::Resource) {
            let keys = source.keys.iter().enumerate();
            for (i, key) in keys.filter(|(_, key)| **key != FIRST_TOKEN_EVENT) {
                let rank = u8::try_from(i).unwrap();
                assert!(
                    table.meaning(key.as_bytes()).uses().contains(&Use {
                        slot: source.slot,
                        rank
                    }),
                    "{key}"
                );
            }
        }
        assert_eq!(
            table.meaning(b"app.route").uses(),
            [Use {
                slot: Slot::Route,
                rank: CONFIGURED
            }]
        );
        assert_eq!(table.meaning(b"litellm.model_group").uses()[0].rank, LATE);
        assert_eq!(
            table.meaning(b"traceloop.association.properties.customer.tier").uses()[0].slot,
            Slot::Cohort
        );
        let mut resource = KeyTable::of_resources(&extra);
        assert_eq!(
            resource.meaning(b"gateway.route.color").uses(),
            [Use {
                slot: Slot::Color,
                rank: ON_RESOURCE
            }]
        );
        assert!(resource.meaning(b"gen_ai.request.model").uses().is_empty());
    }

    #[test]
    fn content_is_known_by_name_prefix_and_raw_field() {
        let extra = ExtraKeys {
            content: vec!["acme.question".into()],
            ..ExtraKeys::default()
        };
        let mut table = KeyTable::of_spans(&extra);
        for key in [
            "input.value",
            "gen_ai.prompt.0.content",
            "llm.input_messages.0.message.content",
            "llm.openai.messages",
            "llm.anthropic.system",
            "acme.question",
        ] {
            for _ in 0..2 {
                assert!(table.meaning(key.as_bytes()).content, "{key}");
            }
        }
        for key in [
            "gen_ai.prompt.name",
            "gen_ai.prompt.template.version",
            "llm.openai.model",
            "llm.token_count.prompt",
            "",
        ] {
            assert!(!table.meaning(key.as_bytes()).content, "{key}");
        }
    }

    #[test]
    fn a_flood_of_new_keys_neither_grows_nor_confuses_the_table() {
        let mut table = KeyTable::of_spans(&ExtraKeys::default());
        let known = table.entries.len();
        for i in 0..100_000 {
            assert!(table.meaning(format!("key.{i}").as_bytes()).uses().is_empty());
        }
        assert!(table.entries.len() <= known + LEARNED_MAX);
        assert_eq!(table.meaning(b"gateway.route.color").uses()[0].slot, Slot::Color);
    }

    #[test]
    fn the_first_of_equal_trust_stays() {
        let mut slots = Slots::new();
        let at = |rank| Use {
            slot: Slot::Route,
            rank,
        };
        slots.offer(at(1), Value::Text(b"late"));
        slots.offer(at(1), Value::Text(b"twice"));
        assert_eq!(slots.text(Slot::Route), Some(&b"late"[..]));
        slots.offer(at(0), Value::Text(b""));
        slots.offer(at(0), Value::Text(b"best"));
        assert_eq!(slots.text(Slot::Route), Some(&b"best"[..]));
    }
}
