//! `hdr_quantile(hdr, q)`: merges the sparse histograms of cells and reads a quantile, in the integer unit of the
//! metric (us, nano-USD, tokens), at most 0.1 % above the true value. The same reading that gates use.

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type},
};
use datafusion::{
    common::{ScalarValue, exec_err, plan_err},
    error::Result,
    logical_expr::{
        Accumulator, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    physical_expr::expressions::Literal,
};
use proto::{Histogram, schema};
use std::sync::Arc;

/// Bytes that a nonempty bucket takes in memory, about.
const BUCKET_BYTES: usize = 32;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HdrQuantile(Signature);

impl HdrQuantile {
    pub fn new() -> Self {
        Self(Signature::user_defined(Volatility::Immutable))
    }
}

impl AggregateUDFImpl for HdrQuantile {
    fn name(&self) -> &'static str {
        "hdr_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [hdr, q] if is_hdr(hdr) && (q.is_numeric() || q.is_null()) => Ok(vec![hdr.clone(), DataType::Float64]),
            _ => plan_err!("hdr_quantile takes the column hdr of cells and a share from 0 to 1"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let literal = args
            .exprs
            .get(1)
            .and_then(|e| e.downcast_ref::<Literal>())
            .and_then(|literal| match literal.value() {
                ScalarValue::Float64(q) => *q,
                _ => None,
            });
        match literal {
            Some(q) if (0.0..=1.0).contains(&q) => Ok(Box::new(Merged {
                q,
                histogram: Histogram::default(),
            })),
            _ => plan_err!("the share of hdr_quantile must be a constant from 0 to 1"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(
            format!("{}[hdr]", args.name),
            schema::hdr(),
            true,
        ))])
    }
}

fn is_hdr(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(item) if matches!(item.data_type(), DataType::Struct(fields)
        if matches!((fields.first(), fields.get(1)), (Some(b), Some(c))
            if *b.data_type() == DataType::Int32 && *c.data_type() == DataType::Int64)))
}

#[derive(Debug)]
struct Merged {
    q: f64,
    histogram: Histogram,
}

impl Merged {
    fn add(&mut self, lists: &ArrayRef) -> Result<()> {
        let Some(lists) = lists.as_list_opt::<i32>() else {
            return exec_err!("hdr is not a list of buckets");
        };
        for row in (0..lists.len()).filter(|&row| lists.is_valid(row)) {
            let entries = lists.value(row);
            let entries = entries.as_struct();
            let buckets = entries.column(0).as_primitive::<Int32Type>();
            let counts = entries.column(1).as_primitive::<Int64Type>();
            for (bucket, count) in buckets.values().iter().zip(counts.values()) {
                if let Ok(bucket) = u32::try_from(*bucket) {
                    self.histogram.add_bucket(bucket, *count);
                }
            }
        }
        Ok(())
    }
}

impl Accumulator for Merged {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(&states[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.histogram.quantile(self.q);
        Ok(ScalarValue::Int64(value.map(|v| i64::try_from(v).unwrap_or(i64::MAX))))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(Arc::new(one_list(&self.histogram)?))])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.histogram.iter().count() * BUCKET_BYTES
    }
}

fn one_list(histogram: &Histogram) -> Result<ListArray> {
    let (buckets, counts): (Vec<i32>, Vec<i64>) = histogram
        .iter()
        .map(|(bucket, count)| (i32::try_from(bucket).unwrap_or(i32::MAX), count))
        .unzip();
    let DataType::List(item) = schema::hdr() else {
        return exec_err!("hdr is not a list");
    };
    let DataType::Struct(fields) = item.data_type() else {
        return exec_err!("hdr is not a list of buckets");
    };
    let length = buckets.len();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(buckets)), Arc::new(Int64Array::from(counts))];
    let entries = StructArray::try_new(fields.clone(), columns, None)?;
    Ok(ListArray::try_new(
        item,
        OffsetBuffer::from_lengths([length]),
        Arc::new(entries),
        None,
    )?)
}
