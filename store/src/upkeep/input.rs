//! A sealed file that is read again.

use crate::{
    SealedFile,
    error::{At, StoreError},
};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        RowSelection,
    },
};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// A file with its footer, which is read once.
pub(super) struct Input<'a> {
    pub file: &'a SealedFile,
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl<'a> Input<'a> {
    pub fn open(root: &Path, file: &'a SealedFile) -> Result<Self, StoreError> {
        let path = root.join(&file.path);
        let opened = File::open(&path).at("open", &path)?;
        let metadata = ArrowReaderMetadata::load(&opened, ArrowReaderOptions::new())?;
        Ok(Self { file, path, metadata })
    }

    /// Bytes of all columns before compression.
    pub fn bytes(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups().iter();
        groups
            .map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0))
            .sum()
    }

    /// The columns that `wants` accepts, in the order of the file.
    pub fn read(
        &self,
        wants: impl Fn(&str) -> bool,
        rows: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader, StoreError> {
        let opened = File::open(&self.path).at("open", &self.path)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(opened, self.metadata.clone());
        let roots = self.metadata.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| wants(field.name())).map(|(at, _)| at);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let mut builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        if let Some(rows) = rows {
            builder = builder.with_row_selection(rows);
        }
        Ok(builder.build()?)
    }
}
