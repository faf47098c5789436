//! Answers as bytes: JSON, CSV, Arrow IPC streams; and as text tables for people.
//!
//! All but the table stream: memory is that of a batch, however long the answer.

mod csv;
mod json;
mod table;
mod value;

use crate::{Answer, QueryError};
use arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::StreamWriter};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::pin::Pin;
pub use table::table;
pub use value::type_name;

/// An encoded answer as it comes. Dropping it stops the query.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, QueryError>> + Send>>;

/// An encoding that streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `{"columns":[{"name","type"}],"rows":[[...]]}`.
    #[default]
    Json,
    /// RFC 4180 with a header; null is empty, an empty text is `""`, nested values are JSON.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The first of `Accept`'s media types that there is; JSON if it names none. Quality values are not weighed.
    #[must_use]
    pub fn from_accept(accept: &str) -> Self {
        let wanted = accept
            .split(',')
            .find_map(|range| match range.split(';').next().unwrap_or_default().trim() {
                "text/csv" => Some(Self::Csv),
                "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
                "application/json" => Some(Self::Json),
                _ => None,
            });
        wanted.unwrap_or_default()
    }

    /// Media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Encodes `answer` as it comes.
#[must_use]
pub fn encode(answer: Answer, format: Format) -> Chunks {
    match format {
        Format::Json => run(answer, json::Json::default()),
        Format::Csv => run(answer, csv::Csv),
        Format::Arrow => run(answer, Arrow(None)),
    }
}

/// One encoding: what comes before, for every batch, and after.
trait Encoder: Send + 'static {
    fn begin(&mut self, schema: &SchemaRef) -> Result<Vec<u8>, QueryError>;
    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError>;
    fn end(&mut self) -> Result<Vec<u8>, QueryError>;
}

enum Stage {
    Begin,
    Rows,
    Over,
}

fn run(answer: Answer, encoder: impl Encoder) -> Chunks {
    let chunks = stream::unfold(
        (answer, encoder, Stage::Begin),
        |(mut answer, mut encoder, stage)| async move {
            let (chunk, next) = match stage {
                Stage::Begin => (encoder.begin(&answer.schema), Stage::Rows),
                Stage::Rows => match answer.stream.next().await {
                    Some(Ok(batch)) => (encoder.batch(&batch), Stage::Rows),
                    Some(Err(error)) => (Err(error), Stage::Over),
                    None => (encoder.end(), Stage::Over),
                },
                Stage::Over => return None,
            };
            let next = if chunk.is_err() { Stage::Over } else { next };
            Some((chunk.map(Bytes::from), (answer, encoder, next)))
        },
    );
    Box::pin(chunks)
}

/// Arrow's own writer over a buffer that is emptied after every batch.
struct Arrow(Option<StreamWriter<Vec<u8>>>);

impl Arrow {
    fn taken(&mut self) -> Vec<u8> {
        self.0
            .as_mut()
            .map(|writer| std::mem::take(writer.get_mut()))
            .unwrap_or_default()
    }
}

impl Encoder for Arrow {
    fn begin(&mut self, schema: &SchemaRef) -> Result<Vec<u8>, QueryError> {
        self.0 = Some(StreamWriter::try_new(Vec::new(), schema)?);
        Ok(self.taken())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        if let Some(writer) = &mut self.0 {
            writer.write(batch)?;
        }
        Ok(self.taken())
    }

    fn end(&mut self) -> Result<Vec<u8>, QueryError> {
        if let Some(writer) = &mut self.0 {
            writer.finish()?;
        }
        Ok(self.taken())
    }
}
