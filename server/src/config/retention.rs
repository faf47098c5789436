//! `[retention]`: how long sealed files and decisions are kept.

use super::{
    Config,
    section::{Findings, Section},
};
use std::{ops::Range, time::Duration};
use store::Retention;

/// Shortest age: files are made by the hour, and old decisions looked for as often.
const AGE_MIN: Duration = Duration::from_secs(3_600);

pub(super) fn retention(mut section: Section<'_>, config: &mut Config, findings: &mut Findings) {
    let into = &mut config.pipeline.retention;
    for (key, age) in [
        ("text", &mut into.texts),
        ("spans", &mut into.rows),
        ("cells", &mut into.cells),
        ("decisions", &mut config.decisions_kept),
    ] {
        if let Some(kept) = section.parse(key, findings, age_of) {
            *age = kept;
        }
    }
    if let Some((share, span)) = section.read_spanned::<f64>("disk_max", findings) {
        disk_max(share, span, into, findings);
    }
    section.finish(findings);
}

fn disk_max(share: f64, span: Range<usize>, into: &mut Retention, findings: &mut Findings) {
    if share > 0.0 && share <= 1.0 {
        into.disk_max = share;
        return;
    }
    let help = "write the share of the file system that may be used, as in disk_max = 0.8; 1.0 removes nothing early";
    let message = format!("`disk_max`: {share} is no share above 0 and up to 1");
    findings.add(Some(span), message, Some(help.to_owned()));
}

fn age_of(text: &str) -> Result<Duration, String> {
    let hint = "write it as in \"7d\" or \"36h\"";
    match humantime::parse_duration(text) {
        Ok(short) if short < AGE_MIN => Err(format!(
            "`{text}` is less than an hour, and what is old is found by the hour; {hint}"
        )),
        read => read.map_err(|error| format!("{error}; {hint}")),
    }
}
