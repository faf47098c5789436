//! Attribute keys that users add to the built-in sources.

use super::{
    slot::{Slot, Source},
    sources::SOURCES,
};

/// Keys that users may add for one column, or declare as feature flags.
pub const EXTRA_KEYS_MAX: usize = 16;
/// Keys that users may add as content.
pub const CONTENT_KEYS_MAX: usize = 256;

/// Why a key cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtraKeyError {
    /// There is no such column, or nothing on a span fills it.
    #[error("`{0}` is no column that attributes fill")]
    Column(String),
    /// A key without text.
    #[error("a key of `{0}` is empty")]
    Empty(String),
    /// The same key again.
    #[error("`{key}` is there twice: as a key of `{first}` and of `{again}`; one attribute fills one column")]
    Twice {
        /// Key.
        key: String,
        /// Where it stands first.
        first: String,
        /// Where it stands again.
        again: String,
    },
    /// The key is built in, for this column or another.
    #[error("`{key}` is built in already, as a source of `{column}`")]
    BuiltIn {
        /// Key.
        key: String,
        /// What it is a source of.
        column: String,
    },
    /// More keys than one column may have.
    #[error("`{column}` has more than {max} keys")]
    TooMany {
        /// Column.
        column: String,
        /// Limit.
        max: usize,
    },
}

/// Attribute keys that users add to the built-in sources of a column, in order of trust after them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtraKeys {
    columns: Vec<(Slot, Vec<String>)>,
    flags: Vec<String>,
    content: Vec<String>,
}

/// Where keys of feature flags are declared, beside the columns.
pub const FEATURE_FLAG: &str = "feature_flag";
/// Where keys of content are declared, beside the columns.
pub const CONTENT: &str = "content";

fn of_column(column: &str) -> Option<&'static Source> {
    SOURCES
        .iter()
        .find(|source| source.column == Some(column) && !source.keys.is_empty())
}

impl ExtraKeys {
    /// Everything that keys may be added for: columns, [`FEATURE_FLAG`] and [`CONTENT`].
    pub fn names() -> impl Iterator<Item = &'static str> {
        let columns = SOURCES.iter().filter(|source| !source.keys.is_empty());
        columns
            .filter_map(|source| source.column)
            .chain([FEATURE_FLAG, CONTENT])
    }

    /// Adds a source of a column after those it has, declares a feature flag, or names an attribute that is content.
    ///
    /// # Errors
    /// [`ExtraKeyError`]; nothing is added then.
    pub fn add(&mut self, name: &str, key: &str) -> Result<(), ExtraKeyError> {
        let source = of_column(name);
        if source.is_none() && name != FEATURE_FLAG && name != CONTENT {
            return Err(ExtraKeyError::Column(name.to_owned()));
        }
        if key.trim().is_empty() {
            return Err(ExtraKeyError::Empty(name.to_owned()));
        }
        // a flag's key is a value of an attribute and names none
        if name != FEATURE_FLAG {
            self.check_attribute(name, key)?;
        }
        let (list, max) = match source {
            Some(source) => (self.of_slot(source.slot), EXTRA_KEYS_MAX),
            None if name == CONTENT => (&mut self.content, CONTENT_KEYS_MAX),
            None => (&mut self.flags, EXTRA_KEYS_MAX),
        };
        if list.len() >= max {
            return Err(ExtraKeyError::TooMany {
                column: name.to_owned(),
                max,
            });
        }
        if list.iter().any(|known| known == key) {
            return Err(twice(key, name, name));
        }
        list.push(key.to_owned());
        Ok(())
    }

    fn check_attribute(&self, name: &str, key: &str) -> Result<(), ExtraKeyError> {
        let has = |source: &&Source| source.keys.iter().chain(source.late).any(|built_in| *built_in == key);
        // attributes that also help to understand others are named by their column
        let built_in = SOURCES.iter().filter(has).max_by_key(|source| source.column.is_some());
        if let Some(source) = built_in.filter(|source| name != CONTENT || source.column.is_some()) {
            return Err(ExtraKeyError::BuiltIn {
                key: key.to_owned(),
                column: source.column.unwrap_or("other columns").to_owned(),
            });
        }
        let (columns, content) = (self.columns.iter(), self.content.iter());
        let first = columns
            .flat_map(|(slot, keys)| keys.iter().map(move |known| (column_of(*slot), known)))
            .chain(content.map(|known| (CONTENT, known)))
            .find(|(_, known)| *known == key);
        match first {
            Some((first, _)) => Err(twice(key, first, name)),
            None => Ok(()),
        }
    }

    fn of_slot(&mut self, slot: Slot) -> &mut Vec<String> {
        let at = match self.columns.iter().position(|(known, _)| *known == slot) {
            Some(at) => at,
            None => {
                self.columns.push((slot, Vec::new()));
                self.columns.len() - 1
            }
        };
        &mut self.columns[at].1
    }

    /// Added keys by what they fill.
    pub(super) fn by_slot(&self) -> impl Iterator<Item = (Slot, &[String])> {
        self.columns.iter().map(|(slot, keys)| (*slot, keys.as_slice()))
    }

    /// Added keys of one slot.
    pub(super) fn of(&self, slot: Slot) -> &[String] {
        self.by_slot().find(|(of, _)| *of == slot).map_or(&[], |(_, keys)| keys)
    }

    /// Keys of the declared feature flags, the most trusted first.
    pub(super) fn flags(&self) -> &[String] {
        &self.flags
    }

    /// Attributes that are content.
    pub(super) fn content(&self) -> &[String] {
        &self.content
    }
}

fn column_of(slot: Slot) -> &'static str {
    SOURCES
        .iter()
        .find(|source| source.slot == slot)
        .and_then(|source| source.column)
        .unwrap_or_default()
}

fn twice(key: &str, first: &str, again: &str) -> ExtraKeyError {
    ExtraKeyError::Twice {
        key: key.to_owned(),
        first: first.to_owned(),
        again: again.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_meant_are_refused() {
        let mut keys = ExtraKeys::default();
        keys.add("cohort", "customer.tier").unwrap();
        keys.add("prompt_tokens", "acme.tokens.in").unwrap();
        keys.add("feature_flag", "support-chat").unwrap();
        keys.add("content", "acme.question").unwrap();
        let mut refused = |name: &str, key: &str| keys.add(name, key).unwrap_err().to_string();
        assert_eq!(refused("cohorts", "x"), "`cohorts` is no column that attributes fill");
        assert_eq!(refused("trace_id", "x"), "`trace_id` is no column that attributes fill");
        assert_eq!(refused("variant", "x"), "`variant` is no column that attributes fill");
        assert_eq!(refused("cohort", " "), "a key of `cohort` is empty");
        assert_eq!(
            refused("route", "customer.tier"),
            "`customer.tier` is there twice: as a key of `cohort` and of `route`; one attribute fills one column"
        );
        assert_eq!(
            refused("feature_flag", "support-chat"),
            "`support-chat` is there twice: as a key of `feature_flag` and of `feature_flag`; one attribute fills one \
             column"
        );
        assert_eq!(
            refused("route", "release.color"),
            "`release.color` is built in already, as a source of `color`"
        );
        assert_eq!(
            refused("route", "gen_ai.span.kind"),
            "`gen_ai.span.kind` is built in already, as a source of `role`"
        );
        assert_eq!(
            refused("request_model", "hidden_params"),
            "`hidden_params` is built in already, as a source of `other columns`"
        );
        assert_eq!(
            refused("content", "session.id"),
            "`session.id` is built in already, as a source of `session_id`"
        );
    }

    #[test]
    fn a_column_has_so_many_keys_and_no_more() {
        let mut keys = ExtraKeys::default();
        for n in 0..EXTRA_KEYS_MAX {
            keys.add("route", &format!("key.{n}")).unwrap();
        }
        assert_eq!(
            keys.add("route", "one.more").unwrap_err().to_string(),
            "`route` has more than 16 keys"
        );
    }
}
