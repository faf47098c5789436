//! `tracegate backtest`: what a release file would have decided over recorded traffic, and when.

mod calls;
mod colors;
mod evals;
mod show;
mod survey;
mod traces;

use super::{
    OutputError, ServerArgs,
    ask::{AskError, Asker},
};
use crate::config::{Config, LoadError};
use clap::Args;
use colors::Sides;
use gates::backtest::{Backtest, Options, backtest, halves, metrics_of};
use indicatif::{ProgressBar, ProgressStyle};
use proto::{Nanos, release::ReleaseSpec};
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use survey::Survey;
use traces::Read;

/// Width of a minute of the cells that history is counted into.
const RESOLUTION: Duration = Duration::from_secs(60);
/// Steps of a progress bar.
const STEPS: f64 = 1_000.0;

/// Rules, and the history to try them on.
#[derive(Debug, Args)]
#[command(
    after_help = "The release is opened when green began, or at --from; blue before that freezes the thresholds.\n\
    Colors come from the versions that the file declares, else from stamped colors, else from the\n\
    keys of its `match`.\n\n\
    Examples:\n  tracegate backtest --release support-chat-42.toml --peers --aa 20\n  \
    tracegate backtest --release strict.toml --against loose.toml --data-dir ./tracegate-data\n  \
    tracegate backtest --release a.toml --from 2026-11-20T00:00:00Z --to 2026-11-22T00:00:00Z"
)]
pub struct BacktestArgs {
    /// Release file, TOML
    #[arg(long, value_name = "FILE")]
    release: PathBuf,
    /// A second release file: what would it have decided otherwise?
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Route, if the file declares several releases or the history is of another route
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// When the release is opened, RFC 3339 [default: when green began]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Nanos>,
    /// Where history ends, RFC 3339 [default: the last trace]
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Nanos>,
    /// Also say what threshold rules in the style of others would have done
    #[arg(long)]
    peers: bool,
    /// Also split blue's own history in two by chance, N times, and count false rollbacks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    aa: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
    /// Read this data directory instead of asking a server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Nanos, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text)
        .map_err(|e| format!("{e}; write it as 2026-11-20T14:00:00Z"))?
        .timestamp_nanos_opt();
    time.map(Nanos).ok_or_else(|| "too far from 1970".to_owned())
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum BacktestError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ask(#[from] AskError),
    #[error("{} declares no release", .0.display())]
    #[diagnostic(help("a release file holds [[release]]: see docs/examples/release.toml"))]
    NoRelease(PathBuf),
    #[error("{} declares releases of several routes: {routes}", file.display())]
    #[diagnostic(help("say which one with --route"))]
    SeveralRoutes { file: PathBuf, routes: String },
    #[error("there are no traces of route `{0}`")]
    #[diagnostic(help(
        "`tracegate sql \"SELECT route, count(*) FROM traces GROUP BY route\"` shows what there is; \
         `tracegate import FILE` brings in recorded ones"
    ))]
    NoTraces(String),
    #[error("--from is not before --to")]
    #[diagnostic(help("both are RFC 3339, such as 2026-11-20T14:00:00Z"))]
    NoTime,
    #[error("nothing can be replayed: {0}")]
    #[diagnostic(help(
        "give --from, or check that versions, stamped colors or the release's `match` say which traces are green"
    ))]
    Nothing(String),
}

pub(super) async fn run(args: BacktestArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let text = answer(&args).await?;
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

async fn answer(args: &BacktestArgs) -> Result<String, BacktestError> {
    if args.from.is_some() && args.to.is_some() && args.from >= args.to {
        return Err(BacktestError::NoTime);
    }
    let first = rules(&args.release, args.route.as_deref())?;
    let second = match &args.against {
        Some(file) => Some(rules(file, args.route.as_deref())?),
        None => None,
    };
    let asker = Asker::new(&args.server, args.data_dir.as_deref())?;
    let read = read(args, &asker, &first, second.as_ref()).await?;
    let result = replayed(args, &first, &read)?;
    let against = match &second {
        Some(spec) if reads_alike(&first, spec) => Some((replayed(args, spec, &read)?, None)),
        Some(spec) => {
            let own = self::read(args, &asker, spec, None).await?;
            Some((replayed(args, spec, &own)?, Some(own)))
        }
        None => None,
    };
    let aa = match args.aa {
        Some(splits) => {
            let bar = bar("splitting blue");
            let halves = halves(&first, &read.history, options(args), splits, &mut |done| {
                step(&bar, done)
            });
            bar.finish_and_clear();
            Some(halves.map_err(BacktestError::Nothing)?)
        }
        None => None,
    };
    let file = |path: &Path| path.display().to_string();
    let names = (
        file(&args.release),
        args.against.as_deref().map(file).unwrap_or_default(),
    );
    let difference = against
        .as_ref()
        .map(|(b, _)| show::difference((&names.0, &result), (&names.1, b)));
    if args.json {
        let value = json!({
            "backtest": result,
            "against": against.as_ref().map(|(b, _)| b),
            "difference": difference,
            "aa": aa,
            "other_versions": read.others,
            "unmarked": read.unmarked,
            "late_evaluations": read.late_evals,
        });
        return Ok(format!("{value:#}\n"));
    }
    let mut text = show::describe(&result, &read, &names.0);
    if let Some((b, own)) = &against {
        text.push('\n');
        text.push_str(&show::describe(b, own.as_ref().unwrap_or(&read), &names.1));
    }
    if let Some(difference) = difference {
        text.push_str(&format!("\ndifference: {difference}\n"));
    }
    if let Some(aa) = &aa {
        text.push_str(&show::halves(aa));
    }
    Ok(text)
}

/// The release of a file, on the route asked for.
fn rules(file: &Path, route: Option<&str>) -> Result<ReleaseSpec, BacktestError> {
    let mut releases = Config::load(file)?.releases;
    if let Some(at) = releases.iter().position(|r| Some(r.route.as_str()) == route) {
        return Ok(releases.swap_remove(at));
    }
    if releases.len() > 1 {
        let routes: Vec<&str> = releases.iter().map(|r| r.route.as_str()).collect();
        return Err(BacktestError::SeveralRoutes {
            file: file.to_owned(),
            routes: routes.join(", "),
        });
    }
    let mut only = releases
        .pop()
        .ok_or_else(|| BacktestError::NoRelease(file.to_owned()))?;
    if let Some(route) = route {
        route.clone_into(&mut only.route);
    }
    Ok(only)
}

/// Whether two releases see the same history alike.
fn reads_alike(a: &ReleaseSpec, b: &ReleaseSpec) -> bool {
    let side = |s: &ReleaseSpec| {
        let keys = |m: &proto::release::Manifest| (m.version.clone(), m.matches.clone());
        (
            s.route.clone(),
            s.cohort.clone(),
            s.baseline,
            keys(&s.blue),
            keys(&s.green),
        )
    };
    side(a) == side(b)
}

const fn options(args: &BacktestArgs) -> Options {
    Options {
        from: args.from,
        resolution: RESOLUTION,
        peers: args.peers,
    }
}

async fn read(
    args: &BacktestArgs,
    asker: &Asker,
    spec: &ReleaseSpec,
    beside: Option<&ReleaseSpec>,
) -> Result<Read, BacktestError> {
    let survey = Survey::of(asker, &spec.route).await?;
    if survey.is_empty() {
        return Err(BacktestError::NoTraces(spec.route.clone()));
    }
    let sides = Sides {
        blue: &spec.blue,
        green: &spec.green,
        versioned: survey.is_versioned(spec),
    };
    let range = survey.range(spec, &sides, args.from, args.to);
    let metrics = metrics_of([spec].into_iter().chain(beside));
    let bar = bar("reading traces");
    let read = traces::read(asker, spec, metrics, &survey, range, &|done| step(&bar, done)).await;
    bar.finish_and_clear();
    Ok(read?)
}

fn replayed(args: &BacktestArgs, spec: &ReleaseSpec, read: &Read) -> Result<Backtest, BacktestError> {
    let bar = bar("replaying");
    let result = backtest(spec, &read.history, options(args), &mut |done| step(&bar, done));
    bar.finish_and_clear();
    result.map_err(BacktestError::Nothing)
}

/// A bar on stderr; none where that is no terminal.
fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %, {eta} to go");
    let bar = ProgressBar::new(STEPS as u64).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn step(bar: &ProgressBar, done: f64) {
    bar.set_position((done * STEPS) as u64);
}
