//! `tracegate status`, and what people may order: promote, advance, rollback, hold, resume.

use super::{
    Client, OutputError, ServerArgs,
    text::{number, table, word},
};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;

/// What to show.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate status\n  tracegate status support-chat")]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Only this route
    #[arg(value_name = "ROUTE")]
    route: Option<String>,
    /// The server's answers as they are
    #[arg(long)]
    json: bool,
}

/// What is ordered.
#[derive(Debug, Args)]
pub struct ActArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Route whose release is meant
    #[arg(value_name = "ROUTE")]
    route: String,
    /// Why; it is kept with the decision
    #[arg(long)]
    reason: String,
}

/// No release to act on.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("no release is running on route `{route}`")]
#[diagnostic(help("{help}"))]
struct NoRelease {
    route: String,
    help: String,
}

pub(super) fn items(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

pub(super) fn is_over(release: &Value) -> bool {
    matches!(word(release, "/phase").as_str(), "settled" | "rolled_back")
}

pub(super) async fn status(args: StatusArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let mut releases = items(client.get("/api/v1/releases").await?);
    if let Some(route) = &args.route {
        releases.retain(|r| word(r, "/route") == *route);
    }
    let mut verdicts = Vec::new();
    for release in &releases {
        verdicts.push(
            client
                .get(&format!("/api/v1/releases/{}/verdict", segment(&word(release, "/id"))))
                .await?,
        );
    }
    let text = if args.json {
        format!("{:#}\n", Value::Array(verdicts))
    } else if releases.is_empty() {
        "no releases; declare one with [[release]] in the configuration, or POST /api/v1/releases\n".to_owned()
    } else {
        releases
            .iter()
            .zip(&verdicts)
            .map(|(release, verdict)| describe(release, verdict))
            .collect()
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn describe(release: &Value, verdict: &Value) -> String {
    let mut text = format!(
        "{} on {}: {}, {} ({} -> {}), {} blue and {} green traces\n",
        word(verdict, "/release"),
        word(verdict, "/route"),
        word(verdict, "/verdict"),
        word(verdict, "/phase"),
        word(release, "/blue"),
        word(release, "/green"),
        word(verdict, "/n_blue"),
        word(verdict, "/n_green")
    );
    match word(verdict, "/reason") {
        reason if reason.is_empty() || reason == "-" => {}
        reason => text.push_str(&format!("  {reason}\n")),
    }
    text.push_str(&gates(verdict.pointer("/gates")));
    text.push_str(&beside(verdict));
    text.push('\n');
    text
}

/// What stands beside the gates: cutover headroom, mirrored pairs, what mirroring costs.
fn beside(verdict: &Value) -> String {
    let mut text = String::new();
    for h in verdict["headroom"].as_array().into_iter().flatten() {
        let of = match h["limit"].as_f64() {
            Some(limit) => format!(" of {}", number(Some(limit))),
            None => ", no quota declared".to_owned(),
        };
        text.push_str(&format!(
            "  headroom: the whole route on green needs {} {} a minute{of}\n",
            number(h["needed"].as_f64()),
            word(h, "/what")
        ));
    }
    let pairs = verdict["n_pairs"].as_i64().unwrap_or(0);
    if pairs > 0 {
        text.push_str(&format!("  {pairs} mirrored pairs\n"));
    }
    if let Some(usd) = verdict["shadow_cost_usd"].as_f64() {
        text.push_str(&format!("  mirrored calls have cost {} USD\n", number(Some(usd))));
    }
    text
}

/// Gates as a table: values, effect and how far the evidence is.
pub(super) fn gates(gates: Option<&Value>) -> String {
    let gates = gates.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if gates.is_empty() {
        return String::new();
    }
    let mut shown = table(&[
        "gate",
        "cohort",
        "verdict",
        "blue",
        "green",
        "effect",
        "margin",
        "evidence against",
        "evidence for",
        "why",
    ]);
    for gate in gates {
        let evidence = |have: &str, need: &str| {
            let get = |key: &str| gate.pointer(key).and_then(Value::as_f64);
            format!("{} of {}", number(get(have)), number(get(need)))
        };
        shown.add_row(vec![
            word(gate, "/name"),
            match word(gate, "/cohort") {
                cohort if cohort == "-" => "all".to_owned(),
                cohort => cohort,
            },
            word(gate, "/verdict"),
            word(gate, "/blue"),
            word(gate, "/green"),
            word(gate, "/effect"),
            word(gate, "/margin"),
            evidence("/log_e_fail", "/threshold_fail"),
            evidence("/log_e_pass", "/threshold_pass"),
            word(gate, "/reason"),
        ]);
    }
    format!("{shown}\n")
}

pub(super) async fn act(action: &str, args: ActArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let mut releases = items(client.get("/api/v1/releases").await?);
    releases.retain(|r| !is_over(r));
    let Some(release) = releases.iter().rev().find(|r| word(r, "/route") == args.route) else {
        let routes: Vec<String> = releases.iter().map(|r| word(r, "/route")).collect();
        let help = if routes.is_empty() {
            "no route has a running release; `tracegate status` shows those that are over".to_owned()
        } else {
            format!("routes with a running release: {}", routes.join(", "))
        };
        return Err(NoRelease {
            route: args.route,
            help,
        }
        .into());
    };
    let path = format!("/api/v1/releases/{}/{action}", segment(&word(release, "/id")));
    let decision = client
        .post(&path, &json!({ "actor": actor(), "reason": args.reason }))
        .await?;
    let id = word(release, "/id");
    let text = match word(&decision, "/decision_id") {
        none if none == "-" => format!("{action} of {id} on {}: done, nothing new to decide\n", args.route),
        decision => format!("{action} of {id} on {}: decision {decision}\n", args.route),
    };
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

/// Who orders, as far as the shell knows; the server puts the credential's name first.
pub(super) fn actor() -> String {
    std::env::var("USER")
        .ok()
        .filter(|user| !user.is_empty())
        .map_or_else(|| "cli".to_owned(), |user| format!("cli:{user}"))
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("support-chat-42"), "support-chat-42");
        assert_eq!(segment("a/b ?é"), "a%2Fb%20%3F%C3%A9");
    }
}
