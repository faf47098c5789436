//! From an attribute's key to what it means: one lookup in a small open-addressing table.
//!
//! The table holds every key of `sources` and of the configuration. Keys it does not know are judged once by the
//! content rules and then remembered, up to a limit, so that a span's attributes cost one hash and one comparison each.

use super::{
    annotation,
    check::Piece,
    content_keys::{CONTENT_KEYS, CONTENT_PREFIXES, CONTENT_WORDS, ERROR_TEXT_KEYS, RAW_CONTENT_FIELDS},
    entries::Key,
    extra::{EXTRA_KEYS_MAX, ExtraKeys},
    messages,
    slot::{Place, Slot, Source},
    sources::{COHORT_PREFIXES, FIRST_TOKEN_EVENT, SOURCES},
};

/// Slots that one key may fill.
const USES_MAX: usize = 3;
/// Longest unknown key that is remembered, bytes.
const LEARNED_BYTES_MAX: usize = 256;
/// Unknown keys that are remembered.
pub(super) const LEARNED_MAX: usize = 1_024;
/// Cells of the table; a power of two, and sparse even when all that can be learned is.
const CELLS: usize = 1 << 12;
/// Cells looked at before a key counts as unknown: bounds the cost of keys made to collide.
const PROBES_MAX: usize = 8;

/// Rank of the first configured key of a slot; built-in keys come before.
pub(super) const CONFIGURED: u8 = 32;
/// Rank of a feature flag's variant as a color: after everything else on the span.
pub(super) const FLAGGED: u8 = ON_RESOURCE - 1;
/// Rank of the first key looked up on the resource.
pub(super) const ON_RESOURCE: u8 = 64;
/// Rank of the first key looked up in the resource's `metadata`.
pub(super) const IN_METADATA: u8 = ON_RESOURCE + CONFIGURED / 2;
/// Rank of the first configured key looked up in the resource's `metadata`.
pub(super) const CONFIGURED_IN_METADATA: u8 = IN_METADATA + CONFIGURED;
/// Rank of the first key that is trusted less than the resource.
pub(super) const LATE: u8 = 128;
const _: () = assert!(
    EXTRA_KEYS_MAX <= 16,
    "configured keys of the resource end where those in its metadata begin"
);

/// Rank of a built-in key. A key that is not listed does not compile where the rank is a constant.
pub(super) const fn rank_of(slot: Slot, key: &str) -> u8 {
    let mut at = 0;
    while at < SOURCES.len() {
        let keys = SOURCES[at].keys;
        let mut rank = 0;
        while SOURCES[at].slot as u8 == slot as u8 && rank < keys.len() {
            if is_same(keys[rank].as_bytes(), key.as_bytes()) {
                #[allow(clippy::cast_possible_truncation)]
                return rank as u8;
            }
            rank += 1;
        }
        at += 1;
    }
    panic!("the slot has no such source")
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// One slot a key fills, and how far down in its order of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) slot: Slot,
    pub(super) rank: u8,
}

impl Use {
    /// Of a built-in key.
    pub(super) const fn of(slot: Slot, key: &str) -> Self {
        let rank = rank_of(slot, key);
        Self { slot, rank }
    }
}

/// Whether a value is content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    No,
    /// If it is a text or holds others: known only by the word its key ends in.
    Perhaps,
    Yes,
    /// The text of an error, which may quote content.
    ErrorText,
}

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The value is content: prompts, outputs, tool arguments.
    pub(super) content: Content,
    /// The value is part of an evaluation.
    pub(super) judges: bool,
    /// The value is part of a numbered message.
    pub(super) message: bool,
    /// The value is needed to check answers and tool calls.
    pub(super) piece: Option<Piece>,
    /// Number of the key in its table; zero if it is not remembered there.
    number: u16,
    uses: [Use; USES_MAX],
    used: u8,
}

impl Meaning {
    const fn nothing(content: Content) -> Self {
        Self {
            content,
            judges: false,
            message: false,
            piece: None,
            number: 0,
            uses: [Use {
                slot: Slot::Role,
                rank: 0,
            }; USES_MAX],
            used: 0,
        }
    }

    /// The key that this is the meaning of.
    #[inline]
    pub(super) const fn key<'a>(&self, text: &'a [u8]) -> Key<'a> {
        Key {
            text,
            number: self.number,
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

pub(super) struct Entry {
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
    pub(super) entries: Vec<Entry>,
    learned: usize,
    /// Whether its keys are those of spans, whose answers and tool calls are checked.
    gathers: bool,
    /// Whether the word a key ends in tells anything: on resources it names hosts and processes.
    by_word: bool,
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
        let mut table = Self::new(extra, true);
        for source in SOURCES.iter().filter(|s| s.place != Place::Resource) {
            table.add_all(source.slot, 0, source.keys);
            table.add_all(source.slot, LATE, source.late);
        }
        for (slot, keys) in extra.by_slot() {
            table.add_all(slot, CONFIGURED, keys);
        }
        let mut rank = LATE;
        for source in SOURCES.iter().filter(|s| s.slot == Slot::Cohort) {
            rank += rank_after(source.late);
            let keys = source
                .keys
                .iter()
                .copied()
                .chain(extra.of(Slot::Cohort).iter().map(String::as_str));
            for key in keys {
                let copies = COHORT_PREFIXES.map(|prefix| format!("{prefix}{key}"));
                table.add_all(Slot::Cohort, rank, &copies);
                rank = rank.saturating_add(rank_after(&copies));
            }
        }
        for entry in &mut table.entries {
            entry.meaning.piece = Piece::of(&entry.key);
        }
        table.gathers = true;
        table
    }

    /// Keys of resources. Their ranks come after those of the span's own keys.
    pub(super) fn of_resources(extra: &ExtraKeys) -> Self {
        let mut table = Self::new(extra, false);
        let is_looked_up = |s: &&Source| s.place != Place::Span;
        for source in SOURCES.iter().filter(is_looked_up) {
            table.add_all(source.slot, ON_RESOURCE, source.keys);
            table.add_all(source.slot, ON_RESOURCE + CONFIGURED, extra.of(source.slot));
        }
        table
    }

    fn new(extra: &ExtraKeys, by_word: bool) -> Self {
        let mut table = Self {
            cells: vec![0; CELLS].into(),
            entries: Vec::new(),
            learned: 0,
            gathers: false,
            by_word,
        };
        let own = extra.content().iter().map(String::as_str);
        let texts = [Slot::Input, Slot::Output];
        let texts = texts.iter().flat_map(|&slot| extra.of(slot)).map(String::as_str);
        for key in CONTENT_KEYS.iter().copied().chain(own).chain(texts) {
            table.name(key, Content::Yes);
        }
        for key in ERROR_TEXT_KEYS {
            table.name(key, Content::ErrorText);
        }
        // a source is content only by name, never by how it starts or ends
        for key in SOURCES.iter().flat_map(|source| source.keys.iter().chain(source.late)) {
            table.name(key, Content::No);
        }
        table
    }

    /// Makes a key known, if it is not yet.
    fn name(&mut self, key: &str, content: Content) {
        if self.find(key.as_bytes()).is_none() {
            self.insert(key.as_bytes(), Meaning::nothing(content));
        }
    }

    fn add_all<S: AsRef<str>>(&mut self, slot: Slot, rank: u8, keys: &[S]) {
        for (rank, key) in (rank..=u8::MAX).zip(keys) {
            if key.as_ref() == FIRST_TOKEN_EVENT {
                continue;
            }
            let key = key.as_ref().as_bytes();
            match self.find(key) {
                Some(entry) => self.entries[entry].meaning.add(slot, rank),
                None => {
                    let mut meaning = Meaning::nothing(Content::No);
                    meaning.add(slot, rank);
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
                let number = u16::try_from(self.entries.len() + 1).unwrap_or(0);
                self.entries.push(Entry {
                    print,
                    meaning: Meaning { number, ..meaning },
                    key: key.into(),
                });
                self.cells[cell] = number;
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
        let mut meaning = Meaning::nothing(self.content(key));
        meaning.judges = annotation::part(key).is_some();
        meaning.message = messages::is_piece(key);
        if self.gathers {
            meaning.piece = Piece::of(key);
        }
        // a long key is judged each time: what is remembered is remembered for good
        let is_short = key.len() <= LEARNED_BYTES_MAX;
        if is_short && self.learned < LEARNED_MAX && self.insert(key, meaning) {
            self.learned += 1;
        }
        meaning
    }

    fn content(&self, key: &[u8]) -> Content {
        if CONTENT_PREFIXES.iter().any(|prefix| key.starts_with(prefix.as_bytes())) || is_raw_content(key) {
            Content::Yes
        } else if self.by_word && ends_in_content_word(key) {
            Content::Perhaps
        } else {
            Content::No
        }
    }
}

/// Ranks that a list takes.
fn rank_after<S>(keys: &[S]) -> u8 {
    u8::try_from(keys.len()).unwrap_or(u8::MAX)
}

/// Whether the last word of a key that is no number is one of [`CONTENT_WORDS`].
fn ends_in_content_word(key: &[u8]) -> bool {
    let mut words = key.rsplit(|byte| b"._-".contains(byte));
    words
        .find(|word| !word.iter().all(u8::is_ascii_digit))
        .is_some_and(|last| {
            CONTENT_WORDS
                .iter()
                .any(|word| last.eq_ignore_ascii_case(word.as_bytes()))
        })
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
