//! How far an import got.

use super::{
    send::{Answer, Outcome, Stop},
    source::{Place, Request},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{collections::BTreeMap, fmt::Write, time::Duration};
use tokio::task::JoinError;

/// Different reasons that are told apart; further ones are added up.
const REASONS_MAX: usize = 20;
/// Bad places that are named; further ones are counted.
const BAD_NAMED_MAX: usize = 100;

/// Counts, reasons, and where it stopped.
pub struct Report {
    bar: ProgressBar,
    requests: u64,
    accepted: u64,
    rejected: u64,
    reasons: BTreeMap<String, u64>,
    bad: u64,
    unkept: u64,
    /// The last request that was read.
    reached: Option<Place>,
    pub stopped: Option<Stop>,
}

impl Report {
    /// With progress on stderr, if that is a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} in {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            bar,
            requests: 0,
            accepted: 0,
            rejected: 0,
            reasons: BTreeMap::new(),
            bad: 0,
            unkept: 0,
            reached: None,
            stopped: None,
        }
    }

    pub fn begun(&mut self, request: &Request) {
        self.reached = Some(request.place.clone());
    }

    pub fn answered(&mut self, answer: Result<Answer, JoinError>) {
        let Answer { place, items, outcome } = match answer {
            Ok(answer) => answer,
            Err(error) => return self.stop(Stop::Server(format!("sending broke off: {error}; please report this"))),
        };
        match outcome {
            Outcome::Taken { rejected, message } => {
                self.requests += 1;
                self.accepted += items.saturating_sub(rejected);
                self.rejected += rejected;
                if rejected > 0 {
                    self.rejections(&message, rejected);
                }
            }
            Outcome::Refused(why) => self.bad(&place, &why),
            Outcome::Lost(stop) => self.stop(stop),
        }
        self.bar.set_message(self.counts());
    }

    /// `2 rejected: reason; 1 rejected: other reason`, as servers say it; or one reason for all.
    fn rejections(&mut self, message: &str, rejected: u64) {
        let parts: Vec<(u64, &str)> = message
            .split("; ")
            .filter_map(|part| part.split_once(" rejected: "))
            .filter_map(|(count, reason)| Some((count.parse().ok()?, reason)))
            .collect();
        if parts.iter().map(|(count, _)| count).sum::<u64>() == rejected {
            for (count, reason) in parts {
                self.reason(reason, count);
            }
        } else {
            self.reason(if message.is_empty() { "no reason given" } else { message }, rejected);
        }
    }

    fn reason(&mut self, reason: &str, count: u64) {
        let known = self.reasons.contains_key(reason) || self.reasons.len() < REASONS_MAX;
        *self
            .reasons
            .entry(if known { reason } else { "other reasons" }.to_owned())
            .or_default() += count;
    }

    /// A request that is none, or was refused: said at once, with its place.
    pub fn bad(&mut self, place: &Place, why: &str) {
        self.bad += 1;
        if self.bad <= BAD_NAMED_MAX as u64 {
            let line = format!("{place}: {why}");
            self.bar.suspend(|| say(&line));
        }
    }

    pub const fn unkept(&mut self) {
        self.unkept += 1;
    }

    pub fn stop(&mut self, stop: Stop) {
        self.stopped.get_or_insert(stop);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub const fn is_complete(&self) -> bool {
        self.stopped.is_none() && self.bad == 0
    }

    fn counts(&self) -> String {
        format!(
            "{} requests, {} spans and log records accepted, {} rejected",
            self.requests, self.accepted, self.rejected
        )
    }

    /// For people, ending with a line break.
    pub fn summary(&self) -> String {
        let mut text = format!("{}\n", self.counts());
        for (reason, count) in &self.reasons {
            let _ = writeln!(text, "  {count} rejected: {reason}");
        }
        if self.unkept > 0 {
            let _ = writeln!(text, "{} requests of metrics left out: they are not kept", self.unkept);
        }
        if self.bad > 0 {
            let _ = writeln!(text, "{} requests could not be taken; stderr names them", self.bad);
        }
        if let Some(stop) = &self.stopped {
            let why = match stop {
                Stop::Interrupted => "interrupted",
                Stop::Server(why) => why,
            };
            let place = self
                .reached
                .as_ref()
                .map_or_else(String::new, |place| format!(" near {place}"));
            let _ = writeln!(text, "stopped{place}: {why}");
            text.push_str("run it again as it is: what was taken is recognised for 24 hours\n");
        }
        text
    }
}

fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
