//! What one trace adds to the log of each bet, taken once for every kind of trace.

use crate::walk::Logs;
use gates::stats::{
    BETS, KAPPA, Side,
    mean::{MeanBets, MeanMargin},
    rates::RateBets,
};
use proto::bucket;

/// What one event of either color adds.
#[derive(Debug, Clone, Copy)]
pub struct EventLogs {
    /// An event of blue's.
    pub blue: Logs,
    /// One of green's.
    pub green: Logs,
}

impl EventLogs {
    /// For a split `rho` in (0, 1) and a ratio `r`.
    pub fn new(rho: f64, r: f64, side: Side) -> Self {
        let bets = RateBets::new(rho, r);
        let (mut blue, mut green) = ([0.0; BETS], [0.0; BETS]);
        match side {
            Side::Gt => {
                bets.gt.add(1, 0, &mut green);
                bets.gt.add(0, 1, &mut blue);
            }
            Side::Lt => {
                bets.lt.add(1, 0, &mut blue);
                bets.lt.add(0, 1, &mut green);
            }
        }
        Self { blue, green }
    }

    /// Of the color that `green` says.
    pub const fn of(&self, green: bool) -> &Logs {
        if green { &self.green } else { &self.blue }
    }
}

/// What a trace of either color adds by its cost, for each of a list of costs.
#[derive(Debug, Clone)]
pub struct CostLogs {
    blue: Vec<Logs>,
    green: Vec<Logs>,
}

impl CostLogs {
    /// `blue` and `green` list the costs each color may have; each counts by the edges of its bucket, as in a cell.
    pub fn new(blue: &[u64], green: &[u64], margin: MeanMargin, rho: f64, side: Side) -> Self {
        let bets = MeanBets::new(margin, rho).expect("a margin that allows a bet");
        let edges = |cost: u64| {
            let (low, high) = bucket::range_of(bucket::index_of(cost));
            (low as f64, high as f64)
        };
        let of = |costs: &[u64], green: bool| {
            let edges = costs.iter().map(|&cost| edges(cost));
            edges
                .map(|(low, high)| match green {
                    true => bets.green(low, high, side, &KAPPA),
                    false => bets.blue(low, high, side, &KAPPA),
                })
                .collect()
        };
        Self {
            blue: of(blue, false),
            green: of(green, true),
        }
    }

    /// Of the `i`-th cost of the color that `green` says.
    pub fn of(&self, green: bool, i: usize) -> &Logs {
        if green { &self.green[i] } else { &self.blue[i] }
    }
}
