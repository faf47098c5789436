//! `tracegate top`: what a running server takes, holds and decides, once a second.

mod frame;
mod page;
mod screen;

use super::{
    Client, ClientError, OutputError, ServerArgs,
    releases::{is_over, items, segment},
    text::word,
};
use clap::Args;
use frame::Seen;
use miette::IntoDiagnostic;
use page::Page;
use screen::Screen;
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};

/// Pages that times are taken over.
const PAGES_MAX: usize = 10;
/// Releases that are shown.
const RELEASES_MAX: usize = 20;
/// A server that has not answered by then is said to be silent.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Shortest time between two frames.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What to watch.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are of the last ten frames. `62 % to fail` is how much of the evidence that a gate needs is there.\n    \
    With --once, and if the output is no terminal, one frame is printed. Ctrl-C ends.\n\n\
    Examples:\n  tracegate top\n  tracegate top --server http://gate.internal:4320 --interval 5s\n  tracegate top --once"
)]
pub struct TopArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Time between two frames, as in 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = at_least)]
    interval: Duration,
    /// Print one frame and end
    #[arg(long)]
    once: bool,
}

fn at_least(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as in 500ms or 5s"))?;
    if time < INTERVAL_MIN {
        return Err(format!("the shortest is {} ms", INTERVAL_MIN.as_millis()));
    }
    Ok(time)
}

pub(super) async fn run(args: TopArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let client = Client::new(&args.server)?;
    let mut top = Top {
        client,
        server: args.server.server.trim_end_matches('/').to_owned(),
        seen: Seen::default(),
    };
    if args.once || !io::stdout().is_terminal() {
        return top.once(args.interval, out).await;
    }
    let on = |kind| signal(kind).into_diagnostic();
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut hangup = on(SignalKind::hangup())?;
    let mut resized = on(SignalKind::window_change())?;
    let mut screen = Screen::enter(out).map_err(OutputError)?;
    let mut pace = interval(args.interval);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = resized.recv() => {}
            () = async { pace.tick().await; top.look().await; } => {}
        }
        let (columns, rows) = screen::size();
        screen.draw(&top.lines(columns, rows)).map_err(OutputError)?;
    }
}

struct Top {
    client: Client,
    server: String,
    seen: Seen,
}

impl Top {
    fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        frame::lines(&self.seen, &self.server, columns, rows)
    }

    /// One frame, of the time between two looks.
    async fn once(&mut self, between: Duration, out: &mut (dyn Write + Send)) -> miette::Result<()> {
        let first = self.page().await?;
        self.add(first);
        tokio::time::sleep(between).await;
        let second = self.page().await?;
        self.add(second);
        self.seen.releases = self.releases().await?;
        for line in self.lines(usize::MAX, usize::MAX) {
            writeln!(out, "{line}").map_err(OutputError)?;
        }
        Ok(())
    }

    /// Looks once more; what goes wrong is shown and tried again.
    async fn look(&mut self) {
        let asked = async { Ok::<_, ClientError>((self.page().await?, self.releases().await?)) };
        match timeout(ANSWER_WAIT, asked).await {
            Ok(Ok((page, releases))) => {
                self.add(page);
                self.seen.releases = releases;
                self.seen.trouble = None;
            }
            Ok(Err(error)) => self.seen.trouble = Some(error.to_string()),
            Err(_) => {
                self.seen.trouble = Some(format!(
                    "{} did not answer within {} s",
                    self.server,
                    ANSWER_WAIT.as_secs()
                ));
            }
        }
    }

    fn add(&mut self, page: Page) {
        let pages = &mut self.seen.pages;
        // Counters that went back: another process answers, and what came before says nothing about it.
        let accepted = "accepted_total";
        if pages.last().is_some_and(|last| last.get(accepted) > page.get(accepted)) {
            pages.clear();
        }
        if pages.len() == PAGES_MAX {
            pages.remove(0);
        }
        pages.push(page);
    }

    async fn page(&self) -> Result<Page, ClientError> {
        let text = self.client.text("/metrics").await?;
        Page::read(&text, Instant::now()).ok_or_else(|| ClientError::Foreign {
            server: self.server.clone(),
            cause: "its /metrics has no figures of tracegate".to_owned(),
        })
    }

    /// Running releases first, then the newest; each that runs with its verdict.
    async fn releases(&self) -> Result<Vec<(Value, Value)>, ClientError> {
        let mut all = items(self.client.get("/api/v1/releases").await?);
        all.sort_by_key(|release| (is_over(release), std::cmp::Reverse(word(release, "/opened"))));
        all.truncate(RELEASES_MAX);
        let mut shown = Vec::new();
        for release in all {
            let verdict = if is_over(&release) {
                Value::Null
            } else {
                let path = format!("/api/v1/releases/{}/verdict", segment(&word(&release, "/id")));
                self.client.get(&path).await?
            };
            shown.push((release, verdict));
        }
        Ok(shown)
    }
}
