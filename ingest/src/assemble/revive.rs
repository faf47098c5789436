//! Makes a forgotten trace of its rows again, and proves that it is what cells hold: see [`super::late`].

use super::{
    ClosedBy, Effects, TraceRow,
    assembly::Assembly,
    facts::{EvalFacts, FactsError, SpanFacts, trace_id},
    late::{FoundRows, FoundTrace, Parked},
    link::{Link, LinkedBy},
    row::rows_to_batch,
    span::{Eval, Span},
    trace::Trace,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Int32Type,
    util::display::{ArrayFormatter, FormatOptions},
};
use proto::{Color, Nanos};
use std::collections::BTreeMap;
use store::TraceId;

/// Record of a row that may be in a file already: it stays hidden for good once it is replaced.
const WRITTEN_LONG_AGO: u64 = 0;

/// What became of a forgotten trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revived {
    /// It was never there.
    Nothing,
    /// It was, and cannot be counted anew.
    Refused,
    /// It is asked for again at that time.
    Later(Nanos),
    /// It is in memory again.
    Done,
}

impl Assembly {
    /// Makes the trace of its rows, as it was when it was forgotten, with what cells hold of it.
    pub(super) fn revive(
        &mut self,
        id: TraceId,
        parked: &Parked,
        found: &FoundTrace,
        lsn: u64,
        effects: &mut Effects,
    ) -> Result<Revived, FactsError> {
        let mut trace = Trace::new(self.now, lsn);
        let mut seen: BTreeMap<u64, (u32, Span)> = BTreeMap::new();
        for part in &found.spans {
            let facts = SpanFacts::new(&part.rows)?;
            let labels = self.labels_of(&facts);
            for (row, labels) in labels.into_iter().enumerate() {
                if let (Some(of), Some(span)) = (facts.trace_id(row), facts.span_id(row))
                    && of == id
                {
                    trace.first_lsn = trace.first_lsn.min(part.lsn_min);
                    seen.entry(span).or_insert_with(|| (0, facts.span(row, span, labels))).0 += 1;
                }
            }
        }
        // Rows of the late spans themselves are among them, once each, if they came before the snapshot.
        for (span, lsn) in &parked.spans {
            if parked.asked.is_some_and(|asked| *lsn <= asked)
                && let Some((times, _)) = seen.get_mut(&span.id)
            {
                *times -= 1;
            }
        }
        for (_, span) in seen.into_values().filter(|(times, _)| *times > 0) {
            trace.insert(trace.spans.len(), span);
        }
        if trace.spans.is_empty() {
            return Ok(Revived::Nothing);
        }
        for part in &found.evals {
            let facts = EvalFacts::new(&part.rows)?;
            for row in (0..facts.len()).filter(|row| facts.trace_id(*row) == Some(id)) {
                Eval::put(&mut trace.evals, &facts.eval(row), self.limits.trace_evals_max);
            }
        }
        trace.evals.extend(self.evals_counted_in(id));
        let written = found.traces.last();
        trace.link = written.and_then(|row| link(&row.rows));
        let closed_by = written
            .and_then(|row| closed_by(&row.rows))
            .unwrap_or(ClosedBy::RootEnded);
        if found.cut || trace.spans.len() > self.limits.trace_spans_max {
            return Ok(Revived::Refused);
        }
        Ok(self.recount(id, trace, closed_by, written, lsn, effects))
    }

    /// Puts a trace in memory and has it counted; then takes out of `effects` what that counted, because cells hold it
    /// already. Refused unless the row that comes out is the one that was written.
    fn recount(
        &mut self,
        id: TraceId,
        mut trace: Trace,
        closed_by: ClosedBy,
        written: Option<&FoundRows>,
        lsn: u64,
        effects: &mut Effects,
    ) -> Revived {
        trace.closed = Some((self.now, closed_by));
        trace.admitted = true;
        trace.row_lsn = written.map(|_| WRITTEN_LONG_AGO);
        self.traces.insert(id, trace);
        self.recent.push_back((self.now, id));
        self.counts.recent += 1;
        let late_before = self.counts.changed_late;
        self.review(id, lsn, effects);
        self.counts.changed_late = late_before;
        effects.patches.retain(|(patched, _)| *patched != id);
        let row = effects
            .rows
            .iter()
            .rposition(|row| row.trace_id == id)
            .map(|at| effects.rows.remove(at));
        let Some(trace) = self.traces.get_mut(&id) else {
            return Revived::Refused;
        };
        trace.row_lsn = written.map(|_| WRITTEN_LONG_AGO);
        if let Some(charged) = &trace.charged {
            effects.cells.add(charged, true, -1);
        }
        if !is_as_written(row.as_ref(), written) {
            self.counts.recent -= 1;
            self.recent.pop_back();
            self.forget(id);
            return Revived::Refused;
        }
        // Forgotten early, for want of room: its counts wait to be admitted, and now it waits itself.
        if let (Some(charged), Some(at)) = (&trace.charged, trace.admit_at)
            && let second = Self::admission_second(at)
            && let Some(waiting) = self.waiting.get_mut(&second)
        {
            if at <= self.now {
                // admitted before it was forgotten, or with the others of this second? A moment later both are the same
                self.counts.recent -= 1;
                self.recent.pop_back();
                self.forget(id);
                return Revived::Later(Nanos::from_secs(second));
            }
            waiting.add(charged, false, -1);
            trace.admitted = false;
        }
        Revived::Done
    }
}

/// The tie that a written row tells of: the other trace may be forgotten as well.
fn link(written: &RecordBatch) -> Option<Link> {
    let last = written.num_rows().checked_sub(1)?;
    let other = written.column_by_name("linked_trace_id")?.as_string_opt::<i32>()?;
    let superseded = written.column_by_name("superseded")?.as_boolean_opt()?;
    Some(Link {
        other: trace_id(other.is_valid(last).then(|| other.value(last))?)?,
        by: LinkedBy::parse(word(written, "linked_by", last)?)?,
        superseded: superseded.is_valid(last) && superseded.value(last),
        assigned: word(written, "assigned_color", last)
            .and_then(Color::parse)
            .unwrap_or_default(),
    })
}

fn closed_by(rows: &RecordBatch) -> Option<ClosedBy> {
    ClosedBy::parse(word(rows, "closed_by", rows.num_rows().checked_sub(1)?)?)
}

/// A word of a written row.
fn word<'a>(rows: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let words = rows.column_by_name(column)?.as_dictionary_opt::<Int32Type>()?;
    Some(words.values().as_string_opt::<i32>()?.value(words.key(row)?))
}

/// Whether the row that was computed says what the row that was written says, in all columns that it had then.
fn is_as_written(computed: Option<&TraceRow>, written: Option<&FoundRows>) -> bool {
    let computed = computed.filter(|row| row.outcome.is_some());
    let (computed, written) = match (computed, written) {
        (None, None) => return true,
        (Some(computed), Some(written)) => (computed, &written.rows),
        _ => return false,
    };
    let Ok(computed) = rows_to_batch(std::slice::from_ref(computed)) else {
        return false;
    };
    let Some(last) = written.num_rows().checked_sub(1) else {
        return false;
    };
    let text = |column: &dyn Array, row: usize| {
        let format = FormatOptions::new().with_null("\0");
        let shown = ArrayFormatter::try_new(column, &format).ok()?;
        shown.value(row).try_to_string().ok()
    };
    written
        .schema_ref()
        .fields()
        .iter()
        .zip(written.columns())
        .all(|(field, column)| {
            computed
                .column_by_name(field.name())
                .is_some_and(|ours| text(ours.as_ref(), 0) == text(column.as_ref(), last))
        })
}
