//! What ten real clients sent, through every transport and in any order, cut and sent again, over a kill: SQL says the
//! same of every trace, and it is what the provider served.
//!
//! `TRUTH_SEED=n` repeats one delivery, `TRUTH_SEEDS=n` tries the first n.

pub mod message;
pub mod truth;
mod twins;
pub mod wire;

use crate::kill::Served;
use futures::{StreamExt, stream};
use message::Cut;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use server::{config::Config, wall_clock, wire::App};
use std::{fs, path::Path, time::Duration};
use wire::{Doors, Parcel, Way};

/// Requests under way at once.
const UNDER_WAY: usize = 8;

/// Instances at once.
const TRIES_AT_ONCE: usize = 4;

/// Seeds to try: one by name, else the first few.
fn seeds(few: u64) -> Vec<u64> {
    let told = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match told("TRUTH_SEED") {
        Some(seed) => vec![seed],
        None => (0..told("TRUTH_SEEDS").unwrap_or(few)).collect(),
    }
}

/// Closes traces soon and seals all the time, so that late parts meet closed traces and sealed rows.
fn hurried(dir: &Path) -> Config {
    let mut config = Config::on_free_ports(dir.join("data"));
    config.pipeline.assembly.quiet = Duration::from_millis(300);
    config.pipeline.assembly.orphan_quiet = Duration::from_secs(1);
    config.pipeline.seal_age = Duration::from_millis(500);
    config
}

pub async fn start(dir: &Path) -> (App, Doors) {
    let app = App::start(hurried(dir), wall_clock()).await.unwrap();
    let at = app.addresses;
    (app, Doors::new(at.otlp_grpc, at.otlp_http, at.http))
}

/// Sends parcels, several at once; what was not acknowledged, and why.
async fn deliver(doors: &Doors, parcels: Vec<Parcel>) -> Vec<(Parcel, String)> {
    let sends = parcels.into_iter().map(|parcel| async move {
        let why = parcel.send(doors).await.err()?;
        Some((parcel, why))
    });
    stream::iter(sends)
        .buffer_unordered(UNDER_WAY)
        .filter_map(|refused| async { refused })
        .collect()
        .await
}

/// Every captured record in requests of any size, each one to three times, in any order, each in any way.
fn shuffled(rng: &mut ChaCha8Rng) -> Vec<Parcel> {
    let ways = Way::all();
    let mut parcels = Vec::new();
    for message in message::all() {
        let cut = [Cut::Whole, Cut::Resource, Cut::Scope, Cut::Record][rng.random_range(0..4)];
        for part in message.cut(cut) {
            let way = ways[rng.random_range(0..ways.len())];
            let parcel = Parcel::new(&part, way, rng.random());
            for _ in 0..rng.random_range(0..3) {
                parcels.push(if rng.random() {
                    parcel.clone()
                } else {
                    let other = ways[rng.random_range(0..ways.len())];
                    Parcel::new(&part.rewritten(), other, rng.random())
                });
            }
            parcels.push(parcel);
        }
    }
    parcels.shuffle(rng);
    parcels
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_and_coding_tells_the_truth() {
    let tries = Way::all().into_iter().map(|way| async move {
        let dir = tempfile::tempdir().unwrap();
        let (app, doors) = start(dir.path()).await;
        for message in message::all() {
            Parcel::new(&message, way, false).send(&doors).await.unwrap();
        }
        truth::check(&doors, &format!("{way:?}")).await;
        app.shutdown().await.unwrap();
    });
    // Each waits most of the time until its traces are old enough to close.
    stream::iter(tries)
        .buffer_unordered(TRIES_AT_ONCE)
        .collect::<()>()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_any_cut_and_any_copies_tell_the_truth() {
    for seed in seeds(3) {
        eprintln!("TRUTH_SEED={seed}");
        let parcels = shuffled(&mut ChaCha8Rng::seed_from_u64(seed));
        let dir = tempfile::tempdir().unwrap();
        let (app, doors) = start(dir.path()).await;
        let refused = deliver(&doors, parcels).await;
        assert!(refused.is_empty(), "TRUTH_SEED={seed}: {}", refused[0].1);
        truth::check(&doors, &format!("TRUTH_SEED={seed}")).await;
        app.shutdown().await.unwrap();
        // What was sealed says the same to an instance that has seen none of it.
        let (app, doors) = start(dir.path()).await;
        truth::check(&doors, &format!("TRUTH_SEED={seed} after a restart")).await;
        app.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_changes_nothing_of_the_truth() {
    for seed in seeds(1) {
        eprintln!("TRUTH_SEED={seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut left = shuffled(&mut rng);
        let dir = tempfile::tempdir().unwrap();
        let hurried = "[server]\ntrace_quiet = \"300ms\"\nseal_age = \"500ms\"\n";
        fs::write(dir.path().join("tracegate.toml"), hurried).unwrap();
        for _ in 0..2 {
            let served = Served::start(dir.path());
            let doors = Doors::new(served.otlp_grpc, served.otlp_http, served.http);
            let few = rng.random_range(1..left.len() / 2);
            let later = left.split_off(few);
            let unacked = deliver(&doors, left).await;
            assert!(unacked.is_empty(), "TRUTH_SEED={seed}: {}", unacked[0].1);
            // Some are under way when the kill comes: taken or not, they are sent again.
            let (some, rest) = later.split_at(later.len().min(UNDER_WAY * 4));
            let under_way = tokio::spawn({
                let some = some.to_vec();
                async move { deliver(&doors, some).await }
            });
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
            drop(served);
            left = under_way.await.unwrap().into_iter().map(|(parcel, _)| parcel).collect();
            left.extend_from_slice(rest);
        }
        let served = Served::start(dir.path());
        let doors = Doors::new(served.otlp_grpc, served.otlp_http, served.http);
        let refused = deliver(&doors, left).await;
        assert!(refused.is_empty(), "TRUTH_SEED={seed}: {}", refused[0].1);
        truth::check(&doors, &format!("TRUTH_SEED={seed} over two kills")).await;
    }
}
