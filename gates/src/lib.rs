//! From cells to verdicts, from verdicts to decisions, from decisions to signed notices.
//!
//! `stats` and `judge` are pure mathematics over integer cells; [`life`] is the pure state machine of a release; `check`
//! reads release files; [`peers`] are the rules of others, to compare with. Around them stand the ledger (what was
//! decided), the outbox (what must still be said) and the desk (the loop that ties them together). Knows neither SQL nor
//! OTLP, and reads no clock.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod check;
pub mod desk;
pub mod judge;
pub mod ledger;
pub mod life;
pub mod outbox;
pub mod peers;
pub mod stats;
pub mod webhook;
