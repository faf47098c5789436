//! Text tables for people.

use super::value;
use crate::{QueryError, Rows};
use std::fmt::Write;

/// Longest cell shown, characters; the rest becomes `…`.
const CELL_CHARS_MAX: usize = 80;

/// `rows` as an aligned table: header, rule, one line a row. Numbers to the right; null is empty.
///
/// # Errors
/// If a column is of a type that cannot be shown.
pub fn table(rows: &Rows) -> Result<String, QueryError> {
    let mut lines: Vec<Vec<String>> = vec![rows.schema.fields().iter().map(|field| field.name().clone()).collect()];
    for batch in &rows.batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| value::writer(column.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| cell(column.as_ref(), row)).collect());
        }
    }
    let right: Vec<bool> = rows
        .schema
        .fields()
        .iter()
        .map(|field| field.data_type().is_numeric())
        .collect();
    Ok(aligned(&lines, &right))
}

fn cell(column: &dyn value::Writer, row: usize) -> String {
    let mut bytes = Vec::new();
    column.plain(row, &mut bytes);
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    let mut short: String = text.chars().take(CELL_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

fn aligned(lines: &[Vec<String>], right: &[bool]) -> String {
    let widths: Vec<usize> = (0..right.len())
        .map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        let mut text = String::new();
        for (i, cell) in line.iter().enumerate() {
            let width = widths[i];
            // Writing into a string cannot fail.
            let _ = if right[i] {
                write!(text, "{cell:>width$}  ")
            } else {
                write!(text, "{cell:<width$}  ")
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            let _ = writeln!(out, "{}", rules.join("  "));
        }
    }
    out
}
