//! How a metric is counted and how it is shown.

use proto::{Grain, Metric};

/// The grain at which a gate reads a metric: traces, but for what is said of single calls.
#[must_use]
pub const fn natural_grain(metric: &Metric) -> Grain {
    match metric {
        Metric::AttemptError | Metric::RateLimited | Metric::Ttft | Metric::AttemptSeconds => Grain::Attempt,
        _ => Grain::Trace,
    }
}

/// Integer units of the cells in one unit of display: us in a ms, nano-USD in a USD; 1 for tokens and shares.
#[must_use]
pub const fn per_display_unit(metric: &Metric) -> f64 {
    match metric {
        Metric::Latency | Metric::Ttft => 1e3,
        Metric::Cost => 1e9,
        _ => 1.0,
    }
}
