//! `eval_name(name)`: one spelling for every evaluator, so that `TaskCompletion` and `task-completion` are one group.

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::{cast, take},
    datatypes::{DataType, Int32Type},
};
use datafusion::{
    common::plan_err,
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use proto::metric::normalise_eval_name;
use std::sync::Arc;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EvalName(Signature);

impl EvalName {
    pub fn new() -> Self {
        Self(Signature::user_defined(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for EvalName {
    fn name(&self) -> &'static str {
        "eval_name"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [word] if *word == proto::schema::word() => Ok(types.to_vec()),
            [
                DataType::Null
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Dictionary(_, _),
            ] => Ok(vec![DataType::Utf8]),
            _ => plan_err!("eval_name takes one text"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [names] = arrays.as_slice() else {
            return plan_err!("eval_name takes one text");
        };
        // Of a dictionary only the values are rewritten, once each.
        let out = match names.as_dictionary_opt::<Int32Type>() {
            Some(words) => take(&normalised(words.values())?, words.keys(), None)?,
            None => normalised(names)?,
        };
        Ok(ColumnarValue::Array(out))
    }
}

fn normalised(names: &ArrayRef) -> Result<ArrayRef> {
    let names = cast(names, &DataType::Utf8)?;
    let out: StringArray = names
        .as_string::<i32>()
        .iter()
        .map(|name| name.map(normalise_eval_name))
        .collect();
    debug_assert_eq!(out.len(), names.len());
    Ok(Arc::new(out))
}
