//! Checks of what a model answered, made before its text is dropped: answers against the JSON Schema of their route,
//! tool calls against the definitions that the request offered.
//!
//! ```text
//! attributes -> pieces (references) -> end of a call: tools offered --> tools_version, if nobody stamped one
//!                                                     tools called  --> tool_name, tool_args_valid
//!                                                     answer's text --> json_checks
//! ```
//!
//! - An answer that asks for tools is a step on the way, not the answer: its text is not checked.
//! - What does not parse is invalid, and so is what is nested too deep to be judged. What is longer than its limit is
//!   not checked, and counted. Unknown is NULL.
//! - Schemas are never fetched, patterns match in linear time, and definitions are compiled once and remembered.
//! - A span without such attributes costs one branch an attribute.

mod answers;
mod output;
mod pieces;
mod schema;
mod tools;

use super::{ReadError, Reader, cells::Cells, slot::Slot, slots::Slots};
pub use answers::{ANSWER_BYTES_MAX, AnswerSchemas, SCHEMA_BYTES_MAX, SCHEMAS_MAX, SchemaError};
use output::{Call, MessagesJson};
pub(super) use pieces::{Piece, Pieces};
use tools::{Toolset, Toolsets, Verdict};

/// What the checks of a reader remember from span to span.
#[derive(Default)]
pub(super) struct Checks {
    toolsets: Toolsets,
}

impl Reader {
    /// Checks the answer of a call.
    pub(super) fn set_checks(&mut self, row: usize, error: bool, slots: &Slots<'_>) -> Result<(), ReadError> {
        if slots.pieces.is_over() {
            self.counts.answers_unchecked += 1;
            return Ok(());
        }
        let mut messages = MessagesJson::of(&slots.pieces);
        let offered = self.checks.toolsets.offered(&slots.pieces);
        let calls = output::calls(&slots.pieces, &mut messages);
        let mut cells = Cells {
            row,
            counts: &mut self.counts,
        };
        if let Some(toolset) = &offered
            && !slots.has(Slot::ToolsVersion)
        {
            cells.word(&mut self.spans.tools_version, Some(toolset.version.as_bytes()))?;
        }
        if let Some(first) = calls.first() {
            if !slots.has(Slot::ToolName) {
                cells.word(&mut self.spans.tool_name, Some(first.name.as_bytes()))?;
            }
            if let Some(toolset) = &offered {
                self.set_calls(row, toolset, &calls);
            }
            return Ok(());
        }
        if !error && !self.config.schemas.is_empty() {
            self.set_answer(row, slots, &mut messages)?;
        }
        Ok(())
    }

    /// True if all arguments that could be checked are right, false if any is wrong, else NULL.
    fn set_calls(&mut self, row: usize, toolset: &Toolset, calls: &[Call<'_>]) {
        let verdicts: Vec<Verdict> = calls.iter().map(|call| toolset.judge(call)).collect();
        let is = |verdict| verdicts.contains(&verdict);
        self.counts.tool_calls_unchecked += u64::from(is(Verdict::Unchecked));
        if is(Verdict::Invalid) || is(Verdict::Valid) && !is(Verdict::Unchecked) {
            self.spans.tool_args_valid.set(row, !is(Verdict::Invalid));
        }
    }

    fn set_answer<'a>(
        &mut self,
        row: usize,
        slots: &Slots<'a>,
        messages: &mut MessagesJson<'a>,
    ) -> Result<(), ReadError> {
        let Some(answer) = output::text(&slots.pieces, messages) else {
            return Ok(());
        };
        if answer.len() > ANSWER_BYTES_MAX {
            self.counts.answers_unchecked += 1;
            return Ok(());
        }
        // a name that is only a guess does not rule out the route that the trace turns out to be on
        let is_named = slots.has(Slot::Route) && !slots.is_late(Slot::Route);
        let route = is_named.then(|| slots.text(Slot::Route)).flatten();
        let mut checks = Vec::new();
        self.config.schemas.check(route, &answer, &mut checks);
        if !checks.is_empty() {
            self.spans.json_checks.set(row, &checks)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
