//! Release files from anywhere, as TOML and as JSON.
#![no_main]

use gates::check::{Checked, check, check_json, check_spec};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let checked = check(text, "fuzzed");
    for problem in &checked.problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        assert!(problem.line(text) > 0);
    }
    accepted(&checked);
    if let Ok(release) = serde_json::from_str(text) {
        accepted(&check_json(&release));
    }
});

/// What is accepted is written down and read back as it is.
fn accepted(checked: &Checked) {
    for release in &checked.releases {
        assert_eq!(check_spec(release), Ok(()), "{release:?}");
    }
}
