//! A release as benches and simulation declare it: nothing but gates that roll back.

use proto::{cell::Scope, release::ReleaseSpec};
use serde_json::{Value, json};

/// A gate over all traces; `quantile` for a tail, `max_ratio` as its margin.
#[must_use]
pub fn gate(name: &str, metric: &str, quantile: Option<f64>, max_ratio: f64) -> Value {
    json!({
        "name": name, "metric": metric, "quantile": quantile, "margin": {"max_ratio": max_ratio},
        "by_cohort": false, "min_coverage": null, "on_fail": "rollback",
    })
}

/// A release with these gates, alpha 1 % and alpha_promote 5 %.
///
/// # Panics
/// If a gate is none.
#[must_use]
pub fn spec(gates: &[Value]) -> ReleaseSpec {
    let manifest = |version: &str| {
        json!({
            "version": version, "provider": "p", "model": "m", "prompt": "p", "tools": "t", "guardrails": "g",
            "cache": "c", "fallback": [], "policy": "p", "logging": "l", "pii": "p",
        })
    };
    let spec = json!({
        "route": "chat", "id": "r", "mode": "act", "unit": "trace", "cohort": null, "baseline": "24h",
        "steps": [], "warmup": "0s", "min_traces": 500, "horizon": "7d", "approval": "none", "alpha": 0.01,
        "alpha_promote": 0.05, "no_data": "hold", "timeout": "60s", "grace": "10s",
        "blue": manifest("1"), "green": manifest("2"),
        "quota": {"requests_per_minute": null, "tokens_per_minute": null},
        "breaker": {"max": null, "alpha_share": 0.2}, "gate": gates, "webhook": null,
    });
    serde_json::from_value(spec).expect("a release whose gates are gates")
}

/// Where its cells are kept.
#[must_use]
pub fn scope() -> Scope {
    Scope {
        route: "chat".into(),
        release: Some("r".into()),
    }
}
