//! The reader against prost: the same bytes, read twice by different means, must give the same rows.

mod bad_values;
pub(super) mod cells;
mod docs;
mod hostile;
mod keys;
mod merged;
mod messages;
mod oracle;
mod reload;
mod rules;
mod stamps;
mod texts;
