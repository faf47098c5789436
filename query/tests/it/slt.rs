//! SQL logic tests: every file of `testdata/sql`, over every way the store may hold the same world.
//!
//! `UPDATE=1 cargo test -p query slt` writes the answers into the files; read the difference before keeping it.

use crate::{
    encoded, engine, view,
    world::{Held, World},
};
use query::{Engine, QueryError, View, output::Format};
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer, default_validator,
};
use std::{fs, path::Path};

struct Database {
    engine: Engine,
    view: View,
}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = QueryError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, QueryError> {
        let json = encoded(&self.engine, self.view.clone(), sql, Format::Json).await?;
        let mut answer: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let columns = answer["columns"].as_array().map_or(0, Vec::len);
        let rows: Vec<Vec<serde_json::Value>> = serde_json::from_value(answer["rows"].take()).unwrap();
        let shown = |value: serde_json::Value| match value {
            serde_json::Value::Null => "NULL".to_owned(),
            serde_json::Value::String(text) if text.is_empty() => "(empty)".to_owned(),
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(DBOutput::Rows {
            types: vec![DefaultColumnType::Any; columns],
            rows: rows
                .into_iter()
                .map(|row| row.into_iter().map(shown).collect())
                .collect(),
        })
    }

    async fn shutdown(&mut self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn slt_files_hold_over_live_sealed_and_patched_rows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/sql");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut update = std::env::var_os("UPDATE").is_some();
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = World { traces: 12 }.write(dir.path(), held);
        for file in &files {
            let connect = || async {
                Ok(Database {
                    engine: engine(dir.path()),
                    view: view(&snapshot),
                })
            };
            let mut runner = Runner::new(connect);
            if update {
                runner
                    .update_test_file(
                        file,
                        " ",
                        default_validator,
                        default_normalizer,
                        default_column_validator,
                    )
                    .await
                    .unwrap();
            }
            let name = file.file_name().unwrap().display();
            if let Err(e) = runner.run_file_async(file).await {
                panic!("{name} over {held:?}: {}", e.display(false));
            }
        }
        update = false;
    }
}
