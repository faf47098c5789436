//! Builders of nested columns: maps, and the lists of events and links that hold maps.
//!
//! A map is written while its span is still being read: entries behind the last closed row are *open* and are either
//! closed into a row or discarded with a rejected span.

use super::{
    columns::{Bits, Column, Strings, Texts, renewed},
    entries::{Entries, Keys, Writing},
};
use arrow::{
    array::{ArrayRef, ListArray, MapArray, StructArray, TimestampNanosecondArray},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field},
    error::ArrowError,
};
use std::{mem, sync::Arc};

/// One map a row.
pub(super) struct Maps {
    pub(super) keys: Keys,
    open: Entries,
    /// Starts with 0, then one end a row.
    ends: Vec<i32>,
    set: Bits,
}

impl Default for Maps {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            open: Entries::default(),
            ends: vec![0],
            set: Bits::default(),
        }
    }
}

impl Maps {
    fn rows(&self) -> usize {
        self.ends.len() - 1
    }

    #[allow(clippy::cast_sign_loss)]
    fn closed(&self) -> usize {
        self.ends[self.rows()] as usize
    }

    /// Where the map being read goes.
    pub(super) fn open(&mut self) -> Writing<'_> {
        Writing {
            keys: &mut self.keys,
            entries: &mut self.open,
        }
    }

    /// Makes the open entries the map of `row`; no entries make no map.
    pub(super) fn close(&mut self, row: usize) {
        if self.open.len() > self.closed() {
            self.pad(row);
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            self.ends.push(self.open.len() as i32);
            self.open.open_from = self.open.len();
            self.set.set(row);
        }
    }

    /// Drops the open entries.
    pub(super) fn discard(&mut self) {
        self.open.truncate(self.closed());
    }

    /// The map of `row` is a copy of `entries`, which have codes of this column's keys.
    pub(super) fn set_all(&mut self, row: usize, entries: &Entries) {
        self.open.extend(entries);
        self.close(row);
    }

    fn pad(&mut self, rows: usize) {
        if self.rows() < rows {
            let end = self.ends[self.rows()];
            self.ends.resize(rows + 1, end);
        }
    }

    fn take_map(&mut self, rows: usize, ty: &DataType) -> Result<MapArray, ArrowError> {
        let DataType::Map(field, sorted) = ty else {
            return Err(ArrowError::SchemaError(format!("a map column is declared as {ty}")));
        };
        let DataType::Struct(fields) = field.data_type() else {
            return Err(ArrowError::SchemaError(format!(
                "map entries are declared as {}",
                field.data_type()
            )));
        };
        self.pad(rows);
        let ends = renewed(&mut self.ends);
        self.ends.push(0);
        let entries = self.open.take(&mut self.keys, fields)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        MapArray::try_new(Arc::clone(field), offsets, entries, self.set.take_nulls(rows), *sorted)
    }
}

impl Column for Maps {
    fn truncate(&mut self, rows: usize) {
        if rows < self.rows() {
            self.ends.truncate(rows + 1);
        }
        self.set.truncate(rows);
        self.discard();
        if rows == 0 {
            // Keys of refused requests must not pile up where no row is left that needs them.
            self.keys.clear();
        }
    }

    fn bytes(&self) -> usize {
        self.keys.size() + self.open.size() + self.ends.len() * 4 + self.set.bytes()
    }

    #[allow(clippy::cast_sign_loss)]
    fn is_text_from(&self, row: usize) -> bool {
        self.ends
            .get(row)
            .is_none_or(|&entry| self.open.is_text_from(entry as usize))
    }

    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        self.discard();
        if self.closed() == 0 {
            self.truncate(0);
            return Ok(None);
        }
        Ok(Some(Arc::new(self.take_map(rows, ty)?)))
    }
}

/// A list of items a row, each with a map. Items are open like map entries until the row is closed.
struct Items {
    /// Starts with 0, then one end a row.
    ends: Vec<i32>,
    set: Bits,
    attributes: Maps,
}

impl Default for Items {
    fn default() -> Self {
        Self {
            ends: vec![0],
            set: Bits::default(),
            attributes: Maps::default(),
        }
    }
}

impl Items {
    #[allow(clippy::cast_sign_loss)]
    fn closed(&self) -> usize {
        self.ends[self.ends.len() - 1] as usize
    }

    fn close(&mut self, row: usize, items: usize) {
        if items > self.closed() {
            self.pad(row);
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            self.ends.push(items as i32);
            self.set.set(row);
        }
    }

    fn pad(&mut self, rows: usize) {
        if self.ends.len() <= rows {
            let end = self.ends[self.ends.len() - 1];
            self.ends.resize(rows + 1, end);
        }
    }

    /// Cuts back to `rows` rows and says how many items are left.
    fn truncate(&mut self, rows: usize) -> usize {
        self.ends.truncate(rows + 1);
        self.set.truncate(rows);
        self.attributes.truncate(self.closed());
        self.closed()
    }

    fn bytes(&self) -> usize {
        self.ends.len() * 4 + self.set.bytes() + self.attributes.bytes()
    }

    #[allow(clippy::cast_sign_loss)]
    fn first_item(&self, row: usize) -> Option<usize> {
        self.ends.get(row).map(|&item| item as usize)
    }

    /// The list, from the columns of its items; `items` makes them from the declared fields.
    fn take(
        &mut self,
        rows: usize,
        ty: &DataType,
        items: impl FnOnce(&mut Maps, &[Arc<Field>]) -> Result<Vec<ArrayRef>, ArrowError>,
    ) -> Result<Option<ArrayRef>, ArrowError> {
        let (DataType::List(field), count) = (ty, self.closed()) else {
            return Err(ArrowError::SchemaError(format!("a list column is declared as {ty}")));
        };
        let DataType::Struct(fields) = field.data_type() else {
            return Err(ArrowError::SchemaError(format!(
                "list items are declared as {}",
                field.data_type()
            )));
        };
        let columns = items(&mut self.attributes, fields)?;
        self.pad(rows);
        let ends = renewed(&mut self.ends);
        self.ends.push(0);
        let items = StructArray::try_new_with_length(fields.clone(), columns, None, count)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let nulls = self.set.take_nulls(rows);
        Ok(Some(Arc::new(ListArray::try_new(
            Arc::clone(field),
            offsets,
            Arc::new(items),
            nulls,
        )?)))
    }
}

/// `events`: time, name and attributes of each.
#[derive(Default)]
pub(super) struct Events {
    times: Vec<i64>,
    names: Strings,
    items: Items,
}

impl Events {
    /// Where the attributes of the event being read go.
    pub(super) fn attributes(&mut self) -> Writing<'_> {
        self.items.attributes.open()
    }

    /// Ends an event; its attributes were written before.
    pub(super) fn push(&mut self, time: i64, name: &[u8]) {
        self.items.attributes.close(self.times.len());
        self.times.push(time);
        self.names.push(name);
    }

    /// Events of the row being read.
    pub(super) fn open_len(&self) -> usize {
        self.times.len() - self.items.closed()
    }

    pub(super) fn close(&mut self, row: usize) {
        self.items.close(row, self.times.len());
    }

    pub(super) fn discard(&mut self) {
        self.cut(self.items.closed());
        self.items.attributes.truncate(self.times.len());
    }

    fn cut(&mut self, items: usize) {
        self.times.truncate(items);
        self.names.truncate(items);
    }
}

impl Column for Events {
    fn truncate(&mut self, rows: usize) {
        let items = self.items.truncate(rows);
        self.cut(items);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.times.as_slice()) + self.names.size() + self.items.bytes()
    }

    fn is_text_from(&self, row: usize) -> bool {
        let Some(item) = self.items.first_item(row) else {
            return true;
        };
        self.names.is_text_from(item) && self.items.attributes.is_text_from(item)
    }

    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        self.discard();
        if self.times.is_empty() {
            self.truncate(0);
            return Ok(None);
        }
        let (times, names) = (&mut self.times, &mut self.names);
        self.items.take(rows, ty, |attributes, fields| {
            let count = times.len();
            let times = TimestampNanosecondArray::try_new(ScalarBuffer::from(renewed(times)), None)?;
            Ok(vec![
                Arc::new(times.with_data_type(fields[0].data_type().clone())),
                Arc::new(names.take(None)?),
                Arc::new(attributes.take_map(count, fields[2].data_type())?),
            ])
        })
    }
}

/// `links`: trace, span and attributes of each.
#[derive(Default)]
pub(super) struct Links {
    count: usize,
    traces: Texts,
    spans: Texts,
    items: Items,
}

impl Links {
    /// Where the attributes of the link being read go.
    pub(super) fn attributes(&mut self) -> Writing<'_> {
        self.items.attributes.open()
    }

    /// Ends a link; an id of the wrong length is unknown.
    pub(super) fn push(&mut self, trace: &[u8], span: &[u8]) {
        self.items.attributes.close(self.count);
        if trace.len() == 16 {
            self.traces.set_hex(self.count, trace);
        }
        if span.len() == 8 {
            self.spans.set_hex(self.count, span);
        }
        self.count += 1;
    }

    /// Links of the row being read.
    pub(super) fn open_len(&self) -> usize {
        self.count - self.items.closed()
    }

    pub(super) fn close(&mut self, row: usize) {
        self.items.close(row, self.count);
    }

    pub(super) fn discard(&mut self) {
        self.cut(self.items.closed());
        self.items.attributes.truncate(self.count);
    }

    fn cut(&mut self, items: usize) {
        self.traces.truncate(items);
        self.spans.truncate(items);
        self.count = items;
    }
}

impl Column for Links {
    fn truncate(&mut self, rows: usize) {
        let items = self.items.truncate(rows);
        self.cut(items);
    }

    fn bytes(&self) -> usize {
        self.traces.bytes() + self.spans.bytes() + self.items.bytes()
    }

    fn is_text_from(&self, row: usize) -> bool {
        self.items
            .first_item(row)
            .is_none_or(|item| self.items.attributes.is_text_from(item))
    }

    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        self.discard();
        if self.count == 0 {
            self.truncate(0);
            return Ok(None);
        }
        let (count, traces, spans) = (mem::take(&mut self.count), &mut self.traces, &mut self.spans);
        self.items.take(rows, ty, |attributes, fields| {
            let ids = |ids: &mut Texts, field: usize| {
                let declared = fields[field].data_type();
                ids.take(count, declared)
                    .map(|ids| ids.unwrap_or_else(|| arrow::array::new_null_array(declared, count)))
            };
            Ok(vec![
                ids(traces, 0)?,
                ids(spans, 1)?,
                Arc::new(attributes.take_map(count, fields[2].data_type())?),
            ])
        })
    }
}
