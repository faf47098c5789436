//! A sealed file on its way: written under `tmp`, synced, not yet in its folder.

use super::file;
use crate::{
    SealedFile,
    disk::{Disk, DiskFile},
    error::{At, StoreError},
    words::declared,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampNanosecondType,
};
use parquet::arrow::ArrowWriter;
use proto::{Color, Nanos, layout::Table, schema::LONG_TEXTS};
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::Arc,
};

/// Takes rows in the order of the file.
pub(crate) struct Out {
    table: Table,
    tmp: PathBuf,
    writer: ArrowWriter<Counted>,
    rows: u64,
    times: (i64, i64),
    texts: bool,
    lsns: (u64, u64),
}

impl Out {
    /// A file of about `rows` rows of records `lsns` (smallest and largest) at `tmp`; columns named as `absent` are null
    /// throughout.
    pub fn begin(
        disk: &dyn Disk,
        tmp: PathBuf,
        table: Table,
        rows: usize,
        lsns: (u64, u64),
        absent: &[&str],
    ) -> Result<Self, StoreError> {
        let counted = Counted {
            file: BufWriter::with_capacity(1 << 20, disk.create(&tmp).at("create", &tmp)?),
            bytes: 0,
            crc32c: 0,
        };
        let properties = file::properties(table, rows, lsns, absent)?;
        Ok(Self {
            writer: ArrowWriter::try_new(counted, Arc::clone(declared(table)), Some(properties))?,
            table,
            tmp,
            rows: 0,
            times: (i64::MAX, i64::MIN),
            texts: false,
            lsns,
        })
    }

    /// Adds rows; all declared columns.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), StoreError> {
        self.writer.write(rows)?;
        self.rows += rows.num_rows() as u64;
        let times = rows.column_by_name(file::time_column(self.table));
        if let Some(times) = times.and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>()) {
            let (min, max) = self.times;
            self.times = times
                .values()
                .iter()
                .fold((min, max), |(min, max), &t| (min.min(t), max.max(t)));
        }
        let has = |name: &&str| {
            rows.column_by_name(name)
                .is_some_and(|texts| texts.null_count() < texts.len())
        };
        self.texts |= LONG_TEXTS.iter().any(has);
        Ok(())
    }

    /// Writes the rest and syncs; `path` is where the file will lie under the data directory.
    pub fn finish(self, path: String, color: Option<Color>) -> Result<(SealedFile, PathBuf), StoreError> {
        let tmp = self.tmp;
        let counted = self.writer.into_inner()?;
        let (bytes, crc32c) = (counted.bytes, counted.crc32c);
        let mut out = counted
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .at("write to", &tmp)?;
        out.sync().synced(&tmp)?;
        let file = SealedFile {
            table: self.table,
            path,
            color,
            bytes,
            rows: self.rows,
            start_min: Nanos(self.times.0),
            start_max: Nanos(self.times.1),
            lsn_min: self.lsns.0,
            lsn_max: self.lsns.1,
            crc32c,
            texts: self.texts,
            held: Arc::default(),
        };
        Ok((file, tmp))
    }
}

/// Counts bytes on their way into a file.
struct Counted {
    file: BufWriter<Box<dyn DiskFile>>,
    bytes: u64,
    crc32c: u32,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
