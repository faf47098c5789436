//! What is left on screen: what was decided, on which evidence, and where to look further.

use super::{Proof, screen::amount};
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use proto::decision::VerdictReport;
use std::path::Path;

/// The closing table.
pub fn table(verdict: &VerdictReport, proof: &Proof) -> String {
    let data = &proof.notice.body.data;
    let mut gates = Table::new();
    gates.load_style(UTF8_BORDERS_ONLY);
    gates.set_header(["gate", "cohort", "blue", "green", "evidence", "verdict"]);
    for g in &data.gates {
        gates.add_row(vec![
            Cell::new(&g.name),
            Cell::new(g.cohort.as_deref().unwrap_or("all")),
            Cell::new(amount(&g.name, g.blue)).set_alignment(CellAlignment::Right),
            Cell::new(amount(&g.name, g.green)).set_alignment(CellAlignment::Right),
            Cell::new(format!("{:.1} of {:.1}", g.log_e_fail, g.threshold_fail)).set_alignment(CellAlignment::Right),
            Cell::new(g.verdict.as_str()),
        ]);
    }
    format!(
        "\n{action} of {release}, decision {id}\n{gates}\n\
         decided after   {seconds:.1} s of {what}, {n_blue} blue and {n_green} green traces compared\n\
         signed webhook  received, signature verified, green from {before:.0} % to {after:.0} %\n\
         proof           {blue} blue and {green} green requests came in after the move, as their spans say; phase {phase}\n\
         traffic         {exported} traces exported, {lost} lost",
        action = data.action.as_str(),
        n_blue = verdict.n_blue,
        n_green = verdict.n_green,
        release = data.release,
        id = data.decision_id,
        seconds = proof.seconds_to_notice,
        what = if data.action == proto::decision::Action::Promote {
            "canary traffic"
        } else {
            "bad green traffic"
        },
        before = f64::from(proof.notice.moved.0) / 1e4,
        after = f64::from(proof.notice.moved.1) / 1e4,
        blue = proof.requests_after[0],
        green = proof.requests_after[1],
        phase = verdict.phase.as_str(),
        exported = proof.exported,
        lost = proof.lost,
    )
}

/// Where the files are, and what to ask them.
pub fn farewell(dir: &Path, release: &str) -> String {
    let program = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    let program = match (&program, &here) {
        (Some(program), Some(here)) => program.strip_prefix(here).unwrap_or(program).display().to_string(),
        _ => "tracegate".to_owned(),
    };
    let data = dir.join("data");
    let ask = |sql: &str| format!("  {program} sql --data-dir {} \\\n    \"{sql}\"", data.display());
    format!(
        "\nThe Parquet lies in {data}/spans/color=.../ (and traces, evals, cells beside it).\nThree queries to try:\n{a}\n{b}\n{c}\nDelete it all with: rm -r {dir}",
        data = data.display(),
        dir = dir.display(),
        a = ask("SELECT color, cohort, n, p99_ms FROM latency_p99 ORDER BY cohort, color"),
        b = ask(&format!(
            "SELECT * FROM token_cost_per_trace WHERE release = '{release}'"
        )),
        c = ask("SELECT cohort, color, n, failed, rate FROM eval_fail_rate ORDER BY rate DESC"),
    )
}
