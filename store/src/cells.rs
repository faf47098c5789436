//! Cells as rows of the declared schema, and back.

use crate::{
    error::StoreError,
    overlay::share,
    words::{Lexicon, Words, column_of},
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
        StructArray, TimestampNanosecondArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType},
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{PPM, Scope, Series},
    schema,
};
use std::{str::FromStr, sync::Arc};

/// Every cell as a row of [`schema::CELLS`], in key order.
///
/// # Errors
/// None but Arrow's own.
pub fn cells_to_batch(table: &CellTable) -> Result<RecordBatch, StoreError> {
    let cells: Vec<(CellKey, &Arc<Cell>)> = table.iter().collect();
    let metrics: Vec<String> = cells.iter().map(|(k, _)| k.series.metric.to_string()).collect();
    let ints = |value: fn(&Cell) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(cells.iter().map(|(_, c)| value(c))))
    };
    let minutes = cells.iter().map(|(k, _)| Nanos::from_secs(k.minute).0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(minutes).with_timezone("UTC")),
        words(cells.iter().map(|(k, _)| Some(k.scope.route.as_ref())))?,
        words(cells.iter().map(|(k, _)| k.scope.release.as_deref()))?,
        words(cells.iter().map(|(k, _)| Some(k.series.color.as_str())))?,
        words(cells.iter().map(|(k, _)| k.series.cohort.as_deref()))?,
        Arc::new(
            cells
                .iter()
                .map(|(k, _)| k.series.split_ppm.map(share))
                .collect::<Float64Array>(),
        ),
        words(metrics.iter().map(|m| Some(m.as_str())))?,
        words(cells.iter().map(|(k, _)| Some(k.series.grain.as_str())))?,
        ints(|c| c.n),
        ints(|c| c.events),
        ints(|c| c.sum),
        buckets(cells.iter().map(|(_, c)| c.as_ref()))?,
        Arc::new(BooleanArray::from_iter(
            cells.iter().map(|(k, _)| Some(k.series.admitted)),
        )),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&schema::CELLS), columns)?)
}

fn words<'a>(words: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef, StoreError> {
    let mut lexicon = Lexicon::default();
    let codes = words.map(|w| w.map_or(-1, |w| lexicon.code(w))).collect();
    Ok(column_of(codes, &lexicon.values())?)
}

fn buckets<'a>(cells: impl Iterator<Item = &'a Cell>) -> Result<ArrayRef, StoreError> {
    let (mut lengths, mut indices, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        let before = indices.len();
        for (bucket, count) in cell.hdr.iter() {
            indices.push(bucket as i32);
            counts.push(count);
        }
        lengths.push(indices.len() - before);
    }
    let DataType::List(item) = schema::hdr() else {
        return Err(unreadable("hdr is not declared as a list"));
    };
    let DataType::Struct(fields) = item.data_type() else {
        return Err(unreadable("hdr is not declared as a list of structs"));
    };
    let entries = StructArray::try_new(
        fields.clone(),
        vec![Arc::new(Int32Array::from(indices)), Arc::new(Int64Array::from(counts))],
        None,
    )?;
    Ok(Arc::new(ListArray::try_new(
        item,
        OffsetBuffer::from_lengths(lengths),
        Arc::new(entries),
        None,
    )?))
}

/// Adds the cells of `rows` (columns of [`schema::CELLS`]) to `table`.
///
/// # Errors
/// Columns or words that no cell has.
pub fn add_batch_to_cells(rows: &RecordBatch, table: &mut CellTable) -> Result<(), StoreError> {
    let minutes = column(rows, "minute", |c| c.as_primitive_opt::<TimestampNanosecondType>())?;
    let splits = column(rows, "split", |c| c.as_primitive_opt::<Float64Type>())?;
    let admitted = column(rows, "admitted", |c| c.as_boolean_opt())?;
    let int = |name| column(rows, name, |c: &ArrayRef| c.as_primitive_opt::<Int64Type>());
    let (n, events, sum) = (int("n")?, int("events")?, int("sum")?);
    let hdr = column(rows, "hdr", |c| c.as_list_opt::<i32>())?;
    let entries = hdr.values().as_struct_opt().ok_or_else(|| unreadable("hdr"))?;
    let bucket = entries
        .column(0)
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(|| unreadable("bucket"))?;
    let count = entries
        .column(1)
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| unreadable("count"))?;
    let text = |name| Texts::of(rows, name);
    let (routes, releases, cohorts) = (text("route")?, text("release")?, text("cohort")?);
    let colors = text("color")?.parse(|word| Color::ALL.into_iter().find(|c| c.as_str() == word))?;
    let metrics = text("metric")?.parse(|word| Metric::from_str(word).ok())?;
    let grains = text("grain")?.parse(|word| {
        [Grain::Attempt, Grain::Request, Grain::Trace]
            .into_iter()
            .find(|g| g.as_str() == word)
    })?;
    let needed = |what: &str| unreadable(&format!("{what} is null"));
    for row in 0..rows.num_rows() {
        let key = CellKey {
            scope: Scope {
                route: routes.get(row).ok_or_else(|| needed("route"))?,
                release: releases.get(row),
            },
            minute: minutes.value(row).div_euclid(1_000_000_000),
            series: Series {
                metric: metrics.get(row).ok_or_else(|| needed("metric"))?,
                grain: grains.get(row).ok_or_else(|| needed("grain"))?,
                cohort: cohorts.get(row),
                split_ppm: (!splits.is_null(row)).then(|| (splits.value(row) * f64::from(PPM)).round() as u32),
                color: colors.get(row).ok_or_else(|| needed("color"))?,
                admitted: admitted.value(row),
            },
        };
        let offsets = hdr.value_offsets();
        let span = offsets[row] as usize..offsets[row + 1] as usize;
        let cell = Cell {
            n: n.value(row),
            events: events.value(row),
            sum: sum.value(row),
            hdr: span.map(|i| (bucket.value(i) as u32, count.value(i))).collect(),
        };
        table.apply(&key, &cell, 1);
    }
    Ok(())
}

/// The cells of `rows`, added up.
///
/// # Errors
/// As [`add_batch_to_cells`].
pub fn batch_to_cells(rows: &RecordBatch) -> Result<CellTable, StoreError> {
    let mut table = CellTable::default();
    add_batch_to_cells(rows, &mut table)?;
    Ok(table)
}

fn unreadable(reason: &str) -> StoreError {
    StoreError::Format {
        what: "a table of cells".into(),
        reason: reason.into(),
    }
}

fn column<'a, T: ?Sized>(
    rows: &'a RecordBatch,
    name: &str,
    read: impl FnOnce(&'a ArrayRef) -> Option<&'a T>,
) -> Result<&'a T, StoreError> {
    rows.column_by_name(name)
        .and_then(read)
        .ok_or_else(|| unreadable(&format!("column {name} is missing or of another type")))
}

/// A words column whose words were turned into values once.
struct Texts<'a, V> {
    column: &'a Words,
    values: Vec<V>,
}

impl<'a> Texts<'a, Arc<str>> {
    fn of(rows: &'a RecordBatch, name: &str) -> Result<Self, StoreError> {
        let words = column(rows, name, |c| c.as_dictionary_opt::<Int32Type>())?;
        let values = words.values().as_string_opt::<i32>().ok_or_else(|| unreadable(name))?;
        Ok(Self {
            column: words,
            values: values.iter().map(|v| v.unwrap_or_default().into()).collect(),
        })
    }

    fn parse<V>(self, read: impl Fn(&str) -> Option<V>) -> Result<Texts<'a, V>, StoreError> {
        let values = self
            .values
            .iter()
            .map(|word| read(word).ok_or_else(|| unreadable(&format!("`{word}`"))))
            .collect::<Result<_, _>>()?;
        Ok(Texts {
            column: self.column,
            values,
        })
    }
}

impl<V: Clone> Texts<'_, V> {
    fn get(&self, row: usize) -> Option<V> {
        self.column.key(row).and_then(|key| self.values.get(key).cloned())
    }
}
