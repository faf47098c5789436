//! The long versions of tests that draw at random or press hard: the same tests, told by the environment to go on.

use crate::steps::{Steps, cargo};
use clap::ValueEnum;

/// One kind of strain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// SIGKILL in the middle of requests, 500 times on one data directory.
    Kill,
    /// A file system that is full, and has room again. It is mounted, so user namespaces must be allowed.
    Full,
    /// Power cuts at random writes, 10,000 seeds, over appends, seals and upkeep.
    Power,
    /// What real clients sent, in 100 orders, cut and sent again.
    Order,
    /// Captured requests, journals, commit records, configurations, release files and SQL with changed bytes.
    Bytes,
    /// Any order of events in the life of a release.
    Life,
    /// More than the machine can take, for two minutes.
    Overload,
    /// Pairs, sessions and guards of a million traces.
    Scale,
}

/// Package, filter of its tests, and what tells them to go on.
type Strain = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

impl Part {
    const fn strains(self) -> &'static [Strain] {
        match self {
            Self::Kill => &[("server", "kill::a_kill_loses_nothing", &[("KILLS", "500")])],
            Self::Full => &[("server", "full::", &[])],
            Self::Power => &[("store", "power::", &[("STORE_SEEDS", "10000")])],
            Self::Order => &[("server", "captures::any_order", &[("TRUTH_SEEDS", "100")])],
            Self::Bytes => &[
                ("ingest", "fuzzed::", &[("FUZZ_ROUNDS", "1000000")]),
                // a round here is a start, or several
                ("store", "fuzzed::", &[("FUZZ_ROUNDS", "10000")]),
                ("gates", "fuzzed::", &[("FUZZ_ROUNDS", "100000")]),
                ("query", "fuzzed::", &[("FUZZ_ROUNDS", "100000")]),
                ("server", "fuzzed::", &[("FUZZ_ROUNDS", "100000")]),
            ],
            Self::Life => &[("gates", "model::", &[("TRACEGATE_MODEL_CASES", "100000")])],
            Self::Overload => &[("server", "overload::", &[("OVERLOAD_SECONDS", "120")])],
            Self::Scale => &[("query", "measure::scale::", &[])],
        }
    }
}

/// Runs the parts, one after another.
pub(crate) fn run(steps: &mut Steps, parts: &[Part]) {
    let all = Part::value_variants();
    let parts = if parts.is_empty() { all } else { parts };
    let strains = parts
        .iter()
        .flat_map(|part| part.strains().iter().map(move |strain| (part, strain)));
    for (part, (package, filter, told)) in strains {
        let mut command = cargo([
            "test",
            "--package",
            package,
            "--test",
            "it",
            filter,
            "--",
            "--include-ignored",
            "--nocapture",
        ]);
        command.envs(told.iter().copied());
        steps.counted(&format!("{}, {package}", format!("{part:?}").to_lowercase()), command);
    }
}
