//! What is found in files, whatever their form.

use super::source::{Found, Signal, Source};
use std::{fs, io::Write, path::Path};

const SPANS: &str =
    r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c"},{}]}]}]}"#;
const LOGS: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#;
const METRICS: &str = r#"{"resourceMetrics":[]}"#;

/// Line, signal and items of each request; line and reason of what is none.
fn found(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    Source::new(vec![path.to_owned()]).read(&mut |found| {
        all.push(match found {
            Found::Request(request) => {
                let signal = if request.signal == Signal::Logs {
                    "logs"
                } else {
                    "traces"
                };
                format!("{:?} {signal} {}", request.place.line.unwrap_or(0), request.items)
            }
            Found::Bad(place, why) => format!("{:?} bad: {why}", place.line.unwrap_or(0)),
            Found::Unkept => "metrics".to_owned(),
        });
        true
    });
    all
}

fn file(name: &str, bytes: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    found(&path)
}

#[test]
fn lines_are_told_apart_and_bad_ones_do_not_stop_the_rest() {
    let lines = format!("{SPANS}\n\n{LOGS}\r\nnot json\n{{}}\n{{\"resourceSpans\":[\n{METRICS}\n{SPANS}");
    let expected = [
        "1 traces 2",
        "3 logs 1",
        "4 bad",
        "5 bad: has none of",
        "6 bad",
        "metrics",
        "8 traces 2",
    ];
    let seen = file("export.jsonl", lines.as_bytes());
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.starts_with(expected), "{seen}, not {expected}");
    }
    // The same from gzip, zstd, and without a name that tells.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    assert_eq!(file("export.gz", &gzip.finish().unwrap()), seen);
    assert_eq!(file("export", &zstd::encode_all(lines.as_bytes(), 1).unwrap()), seen);
}

#[test]
fn one_object_may_stand_on_many_lines() {
    let pretty = SPANS.replace('[', "[\n  ");
    assert_eq!(file("one.json", pretty.as_bytes()), ["0 traces 2"]);
    // A first line that was cut off is no reason to lose the others.
    let cut = format!("{}\n{LOGS}\n", &SPANS[..40]);
    let seen = file("cut.jsonl", cut.as_bytes());
    assert_eq!((seen.len(), seen[1].as_str()), (2, "2 logs 1"), "{seen:?}");
    assert!(seen[0].starts_with("1 bad"), "{seen:?}");
}

#[test]
fn captured_requests_are_told_apart_by_name_and_without() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let mut checked = [0, 0];
    for client in fs::read_dir(folder)
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
    {
        for capture in fs::read_dir(client.path()).unwrap() {
            let path = capture.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let seen = found(&path);
            let is_logs = name.contains(".logs.");
            let signal = if is_logs { "0 logs " } else { "traces " };
            assert!(
                seen.len() == 1 && seen[0].contains(signal),
                "{}: {seen:?}",
                path.display()
            );
            if name.ends_with(".pb") {
                assert_eq!(file("stdin", &fs::read(&path).unwrap()), seen, "{}", path.display());
            }
            checked[usize::from(is_logs)] += 1;
        }
    }
    assert!(checked[0] > 50 && checked[1] > 5, "{checked:?}");
    assert!(file("x.pb", b"\x0a\xffnothing")[0].contains("is no OTLP request"));
}
