//! `tracegate sql`: one question, to a running server or to the files of a stopped one.

use super::{Client, OutputError, ServerArgs};
use crate::offline;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
};

/// The question, and whom to ask.
#[derive(Debug, Args)]
#[command(
    after_help = "Tables: spans, traces, evals, cells, releases, decisions, deliveries.\n\n\
    Examples:\n  tracegate sql \"SELECT color, count(*) FROM spans GROUP BY color\"\n  \
    tracegate sql --format csv \"SELECT * FROM traces ORDER BY start_time DESC LIMIT 10\"\n  \
    tracegate sql --data-dir ./tracegate-data \"SELECT count(*) FROM spans\""
)]
pub struct SqlArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Read this data directory instead of asking a server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How to write the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The question; read from stdin if it is `-` or left out
    #[arg(value_name = "SQL")]
    sql: Option<String>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// `{"columns": [...], "rows": [...]}`
    Json,
    /// With a header line
    Csv,
    /// Arrow IPC stream, binary
    Arrow,
}

impl Format {
    /// The media type the server knows it by.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain",
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// No question was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no SQL to run")]
#[diagnostic(help("write it in quotes: tracegate sql \"SELECT count(*) FROM spans\""))]
struct NoQuestion;

pub(super) async fn run(args: SqlArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let sql = question(args.sql)?;
    let mut answer = match &args.data_dir {
        Some(dir) => offline::sql(dir, &sql, args.format).await?,
        None => {
            let client = Client::new(&args.server)?;
            client
                .post_for("/api/v1/sql", &json!({ "sql": sql }), args.format.media_type())
                .await?
        }
    };
    if args.format != Format::Arrow && answer.last() != Some(&b'\n') {
        answer.push(b'\n');
    }
    out.write_all(&answer).map_err(OutputError)?;
    Ok(())
}

fn question(given: Option<String>) -> miette::Result<String> {
    let text = match given {
        Some(sql) if sql != "-" => sql,
        None if std::io::stdin().is_terminal() => return Err(NoQuestion.into()),
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(OutputError)?;
            text
        }
    };
    if text.trim().is_empty() {
        Err(NoQuestion.into())
    } else {
        Ok(text)
    }
}
