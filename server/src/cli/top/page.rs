//! A page of `/metrics` as values, and what two of them say about the time between.

use std::{collections::HashMap, time::Instant};

/// Every figure of the page has this before its name, but for those of the process.
const PREFIX: &str = "tracegate_";

/// One page, when it was read.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) at: Instant,
    /// By name with labels, `requests_total{transport="grpc"}`, without the prefix.
    values: HashMap<String, f64>,
}

impl Page {
    /// Reads a page; `None` if it is none of tracegate's.
    pub(super) fn read(text: &str, at: Instant) -> Option<Self> {
        let mut values = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
            {
                values.insert(name.strip_prefix(PREFIX).unwrap_or(name).to_owned(), value);
            }
        }
        values.contains_key("accepted_total").then_some(Self { at, values })
    }

    /// A figure; 0 if this server does not have it.
    pub(super) fn get(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    /// Every value of a family with its label's text, largest first.
    pub(super) fn family(&self, name: &str) -> Vec<(&str, f64)> {
        let of = |key: &'_ str| -> Option<(usize, usize)> {
            let labels = key.strip_prefix(name)?.strip_prefix('{')?;
            let start = key.len() - labels.len() + labels.find('"')? + 1;
            Some((start, key.rfind('"')?))
        };
        let mut found: Vec<_> = self
            .values
            .iter()
            .filter_map(|(key, value)| of(key).and_then(|(from, to)| Some((key.get(from..to)?, *value))))
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        found
    }

    /// The sum of a family.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.family(name).iter().map(|(_, value)| value).sum()
    }

    /// Upper edges of a histogram with the counts at or below them, ascending.
    fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = self
            .family(&format!("{name}_bucket"))
            .into_iter()
            .filter_map(|(edge, count)| {
                let edge = if edge == "+Inf" {
                    f64::INFINITY
                } else {
                    edge.parse().ok()?
                };
                Some((edge, count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

/// The time between two pages of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'p> {
    pub(super) from: &'p Page,
    pub(super) to: &'p Page,
}

impl Span<'_> {
    /// How much a counter grew a second; `None` if no time passed.
    pub(super) fn rate(&self, of: impl Fn(&Page) -> f64) -> Option<f64> {
        let seconds = self.to.at.duration_since(self.from.at).as_secs_f64();
        (seconds > 0.0).then(|| (of(self.to) - of(self.from)).max(0.0) / seconds)
    }

    /// A quantile of what a histogram took in between, in its unit; of all since start if nothing came in between. `None` if
    /// nothing ever came.
    pub(super) fn quantile(&self, name: &str, q: f64) -> Option<f64> {
        let all = self.to.buckets(name);
        let before = self.from.buckets(name);
        let between: Vec<(f64, f64)> = all
            .iter()
            .zip(before.iter().map(|(_, count)| *count).chain(std::iter::repeat(0.0)))
            .map(|((edge, count), before)| (*edge, count - before))
            .collect();
        quantile(&between, q).or_else(|| quantile(&all, q))
    }
}

/// Linear within the bucket; the last bucket has no upper edge and stands for its lower one.
fn quantile(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let n = buckets.last()?.1;
    if n <= 0.0 {
        return None;
    }
    let rank = q * n;
    let mut below = (0.0, 0.0);
    for &(edge, count) in buckets {
        if count >= rank && count > below.1 {
            if edge.is_infinite() {
                return Some(below.0);
            }
            return Some(below.0 + (edge - below.0) * (rank - below.1) / (count - below.1));
        }
        below = (edge, count);
    }
    Some(below.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn page(text: &str, at: Instant) -> Page {
        Page::read(text, at).unwrap()
    }

    #[test]
    fn pages_of_others_are_none() {
        assert!(Page::read("<html>", Instant::now()).is_none());
        assert!(Page::read("up 1\n", Instant::now()).is_none());
    }

    #[test]
    fn rates_and_quantiles_are_of_the_time_between() {
        let begun = Instant::now();
        let text = |accepted: u64, fast: u64, slow: u64| {
            format!(
                "# HELP tracegate_accepted x\ntracegate_accepted_total {accepted}\nprocess_resident_memory_bytes 7\n\
                 tracegate_ack_seconds_bucket{{le=\"0.001\"}} {fast}\n\
                 tracegate_ack_seconds_bucket{{le=\"0.002\"}} {fast}\n\
                 tracegate_ack_seconds_bucket{{le=\"0.004\"}} {slow}\n\
                 tracegate_ack_seconds_bucket{{le=\"+Inf\"}} {slow}\n\
                 tracegate_requests_refused_total{{cause=\"busy\"}} 3\n\
                 tracegate_requests_refused_total{{cause=\"a \\\"b\"}} 4\n"
            )
        };
        let first = page(&text(100, 50, 50), begun);
        let second = page(&text(300, 50, 150), begun + Duration::from_secs(2));
        let span = Span {
            from: &first,
            to: &second,
        };
        assert_eq!(span.rate(|page| page.get("accepted_total")), Some(100.0));
        let p50 = span.quantile("ack_seconds", 0.5).unwrap();
        assert!((p50 - 0.003).abs() < 1e-9, "{p50}: all between took 2 to 4 ms");
        let still = Span {
            from: &second,
            to: &second,
        };
        let of_all = still.quantile("ack_seconds", 0.3).unwrap();
        assert!(of_all < 0.001, "{of_all}: a third of all took less than 1 ms");
        assert_eq!(still.rate(|page| page.get("accepted_total")), None);
        assert_eq!(second.get("process_resident_memory_bytes"), 7.0);
        assert_eq!(
            second.family("requests_refused_total"),
            [("a \\\"b", 4.0), ("busy", 3.0)]
        );
        assert_eq!(second.sum("requests_refused_total"), 7.0);
        assert_eq!(span.quantile("nothing", 0.5), None);
    }
}
