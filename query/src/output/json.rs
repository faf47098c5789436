//! `{"columns":[{"name","type"}],"rows":[[...]]}`, one row a line.

use super::{
    Encoder,
    value::{self, type_name},
};
use crate::QueryError;
use arrow::{array::RecordBatch, datatypes::SchemaRef};

/// The encoder; true once a row was written.
#[derive(Default)]
pub struct Json {
    any: bool,
}

impl Encoder for Json {
    fn begin(&mut self, schema: &SchemaRef) -> Result<Vec<u8>, QueryError> {
        let mut out = b"{\"columns\":[".to_vec();
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"name\":");
            value::text(field.name(), &mut out);
            out.extend_from_slice(b",\"type\":");
            value::text(&type_name(field.data_type()), &mut out);
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"rows\":[");
        Ok(out)
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, QueryError> {
        let columns = batch
            .columns()
            .iter()
            .map(|column| value::writer(column.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::with_capacity(batch.num_rows() * columns.len() * 12);
        for row in 0..batch.num_rows() {
            out.extend_from_slice(if self.any { b",\n[" } else { b"\n[" });
            self.any = true;
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                column.json(row, &mut out);
            }
            out.push(b']');
        }
        Ok(out)
    }

    fn end(&mut self) -> Result<Vec<u8>, QueryError> {
        Ok(if self.any { b"\n]}\n".to_vec() } else { b"]}\n".to_vec() })
    }
}
