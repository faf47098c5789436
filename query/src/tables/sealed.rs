//! Sealed rows: DataFusion's own Parquet source over an explicit list of files.
//!
//! Most files are read as they are, with the whole filter pushed into the reader. Files that a patch or a replacement
//! touches are read through an [`OverlayExec`], with only those parts of the filter pushed that no overlay can change.

use super::{
    opened::Noting,
    overlay::{LSN_COLUMN, OverlayExec, columns_for},
    prune,
    reading::Reading,
};
use crate::limits::sealed_url;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::{
    common::{ScalarValue, config::TableParquetOptions},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::Result,
    physical_expr::{PhysicalExpr, conjunction_opt, split_conjunction, utils::collect_columns},
    physical_plan::ExecutionPlan,
};
use object_store::ObjectStore;
use proto::layout::Table;
use std::sync::Arc;
use store::{SealedFile, overlay::Depth};

/// What a scan asks for.
pub struct Request<'a> {
    pub table: Table,
    pub declared: &'a SchemaRef,
    /// Columns wanted, as positions in `declared`.
    pub columns: &'a [usize],
    pub wanted: &'a SchemaRef,
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
    pub parquet: TableParquetOptions,
    pub partitions: usize,
    pub files: Arc<dyn ObjectStore>,
}

/// Plans over the sealed files of the table: none, or one for untouched files and one for each depth of overlay.
pub fn scan(reading: &Arc<Reading>, request: &Request<'_>) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
    let files = prune::files(request.table, reading, request.declared, request.predicate.as_ref());
    let mut by_depth: [(Option<Depth>, Vec<&SealedFile>); 3] =
        [None, Some(Depth::Traces), Some(Depth::Spans)].map(|depth| (depth, Vec::new()));
    for file in files {
        let touched = touched(reading, request, file);
        if let Some((_, files)) = by_depth.iter_mut().find(|(depth, _)| *depth == touched) {
            files.push(file);
        }
    }
    let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
    for (depth, files) in by_depth.iter().filter(|(_, files)| !files.is_empty()) {
        plans.push(match depth {
            None => {
                let source = source(reading, request, TableSchema::from(Arc::clone(request.declared)));
                read(source, files, request.columns.to_vec(), request.partitions)?
            }
            Some(depth) => Arc::new(OverlayExec::new(
                request.table,
                Arc::clone(reading),
                *depth,
                read_for_overlay(reading, request, *depth, files)?,
                Arc::clone(request.wanted),
            )),
        });
    }
    Ok(plans)
}

/// How deep the overlay of `file` must go for the columns that are wanted, which are all that the filter looks at.
fn touched(reading: &Reading, request: &Request<'_>, file: &SealedFile) -> Option<Depth> {
    if request.table == Table::Traces {
        return reading.may_be_replaced(file.lsn_max).then_some(Depth::Traces);
    }
    let wanted = || request.wanted.fields().iter();
    reading
        .patched(file)
        .filter(|depth| wanted().any(|field| depth.touches(request.table, field.name())))
}

fn source(reading: &Reading, request: &Request<'_>, schema: TableSchema) -> ParquetSource {
    let noting = Noting::new(Arc::clone(&request.files), Arc::clone(&reading.opened));
    ParquetSource::new(schema)
        .with_table_parquet_options(request.parquet.clone())
        .with_parquet_file_reader_factory(Arc::new(noting))
}

fn read_for_overlay(
    reading: &Reading,
    request: &Request<'_>,
    depth: Depth,
    files: &[&SealedFile],
) -> Result<Arc<dyn ExecutionPlan>> {
    let lsn = Arc::new(Field::new(LSN_COLUMN, DataType::Int64, false));
    let schema = TableSchema::builder(Arc::clone(request.declared))
        .with_table_partition_cols(vec![lsn])
        .build();
    let mut columns = columns_for(request.table, request.columns, depth);
    columns.push(request.declared.fields().len());
    let mut source = source(reading, request, schema);
    let safe = request.predicate.iter().flat_map(|predicate| {
        split_conjunction(predicate)
            .into_iter()
            .filter(|part| {
                let columns = collect_columns(part);
                !columns.iter().any(|column| depth.touches(request.table, column.name()))
            })
            .map(Arc::clone)
    });
    if let Some(predicate) = conjunction_opt(safe) {
        source = source.with_predicate(predicate);
    }
    read(source, files, columns, request.partitions)
}

fn read(
    source: ParquetSource,
    files: &[&SealedFile],
    columns: Vec<usize>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let has_lsn = !source_partition_columns(&source).is_empty();
    let groups = grouped(files, partitions, has_lsn);
    let config = FileScanConfigBuilder::new(sealed_url()?, Arc::new(source))
        .with_file_groups(groups)
        .with_projection_indices(Some(columns))?
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

fn source_partition_columns(source: &ParquetSource) -> &arrow::datatypes::Fields {
    use datafusion::datasource::physical_plan::FileSource;
    source.table_schema().table_partition_cols()
}

/// Spreads files over `partitions` groups of about the same size, each in commit order.
fn grouped(files: &[&SealedFile], partitions: usize, has_lsn: bool) -> Vec<FileGroup> {
    let partitions = partitions.clamp(1, files.len().max(1));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); partitions];
    for file in files {
        let mut entry = PartitionedFile::new(file.path.clone(), file.bytes);
        if has_lsn {
            let lsn = i64::try_from(file.lsn_max).unwrap_or(i64::MAX);
            entry.partition_values = vec![ScalarValue::Int64(Some(lsn))];
        }
        if let Some(lightest) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            lightest.0 += file.bytes;
            lightest.1.push(entry);
        }
    }
    groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
}
