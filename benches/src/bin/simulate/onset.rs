//! Regressions that start late: one start against the mixture over starts.

use crate::{
    exact::median,
    logs::EventLogs,
    medians::RHO,
    nulls::ALPHA,
    run::Scale,
    table::Table,
    traffic::{FAILURES, Gaps, PER_MINUTE},
    walk::{Late, Plain},
};
use gates::stats::{Side, log_space::ln};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Minutes after the onset at which a run is given up.
const PATIENCE: u64 = 3_000;

/// Median minutes from onset to rollback.
#[derive(Debug, Clone, Copy)]
pub struct Onset {
    /// When, in words.
    pub name: &'static str,
    /// Green's failure rate from then on.
    pub rate: f64,
    /// With one start, at the beginning.
    pub plain: Option<u64>,
    /// With the mixture.
    pub late: Option<u64>,
    /// Runs rolled back before the onset by either, which are left out.
    pub false_before: usize,
}

/// Every row.
pub fn study(scale: &Scale) -> Vec<Onset> {
    let hour = scale.day / 24;
    let rows = [
        ("at once", 0, 2.0),
        ("after 1 h", hour, 2.0),
        ("after 1 day", scale.day, 2.0),
        ("after 3 days", 3 * scale.day, 2.0),
        ("at once", 0, 4.0),
        ("after 1 h", hour, 4.0),
        ("after 1 day", scale.day, 4.0),
        ("after 3 days", 3 * scale.day, 4.0),
    ];
    let row = |(name, after, times): (&'static str, u64, f64)| {
        let rate = times * FAILURES;
        let title = format!("late onset: {name}, 3 > {} %", 100.0 * rate);
        let runs = scale.map(&title, scale.runs, |rng| run(after, rate, rng));
        let kept: Vec<[Option<u64>; 2]> = runs.iter().copied().flatten().collect();
        let middle = |i: usize| median(&kept.iter().map(|r| r[i]).collect::<Vec<_>>());
        Onset {
            name,
            rate,
            plain: middle(0),
            late: middle(1),
            false_before: runs.len() - kept.len(),
        }
    };
    rows.into_iter().map(row).collect()
}

/// As a table.
pub fn table(rows: &[Onset]) -> Table {
    let head = [
        "onset",
        "failures",
        "plain: minutes to rollback",
        "mixture",
        "rolled back before",
    ];
    let mut table = Table::new("Regressions that start late", &head).says(
        "Medians, 100 traces a minute of each color, alpha 1 %, looked at after every event. Runs that either form rolled \
         back before the onset are left out and counted in the last column.",
    );
    for row in rows {
        let minutes = |m: Option<u64>| m.map_or_else(|| format!("> {PATIENCE}"), |m| m.to_string());
        table.row([
            row.name.to_owned(),
            format!("3 > {:.0} %", 100.0 * row.rate),
            minutes(row.plain),
            minutes(row.late),
            row.false_before.to_string(),
        ]);
    }
    table
}

/// Minutes from the onset to the rollback, the one it falls in included, for both forms; `None` if one came before.
fn run(after: u64, rate: f64, rng: &mut ChaCha8Rng) -> Option<[Option<u64>; 2]> {
    let logs = EventLogs::new(RHO, 1.0, Side::Gt);
    let threshold = ln(1.0 / ALPHA);
    let (mut plain, mut late) = (Plain::new(ALPHA), Late::new(1.0 / ALPHA));
    let mut seen: [Option<u64>; 2] = [None; 2];
    for minute in 0..after + PATIENCE {
        let green = if minute < after { FAILURES } else { rate };
        let gaps = Gaps::new(f64::midpoint(FAILURES, green));
        let share = green / (FAILURES + green);
        late.open(minute);
        let mut at = gaps.next(rng);
        while at < PER_MINUTE {
            let logs = logs.of(rng.random::<f64>() < share);
            let crossed = [plain.earn(logs), late.earn(logs) && late.log_e() >= threshold];
            for (seen, crossed) in seen.iter_mut().zip(crossed) {
                if crossed && seen.is_none() {
                    *seen = Some((minute + 1).checked_sub(after).filter(|m| *m > 0)?);
                }
            }
            at += 1 + gaps.next(rng);
        }
        if seen.iter().all(Option::is_some) {
            break;
        }
        late.close();
    }
    Some(seen)
}
