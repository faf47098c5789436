//! `tracegate mute` and `tracegate freeze`: what people keep tracegate from doing.

use super::{
    Client, OutputError, ServerArgs,
    releases::{actor, is_over, items, segment},
    text::{table, word},
};
use clap::Args;
use proto::Nanos;
use serde_json::{Value, json};
use std::io::Write;

/// Which gate, and until when.
#[derive(Debug, Args)]
#[command(
    after_help = "A muted gate is measured and shown. It rolls nothing back, but a promotion still needs it to pass.\n\n\
                  Examples:\n  tracegate mute \"p99 latency\" --until 2h --reason \"the provider announced slow hours\"\n  \
                  tracegate mute \"p99 latency\" --off --reason \"over\""
)]
pub struct MuteArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Name of the gate
    #[arg(value_name = "GATE")]
    gate: String,
    /// Its route, if several running releases have such a gate
    #[arg(long)]
    route: Option<String>,
    /// A length of time (2h), or a moment (2026-11-30T18:00:00Z)
    #[arg(long, value_name = "T", required_unless_present = "off")]
    until: Option<String>,
    /// Let it count again
    #[arg(long, conflicts_with = "until")]
    off: bool,
    /// Why; it is kept with the release
    #[arg(long)]
    reason: String,
}

/// When nothing may be promoted.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tracegate freeze --until 2026-12-01T08:00:00Z --reason \"holiday sale\"\n  \
                  tracegate freeze --route support-chat --reason \"incident 4711\"\n  \
                  tracegate freeze --lift --reason \"sale is over\"\n  tracegate freeze"
)]
pub struct FreezeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only this route
    #[arg(long)]
    route: Option<String>,
    /// A length of time (2h), or a moment (2026-11-30T18:00:00Z); until it is lifted if missing
    #[arg(long, value_name = "T", conflicts_with = "lift")]
    until: Option<String>,
    /// End it
    #[arg(long)]
    lift: bool,
    /// Why; without it the freezes are listed
    #[arg(long)]
    reason: Option<String>,
}

/// Cannot be carried out as it was said.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{what}")]
#[diagnostic(help("{help}"))]
struct Unclear {
    what: String,
    help: String,
}

/// A moment, or a length of time from now on, as RFC 3339.
fn moment(text: &str) -> miette::Result<String> {
    if let Ok(length) = humantime::parse_duration(text) {
        return Ok((crate::clock::wall())().plus(length).rfc3339());
    }
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok();
    let nanos = parsed.and_then(|at| at.timestamp_nanos_opt());
    nanos.map(|at| Nanos(at).rfc3339()).ok_or_else(|| {
        Unclear {
            what: format!("`{text}` is neither a length of time nor a moment"),
            help: "write --until 2h, or --until 2026-11-30T18:00:00Z".to_owned(),
        }
        .into()
    })
}

pub(super) async fn mute(args: MuteArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let mut having = Vec::new();
    for release in items(client.get("/api/v1/releases").await?) {
        if is_over(&release) || args.route.as_ref().is_some_and(|r| word(&release, "/route") != *r) {
            continue;
        }
        let id = word(&release, "/id");
        let full = client.get(&format!("/api/v1/releases/{}", segment(&id))).await?;
        let gates = full.pointer("/rules/gate").and_then(Value::as_array);
        if gates.is_some_and(|gates| gates.iter().any(|g| g["name"] == json!(args.gate))) {
            having.push((id, word(&release, "/route")));
        }
    }
    let [(id, route)] = having.as_slice() else {
        let routes: Vec<&str> = having.iter().map(|(_, route)| route.as_str()).collect();
        return Err(Unclear {
            what: format!("{} running releases have a gate `{}`", having.len(), args.gate),
            help: if routes.is_empty() {
                "`tracegate status` shows the gates".to_owned()
            } else {
                format!("say which with --route: {}", routes.join(", "))
            },
        }
        .into());
    };
    let mut body = json!({ "actor": actor(), "reason": args.reason, "gate": args.gate });
    let (order, said) = match &args.until {
        Some(until) => {
            let until = moment(until)?;
            body["until"] = json!(until);
            ("mute", format!("muted until {until}"))
        }
        None => ("unmute", "counts again".to_owned()),
    };
    client
        .post(&format!("/api/v1/releases/{}/{order}", segment(id)), &body)
        .await?;
    let text = format!("gate `{}` of {id} on {route}: {said}\n", args.gate);
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

pub(super) async fn freeze(args: FreezeArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let freezes = match &args.reason {
        None if args.lift || args.until.is_some() => {
            return Err(Unclear {
                what: "a freeze says why".to_owned(),
                help: "add --reason \"...\"".to_owned(),
            }
            .into());
        }
        None => client.get("/api/v1/freeze").await?,
        Some(reason) => {
            let mut body = json!({ "actor": actor(), "reason": reason, "lift": args.lift });
            if let Some(route) = &args.route {
                body["route"] = json!(route);
            }
            if let Some(until) = &args.until {
                body["until"] = json!(moment(until)?);
            }
            client.post("/api/v1/freeze", &body).await?["freezes"].clone()
        }
    };
    let freezes = items(freezes);
    let text = if freezes.is_empty() {
        "nothing is frozen\n".to_owned()
    } else {
        let mut shown = table(&["route", "since", "until", "by", "reason"]);
        for freeze in &freezes {
            let route = match word(freeze, "/route") {
                all if all == "-" => "all".to_owned(),
                route => route,
            };
            let rest = ["/since", "/until", "/actor", "/reason"].map(|key| word(freeze, key));
            shown.add_row(std::iter::once(route).chain(rest));
        }
        format!("{shown}\n")
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}
