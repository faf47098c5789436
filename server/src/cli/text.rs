//! Values of JSON answers as people read them.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// A table without lines, wide as the terminal.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.to_vec());
    table
}

/// The value at a pointer such as `/to/version`, as a word; a dash if there is none.
pub fn word(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) if n.is_f64() => number(n.as_f64()),
        Some(other) => other.to_string(),
    }
}

/// Three significant digits or more, never an exponent where people expect none.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(x) if !x.is_finite() => x.to_string(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 0.001 => {
            let decimals = (2 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
            format!("{x:.decimals$}")
        }
        Some(x) => format!("{x:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_meaning() {
        let cases = [
            (0.0, "0"),
            (1234.56, "1235"),
            (12.345, "12.3"),
            (0.12345, "0.123"),
            (0.00123, "0.00123"),
            (1e-7, "1.00e-7"),
        ];
        for (x, shown) in cases {
            assert_eq!(number(Some(x)), shown);
        }
        assert_eq!(number(None), "-");
    }
}
