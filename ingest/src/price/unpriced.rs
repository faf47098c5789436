//! Models that were called and have no price: by name, so that somebody can give them one.

use hashbrown::HashMap;

/// Names that are counted by themselves.
pub const UNPRICED_MAX: usize = 128;
/// Longest name that is counted by itself, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Stands for the names beyond [`UNPRICED_MAX`], and for those that are too long.
pub const OTHER_MODELS: &str = "__other__";
/// Stands for calls that named no model.
pub const NO_MODEL: &str = "__none__";

/// Calls that used tokens of a model without a price, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unpriced {
    calls: HashMap<Box<str>, u64>,
    others: u64,
}

impl Unpriced {
    /// Counts one call.
    pub fn count(&mut self, model: Option<&[u8]>) {
        let name = match model.map(std::str::from_utf8) {
            None => NO_MODEL,
            Some(Ok(name)) if name.len() <= NAME_BYTES_MAX => name,
            Some(_) => return self.others += 1,
        };
        if let Some(calls) = self.calls.get_mut(name) {
            *calls += 1;
        } else if self.calls.len() < UNPRICED_MAX {
            self.calls.insert(name.into(), 1);
        } else {
            self.others += 1;
        }
    }

    /// Calls by model, by name; last those that are not counted by name, if there are any.
    #[must_use]
    pub fn by_model(&self) -> Vec<(&str, u64)> {
        let mut calls: Vec<(&str, u64)> = self.calls.iter().map(|(name, &n)| (&**name, n)).collect();
        calls.sort_unstable();
        if self.others > 0 {
            calls.push((OTHER_MODELS, self.others));
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_up_to_a_limit_and_then_together() {
        let mut unpriced = Unpriced::default();
        for i in 0..1_000 {
            unpriced.count(Some(format!("model-{i:04}").as_bytes()));
        }
        unpriced.count(Some(b"model-0007"));
        unpriced.count(Some(&[b'x'; 1_000]));
        unpriced.count(Some(b"\xff"));
        let calls = unpriced.by_model();
        assert_eq!(calls.len(), UNPRICED_MAX + 1);
        assert_eq!(calls[7], ("model-0007", 2));
        assert_eq!(calls[UNPRICED_MAX], (OTHER_MODELS, 1_000 - UNPRICED_MAX as u64 + 2));
        let mut nameless = Unpriced::default();
        nameless.count(None);
        assert_eq!(nameless.by_model(), [(NO_MODEL, 1)]);
    }
}
