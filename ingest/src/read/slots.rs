//! What has been found for one span: the best value so far of every slot.

use super::{
    check::Pieces,
    keys::{LATE, Use},
    slot::{SLOTS, Slot},
    value::Value,
};

/// The best value seen so far for each slot.
pub(super) struct Slots<'a> {
    pub(super) present: u64,
    values: [Value<'a>; SLOTS],
    ranks: [u8; SLOTS],
    /// What answers and tool calls are checked from.
    pub(super) pieces: Pieces<'a>,
}

impl<'a> Slots<'a> {
    pub(super) const fn new() -> Self {
        Self {
            present: 0,
            values: [Value::Empty; SLOTS],
            ranks: [0; SLOTS],
            pieces: Pieces::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.present = 0;
        self.pieces.clear();
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

    /// Whether the value is of a source that is trusted less than the resource: a guess.
    pub(super) fn is_late(&self, slot: Slot) -> bool {
        self.rank(slot) >= LATE
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
