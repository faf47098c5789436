//! What keeps the numbers from being trusted: said to the gates, which then stay inconclusive.

use proto::Nanos;
use std::{collections::VecDeque, time::Duration};
use store::RecoveryReport;

/// Over how long the share of shed requests is taken.
const WINDOW: Duration = Duration::from_secs(60);
/// Share of requests refused for want of room above which arms may be shed unevenly.
const SHED_SHARE_MAX: f64 = 0.01;
/// Requests in the window below which a share says nothing.
const REQUESTS_MIN: u64 = 100;

/// Watches the doors.
#[derive(Debug, Default)]
pub(super) struct Impairment {
    /// For good, until somebody repairs the data directory and starts again.
    lasting: Option<String>,
    /// Time, requests so far, requests shed so far.
    samples: VecDeque<(Nanos, u64, u64)>,
}

impl Impairment {
    /// What recovery already found.
    pub fn new(report: &RecoveryReport) -> Self {
        let lasting = match (report.quarantined.len(), report.lost_records) {
            (0, 0) => None,
            (0, records) => Some(format!("{records} acknowledged journal records were lost to damage")),
            (files, _) => Some(format!("{files} sealed files are quarantined")),
        };
        Self {
            lasting,
            samples: VecDeque::new(),
        }
    }

    /// Totals of the doors at a time, not more often than needed; the answer in words.
    pub fn observe(&mut self, now: Nanos, requests: u64, shed: u64) -> Option<String> {
        self.samples.push_back((now, requests, shed));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, ..)| now.since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        if self.lasting.is_some() {
            return self.lasting.clone();
        }
        let &(_, first_requests, first_shed) = self.samples.front()?;
        let (requests, shed) = (requests - first_requests, shed - first_shed);
        let share = shed as f64 / requests.max(1) as f64;
        (requests >= REQUESTS_MIN && share > SHED_SHARE_MAX).then(|| {
            format!(
                "shed: {:.1} % of export requests were refused in the last minute",
                100.0 * share
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shed_traffic_counts_for_a_minute() {
        let mut doors = Impairment::default();
        let at = Nanos::from_secs;
        assert_eq!(doors.observe(at(0), 0, 0), None);
        assert_eq!(doors.observe(at(1), 10_000, 99), None, "below 1 %");
        let said = doors.observe(at(2), 10_100, 150).unwrap();
        assert!(said.contains("1.5 %"), "{said}");
        assert!(doors.observe(at(30), 10_200, 150).is_some());
        assert_eq!(doors.observe(at(120), 20_000, 150), None);
    }

    #[test]
    fn damaged_files_count_until_they_are_repaired() {
        let report = RecoveryReport {
            quarantined: vec!["spans/x".to_owned()],
            ..RecoveryReport::default()
        };
        let mut doors = Impairment::new(&report);
        assert!(
            doors
                .observe(Nanos::from_secs(1), 0, 0)
                .unwrap()
                .contains("quarantined")
        );
    }
}
