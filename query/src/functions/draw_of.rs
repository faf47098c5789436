//! `draw_of(text)`: a number that depends on the text alone and looks random, to draw a sample that stays the same.

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DrawOf(Signature);

impl DrawOf {
    pub fn new() -> Self {
        Self(Signature::string(1, Volatility::Immutable))
    }
}

impl ScalarUDFImpl for DrawOf {
    fn name(&self) -> &'static str {
        "draw_of"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&arrays[0], &DataType::Utf8)?;
        let draws: Int64Array = texts
            .as_string::<i32>()
            .iter()
            // A draw is an order: its sign means nothing.
            .map(|text| text.map(|text| xxh3_64(text.as_bytes()).cast_signed()))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(draws) as ArrayRef))
    }
}
