//! Reads the runners' own closing lines, so that the last line of a run is their sum.

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// The counts of one output line, if it closes a run of `cargo test` or `pytest`.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result: ") {
            return Some(Self {
                passed: number_before(counts, "passed"),
                failed: number_before(counts, "failed"),
            });
        }
        // pytest -q: "3 passed, 1 failed in 2.31s"; without -q the same between rows of "=".
        let line = line.trim_matches(['=', ' ']);
        let closes = line
            .rsplit_once(" in ")
            .is_some_and(|(_, time)| time.starts_with(|c: char| c.is_ascii_digit()));
        let starts = line.starts_with(|c: char| c.is_ascii_digit());
        let counts = ["passed", "failed", "error"].iter().any(|word| line.contains(word));
        (closes && starts && counts).then(|| Self {
            passed: number_before(line, "passed"),
            failed: number_before(line, "failed") + number_before(line, "error") + number_before(line, "errors"),
        })
    }
}

/// The number that stands before a word: 3 in "1 failed, 3 passed".
fn number_before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ',', ';', '.']).filter(|w| !w.is_empty()).collect();
    words
        .windows(2)
        .find(|two| two[1] == word)
        .and_then(|two| two[0].parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_read_and_nothing_else() {
        let cargo =
            "test result: FAILED. 23 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.62s";
        assert_eq!(Tally::of_line(cargo), Some(Tally { passed: 23, failed: 2 }));
        assert_eq!(
            Tally::of_line("6 passed in 9.31s"),
            Some(Tally { passed: 6, failed: 0 })
        );
        assert_eq!(
            Tally::of_line("1 failed, 5 passed, 2 errors in 61.02s (0:01:01)"),
            Some(Tally { passed: 5, failed: 3 })
        );
        assert_eq!(
            Tally::of_line("=== 1 failed, 5 passed in 3.00s ==="),
            Some(Tally { passed: 5, failed: 1 })
        );
        for other in [
            "test door::passed ... ok",
            "running 25 tests",
            "assert 5 passed in 3",
            "",
            "3 spans failed in 2",
        ] {
            assert_eq!(
                Tally::of_line(other).filter(|t| *t != Tally::default()),
                None,
                "{other}"
            );
        }
    }
}
