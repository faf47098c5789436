use super::*;

fn usage(prompt: i64, completion: i64, cache_read: i64, reasoning: i64) -> Usage {
    Usage {
        prompt: Some(prompt),
        completion: Some(completion),
        cache_read: Some(cache_read),
        cache_write: None,
        reasoning: Some(reasoning),
    }
}

fn table(text: &str) -> PriceTable {
    let mut table = PriceTable::empty();
    table.merge_toml(text).unwrap();
    table
}

#[test]
fn the_shipped_table_prices_a_captured_call_as_its_client_did() {
    let table = PriceTable::shipped();
    assert!(table.len() > 1_700, "{}", table.len());
    assert_eq!(table.version(), "2026-11");
    let price = table.price(Some("openai"), "gpt-4o-mini-2024-07-18").unwrap();
    // pydantic-ai said operation.cost = 0.000114 and 0.0001371 for these two
    assert_eq!(price.cost(&usage(1200, 18, 1024, 0)), Some(114_000));
    assert_eq!(price.cost(&usage(1310, 45, 1152, 12)), Some(137_100));
}

#[test]
fn unknown_counts_are_not_free_unless_their_price_is_zero() {
    let table = PriceTable::shipped();
    let chat = table.price(Some("openai"), "gpt-4o-mini").unwrap();
    assert_eq!(
        chat.cost(&Usage {
            prompt: Some(10),
            ..Usage::default()
        }),
        None
    );
    assert_eq!(
        chat.cost(&Usage {
            completion: Some(10),
            ..Usage::default()
        }),
        None
    );
    let embedding = table.price(Some("openai"), "text-embedding-3-small").unwrap();
    assert_eq!(
        embedding.cost(&Usage {
            prompt: Some(1_000),
            ..Usage::default()
        }),
        Some(20_000)
    );
}

#[test]
fn providers_go_by_many_names() {
    let table = PriceTable::shipped();
    for (provider, model) in [
        ("OpenAI", "gpt-4o-mini"),
        ("openai", "openai/gpt-4o-mini"),
        ("azure.ai.openai", "gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5"),
        ("aws.bedrock", "us.anthropic.claude-3-5-haiku-20241022-v1:0"),
        ("gcp.vertex_ai", "claude-3-5-haiku@20241022"),
    ] {
        assert!(table.price(Some(provider), model).is_some(), "{provider} {model}");
    }
    assert!(table.price(Some("elsewhere"), "gpt-4o-mini").is_none());
}

#[test]
fn a_model_without_provider_is_priced_only_if_that_is_unambiguous() {
    let table = table(
        r#"
        [provider.a]
        "m" = { input = 1, output = 2 }
        "only-a-2026-01-31" = { input = 1, output = 2 }
        "shared" = { input = 3, output = 4 }
        [provider.b]
        "m" = { input = 1, output = 3 }
        "shared" = { input = 3, output = 4 }
        "old" = { input = 5, output = 5 }
        "#,
    );
    assert!(table.price(None, "m").is_none());
    assert!(table.price(None, "a/m").is_some());
    assert!(table.price(None, "shared").is_some());
    assert!(table.price(None, "only-a-2026-01-31").is_some());
    assert!(
        table.price(None, "only-a").is_none(),
        "an undated name never gains a date"
    );
    for dated in ["old-2026-01-31", "old-20260131", "old@20260131"] {
        assert!(table.price(Some("b"), dated).is_some(), "{dated}");
    }
    assert!(table.price(Some("b"), "old-2026").is_none());
}

#[test]
fn tiers_fallbacks_and_fractions_add_up() {
    let table = table(
        r#"
        version = "mine"
        [provider.p]
        "t" = { input = 10, output = 20, cache_read = 0.5, tier = { above_tokens = 100, input = 20, output = 30 } }
        "w" = { input = 10, output = 20, cache_write = 12, reasoning = 50 }
        "#,
    );
    assert_eq!(table.version(), "mine");
    let tiered = table.price(Some("p"), "t").unwrap();
    assert_eq!(
        tiered.cost(&usage(100, 1, 1, 0)),
        Some(99 * 10 + 1 + 20),
        "half a nano-USD rounds up"
    );
    assert_eq!(
        tiered.cost(&usage(101, 1, 1, 0)),
        Some(100 * 20 + 20 + 30),
        "all tokens have the tier's price"
    );
    let written = table.price(Some("p"), "w").unwrap();
    let all = Usage {
        prompt: Some(100),
        completion: Some(50),
        cache_read: Some(20),
        cache_write: Some(30),
        reasoning: Some(10),
    };
    assert_eq!(
        written.cost(&all),
        Some(50 * 10 + 20 * 10 + 30 * 12 + 40 * 20 + 10 * 50)
    );
    let beside = Usage {
        prompt: Some(10),
        ..all
    };
    assert_eq!(
        written.cost(&beside),
        Some(10 * 10 + 20 * 10 + 30 * 12 + 40 * 20 + 10 * 50),
        "cached beside, not inside"
    );
}

#[test]
fn a_bad_list_changes_nothing() {
    let mut table = table("[provider.p]\n\"m\" = { input = 1, output = 1 }");
    let before = table.clone();
    assert!(matches!(
        table.merge_toml("[provider.p]\nm = { input = 1 }"),
        Err(PriceError::Syntax(_))
    ));
    let negative = "version = \"x\"\n[provider.p]\n\"m\" = { input = -1, output = 1 }";
    assert!(matches!(table.merge_toml(negative), Err(PriceError::Amount { .. })));
    assert_eq!(table, before);
}

#[test]
fn absurd_counts_have_no_cost_rather_than_a_wrong_one() {
    let table = PriceTable::shipped();
    let price = table.price(Some("openai"), "gpt-4o-mini").unwrap();
    assert_eq!(price.cost(&usage(i64::MAX, i64::MAX, i64::MAX, i64::MAX)), None);
}

/// Rows of the list whose model stands in the table with the price of another row of the same name: the dearer counts.
const SUPERSEDED: [(&str, &str); 1] = [("gemini", "gemini/gemini-exp-1206")];

#[test]
fn the_shipped_table_holds_every_fact_of_the_list() {
    let list = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/prices/list.csv")).unwrap();
    let table = PriceTable::shipped();
    let (mut rows, mut without_token_price) = (0, 0);
    for row in list.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let [
            provider,
            model,
            _,
            input,
            output,
            read,
            written,
            _,
            reasoning,
            above,
            of_tier @ ..,
        ] = cells.as_slice()
        else {
            panic!("{row}");
        };
        if input.is_empty() {
            without_token_price += 1;
            continue;
        }
        rows += 1;
        if SUPERSEDED.contains(&(*provider, *model)) {
            continue;
        }
        let price = table.price(Some(provider), model).unwrap_or_else(|| panic!("{row}"));
        for (fact, held) in [input, output, read, written, reasoning].iter().zip(price.per_token()) {
            if let Ok(fact) = fact.parse::<f64>() {
                assert!((fact - held).abs() < 1e-9, "{row}: {held}");
            }
        }
        assert_eq!(above.parse().ok(), price.tier_above(), "{row}");
        if let (Some(above), [input, output, read, ..]) = (price.tier_above(), of_tier) {
            let tier = |fact: &str, plain: f64| fact.parse::<f64>().unwrap_or(plain);
            let (input, output) = (tier(input, f64::NAN), tier(output, f64::NAN));
            let read = tier(read, input);
            let long = above + 1_000;
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            let expected = ((long - 10) as f64 * input + 10.0 * read + 7.0 * output).round() as i64;
            assert_eq!(price.cost(&usage(long, 7, 10, 0)), Some(expected), "{row}");
        }
    }
    assert_eq!((rows, without_token_price), (1_730, 13));
    assert_eq!(table.iter().count(), table.len());
}

#[test]
fn a_request_may_have_a_price_of_its_own() {
    let table = table(
        r#"
        [provider.p]
        "search" = { input = 0, output = 0, request = 5_000_000 }
        "both" = { input = 10, output = 20, request = 1000.5 }
        "free" = { input = 0, output = 0 }
        "#,
    );
    let of = |model: &str| table.price(Some("p"), model).unwrap();
    assert_eq!(of("search").cost(&Usage::default()), Some(5_000_000));
    assert_eq!(of("both").cost(&usage(1, 1, 0, 0)), Some(1_031), "1030.5 rounds up");
    assert_eq!(
        of("both").cost(&Usage::default()),
        None,
        "its tokens are unknown, not free"
    );
    assert_eq!(of("free").cost(&Usage::default()), None, "nothing is known");
    assert_eq!(of("free").cost(&usage(1, 1, 0, 0)), Some(0));
    for wrong in ["-1", "nan", "inf", "1e13"] {
        let list = format!("[provider.p]\n\"m\" = {{ input = 0, output = 0, request = {wrong} }}");
        let refused = PriceTable::empty().merge_toml(&list);
        assert!(matches!(refused, Err(PriceError::Amount { .. })), "{wrong}");
    }
}

#[test]
fn names_are_tried_exactly_then_without_prefix_and_path_then_undated() {
    let table = table(
        r#"
        [provider.gemini]
        "gemini-x" = { input = 1, output = 1 }
        "gemini-x-2026-01-31" = { input = 2, output = 2 }
        [provider.vendor]
        "vendor/named" = { input = 3, output = 3 }
        "named" = { input = 4, output = 4 }
        "vendor/only" = { input = 5, output = 5 }
        "#,
    );
    let input = |provider, model| table.price(provider, model).map(|price| price.per_token()[0]);
    for (provider, model, expected) in [
        (Some("gemini"), "gemini-x-2026-01-31", Some(2.0)),
        (Some("gemini"), "gemini-x-20270131", Some(1.0)),
        (Some("gemini"), "models/gemini-x", Some(1.0)),
        (Some("gcp.gemini"), "gcp.gemini/gemini-x", Some(1.0)),
        (Some("gemini"), "publishers/google/models/gemini-x@20270131", Some(1.0)),
        (None, "gemini/gemini-x", Some(1.0)),
        (Some("vendor"), "named", Some(4.0)),
        (Some("vendor"), "vendor/vendor/named", Some(3.0)),
        (Some("vendor"), "vendor/only", Some(5.0)),
        (Some("vendor"), "other", None),
        (Some("nobody"), "named", None),
    ] {
        assert_eq!(input(provider, model), expected, "{provider:?} {model}");
    }
}
