//! Whether an evaluation passed, from what it says and from the rules of the configuration.
//!
//! In order: an evaluator's own error is no verdict; the configured rule of that name; `passed` as told; for feedback its
//! polarity; a label of pass or fail; else nothing is known. Column `passed` always means "good for the route": a thumb
//! down, an escalation, an abandoned or an overridden answer that *happened* reads false.

use super::value::Value;
use hashbrown::HashMap;
use proto::metric::normalise_eval_name;
use serde::Deserialize;

/// Rules of the configuration, at most.
pub const EVAL_RULES_MAX: usize = 1_000;

/// One `[[eval]]` of the configuration: when an evaluation of that name has passed. Labels are asked first.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalRule {
    /// Name of the evaluation; case and separators do not matter.
    pub name: String,
    /// The smallest score that passes.
    pub pass_min: Option<f64>,
    /// The largest score that passes.
    pub pass_max: Option<f64>,
    /// Labels that pass; case does not matter.
    #[serde(default)]
    pub pass_labels: Vec<String>,
    /// Labels that fail.
    #[serde(default)]
    pub fail_labels: Vec<String>,
}

/// A rule that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalRuleError {
    /// No name that could be matched.
    #[error("an evaluation rule needs a name, as in `name = \"Groundedness\"`")]
    Name,
    /// It decides nothing.
    #[error("rule `{0}` decides nothing: give pass_min, pass_max, pass_labels or fail_labels")]
    Empty(String),
    /// A limit is no number.
    #[error("rule `{0}`: pass_min and pass_max are finite numbers")]
    NotFinite(String),
    /// No score is between the two.
    #[error("rule `{0}`: no score passes, pass_min is above pass_max")]
    Crossed(String),
    /// A label on both sides.
    #[error("rule `{name}`: label `{label}` cannot both pass and fail")]
    Both {
        /// Rule.
        name: String,
        /// Label.
        label: String,
    },
    /// Two rules for one evaluation.
    #[error("two rules for `{0}`: names that differ only in case and separators are the same evaluation")]
    Twice(String),
    /// Too many.
    #[error("more than {EVAL_RULES_MAX} evaluation rules")]
    TooMany,
}

impl EvalRule {
    fn check(&self) -> Result<(), EvalRuleError> {
        let name = || self.name.clone();
        let limits = [self.pass_min, self.pass_max];
        if normalise_eval_name(&self.name).is_empty() {
            return Err(EvalRuleError::Name);
        }
        if limits == [None; 2] && self.pass_labels.is_empty() && self.fail_labels.is_empty() {
            return Err(EvalRuleError::Empty(name()));
        }
        if limits.iter().flatten().any(|limit| !limit.is_finite()) {
            return Err(EvalRuleError::NotFinite(name()));
        }
        if matches!(limits, [Some(min), Some(max)] if min > max) {
            return Err(EvalRuleError::Crossed(name()));
        }
        match self.pass_labels.iter().find(|label| holds(&self.fail_labels, label)) {
            Some(label) => Err(EvalRuleError::Both {
                name: name(),
                label: label.clone(),
            }),
            None => Ok(()),
        }
    }

    fn passed(&self, label: &str, score: Option<f64>) -> Option<bool> {
        if holds(&self.fail_labels, label) {
            return Some(false);
        }
        if holds(&self.pass_labels, label) {
            return Some(true);
        }
        if self.pass_min.is_none() && self.pass_max.is_none() {
            return None;
        }
        let score = score?;
        Some(self.pass_min.is_none_or(|min| score >= min) && self.pass_max.is_none_or(|max| score <= max))
    }
}

fn holds(labels: &[String], label: &str) -> bool {
    labels.iter().any(|known| same(known, label))
}

fn same(a: &str, b: &str) -> bool {
    a.trim().eq_ignore_ascii_case(b.trim())
}

/// Checked rules, by normalised name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EvalRules {
    by_name: HashMap<String, EvalRule, ahash::RandomState>,
}

impl EvalRules {
    /// Adds a rule.
    ///
    /// # Errors
    /// Why it cannot be meant.
    pub fn add(&mut self, rule: EvalRule) -> Result<(), EvalRuleError> {
        rule.check()?;
        let name = normalise_eval_name(&rule.name);
        if self.by_name.contains_key(&name) {
            return Err(EvalRuleError::Twice(rule.name));
        }
        if self.by_name.len() == EVAL_RULES_MAX {
            return Err(EvalRuleError::TooMany);
        }
        self.by_name.insert(name, rule);
        Ok(())
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True without rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What an evaluation of the normalised name comes to.
    pub(super) fn passed(&self, name: &str, said: &Said<'_>) -> Option<bool> {
        if said.failed_itself {
            return None;
        }
        let ruled = self
            .by_name
            .get(name)
            .and_then(|rule| rule.passed(said.label, said.score()));
        ruled.or_else(|| match Polarity::of(name) {
            Some(polarity) => polarity.passed(name, said),
            None => said.passed.or_else(|| of_label(said.label)),
        })
    }
}

/// What an evaluation says about its verdict.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said<'a> {
    pub(super) label: &'a str,
    pub(super) score: Option<Value<'a>>,
    /// The verdict as told.
    pub(super) passed: Option<bool>,
    /// The evaluator itself failed.
    pub(super) failed_itself: bool,
    /// It came as feedback: that it was sent at all says something.
    pub(super) is_feedback: bool,
}

impl Said<'_> {
    fn score(&self) -> Option<f64> {
        match self.score? {
            Value::Bool(flag) => Some(f64::from(flag)),
            value => value.double().ok(),
        }
    }
}

/// How feedback is read.
#[derive(Debug, Clone, Copy)]
enum Polarity {
    /// An opinion: up is good, down is bad.
    Opinion,
    /// Something bad that happened or did not.
    Happening,
}

impl Polarity {
    fn of(name: &str) -> Option<Self> {
        match name {
            "user_feedback" => Some(Self::Opinion),
            "thumbs_down" | "escalation" | "abandoned" | "override" => Some(Self::Happening),
            _ => None,
        }
    }

    fn passed(self, name: &str, said: &Said<'_>) -> Option<bool> {
        match self {
            Self::Opinion => said.passed.or_else(|| opinion(said)),
            Self::Happening => happened(name, said).map(|happened| !happened),
        }
    }
}

/// Thumbs, the sign of a score, or a flag. A plain 0 says nothing: where thumbs are sent as 1 and 0, a rule
/// (`pass_min = 1`) says so.
fn opinion(said: &Said<'_>) -> Option<bool> {
    const GOOD: [&str; 4] = ["thumbs_up", "up", "positive", "like"];
    const BAD: [&str; 4] = ["thumbs_down", "down", "negative", "dislike"];
    let word = normalise_eval_name(said.label);
    if GOOD.contains(&word.as_str()) {
        return Some(true);
    }
    if BAD.contains(&word.as_str()) {
        return Some(false);
    }
    if let Some(known) = of_label(said.label) {
        return Some(known);
    }
    if let Some(Value::Bool(flag)) = said.score {
        return Some(flag);
    }
    let score = said.score()?;
    (score != 0.0).then_some(score > 0.0)
}

/// It happened if the label or a score of 1 says so, if a verdict was told at all, or if it was sent as feedback and
/// says nothing else.
fn happened(name: &str, said: &Said<'_>) -> Option<bool> {
    const YES: [&str; 3] = ["1", "true", "yes"];
    const NO: [&str; 4] = ["0", "false", "no", "thumbs_up"];
    let word = normalise_eval_name(said.label);
    if YES.contains(&word.as_str()) || word == name {
        return Some(true);
    }
    if NO.contains(&word.as_str()) {
        return Some(false);
    }
    match said.score() {
        Some(score) if score >= 1.0 => Some(true),
        Some(0.0) => Some(false),
        // how many a client writes a thumb down; of anything else it says nothing
        Some(score) if score < 0.0 && name == "thumbs_down" => Some(true),
        Some(_) => None,
        None if said.passed.is_some() || said.is_feedback => Some(true),
        None => None,
    }
}

fn of_label(label: &str) -> Option<bool> {
    const PASS: [&str; 3] = ["pass", "passed", "true"];
    const FAIL: [&str; 3] = ["fail", "failed", "false"];
    if PASS.iter().any(|word| same(word, label)) {
        Some(true)
    } else if FAIL.iter().any(|word| same(word, label)) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<EvalRules, EvalRuleError> {
        #[derive(Deserialize)]
        struct File {
            eval: Vec<EvalRule>,
        }
        let mut rules = EvalRules::default();
        for rule in toml::from_str::<File>(text).unwrap().eval {
            rules.add(rule)?;
        }
        Ok(rules)
    }

    fn label(label: &str) -> Said<'_> {
        Said {
            label,
            ..Said::default()
        }
    }

    fn score(score: f64) -> Said<'static> {
        Said {
            score: Some(Value::Double(score)),
            ..Said::default()
        }
    }

    #[test]
    fn the_configured_rule_comes_first_then_the_told_verdict_then_the_label() {
        let rules = rules(
            r#"
            eval = [
                { name = "Groundedness", pass_min = 0.7 },
                { name = "toxicity", pass_max = 0.2 },
                { name = "correctness", pass_labels = ["Correct"], fail_labels = ["incorrect", "partly"] },
            ]"#,
        )
        .unwrap();
        assert_eq!(rules.len(), 3);
        let told = |passed, said| Said {
            passed: Some(passed),
            ..said
        };
        for (name, said, expected) in [
            ("groundedness", score(0.7), Some(true)),
            ("groundedness", told(true, score(0.69)), Some(false)),
            ("groundedness", told(true, label("fail")), Some(true)),
            ("groundedness", label("fail"), Some(false)),
            ("groundedness", label("relevant"), None),
            ("toxicity", score(0.2), Some(true)),
            ("toxicity", score(0.3), Some(false)),
            ("correctness", label("INCORRECT "), Some(false)),
            ("correctness", label("correct"), Some(true)),
            ("correctness", label("pass"), Some(true)),
            ("relevance", score(4.0), None),
            ("relevance", told(false, label("pass")), Some(false)),
        ] {
            assert_eq!(rules.passed(name, &said), expected, "{name} {said:?}");
            let failed_itself = Said {
                failed_itself: true,
                ..said
            };
            assert_eq!(rules.passed(name, &failed_itself), None, "an evaluator's error: {name}");
        }
    }

    #[test]
    fn text_scores_and_flags_are_scores() {
        let rules = rules(r#"eval = [{ name = "a", pass_min = 0.5, pass_max = 2 }]"#).unwrap();
        for (value, expected) in [
            (Value::Text(b"0.85"), Some(true)),
            (Value::Bool(false), Some(false)),
            (Value::Int(3), Some(false)),
            (Value::Text(b"much"), None),
        ] {
            let said = Said {
                score: Some(value),
                ..Said::default()
            };
            assert_eq!(rules.passed("a", &said), expected, "{value:?}");
        }
    }

    #[test]
    fn feedback_is_good_or_bad_by_its_label_and_its_sign() {
        let none = EvalRules::default();
        let flag = |flag| Said {
            score: Some(Value::Bool(flag)),
            ..Said::default()
        };
        for (said, expected) in [
            (label("thumbs_down"), Some(false)),
            (label("ThumbsUp"), Some(true)),
            (score(-1.0), Some(false)),
            (score(1.0), Some(true)),
            (score(0.0), None),
            (flag(false), Some(false)),
            (label("meh"), None),
        ] {
            assert_eq!(none.passed("user_feedback", &said), expected, "{said:?}");
        }
        let rules = rules(r#"eval = [{ name = "UserFeedback", pass_min = 1 }]"#).unwrap();
        assert_eq!(rules.passed("user_feedback", &score(0.0)), Some(false));
    }

    #[test]
    fn what_happened_is_bad() {
        let none = EvalRules::default();
        let feedback = |said| Said {
            is_feedback: true,
            ..said
        };
        let told = Said {
            passed: Some(true),
            ..Said::default()
        };
        for (said, expected) in [
            (score(1.0), Some(false)),
            (score(0.0), Some(true)),
            (label("1"), Some(false)),
            (label("escalation"), Some(false)),
            (label("no"), Some(true)),
            (told, Some(false)),
            (feedback(Said::default()), Some(false)),
            (feedback(score(0.0)), Some(true)),
            (Said::default(), None),
            (label("tier two"), None),
        ] {
            assert_eq!(none.passed("escalation", &said), expected, "{said:?}");
        }
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        for (text, why) in [
            (r#"eval = [{ name = "-", pass_min = 1 }]"#, "needs a name"),
            (r#"eval = [{ name = "a" }]"#, "decides nothing"),
            (r#"eval = [{ name = "a", pass_min = nan }]"#, "finite"),
            (
                r#"eval = [{ name = "a", pass_min = 1, pass_max = 0 }]"#,
                "no score passes",
            ),
            (
                r#"eval = [{ name = "a", pass_labels = ["x"], fail_labels = ["X"] }]"#,
                "both pass and fail",
            ),
            (
                r#"eval = [{ name = "TaskDone", pass_min = 1 }, { name = "task-done", pass_min = 2 }]"#,
                "two rules",
            ),
        ] {
            assert!(rules(text).unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
