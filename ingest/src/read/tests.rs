//! The reader against prost: the same bytes, read twice by different means, must give the same rows.

pub(super) mod cells;
mod docs;
mod hostile;
mod keys;
mod messages;
mod oracle;
mod rules;
mod stamps;
