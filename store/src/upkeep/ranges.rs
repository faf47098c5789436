//! Which ranges of journal records overlap which.

use crate::SealedFile;

/// Ranges as their sorted ends: how many overlap another one takes two searches, however many there are.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    firsts: Vec<u64>,
    lasts: Vec<u64>,
}

impl Ranges {
    /// Of firsts and lasts, the latter not below the former.
    pub fn of(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let (mut firsts, mut lasts): (Vec<u64>, Vec<u64>) = ranges.unzip();
        firsts.sort_unstable();
        lasts.sort_unstable();
        Self { firsts, lasts }
    }

    /// Those of the records in files.
    pub fn of_files<'a>(files: impl Iterator<Item = &'a SealedFile>) -> Self {
        Self::of(files.map(|file| (file.lsn_min, file.lsn_max)))
    }

    /// How many overlap `first..=last`.
    pub fn over(&self, first: u64, last: u64) -> usize {
        let begun = self.firsts.partition_point(|other| *other <= last);
        let ended = self.lasts.partition_point(|other| *other < first);
        begun.saturating_sub(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_count_what_a_look_at_each_would() {
        let all: Vec<(u64, u64)> = (0..40).map(|n| (n * 7 % 31, n * 7 % 31 + n % 5)).collect();
        let ranges = Ranges::of(all.iter().copied());
        for first in 0..40 {
            for last in first..40 {
                let by_hand = all.iter().filter(|(a, b)| *a <= last && first <= *b).count();
                assert_eq!(ranges.over(first, last), by_hand, "{first}..={last}");
            }
        }
    }
}
