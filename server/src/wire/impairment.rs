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
        let lasting = match report.lost_records {
            0 => None,
            records => Some(format!("{records} acknowledged journal records were lost to damage")),
        };
        Self {
            lasting,
            samples: VecDeque::new(),
        }
    }

    /// Totals of the doors at a time, not more often than needed, and files that are set aside now; the answer in words.
    pub fn observe(&mut self, now: Nanos, requests: u64, shed: u64, quarantined: u64) -> Option<String> {
        self.samples.push_back((now, requests, shed));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, ..)| now.since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        if quarantined > 0 {
            return Some(format!("{quarantined} sealed files are quarantined"));
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
        assert_eq!(doors.observe(at(0), 0, 0, 0), None);
        assert_eq!(doors.observe(at(1), 10_000, 99, 0), None, "below 1 %");
        let said = doors.observe(at(2), 10_100, 150, 0).unwrap();
        assert!(said.contains("1.5 %"), "{said}");
        assert!(doors.observe(at(30), 10_200, 150, 0).is_some());
        assert_eq!(doors.observe(at(120), 20_000, 150, 0), None);
    }

    #[test]
    fn quarantined_files_count_for_as_long_as_there_are_any() {
        let mut doors = Impairment::default();
        let said = doors.observe(Nanos::from_secs(1), 0, 0, 2).unwrap();
        assert!(said.contains("2 sealed files are quarantined"), "{said}");
        assert_eq!(doors.observe(Nanos::from_secs(2), 0, 0, 0), None);
    }

    #[test]
    fn lost_records_count_for_good() {
        let report = RecoveryReport {
            lost_records: 3,
            ..RecoveryReport::default()
        };
        let mut doors = Impairment::new(&report);
        let said = doors.observe(Nanos::from_secs(1), 0, 0, 0).unwrap();
        assert!(said.contains("3 acknowledged"), "{said}");
    }
}
