//! A split that is not the declared one: what the sample-ratio check is for.

use crate::{
    logs::EventLogs,
    medians::RHO,
    nulls::ALPHA,
    run::Scale,
    table::{Table, grouped, percent},
    traffic::{FAILURES, PER_MINUTE},
    walk::{Late, Plain},
};
use gates::stats::{
    Side,
    log_space::ln,
    sample_ratio::{self, UnitStratum, sample_ratio},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What became of one equal green, by (a) plain and (a) with late starts.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Rolled back where nothing is checked.
    unchecked: [bool; 2],
    /// Rolled back where the check let it.
    checked: [bool; 2],
    /// The check fired.
    latched: bool,
}

/// An equal green, declared half and half.
pub fn study(scale: &Scale) -> Table {
    let traces = (scale.arm / 25).max(2_000);
    let head = [
        "truly green",
        "statistic",
        "rolled back without the check",
        "with it",
        "check fired",
    ];
    let title = format!(
        "A split declared as 50 %: an equal green over {} traces in all",
        grouped(traces)
    );
    let mut table = Table::new(title, &head).says(format!(
        "{} runs, failures 3 %, alpha 1 %. The check looks after every trace, suspends from E >= 3 on and latches at alpha \
         0.001.",
        grouped(scale.events)
    ));
    for truth in [0.50, 0.55] {
        let title = format!("equal green on a split of {:.0} %", 100.0 * truth);
        let runs = scale.map(&title, scale.events, |rng| run(truth, traces, rng));
        let share = |hit: &dyn Fn(&Outcome) -> bool| {
            let hits = runs.iter().filter(|o| hit(o)).count();
            percent(hits as f64 / runs.len() as f64)
        };
        for (i, statistic) in ["(a), plain", "(a), late starts"].into_iter().enumerate() {
            table.row([
                format!("{:.0} %", 100.0 * truth),
                statistic.to_owned(),
                share(&|o| o.unchecked[i]),
                share(&|o| o.checked[i]),
                share(&|o| o.latched),
            ]);
        }
    }
    table
}

/// The check, trace by trace: a bet on each side of the declared split.
struct Check {
    units: UnitStratum,
    more: Plain,
    fewer: Plain,
    logs: EventLogs,
    latched: bool,
}

impl Check {
    fn new() -> Self {
        Self {
            units: UnitStratum {
                rho: RHO,
                blue: 0,
                green: 0,
            },
            more: Plain::new(sample_ratio::ALPHA),
            fewer: Plain::new(sample_ratio::ALPHA),
            // At a ratio of 1 the bet on green's share of the events is the bet on its share of the traces.
            logs: EventLogs::new(RHO, 1.0, Side::Gt),
            latched: false,
        }
    }

    fn trace(&mut self, green: bool) {
        self.units.green += i64::from(green);
        self.units.blue += i64::from(!green);
        // E is the mean of both directions, so at x only if one of them is; half and half, each mirrors the other.
        let either = self.more.earn(self.logs.of(green)) | self.fewer.earn(self.logs.of(!green));
        self.latched |= either && self.log_e() >= ln(1.0 / sample_ratio::ALPHA);
    }

    fn log_e(&self) -> f64 {
        sample_ratio(&[self.units])
    }

    /// Whether a rollback may be said now.
    fn allows(&self) -> bool {
        !self.latched && self.log_e() < ln(sample_ratio::SUSPENDS_AT)
    }
}

fn run(truth: f64, traces: u64, rng: &mut ChaCha8Rng) -> Outcome {
    let logs = EventLogs::new(RHO, 1.0, Side::Gt);
    let (mut plain, mut late) = (Plain::new(ALPHA), Late::new(1.0 / ALPHA));
    let threshold = ln(1.0 / ALPHA);
    let (mut check, mut out) = (Check::new(), Outcome::default());
    let mut beyond = [false; 2];
    for served in 0..traces {
        if served % PER_MINUTE == 0 {
            if served > 0 {
                late.close();
            }
            late.open(served / PER_MINUTE);
        }
        let green = rng.random::<f64>() < truth;
        check.trace(green);
        if rng.random::<f64>() < FAILURES {
            let logs = logs.of(green);
            beyond = [plain.earn(logs), late.earn(logs) && late.log_e() >= threshold];
        }
        // A rollback that is suspended is said as soon as the check lets it.
        let allowed = beyond.contains(&true) && check.allows();
        for (i, beyond) in beyond.into_iter().enumerate() {
            out.unchecked[i] |= beyond;
            out.checked[i] |= beyond && allowed;
        }
    }
    out.latched = check.latched;
    out
}
