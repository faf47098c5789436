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
