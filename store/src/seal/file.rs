//! How a sealed file is written: encodings, statistics and filters per column.
//!
//! Statistics stand only where they prune (time and route); ids have bloom filters instead. Times, counts and money are
//! delta-packed, dictionaries are tried only where words repeat, and the long texts come last, in LZ4, so that a scan
//! which does not want them never touches them.

use crate::words::declared;
use arrow::datatypes::DataType;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use proto::{
    layout::Table,
    schema::{LONG_TEXTS, SCHEMA_VERSION},
};

/// Rows in a row group: what one thread of a query reads at a time.
pub(crate) const ROW_GROUP_ROWS_MAX: usize = 1 << 17;
/// Encoded bytes in a row group, for rows with long texts: 128 MiB.
const ROW_GROUP_BYTES_MAX: usize = 128 << 20;
/// Probability that a bloom filter asks for a look in vain.
const BLOOM_FPP: f64 = 0.02;
const BLOOM: [&str; 3] = ["trace_id", "span_id", "response_id"];
/// Text that hardly repeats.
const UNIQUE: [&str; 8] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "response_id",
    "mirror_key",
    "identifier",
    "input",
    "output",
];

/// The column whose range a [`crate::SealedFile`] tells.
pub(crate) const fn time_column(table: Table) -> &'static str {
    match table {
        Table::Spans | Table::Traces => "start_time",
        Table::Evals => "time",
        Table::Cells => "minute",
    }
}

/// Columns a file of `table` is sorted by.
pub(crate) const fn sort_columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Spans | Table::Traces => &["route", "start_time"],
        Table::Evals => &["time"],
        Table::Cells => &["route"],
    }
}

/// Properties of a file of `rows` rows. Columns of which it is known that they are null throughout get neither a codec nor
/// an encoder with room of its own.
pub(crate) fn properties(
    table: Table,
    rows: usize,
    (lsn_min, lsn_max): (u64, u64),
    absent: &[&str],
) -> Result<WriterProperties, ParquetError> {
    let schema = declared(table);
    let mut props = WriterProperties::builder()
        .set_created_by(concat!("tracegate ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        .set_key_value_metadata(Some(vec![
            KeyValue::new("tracegate.schema_version".into(), SCHEMA_VERSION.to_string()),
            KeyValue::new("tracegate.lsn_min".into(), lsn_min.to_string()),
            KeyValue::new("tracegate.lsn_max".into(), lsn_max.to_string()),
        ]));
    for field in schema.fields() {
        let name = field.name().as_str();
        let path = || ColumnPath::from(name);
        if absent.contains(&name) {
            props = props
                .set_column_dictionary_enabled(path(), false)
                .set_column_compression(path(), Compression::UNCOMPRESSED);
            continue;
        }
        props = match field.data_type() {
            DataType::Timestamp(..) | DataType::Int32 | DataType::Int64 | DataType::Decimal128(..) => props
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED),
            DataType::Float64 if name.ends_with("_ms") => props
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::BYTE_STREAM_SPLIT),
            DataType::Boolean => props.set_column_dictionary_enabled(path(), false),
            _ if UNIQUE.contains(&name) => props.set_column_dictionary_enabled(path(), false),
            _ => props,
        };
        if LONG_TEXTS.contains(&name) {
            props = props.set_column_compression(path(), Compression::LZ4_RAW);
        }
        if matches!(name, "start_time" | "time" | "minute" | "route") {
            props = props.set_column_statistics_enabled(path(), EnabledStatistics::Page);
        }
        if BLOOM.contains(&name) {
            props = props
                .set_column_bloom_filter_fpp(path(), BLOOM_FPP)
                .set_column_bloom_filter_max_ndv(path(), rows.min(ROW_GROUP_ROWS_MAX) as u64);
        }
    }
    let sorting = sort_columns(table).iter().map(|name| {
        let before = schema.fields().iter().take_while(|f| f.name() != name);
        SortingColumn {
            column_idx: before.map(|f| leaves(f.data_type())).sum(),
            descending: false,
            nulls_first: false,
        }
    });
    let sorting = sorting.collect();
    Ok(props.set_sorting_columns(Some(sorting)).build())
}

/// Parquet columns of an Arrow type.
fn leaves(ty: &DataType) -> i32 {
    match ty {
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        DataType::List(item) | DataType::Map(item, _) => leaves(item.data_type()),
        _ => 1,
    }
}
