//! The statistics as one reads them after every event: the bets of `gates::stats`, one event at a time.
//!
//! Exponentials are taken only where they can matter. Every e-value here is a mean over six bets, plus for late starts the
//! weight of the starts to come. A mean is never more than its largest term, so while no bet has reached the level, the
//! e-value has not either; [`Plain`] and [`Late`] compare logs with that level and take exponentials beyond it alone. The
//! tests hold both against the plain way, after every event.

use gates::stats::{
    BETS, LateStarts,
    log_space::{exp, ln},
    many, mean_exp,
};

/// What one event adds to the log of each bet.
pub type Logs = [f64; BETS];

/// How far below a level a sum of logs is already looked at exactly: more than rounding can amount to.
const SLACK: f64 = 1e-6;

/// One start, at the beginning.
#[derive(Debug, Clone)]
pub struct Plain {
    sum: Logs,
    threshold: f64,
}

impl Plain {
    /// Crosses at `1 / alpha`.
    pub fn new(alpha: f64) -> Self {
        Self {
            sum: [0.0; BETS],
            threshold: ln(1.0 / alpha),
        }
    }

    /// Takes one event; whether the e-value has now reached the threshold.
    ///
    /// E = mean of exp(sum_d) <= exp(max sum_d), so E >= x only if some sum_d >= ln x.
    pub fn earn(&mut self, logs: &Logs) -> bool {
        let bar = self.threshold - SLACK;
        let mut may = false;
        for (sum, log) in self.sum.iter_mut().zip(logs) {
            *sum += log;
            may |= *sum >= bar;
        }
        may && self.log_e() >= self.threshold
    }

    /// `log E` now.
    pub fn log_e(&self) -> f64 {
        mean_exp(&self.sum)
    }
}

/// The mixture over start minutes, within a minute too.
#[derive(Debug, Clone)]
pub struct Late {
    /// All minutes before the open one.
    before: LateStarts,
    at: u64,
    /// What the open minute has earned so far.
    partial: Logs,
    /// What it must have earned in some bet before E can be at the floor.
    room: Logs,
    /// E below which nobody acts.
    floor: f64,
}

impl Late {
    /// `floor` above 1: while E is below it, [`Self::earn`] says no.
    pub fn new(floor: f64) -> Self {
        Self {
            before: LateStarts::default(),
            at: 0,
            partial: [0.0; BETS],
            room: [f64::INFINITY; BETS],
            floor,
        }
    }

    /// Begins minute `at`, later than all before.
    ///
    /// Within the minute E = mean of exp(b_d + partial_d) + 1 / (at + 2), where b_d is the log of bet d over all starts
    /// up to this minute, which the minute itself does not change. So E >= x only if for some d
    /// partial_d >= ln(x - 1 / (at + 2)) - b_d.
    pub fn open(&mut self, at: u64) {
        let mut opened = self.before;
        opened.push(at, &[0.0; BETS]);
        let level = ln(self.floor - 1.0 / (at + 2) as f64) - SLACK;
        self.room = opened.bets().map(|b| level - b);
        self.partial = [0.0; BETS];
        self.at = at;
    }

    /// Takes one event of the open minute; whether E may now be at the floor or above.
    pub fn earn(&mut self, logs: &Logs) -> bool {
        let mut may = false;
        for ((partial, room), log) in self.partial.iter_mut().zip(&self.room).zip(logs) {
            *partial += log;
            may |= *partial >= *room;
        }
        may
    }

    /// `log E` now.
    pub fn log_e(&self) -> f64 {
        let mut now = self.before;
        now.push(self.at, &self.partial);
        now.log_e()
    }

    /// Ends the open minute.
    pub fn close(&mut self) {
        self.before.push(self.at, &self.partial);
    }
}

/// The weighted sum over gates, each with late starts.
#[derive(Debug, Clone)]
pub struct Sum<const GATES: usize> {
    gates: [Late; GATES],
    /// Which gates may be at their floor: the sum may cross by one gate because of another.
    high: [bool; GATES],
    threshold: f64,
}

impl<const GATES: usize> Sum<GATES> {
    /// Crosses at `1 / alpha`.
    ///
    /// Were every E_k below x / sum(w), the sum of w_k E_k would be below x: so some gate must be at that floor.
    pub fn new(alpha: f64) -> Self {
        let threshold = ln(1.0 / alpha);
        let weights: f64 = (1..=GATES).map(|k| exp(many::ln_weight(k))).sum();
        Self {
            gates: std::array::from_fn(|_| Late::new(exp(threshold) / weights)),
            high: [false; GATES],
            threshold,
        }
    }

    /// Begins minute `at`.
    pub fn open(&mut self, at: u64) {
        for (gate, high) in self.gates.iter_mut().zip(&mut self.high) {
            gate.open(at);
            *high = gate.earn(&[0.0; BETS]);
        }
    }

    /// One event of one gate; whether the sum may have crossed.
    pub fn earn(&mut self, gate: usize, logs: &Logs) -> bool {
        self.high[gate] = self.gates[gate].earn(logs);
        self.high.contains(&true)
    }

    /// Whether it has.
    pub fn crossed(&self) -> bool {
        self.log_e() >= self.threshold
    }

    /// `log` of the weighted sum.
    pub fn log_e(&self) -> f64 {
        let terms: Vec<(usize, f64)> = (1..).zip(self.each()).collect();
        many::weighted_sum(&terms)
    }

    /// `log E` of every gate.
    pub fn each(&self) -> [f64; GATES] {
        std::array::from_fn(|k| self.gates[k].log_e())
    }

    /// Ends the open minute.
    pub fn close(&mut self) {
        for gate in &mut self.gates {
            gate.close();
        }
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::*;
    use gates::stats::ShareBet;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn logs(p0: f64) -> [Logs; 2] {
        let bet = ShareBet::above(p0);
        let mut logs = [[0.0; BETS]; 2];
        bet.add(0, 1, &mut logs[0]);
        bet.add(1, 0, &mut logs[1]);
        logs
    }

    /// The level is low, so that it is crossed and recrossed; with and without the shortcut the same is said after
    /// every event.
    #[test]
    fn shortcuts_say_what_the_plain_way_says_after_every_event() {
        const SEEDS: u64 = 60;
        let (mut crossed, mut events) = ([0, 0, 0], 0);
        for seed in 0..SEEDS {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let bet = logs(0.5);
            let (mut plain, mut late, mut sum) = (Plain::new(0.4), Late::new(2.5), Sum::<2>::new(0.4));
            for minute in (0..120).filter(|m| m % 7 != 3) {
                late.open(minute);
                sum.open(minute);
                for _ in 0..4 {
                    let logs = &bet[usize::from(rng.random::<f64>() < 0.52)];
                    let said = plain.earn(logs);
                    assert_eq!(said, mean_exp(&plain.sum) >= ln(2.5), "seed {seed}, minute {minute}");
                    let may = late.earn(logs);
                    assert!(may || late.log_e() < ln(2.5), "seed {seed}, minute {minute}");
                    let gate = usize::from(rng.random::<bool>());
                    let may = sum.earn(gate, logs);
                    assert!(may || !sum.crossed(), "seed {seed}, minute {minute}");
                    crossed[0] += u64::from(said);
                    crossed[1] += u64::from(late.log_e() >= ln(2.5));
                    crossed[2] += u64::from(sum.crossed());
                    events += 1;
                }
                late.close();
                sum.close();
            }
        }
        println!("{crossed:?} of {events} looks beyond the level, seeds 0..{SEEDS}");
        assert!(crossed.iter().all(|&n| n > 50 && n < events / 2), "{crossed:?}");
    }

    /// Within a minute and after it, the open walk is the mixture of `gates::stats` on the same counts.
    #[test]
    fn an_open_minute_counts_like_a_closed_one() {
        let bet = logs(0.4);
        let (mut late, mut closed) = (Late::new(100.0), LateStarts::default());
        for minute in [0, 1, 5, 6, 9] {
            late.open(minute);
            let mut earned = [0.0; BETS];
            for event in 0..5 + minute {
                let logs = &bet[usize::from(event % 3 > 0)];
                late.earn(logs);
                for (sum, log) in earned.iter_mut().zip(logs) {
                    *sum += log;
                }
                let mut now = closed;
                now.push(minute, &earned);
                assert_eq!(late.log_e(), now.log_e());
            }
            late.close();
            closed.push(minute, &earned);
        }
        assert!(closed.log_e() > 1.0);
    }
}
