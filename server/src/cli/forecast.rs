//! What `tracegate check` says of time: when each gate will decide, and how many good releases are rolled back in a year.

use super::{
    ask::{AskError, Asker, quoted, quoted_list},
    text::table,
};
use clap::Args;
use gates::predict::{FalseRollbacks, GatePrediction, Prediction, StepPrediction, Traffic, When, predict};
use proto::{Cell, Metric, Nanos, metric::MetricKind, release::ReleaseSpec};
use std::{collections::BTreeMap, str::FromStr, time::Duration};

/// Units of blue's past that are assumed where none was seen: enough to freeze any quantile.
const ASSUMED_UNITS: i64 = 100_000;
/// Median of an assumed amount, integer units: a second, a thousandth of a USD, a million tokens. Only its spread matters.
const ASSUMED_MEDIAN: f64 = 1e6;

/// Traffic to assume where none was seen.
#[derive(Debug, Args)]
pub struct Assumptions {
    /// Predict for so many traces of the route a minute, whatever was seen
    #[arg(long, value_name = "N", value_parser = positive)]
    pub traces_per_minute: Option<f64>,
    /// Assumed share of blue's traces that fail, where none was seen
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = share)]
    pub failure_rate: f64,
    /// Assumed spread of latency, cost and tokens (deviation of their logarithm), where none was seen
    #[arg(long, value_name = "X", default_value_t = 0.6, value_parser = positive)]
    pub spread: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    let x = f64::from_str(text).map_err(|e| e.to_string())?;
    (x > 0.0 && x.is_finite())
        .then_some(x)
        .ok_or_else(|| "it must be above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let x = positive(text)?;
    (x < 1.0)
        .then_some(x)
        .ok_or_else(|| "it is a share, below 1".to_owned())
}

/// What is known of a route.
struct Seen {
    traffic: Traffic,
    /// Where it is from, in words.
    source: String,
}

/// The forecast of one release, as lines.
///
/// # Errors
/// If traffic cannot be asked for.
pub async fn describe(
    release: &ReleaseSpec,
    asker: Option<&Asker>,
    assumptions: &Assumptions,
) -> Result<String, AskError> {
    let seen = match asker {
        Some(asker) => seen(release, asker).await?,
        None => None,
    };
    let seen = match (seen, assumptions.traces_per_minute) {
        (Some(seen), Some(rate)) => Seen {
            traffic: Traffic {
                traces_per_minute: rate,
                ..seen.traffic
            },
            source: format!("{rate} traces a minute are assumed; {}", seen.source),
        },
        (Some(seen), None) => seen,
        (None, Some(rate)) => assumed(release, rate, assumptions),
        (None, None) if asker.is_some() => {
            return Ok(format!(
                "    no traffic was seen on route {}: give --traces-per-minute N (and --failure-rate, --spread) to predict\n",
                release.route
            ));
        }
        (None, None) => return Ok(String::new()),
    };
    let mut text = format!("    {}\n", seen.source);
    match predict(release, &seen.traffic) {
        Ok(prediction) => text.push_str(&shown(&prediction)),
        Err(why) => text.push_str(&format!("    nothing can be predicted: {why}\n")),
    }
    Ok(text)
}

fn wanted(release: &ReleaseSpec) -> Vec<&Metric> {
    let mut metrics: Vec<&Metric> = release.gates.iter().map(|g| &g.metric).collect();
    metrics.push(&Metric::Traces);
    metrics.sort_unstable();
    metrics.dedup();
    metrics
}

/// Blue's cells in the last `baseline` before the newest of the route; those of all colors if none is blue.
async fn seen(release: &ReleaseSpec, asker: &Asker) -> Result<Option<Seen>, AskError> {
    let route = quoted(&release.route);
    let newest = format!("SELECT CAST(max(minute) AS BIGINT) AS newest FROM cells WHERE route = {route}");
    let mut end = None;
    for rows in asker.rows(&newest).await? {
        let newest = rows.whole("newest")?;
        end = (0..rows.len()).find_map(newest).map(Nanos).or(end);
    }
    let Some(end) = end else { return Ok(None) };
    let metrics: Vec<String> = wanted(release).iter().map(ToString::to_string).collect();
    let within = format!(
        "route = {route} AND minute > '{}' AND metric IN {}",
        end.minus(release.baseline).rfc3339(),
        quoted_list(metrics.iter().map(String::as_str))
    );
    let sums = format!(
        "SELECT metric, color, sum(n) AS n, sum(events) AS events, sum(\"sum\") AS total, \
         CAST(max(minute) AS BIGINT) - CAST(min(minute) AS BIGINT) AS span \
         FROM cells WHERE {within} GROUP BY metric, color"
    );
    let mut cells: BTreeMap<(Metric, bool), Cell> = BTreeMap::new();
    let mut span = 0;
    for rows in asker.rows(&sums).await? {
        let (metric, color) = (rows.texts("metric")?, rows.texts("color")?);
        let [n, events, total, spans] = [
            rows.whole("n")?,
            rows.whole("events")?,
            rows.whole("total")?,
            rows.whole("span")?,
        ];
        for i in 0..rows.len() {
            let Some(Ok(metric)) = metric(i).map(|m| m.parse::<Metric>()) else {
                continue;
            };
            span = span.max(spans(i).unwrap_or(0));
            let is_blue = color(i).as_deref() == Some("blue");
            let cell = cells.entry((metric, is_blue)).or_default();
            cell.n += n(i).unwrap_or(0);
            cell.events += events(i).unwrap_or(0);
            cell.sum += total(i).unwrap_or(0);
        }
    }
    let traces = |is_blue| cells.get(&(Metric::Traces, is_blue)).map_or(0, |c| c.n);
    let (blue, others) = (traces(true), traces(false));
    if blue + others == 0 {
        return Ok(None);
    }
    let only_blue = if blue > 0 { " AND color = 'blue'" } else { "" };
    let mut past: BTreeMap<Metric, Cell> = BTreeMap::new();
    for ((metric, is_blue), cell) in cells {
        if is_blue == (blue > 0) {
            past.entry(metric).or_default().merge(&cell, 1);
        }
    }
    add_buckets(asker, &format!("{within}{only_blue}"), &mut past).await?;
    let minutes = span as f64 / 60e9 + 1.0;
    let rate = (blue + others) as f64 / minutes;
    let whose = if blue > 0 {
        format!("{blue} of them blue")
    } else {
        "none of them blue, so blue is taken to be like all of them".to_owned()
    };
    Ok(Some(Seen {
        source: format!(
            "{rate:.1} traces a minute on the route: {} in {} up to {}, {whose}",
            blue + others,
            about(Duration::from_secs_f64(60.0 * minutes)),
            end.rfc3339()
        ),
        traffic: Traffic {
            traces_per_minute: rate,
            blue: past,
        },
    }))
}

/// Histograms of the amounts.
async fn add_buckets(asker: &Asker, within: &str, past: &mut BTreeMap<Metric, Cell>) -> Result<(), AskError> {
    let sql = format!(
        "SELECT metric, b['bucket'] AS bucket, sum(b['count']) AS units \
         FROM (SELECT metric, unnest(hdr) AS b FROM cells WHERE {within}) GROUP BY 1, 2"
    );
    for rows in asker.rows(&sql).await? {
        let (metric, bucket, units) = (rows.texts("metric")?, rows.whole("bucket")?, rows.whole("units")?);
        for i in 0..rows.len() {
            let cell = metric(i).and_then(|m| past.get_mut(&m.parse::<Metric>().ok()?));
            let bucket = bucket(i).and_then(|b| u32::try_from(b).ok());
            if let (Some(cell), Some(bucket), Some(units)) = (cell, bucket, units(i)) {
                cell.hdr.add_bucket(bucket, units);
            }
        }
    }
    Ok(())
}

/// Blue as the assumptions have it: rates all alike, amounts log-normal.
fn assumed(release: &ReleaseSpec, rate: f64, assumptions: &Assumptions) -> Seen {
    let cell = |metric: &Metric| match metric.kind() {
        MetricKind::Rate => Cell {
            n: ASSUMED_UNITS,
            events: (assumptions.failure_rate * ASSUMED_UNITS as f64) as i64,
            ..Cell::default()
        },
        MetricKind::Amount => log_normal(assumptions.spread),
    };
    Seen {
        traffic: Traffic {
            traces_per_minute: rate,
            blue: wanted(release).into_iter().map(|m| (m.clone(), cell(m))).collect(),
        },
        source: format!(
            "assumed: {rate} traces a minute, {} % of blue's fail, the logarithms of amounts deviate by {}",
            100.0 * assumptions.failure_rate,
            assumptions.spread
        ),
    }
}

/// Units at the midpoints of equal shares of the normal distribution.
fn log_normal(spread: f64) -> Cell {
    const SHARES: i64 = 2_000;
    let mut cell = Cell::default();
    for i in 0..SHARES {
        let z = normal_quantile((i as f64 + 0.5) / SHARES as f64);
        let value = (ASSUMED_MEDIAN * (spread * z).exp()) as u64;
        let units = ASSUMED_UNITS / SHARES;
        cell.n += units;
        cell.sum += units * i64::try_from(value).unwrap_or(0);
        cell.hdr.record(value, units);
    }
    cell
}

/// The normal deviate below which a share `p` in (0, 1) lies: the logistic approximation of Bowling et al. (2009),
/// inverted; to about 0.01, enough for an assumption.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0_f64, 8.0);
    for _ in 0..40 {
        let z = f64::midpoint(low, high);
        let below = 1.0 / (1.0 + (-(0.070_56 * z * z * z + 1.597_6 * z)).exp());
        if below < p { low = z } else { high = z }
    }
    f64::midpoint(low, high)
}

fn shown(prediction: &Prediction) -> String {
    let mut shown = table(&["", "green at", "gate", "an equal green passes", "a worse one is caught"]);
    for step in &prediction.steps {
        for gate in &step.gates {
            shown.add_row(row(step, gate));
        }
        shown.add_row(vec![
            String::new(),
            percent(step.green),
            "(traces enough to promote)".to_owned(),
            after(step.enough_traces),
        ]);
    }
    let promoted = match prediction.promotes {
        Some(d) => format!("{} after its declaration", about(d)),
        None => "not within the horizon".to_owned(),
    };
    format!("{shown}\n    a green equal to blue is promoted {promoted}\n")
}

fn row(step: &StepPrediction, gate: &Result<GatePrediction, (String, String)>) -> Vec<String> {
    let (name, passes, caught) = match gate {
        Ok(p) => (&p.gate, after(p.passes), format!("{}: {}", p.worse, after(p.caught))),
        Err((name, why)) => (name, format!("not predicted: {why}"), String::new()),
    };
    vec![String::new(), percent(step.green), name.clone(), passes, caught]
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 100.0)
}

fn after(when: When) -> String {
    when.map_or_else(
        || "not within the horizon".to_owned(),
        |d| format!("after {}", about(d)),
    )
}

/// `about 9 days`, `about 14 h`, `about 40 min`.
fn about(d: Duration) -> String {
    let minutes = d.as_secs_f64() / 60.0;
    if minutes < 90.0 {
        format!("about {} min", minutes.ceil())
    } else if minutes < 48.0 * 60.0 {
        format!("about {} h", (minutes / 60.0).round())
    } else {
        format!("about {} days", (minutes / 1_440.0).round())
    }
}

/// What alpha comes to in a year, and what that assumes.
pub fn false_rollbacks(year: FalseRollbacks) -> String {
    format!(
        "  good releases rolled back by mistake: at most {} a year if releases follow one another at once, each for its whole\n  \
         horizon, and every green equals its blue; at most {} at one release a week on every route\n",
        two_digits(year.back_to_back),
        two_digits(year.weekly)
    )
}

fn two_digits(x: f64) -> f64 {
    (100.0 * x).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assumed_amount_has_the_spread_it_was_given() {
        let cell = log_normal(0.6);
        let ratio = |q: f64| cell.hdr.quantile(q).unwrap() as f64 / ASSUMED_MEDIAN;
        assert!((ratio(0.5) - 1.0).abs() < 0.02, "{}", ratio(0.5));
        assert!((ratio(0.99) - (0.6_f64 * 2.326).exp()).abs() < 0.15, "{}", ratio(0.99));
        assert_eq!(cell.n, ASSUMED_UNITS);
    }

    #[test]
    fn times_are_said_in_words_of_their_size() {
        let of = |secs| about(Duration::from_secs(secs));
        assert_eq!(of(61), "about 2 min");
        assert_eq!(of(14 * 3_600), "about 14 h");
        assert_eq!(of(9 * 86_400), "about 9 days");
    }
}
