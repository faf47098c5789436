//! Evaluations that are feedback: they count under metrics of their own, not under `eval_fail`.

use super::span::Eval;
use proto::Metric;

/// Metric under which an evaluation of this normalised name counts; `None` if it is an evaluator's verdict, which
/// counts as `eval_fail` of its name. `escalation`, `abandoned` and `override` are shares of all traces of a color:
/// silence means that it did not happen. `thumbs_down` is a share of the traces that got an opinion.
#[must_use]
pub fn metric_of(name: &str) -> Option<Metric> {
    match name {
        "user_feedback" | "thumbs_down" => Some(Metric::ThumbsDown),
        "escalation" => Some(Metric::Escalation),
        "abandoned" => Some(Metric::Abandoned),
        "override" => Some(Metric::Override),
        _ => None,
    }
}

impl Eval {
    /// For feedback: whether the bad thing happened (a thumb down, an escalation); `None` if it says neither. The
    /// reader has brought every spelling to `passed`, where false is bad.
    #[must_use]
    pub fn happened(&self) -> Option<bool> {
        self.passed.map(|passed| !passed)
    }
}
