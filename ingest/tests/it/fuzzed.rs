//! Requests that are almost those of real clients: cut, spliced, doubled, with bytes that are not theirs. The fuzz targets
//! in `fuzz/` look further; what they find is kept in `testdata/fuzz` and read here.

use ingest::{
    door::from_json,
    intake::Signal,
    read::{AnswerSchemas, ContentConfig, ContentPolicy, ReadConfig, Reader},
};
use proto::Nanos;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Changed requests that are read; `FUZZ_ROUNDS` asks for more.
const ROUNDS: u64 = 3_000;
/// Longest request made, bytes.
const BODY_BYTES_MAX: usize = 256 << 10;

fn testdata(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(folder)
}

fn reader(policy: ContentPolicy) -> Reader {
    let mut schemas = AnswerSchemas::default();
    let schema = r##"{"anyOf": [{"type": "string", "pattern": "^(a+)+$"}, {"items": {"$ref": "#"}}]}"##;
    schemas.declare("route", schema).unwrap();
    Reader::new(Arc::new(ReadConfig {
        schemas: Arc::new(schemas),
        content: ContentConfig {
            policy,
            ..ContentConfig::default()
        },
        ..ReadConfig::default()
    }))
}

/// A request is read whole or not at all, its rows form batches, and no policy changes what is taken and what refused.
fn read(readers: &mut [Reader], signal: Signal, body: &[u8], what: &str) {
    let mut taken = Vec::new();
    for reader in readers {
        let read = match signal {
            Signal::Traces => reader.read_traces(body, Nanos(1)),
            Signal::Logs => reader.read_logs(body, Nanos(1)),
        };
        let rows = reader.rows();
        assert!(read.is_ok() || rows == 0, "{what}: a refused request left rows");
        let sections = reader.take();
        let formed: usize = sections.iter().map(|section| section.rows.num_rows()).sum();
        assert_eq!(formed, rows, "{what}: rows did not form a batch");
        taken.push(read.ok().map(|accepted| (accepted.accepted, accepted.rejected)));
    }
    assert!(taken.windows(2).all(|pair| pair[0] == pair[1]), "{what}: {taken:?}");
}

fn read_any(readers: &mut [Reader], name: &str, body: &[u8], what: &str) {
    for signal in [Signal::Traces, Signal::Logs] {
        if name.ends_with("json") {
            if let Ok(request) = from_json(signal, body) {
                read(readers, signal, &request, what);
            }
        } else {
            read(readers, signal, body, what);
        }
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
    {
        let name = entry.to_string_lossy().into_owned();
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if !name.ends_with(".md") && !name.ends_with("MANIFEST.json") {
            found.push((name, fs::read(&entry).unwrap()));
        }
    }
    found.sort();
    found
}

/// One to four changes, each anywhere.
fn changed(body: &[u8], other: &[u8], dice: &mut ChaCha8Rng) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..dice.random_range(1..=4) {
        let at = dice.random_range(0..=body.len());
        let end = (at + dice.random_range(0..64)).min(body.len());
        match dice.random_range(0..6) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..end)),
            2 => drop(body.splice(at..end, body[at..end].repeat(3))),
            3 => {
                let from = dice.random_range(0..=other.len());
                let to = (from + dice.random_range(0..4_096)).min(other.len());
                drop(body.splice(at..end, other[from..to].iter().copied()));
            }
            4 => body[at..end].iter_mut().for_each(|byte| *byte = dice.random()),
            _ => {
                let odd = *[0_u8, 0x7f, 0x80, 0xff, b'[', b'{', b'"', b'\\'].choose(dice).unwrap();
                let many = dice.random_range(0..2_000);
                drop(body.splice(at..at, std::iter::repeat_n(odd, many)));
            }
        }
    }
    body.truncate(BODY_BYTES_MAX);
    body
}

#[test]
fn changed_captures_are_read_whole_or_refused() {
    let seed = rand::random::<u64>();
    #[allow(clippy::print_stderr)] // a random test always tells its seed
    {
        eprintln!("seed {seed}");
    }
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let captures = files(&testdata("captures"));
    let mut readers = [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep].map(reader);
    for round in 0..rounds {
        let mut dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(round));
        let (name, body) = captures.choose(&mut dice).unwrap();
        let (_, other) = captures.choose(&mut dice).unwrap();
        let body = changed(body, other, &mut dice);
        read_any(
            &mut readers,
            name,
            &body,
            &format!("seed {seed} round {round} of {name}"),
        );
    }
}

#[test]
fn captures_and_what_fuzzing_found_are_read_whole_or_refused() {
    let mut readers = [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep].map(reader);
    let (captures, found) = (files(&testdata("captures")), files(&testdata("fuzz")));
    assert!(captures.len() > 90);
    for (name, body) in captures.iter().chain(&found) {
        read_any(&mut readers, name, body, name);
    }
}
