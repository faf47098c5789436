//! `tracegate demo`: a release gone bad is caught and rolled back, or a good one promoted, in about a minute.
//!
//! Everything is real but the users: the server of `tracegate serve` on free loopback ports, and beside it a simulated
//! gateway that knows it only by OTLP, HTTP and a webhook secret. The figures on screen come over the API, and the
//! closing proof from SQL over spans that came in after the route had moved.

mod gateway;
mod observer;
mod screen;
mod spans;
mod summary;
mod traffic;

use self::{
    gateway::{Gateway, Received, Route},
    observer::Observer,
    screen::{Pulse, Screen, say},
    traffic::{EVAL_FAIL_BASE, Regression},
};
use crate::{config::Config, wire::App};
use miette::{IntoDiagnostic, WrapErr, miette};
use proto::{
    Nanos,
    cell::PPM,
    clock::Clock,
    decision::{Action, GateReport, Phase},
    signature::Secret,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Name of the demo's release.
const RELEASE: &str = "support-chat-42";
/// Green is healthy for this long on the canary step, then it is not.
const HEALTHY_FIRST: Duration = Duration::from_secs(6);
/// Traffic is watched for this long after the last notice, to prove that it moved.
const PROOF: Duration = Duration::from_secs(5);
/// The demo gives up after this.
const DEADLINE: Duration = Duration::from_secs(150);
/// How often the screen is redrawn.
const REDRAW: Duration = Duration::from_millis(250);

/// What is wrong with green.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Slower, dearer and worse at once, for one cohort.
    Regression,
    /// Only slower, for one cohort.
    Slow,
    /// Only dearer, for one cohort.
    Dear,
    /// Only worse answers, for one cohort.
    Worse,
    /// Nothing: green is promoted.
    Healthy,
}

impl Scenario {
    fn regression(self) -> Regression {
        match self {
            Self::Regression => Regression::ALL,
            Self::Slow => Regression {
                slower: 3.0,
                ..Regression::NONE
            },
            Self::Dear => Regression {
                dearer: Regression::ALL.dearer,
                ..Regression::NONE
            },
            Self::Worse => Regression {
                eval_fail: 3.5 * EVAL_FAIL_BASE,
                ..Regression::NONE
            },
            Self::Healthy => Regression::NONE,
        }
    }

    fn expected(self) -> Action {
        if self == Self::Healthy {
            Action::Promote
        } else {
            Action::Rollback
        }
    }
}

/// Arguments of `tracegate demo`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  tracegate demo\n  tracegate demo --healthy --seed 7\n  tracegate demo --scenario slow --keep"
)]
pub struct DemoArgs {
    /// Repeat the traffic of this seed.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Leave everything running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Inject nothing: the release must end in a promotion. Short for `--scenario healthy`.
    #[arg(long, conflicts_with = "scenario")]
    pub healthy: bool,
    /// What goes wrong with green.
    #[arg(long, value_enum, default_value_t = Scenario::Regression)]
    pub scenario: Scenario,
}

/// Runs the demo. The exit code is 0 only if the loop closed: the decision came, its signature held, the route moved,
/// and the spans that followed prove it.
///
/// # Errors
/// If the server or the gateway can't start.
pub async fn run(args: &DemoArgs) -> miette::Result<ExitCode> {
    let scenario = if args.healthy { Scenario::Healthy } else { args.scenario };
    let dir = tempfile::Builder::new()
        .prefix("tracegate-demo-")
        .tempdir()
        .into_diagnostic()
        .wrap_err("no temporary directory")?;
    let clock = crate::wall_clock();
    let secret = Secret::from_bytes(fresh_key()).into_diagnostic()?;
    let gateway = Gateway::bind(secret.clone(), Arc::clone(&clock))
        .await
        .into_diagnostic()
        .wrap_err("no free loopback port for the demo's gateway")?;
    let config_file = write_config(dir.path(), &gateway.hook_url, &secret)?;
    let app = App::start(Config::load(&config_file)?, Arc::clone(&clock)).await?;

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    say(&format!("tracegate demo, scenario {scenario:?}, seed {}", args.seed));
    say(&format!("  data      {}", dir.path().display()));
    say(&format!(
        "  listening OTLP gRPC {}, OTLP HTTP {}, API http://{}",
        app.addresses.otlp_grpc, app.addresses.otlp_http, app.addresses.http
    ));
    say(&format!(
        "  gateway   {} (simulated, a task of its own)",
        gateway.hook_url
    ));
    say("");
    let route = gateway
        .run(app.addresses.otlp_grpc, args.seed, scenario.regression(), &stop, &tasks)
        .into_diagnostic()?;
    tasks.close();

    let mut play = Play {
        scenario,
        clock,
        route,
        observer: Observer::new(app.addresses.http)?,
        screen: Screen::new(),
    };
    let outcome = tokio::select! {
        outcome = play.run() => Some(outcome),
        _ = tokio::signal::ctrl_c() => None,
    };
    play.screen.finish();
    let Some(outcome) = outcome else {
        stop.cancel();
        tasks.wait().await;
        app.shutdown().await?;
        say("interrupted: the temporary directory is removed");
        return Ok(ExitCode::from(130));
    };
    let closed = match &outcome {
        Ok(proof) => {
            say(&summary::table(&play.observer.verdict(RELEASE).await?, proof));
            true
        }
        Err(problem) => {
            say(&format!("\nThe loop did not close: {problem}"));
            false
        }
    };
    if args.keep {
        say(&format!(
            "\nStill running (--keep): API http://{}, traffic goes on. Ctrl-C ends it.",
            app.addresses.http
        ));
        tokio::signal::ctrl_c().await.into_diagnostic()?;
    }
    stop.cancel();
    tasks.wait().await;
    app.shutdown().await?;
    say(&summary::farewell(&dir.keep(), RELEASE));
    Ok(if closed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What shows that the route really moved.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The notice that moved it.
    pub notice: Received,
    /// Seconds from the injected regression (or from the first green request) to the notice.
    pub seconds_to_notice: f64,
    /// Requests by color that came in after the route had moved, as their spans say.
    pub requests_after: [i64; 2],
    /// Traces exported in all, and given up.
    pub exported: u64,
    /// Exports given up.
    pub lost: u64,
}

struct Play {
    scenario: Scenario,
    clock: Clock,
    route: Arc<Route>,
    observer: Observer,
    screen: Screen,
}

impl Play {
    async fn run(&mut self) -> miette::Result<Proof> {
        let begun = Instant::now();
        let mut canary_since: Option<Instant> = None;
        let mut injected: Option<Instant> = None;
        let mut told = 0;
        let mut rate = Rate::default();
        self.screen
            .say("blue serves alone: its first seconds freeze the thresholds");
        loop {
            tokio::time::sleep(REDRAW).await;
            let verdict = self.observer.verdict(RELEASE).await?;
            let green_ppm = self.route.green_ppm();
            self.screen.show(
                Pulse {
                    traces_per_sec: rate.of(self.route.exported.load(Relaxed)),
                    green_share: f64::from(green_ppm) / f64::from(PPM),
                },
                &verdict,
            );
            let notices = self.route.notices();
            for notice in &notices[told..] {
                self.tell(notice);
            }
            told = notices.len();
            if canary_since.is_none() && green_ppm > 0 {
                canary_since = Some(Instant::now());
            }
            if self.scenario != Scenario::Healthy
                && injected.is_none()
                && canary_since.is_some_and(|t| t.elapsed() >= HEALTHY_FIRST)
            {
                self.route.inject();
                injected = Some(Instant::now());
                self.screen
                    .say("injected: green gets worse for one cohort, with HTTP 200 and no error anywhere");
            }
            if let Some(notice) = notices.iter().find(|n| n.body.data.action == self.scenario.expected()) {
                let since = injected.or(canary_since).unwrap_or(begun);
                return self.prove(notice.clone(), since.elapsed().as_secs_f64()).await;
            }
            if let Some(wrong) = notices
                .iter()
                .find(|n| matches!(n.body.data.action, Action::Promote | Action::Rollback))
            {
                return Err(miette!(
                    "the engine decided {}, expected {}",
                    wrong.body.data.action.as_str(),
                    self.scenario.expected().as_str()
                ));
            }
            if begun.elapsed() > DEADLINE {
                return Err(miette!(
                    "no {} within {} s; the last verdict says: {}",
                    self.scenario.expected().as_str(),
                    DEADLINE.as_secs(),
                    verdict.reason
                ));
            }
        }
    }

    fn tell(&self, notice: &Received) {
        let data = &notice.body.data;
        self.screen.say(&format!(
            "webhook {} arrived, signature verified: decision {} moves green from {:.0} % to {:.0} %",
            notice.body.kind,
            data.decision_seq,
            f64::from(notice.moved.0) / 1e4,
            f64::from(notice.moved.1) / 1e4,
        ));
        if data.action != Action::Rollback {
            return;
        }
        let over = |g: &GateReport| g.log_e_fail - g.threshold_fail;
        if let Some(culprit) = data.gates.iter().max_by(|a, b| over(a).total_cmp(&over(b))) {
            self.screen.say(&format!(
                "  worst: {} ({}): blue {}, green {}, evidence {:.1} of {:.1}",
                culprit.name,
                culprit.cohort.as_deref().unwrap_or("overall"),
                screen::amount(&culprit.name, culprit.blue),
                screen::amount(&culprit.name, culprit.green),
                culprit.log_e_fail,
                culprit.threshold_fail,
            ));
        }
    }

    /// Waits until spans that started after the move have come in, and the engine itself has seen the effect.
    async fn prove(&mut self, notice: Received, seconds_to_notice: f64) -> miette::Result<Proof> {
        let moved_at: Nanos = notice.at;
        self.screen.say("watching new spans for proof that the traffic moved");
        let begun = Instant::now();
        let mut rate = Rate::default();
        loop {
            tokio::time::sleep(REDRAW).await;
            let verdict = self.observer.verdict(RELEASE).await?;
            let green_share = f64::from(self.route.green_ppm()) / f64::from(PPM);
            self.screen.show(
                Pulse {
                    traces_per_sec: rate.of(self.route.exported.load(Relaxed)),
                    green_share,
                },
                &verdict,
            );
            let [blue, green] = self.observer.requests_since(RELEASE, moved_at).await?;
            let (stays, leaves) = if self.scenario == Scenario::Healthy {
                (green, blue)
            } else {
                (blue, green)
            };
            let seen_by_engine = match self.scenario.expected() {
                Action::Promote => matches!(verdict.phase, Phase::Watching | Phase::Settled),
                _ => verdict.phase == Phase::RolledBack,
            };
            if (self.clock)().since(moved_at) >= PROOF && stays > 0 && leaves == 0 && seen_by_engine {
                self.screen.say(&format!("proved by SQL over new spans: {stays} requests of the color that stays, {leaves} of the other, since the route moved"));
                return Ok(Proof {
                    notice,
                    seconds_to_notice,
                    requests_after: [blue, green],
                    exported: self.route.exported.load(Relaxed),
                    lost: self.route.lost.load(Relaxed),
                });
            }
            if begun.elapsed() > Duration::from_secs(45) {
                return Err(miette!(
                    "the route moved, but {leaves} requests of the other color came after it and the phase is {}",
                    verdict.phase.as_str()
                ));
            }
        }
    }
}

/// Rate over the last seconds, from a growing count.
#[derive(Default)]
struct Rate(std::collections::VecDeque<(Instant, u64)>);

impl Rate {
    fn of(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        self.0.push_back((now, count));
        while self.0.len() > 2
            && self
                .0
                .front()
                .is_some_and(|(t, _)| now.duration_since(*t) > Duration::from_secs(3))
        {
            self.0.pop_front();
        }
        match self.0.front() {
            Some(&(then, before)) if now > then => (count - before) as f64 / now.duration_since(then).as_secs_f64(),
            _ => 0.0,
        }
    }
}

fn fresh_key() -> Vec<u8> {
    use rand::Rng;
    let mut key = vec![0; 32];
    rand::rng().fill_bytes(&mut key);
    key
}

fn write_config(dir: &Path, hook_url: &str, secret: &Secret) -> miette::Result<PathBuf> {
    let secret_file = dir.join("webhook.secret");
    write_private(&secret_file, &secret.reveal())?;
    let text = include_str!("release.toml")
        .replace("{data_dir}", &toml_path(&dir.join("data"))?)
        .replace("{hook_url}", hook_url)
        .replace("{secret_file}", &toml_path(&secret_file)?);
    let file = dir.join("tracegate.toml");
    write_private(&file, &text)?;
    Ok(file)
}

fn toml_path(path: &Path) -> miette::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| miette!("the temporary directory's path is not UTF-8: set TMPDIR to one that is"))?;
    Ok(text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write_private(path: &Path, text: &str) -> miette::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .into_diagnostic()
        .wrap_err_with(|| format!("{} can't be written", path.display()))
}
