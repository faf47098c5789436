//! Typed reads from a parsed TOML table that remember where each value stands and collect every complaint.
//!
//! Serde stops at its first error and forgets spans; people who write a release file want all mistakes at once, each at
//! its line. So the tree is walked by hand.

use super::{Problem, nearest::nearest};
use std::{cell::RefCell, ops::Range, time::Duration};
use toml::de::{DeTable, DeValue};

/// Longest duration: sums of a few cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(3_653 * 86_400);

/// Where complaints about one file gather.
pub(super) struct Notes {
    file: String,
    list: RefCell<Vec<Problem>>,
}

impl Notes {
    pub(super) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            list: RefCell::default(),
        }
    }

    pub(super) fn say(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem {
            file: self.file.clone(),
            span,
            message: message.into(),
            help: help.into(),
        };
        let mut list = self.list.borrow_mut();
        // a bad default is met again by every release that inherits it
        if !list.contains(&problem) {
            list.push(problem);
        }
    }

    pub(super) fn into_list(self) -> Vec<Problem> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|p| (p.span.start, p.span.end));
        list
    }
}

/// A value and the bytes it stands at.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// One table of the file.
#[derive(Clone)]
pub(super) struct Fields<'t> {
    table: &'t DeTable<'t>,
    /// The header, for complaints about what is missing.
    pub span: Range<usize>,
    pub notes: &'t Notes,
    /// How messages call it, `release "chat-2"`.
    pub called: String,
}

impl<'t> Fields<'t> {
    pub(super) fn new(table: &'t DeTable<'t>, span: Range<usize>, notes: &'t Notes, called: impl Into<String>) -> Self {
        Self {
            table,
            span,
            notes,
            called: called.into(),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    pub(super) fn is_list(&self, key: &str) -> bool {
        self.raw(key).is_some_and(|(v, _)| v.is_array())
    }

    /// Whether `key` is `true`; what else it may be is not complained about here.
    pub(super) fn is_true(&self, key: &str) -> bool {
        self.raw(key).is_some_and(|(v, _)| v.as_bool() == Some(true))
    }

    fn raw(&self, key: &str) -> Option<(&'t DeValue<'t>, Range<usize>)> {
        self.table
            .iter()
            .find(|(k, _)| k.get_ref() == key)
            .map(|(_, v)| (v.get_ref(), v.span()))
    }

    /// Where the value of `key` stands, else the header.
    pub(super) fn at(&self, key: &str) -> Range<usize> {
        self.raw(key).map_or_else(|| self.span.clone(), |(_, span)| span)
    }

    fn wrong<T>(&self, key: &str, span: Range<usize>, found: &DeValue<'_>, wanted: &str) -> Option<T> {
        self.notes.say(
            span,
            format!(
                "`{key}` of {} is {}, not {wanted}",
                self.called,
                article(found.type_str())
            ),
            format!("write `{key}` as {wanted}"),
        );
        None
    }

    pub(super) fn text(&self, key: &str) -> Option<At<String>> {
        let (value, span) = self.raw(key)?;
        match value.as_str() {
            Some(text) if !text.trim().is_empty() => Some(At {
                value: text.to_owned(),
                span,
            }),
            Some(_) => {
                self.notes.say(
                    span,
                    format!("`{key}` of {} is empty", self.called),
                    format!("give `{key}` a value, or remove the line"),
                );
                None
            }
            None => self.wrong(key, span, value, "a text in quotes"),
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<At<f64>> {
        let (value, span) = self.raw(key)?;
        let read = match value {
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(|i| i as f64),
            DeValue::Float(f) => f.as_str().parse::<f64>().ok(),
            _ => return self.wrong(key, span, value, "a number"),
        };
        match read.filter(|v| v.is_finite()) {
            Some(value) => Some(At { value, span }),
            None => self.wrong(key, span, value, "a finite number"),
        }
    }

    pub(super) fn whole(&self, key: &str) -> Option<At<u64>> {
        let (value, span) = self.raw(key)?;
        match value {
            DeValue::Integer(i) => match u64::from_str_radix(i.as_str(), i.radix()) {
                Ok(value) => Some(At { value, span }),
                Err(_) => self.wrong(key, span, value, "a whole number from 0"),
            },
            _ => self.wrong(key, span, value, "a whole number from 0"),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<At<bool>> {
        let (value, span) = self.raw(key)?;
        match value.as_bool() {
            Some(value) => Some(At { value, span }),
            None => self.wrong(key, span, value, "true or false"),
        }
    }

    pub(super) fn duration(&self, key: &str) -> Option<At<Duration>> {
        let (value, span) = self.raw(key)?;
        let Some(text) = value.as_str() else {
            return self.wrong(key, span, value, "a duration such as \"90s\" or \"1h 30m\"");
        };
        match humantime::parse_duration(text) {
            Ok(value) if value > DURATION_MAX => {
                self.notes.say(
                    span,
                    format!("`{key}` of {} is longer than ten years", self.called),
                    "nobody waits that long: shorten it",
                );
                None
            }
            Ok(value) => Some(At { value, span }),
            Err(e) => {
                self.notes.say(
                    span,
                    format!("`{key}` of {} is no duration: {e}", self.called),
                    "write durations as \"500ms\", \"90s\", \"1h 30m\" or \"7d\"",
                );
                None
            }
        }
    }

    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let At { value, span } = self.text(key)?;
        if let Some(&(_, choice)) = words.iter().find(|(word, _)| *word == value) {
            return Some(At { value: choice, span });
        }
        let all: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        self.notes.say(
            span,
            format!("`{key}` of {} cannot be `{value}`", self.called),
            did_you_mean(&value, &all, &format!("choose one of {}", listed(&all))),
        );
        None
    }

    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let (value, span) = self.raw(key)?;
        let Some(array) = value.as_array() else {
            return self.wrong(key, span, value, "a list of texts, [\"a\", \"b\"]");
        };
        let mut out = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => out.push(text.to_owned()),
                None => {
                    self.wrong::<()>(key, item.span(), item.get_ref(), "a list of texts");
                }
            }
        }
        Some(out)
    }

    pub(super) fn sub(&self, key: &str, called: impl Into<String>) -> Option<Fields<'t>> {
        let (value, span) = self.raw(key)?;
        match value.as_table() {
            Some(table) => Some(Self::new(table, span, self.notes, called)),
            None => self.wrong(key, span, value, "a table"),
        }
    }

    /// The tables of an array of tables (or of inline tables).
    pub(super) fn subs(&self, key: &str, called: &str) -> Vec<Fields<'t>> {
        let Some((value, span)) = self.raw(key) else {
            return Vec::new();
        };
        let Some(array) = value.as_array() else {
            self.wrong::<()>(key, span, value, &format!("a list of tables, written [[{key}]]"));
            return Vec::new();
        };
        let mut out = Vec::with_capacity(array.len());
        for (i, item) in array.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => out.push(Self::new(table, item.span(), self.notes, format!("{called} {}", i + 1))),
                None => {
                    self.wrong::<()>(key, item.span(), item.get_ref(), "a list of tables");
                }
            }
        }
        out
    }

    /// Complains about keys that nobody reads.
    pub(super) fn only(&self, known: &[&str]) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                self.notes.say(
                    key.span(),
                    format!("unknown key `{name}` in {}", self.called),
                    did_you_mean(name, known, &format!("the keys are {}", listed(known))),
                );
            }
        }
    }

    /// Complains that `keys` are missing, in one breath.
    pub(super) fn missing(&self, keys: &[&str], help: &str) {
        if !keys.is_empty() {
            self.notes.say(
                self.span.clone(),
                format!("{} lacks {}", self.called, listed(keys)),
                help,
            );
        }
    }
}

/// `a`, `b` and `c`.
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// `did you mean ...?` if something is near, else `otherwise`.
pub(super) fn did_you_mean(word: &str, known: &[&str], otherwise: &str) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => otherwise.to_owned(),
    }
}

fn article(kind: &str) -> String {
    match kind.as_bytes().first() {
        Some(b'a' | b'e' | b'i' | b'o' | b'u') => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
