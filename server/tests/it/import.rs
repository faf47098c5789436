//! `tracegate import` of the captures, to a running server and into a data directory.

use crate::{
    kill::tracegate,
    otlp::{client, sql},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::json;
use server::{config::Config, wall_clock, wire::App};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let clients = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = clients
        .filter(|path| path.is_dir())
        .flat_map(|path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    files.sort();
    assert!(files.len() > 100, "{}", files.len());
    files
}

/// Different spans of the protobuf captures, and their earliest start in ns.
fn truth(files: &[PathBuf]) -> (usize, u64) {
    let requests = files
        .iter()
        .filter(|path| path.to_str().unwrap().ends_with(".traces.otlp.pb"));
    let spans: Vec<_> = requests
        .map(|path| ExportTraceServiceRequest::decode(&fs::read(path).unwrap()[..]).unwrap())
        .flat_map(|request| request.resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect();
    let mut ids: Vec<_> = spans
        .iter()
        .map(|span| (span.trace_id.clone(), span.span_id.clone()))
        .collect();
    ids.sort();
    ids.dedup();
    (
        ids.len(),
        spans.iter().map(|span| span.start_time_unix_nano).min().unwrap(),
    )
}

fn import(dir: &Path, args: &[&str], files: &[PathBuf]) -> Output {
    tracegate(dir).arg("import").args(args).args(files).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_go_to_a_server_once_however_often_they_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
        .await
        .unwrap();
    let (server, api) = (format!("http://{}", app.addresses.otlp_http), app.addresses.http);
    let mut files = captures();
    files.retain(|path| path.extension().is_some_and(|e| e == "pb"));
    let (spans, earliest) = truth(&files);
    for _ in 0..2 {
        let done = import(dir.path(), &["--server", &server], &files);
        assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
        assert!(
            text(&done.stdout).contains(&format!("{} requests", files.len())),
            "{}",
            text(&done.stdout)
        );
    }
    let client = client();
    let rows = sql(
        &client,
        api,
        "SELECT count(*), CAST(min(start_time) AS BIGINT) FROM spans",
    )
    .await;
    assert_eq!(rows, json!([[spans, earliest]]));
    app.shutdown().await.unwrap();
}

#[test]
fn captures_go_into_a_data_directory_and_bad_lines_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = captures();
    let lines: Vec<u8> = files
        .iter()
        .filter(|path| path.to_str().unwrap().ends_with(".raw.json"))
        .flat_map(|path| [fs::read(path).unwrap(), b"\n".to_vec()].concat())
        .collect();
    let mut with_bad = b"{\"resourceSpans\": 7}\n".to_vec();
    with_bad.extend(&lines);
    fs::write(
        dir.path().join("lines.jsonl.zst"),
        zstd::encode_all(&with_bad[..], 1).unwrap(),
    )
    .unwrap();
    let done = import(dir.path(), &["--data-dir", "data"], &["lines.jsonl.zst".into()]);
    assert!(!done.status.success());
    assert!(
        text(&done.stderr).contains("lines.jsonl.zst:1: is no OTLP/JSON"),
        "{}",
        text(&done.stderr)
    );
    assert!(
        text(&done.stdout).contains("1 requests could not be taken"),
        "{}",
        text(&done.stdout)
    );
    let count = |sql: &str| {
        let answer = tracegate(dir.path())
            .args(["sql", "--data-dir", "data", "--format", "csv", sql])
            .output()
            .unwrap();
        text(&answer.stdout).lines().nth(1).unwrap().to_owned()
    };
    let taken = count("SELECT count(*) FROM spans");
    assert_ne!(taken, "0");
    assert_eq!(
        count("SELECT count(*) FROM traces WHERE closed_by <> 'evicted'"),
        count("SELECT count(DISTINCT trace_id) FROM spans")
    );
    // The same from a pipe, gzipped: all of it is known.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&lines).unwrap();
    let mut piped = tracegate(dir.path())
        .args(["import", "--data-dir", "data", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped
        .stdin
        .take()
        .unwrap()
        .write_all(&packed.finish().unwrap())
        .unwrap();
    assert!(piped.wait_with_output().unwrap().status.success());
    assert_eq!(count("SELECT count(*) FROM spans"), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_a_server_uses_and_a_server_that_is_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
        .await
        .unwrap();
    let file = captures().swap_remove(0);
    let taken = import(dir.path(), &["--data-dir", "data"], std::slice::from_ref(&file));
    assert!(
        !taken.status.success() && text(&taken.stderr).contains("another tracegate"),
        "{}",
        text(&taken.stderr)
    );
    let api = format!("http://{}", app.addresses.http);
    let wrong = import(dir.path(), &["--server", &api], &[file]);
    assert!(
        !wrong.status.success() && text(&wrong.stdout).contains("OTLP over HTTP"),
        "{}",
        text(&wrong.stdout)
    );
    app.shutdown().await.unwrap();
}
