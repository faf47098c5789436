//! A disk that is really full: a small file system of the server's own, mounted where only it sees it.

use crate::{
    kill::{Served, tracegate},
    otlp::{client, eventually, export, sql, trace},
};
use serde_json::json;
use std::{
    fs,
    io::{ErrorKind, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const FILE_SYSTEM: &str = "160m";

/// Takes all the room there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let zeros = vec![0; 1 << 16];
    loop {
        match file.write_all(&zeros) {
            Ok(()) => {}
            Err(full) => {
                assert_eq!(full.kind(), ErrorKind::StorageFull);
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a file system: user namespaces must be allowed"]
async fn a_full_disk_refuses_to_be_retried_answers_questions_and_takes_requests_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("tracegate.toml"), "[server]\nseal_age = \"1s\"\n").unwrap();
    let mut serve = tracegate(dir.path());
    serve.args(["serve", "--data-dir", "full/data"]);
    let mount = format!("mount -t tmpfs -o size={FILE_SYSTEM} tmpfs full && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
        .arg(serve.get_program())
        .args(serve.get_args())
        .current_dir(dir.path());
    let served = Served::spawn(command);
    let client = client();
    for n in 0..20 {
        assert!(export(&client, served.otlp_http, trace(n, "blue")).await);
    }

    let seen_by_it = format!("/proc/{}/root{}/full", served.pid(), dir.path().display());
    let ballast = Path::new(&seen_by_it).join("ballast");
    fill(&ballast);
    let refused = client
        .post(format!("http://{}/v1/traces", served.otlp_http))
        .header("content-type", "application/x-protobuf")
        .body(trace(20, "blue"))
        .send()
        .await
        .unwrap();
    assert!(matches!(refused.status().as_u16(), 429 | 503), "{refused:?}");
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    served.said("sealing failed");
    let count = "SELECT count(*) FROM spans WHERE role = 'call'";
    assert_eq!(sql(&client, served.http, count).await, json!([[20]]));
    let ready = client.get(format!("http://{}/readyz", served.http)).send().await;
    assert_eq!(ready.unwrap().status(), 200, "gates and queries go on");

    fs::remove_file(&ballast).unwrap();
    let begun = Instant::now();
    while !export(&client, served.otlp_http, trace(20, "blue")).await {
        assert!(begun.elapsed() < Duration::from_secs(5), "ingest must go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually(&client, served.http, count, json!([[21]]), Duration::from_secs(10)).await;
}
