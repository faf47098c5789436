//! Gates whose counts come from a statement of the user's own.
//!
//! Whether it is good SQL only the query engine can say; here it is refused if it cannot be a gate at all: if it is not
//! one query, or does not say which release it counts and up to when.

use super::super::walk::Fields;
use proto::release::OnFail;

/// Keys that make no sense beside a statement, which says all of it itself.
const OTHERS: &[&str] = &["metric", "eval", "quantile", "by", "min_coverage", "lateness", "paired"];
/// Longest statement, bytes.
const SQL_BYTES_MAX: usize = 16 * 1024;
/// What a statement must be told by.
const PLACEHOLDERS: [(&str, &str); 2] = [
    (
        "release",
        "write WHERE release = $release, so that no other release is counted",
    ),
    (
        "admitted_before",
        "write AND start_time < $admitted_before, so that both colors are counted when they are as old",
    ),
];

pub(super) fn read(gate: &Fields<'_>, on_fail: Option<OnFail>) -> Option<String> {
    for key in OTHERS.iter().filter(|key| gate.has(key)) {
        gate.notes.say(
            gate.at(key),
            format!("`{key}` of {} does not go with `sql`", gate.called),
            "remove it: the statement itself says what is counted",
        );
    }
    if on_fail == Some(OnFail::Fallback) {
        gate.notes.say(
            gate.at("on_fail"),
            format!(
                "{} counts all cohorts at once, so it cannot send one of them back",
                gate.called
            ),
            "let on_fail be \"rollback\" or \"hold\"",
        );
    }
    let at = gate.text("sql")?;
    let complaints = complaints(&at.value);
    for (what, help) in &complaints {
        gate.notes
            .say(at.span.clone(), format!("`sql` of {} {what}", gate.called), help);
    }
    complaints.is_empty().then_some(at.value)
}

fn complaints(sql: &str) -> Vec<(String, String)> {
    if sql.len() > SQL_BYTES_MAX {
        let what = format!("has {} bytes; at most {SQL_BYTES_MAX} are read", sql.len());
        return vec![(what, "count in a view, and select from it".to_owned())];
    }
    let code = code(sql);
    let mut out = Vec::new();
    let first = code
        .trim_start()
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next();
    let is_query = |w: &str| w.eq_ignore_ascii_case("select") || w.eq_ignore_ascii_case("with");
    if first.is_none_or(|w| !is_query(w)) {
        out.push((
            "is not a query".to_owned(),
            "begin with SELECT or WITH: SELECT blue_events, blue_n, green_events, green_n FROM ...".to_owned(),
        ));
    }
    if code.split_once(';').is_some_and(|(_, rest)| !rest.trim().is_empty()) {
        out.push((
            "holds more than one statement".to_owned(),
            "keep the one that counts".to_owned(),
        ));
    }
    for (name, help) in PLACEHOLDERS {
        if !mentions(&code, name) {
            out.push((format!("does not mention ${name}"), help.to_owned()));
        }
    }
    out
}

/// Whether `$name` stands in the code, and not only as the beginning of a longer name.
fn mentions(code: &str, name: &str) -> bool {
    code.match_indices('$').any(|(at, _)| {
        code[at + 1..]
            .strip_prefix(name)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

/// The statement without comments, and with nothing inside its quotes.
fn code(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if matches!(c, '\'' | '"') {
            out.push(c);
            // a doubled quote ends one text and begins the next, which comes to the same
            rest[1..].find(c).map_or(rest.len(), |end| end + 2)
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skipped..];
    }
    out
}

/// Length of the comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "SELECT blue_events, blue_n, green_events, green_n FROM refunds \
                        WHERE release = $release AND start_time < $admitted_before";

    fn said(sql: &str) -> Vec<String> {
        complaints(sql).into_iter().map(|(what, _)| what).collect()
    }

    #[test]
    fn one_query_that_says_which_release_and_up_to_when_is_good() {
        for sql in [
            GOOD.to_owned(),
            format!("  -- counts; refunds\n{GOOD} ; -- done"),
            format!("/* a /* nested; */ one */ with x as (select ';' as \"a;b\") {GOOD}"),
            GOOD.to_lowercase(),
            format!("{GOOD} AND note <> 'it''s; fine'"),
        ] {
            assert_eq!(said(&sql), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_all_that_is_wrong() {
        let both = ["does not mention $release", "does not mention $admitted_before"];
        assert_eq!(
            said("DROP TABLE spans"),
            [["is not a query"].as_slice(), &both].concat()
        );
        assert_eq!(said(""), [["is not a query"].as_slice(), &both].concat());
        assert_eq!(said("SELECTION $release $admitted_before"), ["is not a query"]);
        assert_eq!(said(&format!("{GOOD}; SELECT 1")), ["holds more than one statement"]);
        assert_eq!(said("SELECT $release_id, $admitted_beforehand"), both);
        assert_eq!(said("SELECT 1 -- $release $admitted_before"), both);
        assert_eq!(said("SELECT '$release', \"$admitted_before\" /* open"), both);
        assert_eq!(said("SELECT 'open $release $admitted_before"), both);
        let long = format!("{GOOD} -- {}", "x".repeat(SQL_BYTES_MAX));
        assert_eq!(said(&long).len(), 1);
    }
}
