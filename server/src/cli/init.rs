//! `tracegate init`: from two paths that are live on a route to a release file.

use super::{
    Client, OutputError, ServerArgs,
    releases::{items, segment},
    text::word,
};
use clap::Args;
use gates::check;
use proto::release::{Manifest, Margin, OnFail, ReleaseSpec};
use std::{io::Write, path::PathBuf};

/// For which route.
#[derive(Debug, Args)]
#[command(
    after_help = "Two versions, models, prompts or tool schemas that serve one route are compared by themselves, as an \
                  observed release; this writes it down as a file to edit.\n\nExamples:\n  tracegate init\n  \
                  tracegate init --route support-chat --out releases/support-chat.toml"
)]
pub struct InitArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Route, if several have two paths
    #[arg(long)]
    route: Option<String>,
    /// File to write; it must not be there yet. Printed if missing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Nothing to write down.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
#[diagnostic(help("{help}"))]
struct NothingObserved {
    what: String,
    help: String,
}

pub(super) async fn run(args: InitArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let all = items(client.get("/api/v1/releases").await?);
    let mut observed: Vec<_> = all.iter().filter(|r| word(r, "/phase") == "observed").collect();
    if let Some(route) = &args.route {
        observed.retain(|r| word(r, "/route") == *route);
    }
    let [one] = observed.as_slice() else {
        let routes: Vec<String> = observed.iter().map(|r| word(r, "/route")).collect();
        return Err(if routes.is_empty() {
            NothingObserved {
                what: "no route has two paths that are compared".to_owned(),
                help: "send traces of a second version, model, prompt or tool schema on a route (each at least 20), or start \
                       from docs/examples/release.toml; `tracegate sql \"SELECT * FROM manifests_seen\"` shows what serves"
                    .to_owned(),
            }
        } else {
            NothingObserved {
                what: format!("{} routes have two paths", routes.len()),
                help: format!("say which with --route: {}", routes.join(", ")),
            }
        }
        .into());
    };
    let full = client
        .get(&format!("/api/v1/releases/{}", segment(&word(one, "/id"))))
        .await?;
    let spec: ReleaseSpec = serde_json::from_value(full["rules"].clone()).map_err(|e| NothingObserved {
        what: format!("the server's answer cannot be read: {e}"),
        help: "are server and command of one version?".to_owned(),
    })?;
    let text = file(&spec);
    match &args.out {
        None => out.write_all(text.as_bytes()).map_err(OutputError)?,
        Some(path) => {
            let mut file = std::fs::File::create_new(path).map_err(OutputError)?;
            file.write_all(text.as_bytes()).map_err(OutputError)?;
            let said = format!(
                "wrote {}: fill in what reads \"unknown\", then `tracegate check {}`\n",
                path.display(),
                path.display()
            );
            out.write_all(said.as_bytes()).map_err(OutputError)?;
        }
    }
    Ok(())
}

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

/// The release file of an observed release.
fn file(observed: &ReleaseSpec) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let id: String = format!("{}-{}", observed.route, observed.green.version)
        .trim_start_matches('.')
        .chars()
        .map(plain)
        .collect();
    let mut text = format!(
        "# From what was seen on route {route}. What spans do not say reads \"unknown\": fill it in, a manifest is complete.\n\
         [[release]]\n\
         route = {route}\n\
         id = {id}\n\
         mode = \"advise\"                       # observe | advise | act (act needs [release.webhook])\n\
         steps = [{{ green = 0.05, min = \"30m\" }}, {{ green = 0.25, min = \"1h\" }}, {{ green = 1.0 }}]\n\
         warmup = \"5m\"\n\
         min_traces = 500\n",
        route = quoted(&observed.route),
        id = quoted(&id),
    );
    text.push_str(&manifest("blue", &observed.blue));
    text.push_str(&manifest("green", &observed.green));
    for gate in &observed.gates {
        text.push_str(&format!("\n[[release.gate]]\nname = {}\n", quoted(&gate.name)));
        let metric = gate.metric.to_string();
        match metric.strip_prefix("eval_fail:") {
            Some(eval) => text.push_str(&format!("metric = \"eval_fail\"\neval = {}\n", quoted(eval))),
            None => text.push_str(&format!("metric = {}\n", quoted(&metric))),
        }
        if let Some(q) = gate.quantile {
            text.push_str(&format!("quantile = {q}\n"));
        }
        let (key, value) = match gate.margin {
            Margin::MaxRatio(x) => ("max_ratio", x),
            Margin::MaxIncrease(x) => ("max_increase", x),
            Margin::Max(x) => ("max", x),
            Margin::Min(x) => ("min", x),
        };
        text.push_str(&format!("{key} = {value}\n"));
        let on_fail = match gate.on_fail {
            OnFail::Rollback => "rollback",
            OnFail::Fallback => "fallback",
            OnFail::Hold => "hold",
        };
        text.push_str(&format!("on_fail = \"{on_fail}\"\n"));
    }
    debug_assert!(
        check::check(&text, "init").problems.is_empty(),
        "what init writes passes the check"
    );
    text
}

fn manifest(side: &str, m: &Manifest) -> String {
    let list = |values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|v| quoted(v)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let prompt = match m.prompt.contains('@') {
        true => m.prompt.clone(),
        false => format!("{}@unknown", m.prompt),
    };
    let mut text = format!("\n[release.{side}]\n");
    for (key, value) in [
        ("version", &m.version),
        ("provider", &m.provider),
        ("model", &m.model),
        ("prompt", &prompt),
        ("tools", &m.tools),
        ("guardrails", &m.guardrails),
        ("cache", &m.cache),
    ] {
        text.push_str(&format!("{key} = {}\n", quoted(value)));
    }
    text.push_str(&format!("fallback = {}\n", list(&m.fallback)));
    for (key, value) in [("policy", &m.policy), ("logging", &m.logging), ("pii", &m.pii)] {
        text.push_str(&format!("{key} = {}\n", quoted(value)));
    }
    let matches = [
        ("request_model", &m.matches.request_model),
        ("prompt_version", &m.matches.prompt_version),
        ("tools", &m.matches.tools),
    ];
    if matches.iter().any(|(_, values)| !values.is_empty()) {
        text.push_str(&format!(
            "\n[release.{side}.match]             # how its spans are known when nobody stamps them\n"
        ));
        for (key, values) in matches.iter().filter(|(_, values)| !values.is_empty()) {
            text.push_str(&format!("{key} = {}\n", list(values)));
        }
    }
    text
}
