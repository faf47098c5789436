//! Questions in SQL whose answers this program works with: to a running server, or to the files of a stopped one.

use super::{Client, ClientError, Format, ServerArgs};
use crate::offline::{Files, OfflineError};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
    error::ArrowError,
    ipc::reader::StreamReader,
};
use serde_json::json;
use std::path::Path;

/// Who answers.
pub enum Asker {
    /// A running server.
    Server(Client),
    /// A data directory.
    Files(Box<Files>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AskError {
    /// The server's.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Server(#[from] ClientError),
    /// The files'.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Files(#[from] OfflineError),
    /// Not what was asked for.
    #[error("the answer cannot be read: {0}")]
    #[diagnostic(help("are server and command line of the same version?"))]
    Unreadable(#[from] ArrowError),
}

impl Asker {
    /// The files of `data_dir` if it is named, else the server.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn new(server: &ServerArgs, data_dir: Option<&Path>) -> Result<Self, AskError> {
        Ok(match data_dir {
            Some(dir) => Self::Files(Box::new(Files::open(dir)?)),
            None => Self::Server(Client::new(server)?),
        })
    }

    /// All rows of an answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn rows(&self, sql: &str) -> Result<Vec<Rows>, AskError> {
        let bytes = match self {
            Self::Server(client) => {
                let question = json!({ "sql": sql });
                client
                    .post_for("/api/v1/sql", &question, Format::Arrow.media_type())
                    .await?
            }
            Self::Files(files) => files.answer(sql, Format::Arrow).await?,
        };
        let batches = StreamReader::try_new(&bytes[..], None)?;
        Ok(batches.map(|batch| batch.map(Rows)).collect::<Result<_, _>>()?)
    }
}

/// A text as SQL writes it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Texts as a list to be `IN`.
pub fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("({})", all.join(", "))
}

/// Some rows of an answer, by column.
pub struct Rows(RecordBatch);

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    fn column(&self, name: &str, ty: &DataType) -> Result<ArrayRef, ArrowError> {
        let at = self.0.schema().index_of(name)?;
        cast(self.0.column(at), ty)
    }

    /// A column of text.
    ///
    /// # Errors
    /// If there is none of that name, or it is no text.
    pub fn texts(&self, name: &str) -> Result<impl Fn(usize) -> Option<String>, ArrowError> {
        let column = self.column(name, &DataType::Utf8)?;
        Ok(move |i| {
            let texts = column.as_string::<i32>();
            texts.is_valid(i).then(|| texts.value(i).to_owned())
        })
    }

    /// A column of whole numbers.
    ///
    /// # Errors
    /// As [`Rows::texts`].
    pub fn whole(&self, name: &str) -> Result<impl Fn(usize) -> Option<i64>, ArrowError> {
        let column = self.column(name, &DataType::Int64)?;
        Ok(move |i| {
            let numbers = column.as_primitive::<Int64Type>();
            numbers.is_valid(i).then(|| numbers.value(i))
        })
    }

    /// A column of numbers.
    ///
    /// # Errors
    /// As [`Rows::texts`].
    pub fn numbers(&self, name: &str) -> Result<impl Fn(usize) -> Option<f64>, ArrowError> {
        let column = self.column(name, &DataType::Float64)?;
        Ok(move |i| {
            let numbers = column.as_primitive::<Float64Type>();
            numbers.is_valid(i).then(|| numbers.value(i))
        })
    }

    /// A column of yes and no.
    ///
    /// # Errors
    /// As [`Rows::texts`].
    pub fn flags(&self, name: &str) -> Result<impl Fn(usize) -> Option<bool>, ArrowError> {
        let column = self.column(name, &DataType::Boolean)?;
        Ok(move |i| {
            let flags = column.as_boolean();
            flags.is_valid(i).then(|| flags.value(i))
        })
    }
}
