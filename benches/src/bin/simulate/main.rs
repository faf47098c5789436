//! Reruns the study behind the guarantee: how often an equal green is rolled back, how soon a worse one is, what late
//! onsets, wrong splits and the rules of others do.
//!
//! Every part prints its table as soon as it is done. With `--write` they also go between the markers of
//! `docs/statistics.md`, with a plot beside it; both are written whole and renamed at the end, so that an interrupted run
//! leaves them as they were. The run fails if chance does not explain the false rollbacks it saw; a goal that is missed
//! is printed as missed.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod exact;
mod judged;
mod logs;
mod medians;
mod nulls;
mod onset;
mod plot;
mod run;
mod split;
mod table;
mod traffic;
mod versus;
mod walk;
mod write;

use clap::Parser;
use nulls::Null;
use onset::Onset;
use run::Scale;
use std::process::ExitCode;
use table::{Table, Target};
use versus::Versus;

#[derive(Debug, Parser)]
#[command(
    name = "simulate",
    about = "Rerun the study behind the guarantee of the gates",
    after_help = "Examples:\n  \
        simulate                      the whole study, some tens of minutes on two cores\n  \
        simulate --quick              every part of it within seconds; its figures say little\n  \
        simulate --runs 500 --seed 7  coarser, on other streams\n  \
        simulate --write              also into docs/statistics.md and its plot"
)]
struct Args {
    /// Runs of every part; those of rare events alone are ten times as many, those with days of health a tenth
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=100_000), conflicts_with = "quick")]
    runs: u64,
    /// Seed of all streams: the same seed gives the same figures on any number of threads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Few runs over little traffic
    #[arg(long)]
    quick: bool,
    /// Write the tables into docs/statistics.md and the plot beside it
    #[arg(long, conflicts_with = "quick")]
    write: bool,
}

/// What the study found.
struct Study {
    scale: Scale,
    targets: Vec<Target>,
    tables: Vec<Table>,
    nulls: Vec<Null>,
    onsets: Vec<Onset>,
    versus: Vec<Versus>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scale = if args.quick {
        Scale::quick(args.seed, args.threads, true)
    } else {
        Scale::full(args.runs, args.seed, args.threads)
    };
    println!("seed {}\n", args.seed);
    // Taken before: the tree may change while this runs.
    let commit = write::commit();
    let study = study(&scale, |table| println!("{}", table.markdown()));
    if args.write
        && let Err(why) = write::docs(&study, &commit)
    {
        eprintln!("nothing was written: {why}");
        return ExitCode::FAILURE;
    }
    let broken = study.nulls.iter().filter(|null| null.is_broken());
    let broken: Vec<String> = broken.map(|n| format!("{}, {}", n.statistic, n.traffic)).collect();
    if broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("the guarantee does not hold for: {}", broken.join("; "));
    ExitCode::FAILURE
}

/// Runs every part; `done` is given each table as it is ready.
fn study(scale: &Scale, done: impl Fn(&Table)) -> Study {
    let mut tables = Vec::new();
    let mut add = |table: Table| {
        done(&table);
        tables.push(table);
    };
    let nulls = nulls::study(scale);
    add(nulls::table(&nulls, scale.arm));
    let mut targets = medians::study(scale);
    targets.extend(judged::study(scale));
    add(table::targets(&targets));
    add(medians::by_spread(scale));
    let onsets = onset::study(scale);
    add(onset::table(&onsets));
    add(judged::verdicts(scale));
    add(split::study(scale));
    let versus = versus::study(scale);
    add(versus::table(&versus, scale));
    Study {
        scale: *scale,
        targets,
        tables,
        nulls,
        onsets,
        versus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Every part, on little traffic: what is worse is found, what is equal is not explained away, and all of it can be
    /// shown.
    #[test]
    fn the_whole_study_runs_in_small() {
        const SEED: u64 = 1;
        let scale = Scale::quick(SEED, 2, false);
        let seen = RefCell::new(String::new());
        let study = study(&scale, |table| seen.borrow_mut().push_str(&table.markdown()));
        let seen = seen.into_inner();
        println!("seed {SEED}\n{seen}");
        let broken = study.nulls.iter().filter(|n| n.is_broken()).count();
        assert_eq!((study.nulls.len(), broken), (12, 0));
        assert!(study.targets.iter().all(|t| t.measured.is_some()));
        let at = |name: &str| study.onsets.iter().find(|o| o.name == name && o.rate > 0.1).unwrap();
        let (soon, late) = (at("at once"), at("after 3 days"));
        assert!(soon.plain.unwrap() < late.plain.unwrap() && late.late.unwrap() < late.plain.unwrap());
        let argo = study.versus.iter().find(|v| v.rule.starts_with("Argo")).unwrap();
        assert!(
            argo.equal.iter().flatten().count() > 16,
            "a fixed threshold rolls back nearly every equal green"
        );
        let svg = plot::svg(&study).unwrap();
        assert!(
            svg.ends_with("</svg>\n") && svg.contains("Flagger style"),
            "{}",
            svg.len()
        );
    }
}
