//! How many traces one gate needs by itself: the plain statistic, looked at after every event.

use crate::{
    exact::median,
    logs::{CostLogs, EventLogs},
    nulls::{ALPHA, BEFORE, margin},
    run::Scale,
    table::{self, Table, Target},
    traffic::{COST_SPREAD, Draw, FAILURES, Gaps, costs, exceeds, frozen_p99},
    walk::Plain,
};
use gates::stats::Side;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Half of the traces go green.
pub const RHO: f64 = 0.5;
/// Level of a promotion.
pub const ALPHA_PROMOTE: f64 = 0.05;
/// Share of long prompts.
pub const LONG: f64 = 0.3;
/// Traces after which a run is given up.
const LIMIT: u64 = 1_000_000;

/// All of them, as goals.
pub fn study(scale: &Scale) -> Vec<Target> {
    let rates = |what: &str, [blue, green]: [f64; 2], r, side, alpha| {
        let logs = EventLogs::new(RHO, r, side);
        let runs = scale.map(what, scale.runs, |rng| events(blue, green, &logs, alpha, rng));
        median(&runs)
    };
    let (worse, doubled) = (2.0 * FAILURES, 4.0 * FAILURES);
    let twice = rates("3 > 6 %", [FAILURES, worse], 1.0, Side::Gt, ALPHA);
    let fourfold = rates("3 > 12 %", [FAILURES, doubled], 1.0, Side::Gt, ALPHA);
    let slow = EventLogs::new(RHO, 1.0, Side::Gt);
    let slow = scale.map("p99 +30 %", scale.runs, |rng| {
        let t = frozen_p99(BEFORE, rng) as f64;
        events(exceeds(t, 1.0), exceeds(t, 1.3), &slow, ALPHA, rng)
    });
    let cost = |what: &str, r, times, side, alpha| {
        let logs = cost_logs(times, COST_SPREAD, r, side);
        median(&scale.map(what, scale.runs, |rng| amounts(&logs, alpha, rng)))
    };
    let dearer = cost("cost +20 %", 1.0, 1.2, Side::Gt, ALPHA);
    let as_good = rates("promotion, failures", [FAILURES; 2], 1.5, Side::Lt, ALPHA_PROMOTE);
    let as_cheap = cost("promotion, cost", 1.2, 1.0, Side::Lt, ALPHA_PROMOTE);
    let per_arm = |traces: Option<u64>| traces.map(|n| n.div_ceil(2));
    [
        ("one gate, (a) plain: failures 3 > 6 %", 1_000, per_arm(twice), ARM),
        ("one gate, (a) plain: failures 3 > 12 %", 200, per_arm(fourfold), ARM),
        (
            "one gate, C2 plain: p99 of 4 s, +30 %",
            800,
            per_arm(median(&slow)),
            ARM,
        ),
        ("one gate, (b) plain: cost +20 %", 2_200, dearer, ALL),
        (
            "promotion of an equal green: failure margin 1.5",
            2_600,
            per_arm(as_good),
            ARM,
        ),
        ("promotion of an equal green: cost margin 1.2", 1_220, as_cheap, ALL),
    ]
    .map(|(what, at_most, measured, unit)| Target {
        what: what.to_owned(),
        at_most,
        measured,
        unit,
    })
    .into()
}

fn cost_logs(times: f64, spread: f64, r: f64, side: Side) -> CostLogs {
    let (blue, green) = (costs(1.0, spread), costs(times, spread));
    CostLogs::new(&blue, &green, margin(r, &blue), RHO, side)
}

/// How much hangs on how costs are spread.
pub fn by_spread(scale: &Scale) -> Table {
    let head = [
        "spread of log cost",
        "cost +20 %: to rollback",
        "equal, margin 1.2: to promotion",
    ];
    let mut table = Table::new("One cost gate, by how costs are spread", &head).says(
        "Median traces in all. Three traces of ten have long prompts and cost twice as much; within either kind costs are \
         log-normal. The other tables use 0.8.",
    );
    for spread in [0.4, COST_SPREAD, 1.2] {
        let middle = |what: &str, times, r, side, alpha| {
            let logs = cost_logs(times, spread, r, side);
            let title = format!("{what}, spread {spread}");
            table::middle(median(&scale.map(&title, scale.runs, |rng| amounts(&logs, alpha, rng))))
        };
        table.row([
            spread.to_string(),
            middle("cost +20 %", 1.2, 1.0, Side::Gt, ALPHA),
            middle("promotion, cost", 1.0, 1.2, Side::Lt, ALPHA_PROMOTE),
        ]);
    }
    table
}

/// Unit of medians: traces of each color.
pub const ARM: &str = "an arm";
/// Traces of both together.
pub const ALL: &str = "in all";

/// Traces of both colors together until the plain e-value crosses, from the rates of the event in blue and green.
fn events(blue: f64, green: f64, logs: &EventLogs, alpha: f64, rng: &mut ChaCha8Rng) -> Option<u64> {
    let gaps = Gaps::new(f64::midpoint(blue, green));
    let share = green / (blue + green);
    let mut plain = Plain::new(alpha);
    let mut served = 0;
    while served < LIMIT {
        served += 1 + gaps.next(rng);
        if plain.earn(logs.of(rng.random::<f64>() < share)) {
            return Some(served);
        }
    }
    None
}

/// The same from costs, after every trace.
fn amounts(logs: &CostLogs, alpha: f64, rng: &mut ChaCha8Rng) -> Option<u64> {
    let draw = Draw::new(RHO, LONG);
    let mut plain = Plain::new(alpha);
    (1..=LIMIT).find(|_| {
        let (green, cost) = draw.next(rng);
        plain.earn(logs.of(green, cost))
    })
}
