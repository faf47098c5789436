//! RFC 4180. Null is an empty field, an empty text `""`; nested values are written as JSON.

use super::{Encoder, value};
use crate::QueryError;
use arrow::{array::RecordBatch, datatypes::SchemaRef};

/// The encoder.
pub struct Csv;

impl Encoder for Csv {
    fn begin(&mut self, schema: &SchemaRef) -> Result<Vec<u8>, QueryError> {
        let mut out = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            field_of(field.name().as_bytes(), &mut out);
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        let columns = batch
            .columns()
            .iter()
            .map(|column| value::writer(column.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                plain.clear();
                if column.plain(row, &mut plain) {
                    field_of(&plain, &mut out);
                }
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(out)
    }

    fn end(&mut self) -> Result<Vec<u8>, QueryError> {
        Ok(Vec::new())
    }
}

fn field_of(text: &[u8], out: &mut Vec<u8>) {
    let special = |b: &u8| matches!(b, b'"' | b',' | b'\r' | b'\n');
    if !text.is_empty() && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
