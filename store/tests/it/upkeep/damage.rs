//! Files that went bad: set aside, never copied, never in the way.

use super::{GO_ON, HOUR, World, named};
use crate::{journal::options, rows::rng};
use proto::{Nanos, layout::Table};
use std::fs;
use store::{Store, Upkeep};

fn eight_seals(seed: u64) -> World {
    let (mut rng, mut world) = (rng(seed), World::new());
    for _ in 0..8 {
        world.seal(&mut rng);
    }
    world
}

#[test]
fn a_flipped_byte_anywhere_is_seen_before_it_is_copied() {
    for (nth, table) in [Table::Spans, Table::Traces, Table::Evals, Table::Cells]
        .into_iter()
        .enumerate()
    {
        // Footer, data, header: wherever it is.
        for place in [3 - nth] {
            let world = eight_seals(nth as u64);
            let file = world.files.iter().find(|file| file.table == table).unwrap().clone();
            let path = world.dir.path().join(&file.path);
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            let at = 4 + (bytes.len() - 12) * place / 4;
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let (mut done, mut quarantined, mut now) = (None, Vec::new(), world.now + 30 * HOUR);
            while done.as_ref().is_none_or(|done: &store::Upkept| done.more) {
                let task = Upkeep {
                    now: Nanos(now),
                    aged_to: Nanos(now),
                    ..Upkeep::default()
                };
                let step = world.store.sealer().upkeep(&task, GO_ON).unwrap();
                quarantined.extend(step.quarantined.clone());
                (now, done) = (now + 1, Some(step));
            }
            let done = done.unwrap();
            assert_eq!(
                (quarantined.as_slice(), done.quarantined_now),
                ([file.path.clone()].as_slice(), 1)
            );
            assert!(
                !named(&done.files).contains(&file.path) && path.exists(),
                "set aside, not removed"
            );
            let rows = |files: &[store::SealedFile]| -> u64 {
                let of_table = files.iter().filter(|f| f.table == table && table != Table::Cells);
                of_table.map(|file| file.rows).sum()
            };
            let lost = if table == Table::Cells { 0 } else { file.rows };
            // Doubles and former rows may have gone with others, so at most that many are left.
            assert!(rows(&done.files) <= rows(&world.files) - lost);
            // Whoever brings the file back has it back at the next start.
            let World { dir, store, .. } = world;
            drop((store, done));
            let (store, found) = Store::open(dir.path(), options()).unwrap();
            assert_eq!(found.report.quarantined, [file.path.as_str()]);
            drop((store, found));
            fs::write(&path, &whole).unwrap();
            let (_store, found) = Store::open(dir.path(), options()).unwrap();
            assert!(found.report.quarantined.is_empty());
            assert!(named(&found.base.files).contains(&file.path));
        }
    }
}

#[test]
fn a_suspect_is_set_aside_if_it_is_damaged_and_stays_if_it_is_whole() {
    let world = eight_seals(7);
    // Of the last seals: too few of their hour to be joined by the same step.
    let [good, bad] = world.files.last_chunk().unwrap().clone();
    fs::write(world.dir.path().join(&bad.path), b"PAR1").unwrap();
    let task = Upkeep {
        now: Nanos(world.now),
        aged_to: Nanos(world.now),
        suspects: vec![good.path.clone(), bad.path.clone(), "spans/no/such.parquet".to_owned()],
        ..Upkeep::default()
    };
    let done = world.store.sealer().upkeep(&task, GO_ON).unwrap();
    assert_eq!(done.quarantined, [bad.path.as_str()]);
    assert!(!named(&done.files).contains(&bad.path) && named(&done.files).contains(&good.path));
    let again = world.store.sealer().upkeep(&task, GO_ON).unwrap();
    assert!(again.quarantined.is_empty() && again.quarantined_now == 1);
    assert_eq!(world.store.sealer().quarantined().unwrap(), 1);
}
