//! From keys to meanings.

use super::super::{
    extra::ExtraKeys,
    keys::{CONFIGURED, Content, KeyTable, LATE, LEARNED_MAX, ON_RESOURCE, Use},
    slot::{Place, Slot},
    slots::Slots,
    sources::{COHORT_PREFIXES, FIRST_TOKEN_EVENT, SOURCES},
    value::Value,
};

fn extra(keys: &[(&str, &str)]) -> ExtraKeys {
    let mut extra = ExtraKeys::default();
    keys.iter().for_each(|(column, key)| extra.add(column, key).unwrap());
    extra
}

#[test]
fn every_source_is_found_with_its_slot_and_rank() {
    let extra = extra(&[("route", "app.route"), ("cohort", "customer.tier")]);
    let mut table = KeyTable::of_spans(&extra);
    for source in SOURCES.iter().filter(|s| s.place != Place::Resource) {
        let keys = source.keys.iter().enumerate();
        for (i, key) in keys.filter(|(_, key)| **key != FIRST_TOKEN_EVENT) {
            let rank = u8::try_from(i).unwrap();
            assert!(
                table.meaning(key.as_bytes()).uses().contains(&Use {
                    slot: source.slot,
                    rank
                }),
                "{key}"
            );
        }
    }
    assert_eq!(
        table.meaning(b"app.route").uses(),
        [Use {
            slot: Slot::Route,
            rank: CONFIGURED
        }]
    );
    assert_eq!(table.meaning(b"litellm.model_group").uses()[0].rank, LATE);
    for prefix in COHORT_PREFIXES {
        for key in ["release.cohort", "customer.tier"] {
            let copy = format!("{prefix}{key}");
            assert_eq!(table.meaning(copy.as_bytes()).uses()[0].slot, Slot::Cohort, "{copy}");
        }
    }
    let mut resource = KeyTable::of_resources(&extra);
    assert_eq!(
        resource.meaning(b"gateway.route.color").uses(),
        [Use {
            slot: Slot::Color,
            rank: ON_RESOURCE
        }]
    );
    assert!(resource.meaning(b"gen_ai.request.model").uses().is_empty());
}

#[test]
fn content_is_known_by_name_prefix_and_raw_field() {
    let extra = extra(&[("content", "acme.note"), ("output", "acme.reply")]);
    let mut table = KeyTable::of_spans(&extra);
    for key in [
        "input.value",
        "gen_ai.prompt.0.content",
        "llm.input_messages.0.message.content",
        "llm.openai.messages",
        "llm.anthropic.system",
        "acme.note",
        "acme.reply",
        "ai.prompt.messages",
    ] {
        for _ in 0..2 {
            assert_eq!(table.meaning(key.as_bytes()).content, Content::Yes, "{key}");
        }
    }
    for key in [
        "gen_ai.prompt.name",
        "gen_ai.prompt.template.version",
        "llm.openai.model",
        "llm.token_count.prompt",
        "",
    ] {
        assert_eq!(table.meaning(key.as_bytes()).content, Content::No, "{key}");
    }
}

#[test]
fn a_word_at_the_end_of_an_unknown_key_says_that_it_may_be_content() {
    let extra = extra(&[("route", "acme.input")]);
    let mut table = KeyTable::of_spans(&extra);
    for key in [
        "acme.prompt",
        "acme.prompts.0",
        "llm_system_PROMPT",
        "x.arguments.12.3",
        "body",
        "db.query.text",
    ] {
        assert_ne!(table.meaning(key.as_bytes()).content, Content::No, "{key}");
    }
    for key in [
        "acme.input",
        "prompt.name",
        "inputs.count",
        "gen_ai.prompt.name",
        "gateway.fallback.reason",
        "0",
    ] {
        assert_eq!(table.meaning(key.as_bytes()).content, Content::No, "{key}");
    }
    let mut resource = KeyTable::of_resources(&extra);
    assert_eq!(resource.meaning(b"process.command_args").content, Content::No);
    assert_eq!(resource.meaning(b"gen_ai.prompt.0.content").content, Content::Yes);
}

#[test]
fn every_source_of_text_is_content_and_every_message_in_pieces_too() {
    let mut table = KeyTable::of_spans(&ExtraKeys::default());
    for source in SOURCES.iter().filter(|s| matches!(s.slot, Slot::Input | Slot::Output)) {
        for key in source.keys {
            assert_eq!(table.meaning(key.as_bytes()).content, Content::Yes, "{key}");
        }
    }
    for key in [
        "llm.output_messages.0.message.content",
        "gen_ai.completion.0.content",
        "gen_ai.prompt.1.role",
    ] {
        let meaning = table.meaning(key.as_bytes());
        assert!(meaning.message && meaning.content == Content::Yes, "{key}");
    }
}

#[test]
fn a_flood_of_new_keys_neither_grows_nor_confuses_the_table() {
    let mut table = KeyTable::of_spans(&ExtraKeys::default());
    let known = table.entries.len();
    for i in 0..100_000 {
        assert!(table.meaning(format!("key.{i}").as_bytes()).uses().is_empty());
    }
    assert!(table.entries.len() <= known + LEARNED_MAX);
    assert_eq!(table.meaning(b"gateway.route.color").uses()[0].slot, Slot::Color);
}

#[test]
fn the_first_of_equal_trust_stays() {
    let mut slots = Slots::new();
    let at = |rank| Use {
        slot: Slot::Route,
        rank,
    };
    slots.offer(at(1), Value::Text(b"late"));
    slots.offer(at(1), Value::Text(b"twice"));
    assert_eq!(slots.text(Slot::Route), Some(&b"late"[..]));
    slots.offer(at(0), Value::Text(b""));
    slots.offer(at(0), Value::Text(b"best"));
    assert_eq!(slots.text(Slot::Route), Some(&b"best"[..]));
}
