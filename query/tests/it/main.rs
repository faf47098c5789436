//! Queries over a real store: live rows, sealed files, patches.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod docs;
mod equivalence;
mod fuzzed;
mod guard;
mod limits;
mod measure;
mod outputs;
mod pruning;
mod quantiles;
mod slt;
mod world;

use query::{Bounds, Engine, EngineOptions, LedgerTables, QueryError, View, output};
use std::{path::Path, sync::Arc};
use store::Snapshot;

fn engine(data_dir: &Path) -> Engine {
    let mut options = EngineOptions::new(data_dir);
    options.memory_bytes = 256 << 20;
    Engine::new(options).unwrap()
}

fn view(snapshot: &Arc<Snapshot>) -> View {
    View {
        snapshot: Arc::clone(snapshot),
        ledger: LedgerTables::default(),
    }
}

/// The whole answer as one text.
async fn encoded(engine: &Engine, view: View, sql: &str, format: output::Format) -> Result<Vec<u8>, QueryError> {
    use futures::TryStreamExt;
    let answer = engine.run(view, sql).await?;
    let chunks: Vec<_> = output::encode(answer, format).try_collect().await?;
    Ok(chunks.concat())
}

/// The rows of the answer as JSON.
async fn rows(engine: &Engine, view: View, sql: &str) -> Vec<Vec<serde_json::Value>> {
    let json = encoded(engine, view, sql, output::Format::Json)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut answer: serde_json::Value = serde_json::from_slice(&json).unwrap();
    serde_json::from_value(answer["rows"].take()).unwrap()
}

async fn error(engine: &Engine, view: View, sql: &str) -> QueryError {
    let answer = match engine.run(view, sql).await {
        Ok(answer) => answer.collect(Bounds::default()).await,
        Err(error) => return error,
    };
    match answer {
        Ok(rows) => panic!("{sql}: gave {} rows", rows.rows()),
        Err(error) => error,
    }
}
