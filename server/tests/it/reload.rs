//! Another configuration for a server that runs: by signal and by change of its files, whole or not at all.

use crate::{
    kill::Served,
    otlp::{client, eventually, export, sql, trace},
    running::RELEASE,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// One server with one configuration file.
struct Rig {
    dir: tempfile::TempDir,
    client: reqwest::Client,
    served: Served,
}

impl Rig {
    fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("releases")).unwrap();
        fs::write(dir.path().join("tracegate.toml"), text).unwrap();
        Self {
            served: Served::start(dir.path()),
            client: client(),
            dir,
        }
    }

    /// As editors save: another file, renamed over the old one.
    fn replace(&self, name: &str, text: &str) {
        replace(self.dir.path(), name, text);
    }

    fn hangup(&self, says: &str) {
        self.served.signal(Signal::HUP);
        self.served.said(says);
    }

    async fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.served.http);
        self.client.get(url).send().await.unwrap().text().await.unwrap()
    }

    async fn figure(&self, name: &str) -> String {
        let page = self.get("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {page}")).to_owned()
    }

    async fn releases(&self) -> Vec<String> {
        let listed: Value = serde_json::from_str(&self.get("/api/v1/releases").await).unwrap();
        let listed = listed.as_array().unwrap().iter();
        listed
            .map(|release| release["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sends a trace, waits until it is seen, and gives what its call cost.
    async fn cost(&self, n: u64) -> Value {
        assert!(export(&self.client, self.served.otlp_http, trace(n, "blue")).await);
        let id = format!("{:032x}", u128::from(n) + (1 << 100));
        let of = format!("FROM spans WHERE trace_id = '{id}' AND role = 'call'");
        let seen = format!("SELECT count(*) {of}");
        eventually(&self.client, self.served.http, &seen, json!([[1]]), PATIENCE).await;
        sql(&self.client, self.served.http, &format!("SELECT cost_usd {of}")).await[0][0].clone()
    }
}

fn replace(dir: &Path, name: &str, text: &str) {
    let other = dir.join("saved~");
    fs::write(&other, text).unwrap();
    fs::rename(&other, dir.join(name)).unwrap();
}

fn prices(input: u32) -> String {
    format!(
        "[prices]\nversion = \"v{input}\"\n[prices.provider.openai]\n\"gpt-4o-mini\" = {{ input = {input}, output = 0 }}\n"
    )
}

/// Asks over a connection that is kept; the status of the answer.
fn ask(socket: &mut TcpStream, to: SocketAddr) -> String {
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {to}\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut piece = [0; 1_024];
    while !answer.ends_with("\r\n\r\nok\n") {
        let n = socket.read(&mut piece).unwrap();
        assert!(n > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece[..n]).unwrap());
    }
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_changes_what_rows_are_read_by_and_drops_nobody() {
    let rig = Rig::start(&prices(1_000));
    let mut kept = TcpStream::connect(rig.served.http).unwrap();
    assert_eq!(ask(&mut kept, rig.served.http), "HTTP/1.1 200 OK");
    assert_eq!(rig.cost(1).await, json!(0.001));

    rig.replace("tracegate.toml", &prices(3_000));
    rig.hangup("[prices] (v1000 -> v3000)");
    rig.hangup("configuration read again: nothing to change");
    assert_eq!(rig.cost(2).await, json!(0.003));
    assert_eq!(
        ask(&mut kept, rig.served.http),
        "HTTP/1.1 200 OK",
        "the same connection"
    );

    // A kill now: rows that were read by the old prices come back as they were.
    let before = sql(
        &rig.client,
        rig.served.http,
        "SELECT cost_usd FROM spans WHERE role = 'call' ORDER BY 1",
    )
    .await;
    let Rig { dir, client, served } = rig;
    drop(served);
    let served = Served::start(dir.path());
    let question = "SELECT cost_usd FROM spans WHERE role = 'call' ORDER BY 1";
    assert_eq!(sql(&client, served.http, question).await, before);
    assert_eq!(before, json!([[0.001], [0.003]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_changes_nothing_and_says_every_problem_at_its_line() {
    let rig = Rig::start(&prices(1_000));
    assert_eq!(rig.figure("tracegate_config_refused").await, "0");
    // Nobody sends a signal: the file is looked at.
    let wrong = format!(
        "{}\n[content]\npolicy = \"burn\"\n[server]\nseal_agee = \"5s\"\n",
        prices(9_000)
    );
    rig.replace("tracegate.toml", &wrong);
    let said = rig.served.said("configuration refused").join("\n");
    for words in [
        "tracegate.toml:7: `policy`",
        "tracegate.toml:9: unknown key `seal_agee`",
        "did you mean `seal_age`?",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert_eq!(rig.figure("tracegate_config_refused").await, "1");
    assert_eq!(
        rig.figure("tracegate_config_reloads_total{outcome=\"failed\"}").await,
        "1"
    );
    assert_eq!(rig.cost(1).await, json!(0.001), "the old prices");

    fs::remove_file(rig.dir.path().join("tracegate.toml")).unwrap();
    rig.served.said("cannot read the configuration");
    assert_eq!(
        rig.cost(2).await,
        json!(0.001),
        "no file is not the same as an empty one"
    );

    fs::write(rig.dir.path().join("tracegate.toml"), prices(5_000)).unwrap();
    rig.served.said("[prices] (v1000 -> v5000)");
    assert_eq!(rig.figure("tracegate_config_refused").await, "0");
    assert_eq!(rig.cost(3).await, json!(0.005));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_release_file_is_declared_and_changed_rules_are_refused() {
    let rig = Rig::start("include = [\"releases/*.toml\"]\n[defaults]\nalpha = 0.01\n");
    assert!(rig.releases().await.is_empty());
    rig.replace("releases/chat.toml", RELEASE);
    let said = rig
        .served
        .said("configuration reloaded: release chat-8 declared on route chat");
    assert!(
        said.iter().any(|line| line.contains("TRACEGATE_TEST_SECRET")),
        "a secret that is missing is said: {said:?}"
    );
    assert_eq!(rig.releases().await, ["chat-8"]);

    rig.replace(
        "releases/chat.toml",
        &RELEASE.replace("max_ratio = 1.2", "max_ratio = 9.0"),
    );
    rig.served.said("release `chat-8` was declared with other rules");
    rig.served.said("nothing to change");
    assert_eq!(rig.figure("tracegate_config_waiting").await, "1");
    let rules = rig.get("/api/v1/releases/chat-8").await;
    assert!(rules.contains("1.2") && !rules.contains("9.0"), "{rules}");

    fs::remove_file(rig.dir.path().join("releases/chat.toml")).unwrap();
    rig.served.said("release chat-8 left the files and goes on");
    assert_eq!(rig.releases().await, ["chat-8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_key_by_key_and_the_rest_holds() {
    let rig = Rig::start("");
    let url = format!("http://{}/readyz", rig.served.http);
    let by_name = || rig.client.get(&url).header("host", "gate.internal").send();
    assert_eq!(by_name().await.unwrap().status(), 421);
    rig.replace(
        "tracegate.toml",
        "[server]\ndata_dir = \"elsewhere\"\nhttp = \"127.0.0.1:1\"\ncell_resolution = \"30s\"\ntrace_quiet = \"1s\"\n\
         public_url = \"http://gate.example\"\nhosts = [\"gate.internal\"]\nseal_age = \"7s\"\ningest_bytes_max = \"64MiB\"\n\
         [webhooks]\nallow = [\"127.0.0.0/8\"]\n[retention]\ndecisions = \"900d\"\n",
    );
    let said = rig.served.said("configuration reloaded:");
    let last = said.last().unwrap();
    for live in [
        "[server] hosts",
        "[server] seal_age (1m -> 7s)",
        "[server] ingest_bytes_max",
        "[webhooks] allow ([] -> [127.0.0.0/8])",
    ] {
        assert!(last.contains(live), "{live} is not in {last}");
    }
    let waiting = [
        "[server] data_dir",
        "[server] cell_resolution",
        "[server] trace_quiet",
        "[server] public_url",
        "[retention]",
    ];
    for key in waiting {
        assert!(
            said.iter().any(|line| line.contains(&format!("{key} needs a restart"))),
            "{key}: {said:?}"
        );
    }
    // `http` is given by a flag, which wins over the file before and after.
    assert!(!said.iter().any(|line| line.contains("[server] http")), "{said:?}");
    assert_eq!(rig.figure("tracegate_config_waiting").await, waiting.len().to_string());
    assert_eq!(rig.figure("tracegate_inflight_bytes_max").await, (64 << 20).to_string());
    assert_eq!(by_name().await.unwrap().status(), 200);
    assert!(rig.dir.path().join("tracegate-data").is_dir() && !rig.dir.path().join("elsewhere").exists());
}
