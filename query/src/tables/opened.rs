//! Which sealed files a query opened: if it fails, one of them may be damaged.

use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::parquet::{DefaultParquetFileReaderFactory, ParquetFileReaderFactory},
    },
    error::Result,
    parquet::arrow::async_reader::AsyncFileReader,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use object_store::ObjectStore;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Files that are remembered; those opened last are the likeliest.
const REMEMBERED_MAX: usize = 64;

/// Paths of the files that one query opened last.
#[derive(Debug, Default)]
pub struct Opened(Mutex<VecDeque<String>>);

impl Opened {
    fn note(&self, path: &str) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.retain(|known| known != path);
        paths.push_front(path.to_owned());
        paths.truncate(REMEMBERED_MAX);
    }

    /// Under the data directory, the last one first.
    pub fn paths(&self) -> Vec<String> {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths.iter().cloned().collect()
    }
}

/// Opens files as DataFusion does, and notes which.
#[derive(Debug)]
pub struct Noting {
    files: DefaultParquetFileReaderFactory,
    opened: Arc<Opened>,
}

impl Noting {
    pub fn new(store: Arc<dyn ObjectStore>, opened: Arc<Opened>) -> Self {
        Self {
            files: DefaultParquetFileReaderFactory::new(store),
            opened,
        }
    }
}

impl ParquetFileReaderFactory for Noting {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        self.opened.note(file.object_meta.location.as_ref());
        self.files.create_reader(partition, file, footer_hint, metrics)
    }
}
