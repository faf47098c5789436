//! Who holds a snapshot keeps its files.

use super::{HOUR, World, named, on_disk, step};
use crate::rows::rng;
use proto::Nanos;
use std::{cell::Cell, sync::Arc};
use store::Upkeep;

const MINUTE: i64 = 60_000_000_000;

fn ten_seals(seed: u64) -> World {
    let (mut rng, mut world) = (rng(seed), World::new());
    for _ in 0..10 {
        world.seal(&mut rng);
    }
    world
}

#[test]
fn a_replaced_file_stays_until_its_last_reader_is_gone_and_the_commit_before_with_it() {
    let mut world = ten_seals(1);
    let reader = Arc::clone(&world.files);
    let later = world.now + 30 * HOUR;
    assert!(world.upkeep(later).rewritten > 1);
    let replaced = named(&reader).difference(&named(&world.files)).count();
    assert!(replaced > 1);
    let mut now = later;
    while world.upkeep(now).more {
        now += 2 * MINUTE;
        world.upkeep(now);
        assert!(
            on_disk(world.dir.path()).is_superset(&named(&reader)),
            "a reader holds them"
        );
    }
    drop(reader);
    for minutes in [2, 4] {
        step(&world.store.sealer(), now + minutes * MINUTE);
    }
    assert_eq!(on_disk(world.dir.path()), named(&world.files));
}

#[test]
fn a_replaced_file_stays_a_minute_for_readers_of_other_processes() {
    let mut world = ten_seals(2);
    let before = named(&world.files);
    let later = world.now + 30 * HOUR;
    while world.upkeep(later).more {}
    assert!(on_disk(world.dir.path()).is_superset(&before));
    for now in [later + 2 * MINUTE, later + 4 * MINUTE] {
        world.upkeep(now);
    }
    assert_eq!(on_disk(world.dir.path()), named(&world.files));
}

#[test]
fn the_commit_before_can_still_be_read_if_the_newest_is_damaged() {
    let mut world = ten_seals(3);
    let before = Arc::clone(&world.files);
    world.upkeep(world.now + 30 * HOUR);
    assert_ne!(before, world.files);
    // A start in between removes nothing that the commit before names.
    world = world.kill();
    let newest = std::fs::read_dir(world.dir.path().join("commits"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    world.files = before;
    world.kill().check("fallen back");
}

#[test]
fn a_rewrite_that_is_called_off_leaves_everything_as_it_was() {
    let world = ten_seals(4);
    let before = on_disk(world.dir.path());
    let asked = Cell::new(0);
    let task = Upkeep {
        now: Nanos(world.now + 30 * HOUR),
        aged_to: Nanos(world.now + 30 * HOUR),
        ..Upkeep::default()
    };
    let never = || {
        asked.set(asked.get() + 1);
        false
    };
    let done = world.store.sealer().upkeep(&task, &never).unwrap();
    assert_eq!((asked.get(), done.rewritten, &done.files), (1, 0, &world.files));
    assert_eq!(on_disk(world.dir.path()), before);
    assert_eq!(std::fs::read_dir(world.dir.path().join("tmp")).unwrap().count(), 0);
    world.check("called off");
}
