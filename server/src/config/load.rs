//! From TOML to a [`Config`].

use super::{
    Config, Problem, Problems,
    address::{self, Door},
    reading,
    retention::retention,
    schemas,
    section::{Findings, Section},
    sources::Sources,
};
use ingest::{
    price::PriceList,
    read::{AnswerSchemas, EvalRule, EvalRules},
};
use miette::Diagnostic;
use proto::release::ReleaseSpec;
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// The file `serve` reads if it is there and no other is named.
pub const FILE_DEFAULT: &str = "tracegate.toml";
/// Sections of the design that are still to come: refused, so that nobody relies on them.
const NOT_YET: [(&str, &str); 2] = [
    (
        "auth",
        "tokens are not built yet: listen on loopback, or put a proxy that asks for them in front",
    ),
    (
        "notify",
        "follow GET /api/v1/decisions, or take the webhook of the release",
    ),
];
/// Keys of `[server]` that are still to come.
const SERVER_NOT_YET: [&str; 2] = ["flight_sql", "pgwire"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    #[diagnostic(help("is the path right? `serve` without --config starts with defaults"))]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It has problems.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Wrong(#[from] Problems),
}

impl Config {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// [`LoadError`], with every problem at once.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_from(path, &mut Sources::default())
    }

    /// The same; and notes what was read, also if it cannot be used.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(path: &Path, sources: &mut Sources) -> Result<Self, LoadError> {
        let text = sources.read(path).map_err(|cause| LoadError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(parse_in(&text, &path.display().to_string(), folder, sources)?)
    }

    /// Reads the file that was named, else `./tracegate.toml` if it is there, else takes the defaults.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_default(named: Option<&Path>) -> Result<Self, LoadError> {
        match named {
            Some(path) => Self::load(path),
            None if Path::new(FILE_DEFAULT).exists() => Self::load(Path::new(FILE_DEFAULT)),
            None => Ok(Self::default()),
        }
    }

    /// Reads a text; `include` starts from the working directory.
    ///
    /// # Errors
    /// Every problem of the text and of what it includes.
    pub fn parse(text: &str, file: &str) -> Result<Self, Problems> {
        parse_in(text, file, Path::new(""), &mut Sources::default())
    }
}

fn parse_in(text: &str, file: &str, folder: &Path, sources: &mut Sources) -> Result<Config, Problems> {
    let mut findings = Findings::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        findings.add(error.span(), error.message(), None);
    }
    if !errors.is_empty() {
        // What a broken line meant is a guess; problems after it would be guesses too.
        return Err(Problems {
            file: file.to_owned(),
            problems: findings.problems,
        });
    }
    let mut config = Config::default();
    let mut root = Section::new("the configuration", table.into_inner());
    for (name, instead) in NOT_YET {
        let message = format!("section `{name}` is not built yet; remove it");
        root.refuse(name, message, Some(instead.to_owned()), &mut findings);
    }
    if let Some(section) = root.table("server", &mut findings) {
        server(section, &mut config, &mut findings);
    }
    if let Some(section) = root.table("retention", &mut findings) {
        retention(section, &mut config, &mut findings);
    }
    if let Some(section) = root.table("attributes", &mut findings) {
        reading::attributes(section, &mut config.read.keys, &mut findings);
    }
    if let Some(section) = root.table("content", &mut findings) {
        reading::content(section, &mut config.read.content, &mut findings);
    }
    if let Some((list, span)) = root.read_spanned::<PriceList>("prices", &mut findings) {
        let table = Arc::make_mut(&mut config.read.prices);
        if let Err(error) = table.merge(&list) {
            let help = "write prices in nano-USD a token: 150 is 0.15 USD per million tokens".to_owned();
            findings.add(Some(span), error.to_string(), Some(help));
        }
    }
    if let Some(listed) = root.take("json_schema") {
        let mut declared = AnswerSchemas::default();
        schemas::schemas(listed, folder, &mut declared, sources, &mut findings);
        config.read.schemas = Arc::new(declared);
    }
    if let Some(rules) = root.take("eval") {
        evals(rules, &mut config.read.evals, &mut findings);
    }
    if let Some(section) = root.table("webhooks", &mut findings) {
        webhooks(section, &mut config, &mut findings);
    }
    let include = root.read_spanned::<Vec<String>>("include", &mut findings);
    root.take("defaults");
    root.take("release");
    root.finish(&mut findings);

    let mut files = vec![(file.to_owned(), text.to_owned())];
    for (pattern, span) in include
        .into_iter()
        .flat_map(|(patterns, span)| patterns.into_iter().map(move |p| (p, span.clone())))
    {
        match sources.read_all(&folder.join(&pattern)) {
            Ok(more) => files.extend(more),
            Err(cause) => {
                let help = "write paths relative to this file, as in include = [\"releases/*.toml\"]".to_owned();
                findings.add(Some(span), format!("cannot include `{pattern}`: {cause}"), Some(help));
            }
        }
    }
    let mut problems = findings.problems;
    problems.sort_by_key(|p| p.span.as_ref().map(|s| s.start));
    config.releases = releases(&files, &mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(Problems {
            file: file.to_owned(),
            problems,
        })
    }
}

/// Checks the releases of all files together: ids and routes may not repeat across them.
fn releases(files: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<ReleaseSpec> {
    let mut texts: Vec<Findings> = files.iter().map(|(name, text)| Findings::new(name, text)).collect();
    for ((name, text), findings) in files.iter().zip(&mut texts).skip(1) {
        // The main file has been read key by key; an included one may only hold releases.
        if let Ok(table) = DeTable::parse(text) {
            let mut root = Section::new(name, table.into_inner());
            root.take("release");
            root.take("defaults");
            root.finish(findings);
        }
    }
    let checked = gates::check::check_files(files);
    for problem in checked.problems {
        if let Some(at) = files.iter().position(|(name, _)| *name == problem.file) {
            texts[at].add(Some(problem.span), problem.message, Some(problem.help));
        }
    }
    problems.extend(texts.into_iter().flat_map(|findings| findings.problems));
    checked.releases
}

fn server(mut section: Section<'_>, config: &mut Config, findings: &mut Findings) {
    for key in SERVER_NOT_YET {
        section.refuse(key, format!("`{key}` is not built yet; remove it"), None, findings);
    }
    if let Some(dir) = section.read::<PathBuf>("data_dir", findings) {
        config.data_dir = dir;
    }
    for door in Door::ALL {
        if let Some(address) = section.parse(door.key(), findings, address::parse) {
            config.listen(door, address);
        }
    }
    if let Some(hosts) = section.read("hosts", findings) {
        config.hosts = hosts;
    }
    if let Some(width) = section.parse("cell_resolution", findings, cell_resolution) {
        config.pipeline.assembly.resolution = width;
    }
    if let Some(age) = section.parse("seal_age", findings, duration) {
        config.pipeline.seal_age = age;
    }
    if let Some(quiet) = section.parse("trace_quiet", findings, duration) {
        config.pipeline.assembly.quiet = quiet;
    }
    if let Some(bytes) = section.parse("ingest_bytes_max", findings, bytes) {
        config.doors.budget_bytes = bytes;
    }
    if let Some(url) = section.parse("public_url", findings, public_url) {
        config.public_url = Some(url);
    }
    section.finish(findings);
}

/// When evaluations have passed: every `[[eval]]` by itself, so that one wrong rule does not hide the next.
fn evals(rules: Spanned<DeValue<'_>>, into: &mut EvalRules, findings: &mut Findings) {
    let span = rules.span();
    let DeValue::Array(rules) = rules.into_inner() else {
        let help = "write `[[eval]]` on a line of its own, and its keys below".to_owned();
        findings.add(Some(span), "`eval` is a list of tables", Some(help));
        return;
    };
    for rule in rules {
        let span = rule.span();
        match EvalRule::deserialize(ValueDeserializer::from(rule)) {
            Ok(rule) => {
                if let Err(error) = into.add(rule) {
                    findings.add(Some(span), error.to_string(), None);
                }
            }
            Err(error) => {
                let help = "a rule has name, pass_min, pass_max, pass_labels, fail_labels".to_owned();
                findings.add(
                    error.span().or(Some(span)),
                    format!("[[eval]]: {}", error.message()),
                    Some(help),
                );
            }
        }
    }
}

fn webhooks(mut section: Section<'_>, config: &mut Config, findings: &mut Findings) {
    if let Some((allow, span)) = section.read_spanned::<Vec<String>>("allow", findings) {
        for network in allow {
            match network.parse() {
                Ok(network) => config.webhooks_allow.push(network),
                Err(_) => {
                    let help = "write networks, as in allow = [\"127.0.0.0/8\", \"10.1.0.0/16\"]".to_owned();
                    findings.add(Some(span.clone()), format!("`{network}` is no network"), Some(help));
                }
            }
        }
    }
    section.finish(findings);
}

fn cell_resolution(text: &str) -> Result<Duration, String> {
    let hint = "a whole number of seconds that divides an hour, as in \"60s\"";
    let width = humantime::parse_duration(text).map_err(|error| format!("{error}; write {hint}"))?;
    let whole = width.subsec_nanos() == 0 && width.as_secs() > 0 && 3_600 % width.as_secs().max(1) == 0;
    whole.then_some(width).ok_or_else(|| format!("`{text}` is not {hint}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let hint = "write it as in \"60s\" or \"5m\"";
    match humantime::parse_duration(text) {
        Ok(zero) if zero.is_zero() => Err(format!("zero is not possible; {hint}")),
        read => read.map_err(|error| format!("{error}; {hint}")),
    }
}

/// Reads `256MiB`, `2GiB`, `1048576`.
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text
        .trim()
        .trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let factor: usize = match text.trim()[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("`{unit}` is no unit; write KiB, MiB or GiB")),
    };
    let number: usize = digits
        .parse()
        .map_err(|_| format!("`{text}` is no size; write \"256MiB\""))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn public_url(text: &str) -> Result<String, String> {
    let hint = "write it as in \"http://tracegate.internal:4320\"";
    let url = reqwest::Url::parse(text).map_err(|error| format!("{error}; {hint}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("`{text}` is no http address; {hint}"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
