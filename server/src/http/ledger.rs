//! The ledger as tables of SQL: `releases`, `decisions`, `deliveries`. Only what a question names is read.

use super::{ApiError, decisions::actor};
use crate::offline::OfflineError;
use arrow::{
    array::{
        Array, ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
        TimestampNanosecondArray,
    },
    datatypes::{Int32Type, SchemaRef},
    error::ArrowError,
};
use gates::{
    desk::{DeskHandle, DeskView, ROWS_MAX},
    ledger::{DecisionRow, DeliveryRow, Ledger, ReleaseRow},
};
use http::StatusCode;
use proto::{Nanos, cell::PPM, decision::Verdict, schema};
use query::LedgerTables;
use std::sync::Arc;

/// Evidence held for one question, bytes; older bundles are only named.
const EVIDENCE_BYTES_MAX: usize = 64 << 20;

/// What the question needs of the ledger.
pub(super) async fn tables(desk: &DeskHandle, sql: &str) -> Result<LedgerTables, ApiError> {
    let sql = sql.to_ascii_lowercase();
    let mut tables = LedgerTables::default();
    if sql.contains("releases") {
        let view = Arc::clone(&desk.view().borrow());
        tables.releases = shown(&view)?;
    }
    if sql.contains("decisions") {
        let rows = desk.decisions().await?;
        let mut evidence = Evidence::default();
        for row in &rows {
            let held = if evidence.has_room() {
                desk.decision(&row.id).await?
            } else {
                None
            };
            evidence.push(row, held);
        }
        tables.decisions = decisions(&rows, &evidence.texts)?;
    }
    if sql.contains("deliveries") {
        tables.deliveries = deliveries(&desk.deliveries().await?)?;
    }
    Ok(tables)
}

/// The same, read from the ledger of a server that does not run. Nobody judges then: no release has a verdict.
pub fn tables_of(ledger: &Ledger, sql: &str) -> Result<LedgerTables, OfflineError> {
    let sql = sql.to_ascii_lowercase();
    let mut tables = LedgerTables::default();
    if sql.contains("releases") {
        let rows = ledger.releases()?;
        tables.releases = releases(rows.iter(), |_| Verdict::Inconclusive)?;
    }
    if sql.contains("decisions") {
        let rows = ledger.decisions(ROWS_MAX)?;
        let mut evidence = Evidence::default();
        for row in &rows {
            let held = if evidence.has_room() {
                ledger.decision(&row.id)?
            } else {
                None
            };
            evidence.push(row, held);
        }
        tables.decisions = decisions(&rows, &evidence.texts)?;
    }
    if sql.contains("deliveries") {
        tables.deliveries = deliveries(&ledger.deliveries(ROWS_MAX)?)?;
    }
    Ok(tables)
}

/// Evidence of decisions, in their order.
#[derive(Default)]
struct Evidence {
    texts: Vec<String>,
    bytes: usize,
}

impl Evidence {
    const fn has_room(&self) -> bool {
        self.bytes < EVIDENCE_BYTES_MAX
    }

    fn push(&mut self, row: &DecisionRow, held: Option<(DecisionRow, String)>) {
        let text = held.map_or_else(
            || format!("{{\"see\":\"/api/v1/decisions/{}\"}}", row.id),
            |(_, bundle)| bundle,
        );
        self.bytes += text.len();
        self.texts.push(text);
    }
}

impl From<ArrowError> for ApiError {
    fn from(error: ArrowError) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the ledger cannot be shown as a table: {error}"),
        )
    }
}

fn shown(view: &DeskView) -> Result<RecordBatch, ArrowError> {
    let verdict = |id: &str| view.verdicts.get(id).map_or(Verdict::Inconclusive, |v| v.verdict);
    releases(view.releases.values().map(Arc::as_ref), verdict)
}

fn releases<'a>(
    rows: impl Iterator<Item = &'a ReleaseRow>,
    verdict: impl Fn(&str) -> Verdict,
) -> Result<RecordBatch, ArrowError> {
    let rows: Vec<_> = rows.collect();
    batch(
        &schema::RELEASES,
        vec![
            text(rows.iter().map(|r| Some(r.spec.id.as_str()))),
            text(rows.iter().map(|r| Some(r.spec.route.as_str()))),
            words(rows.iter().map(|r| Some(mode(r.spec.mode)))),
            words(rows.iter().map(|r| Some(r.state.phase.as_str()))),
            words(rows.iter().map(|r| Some(verdict(&r.spec.id).as_str()))),
            words(rows.iter().map(|r| Some(r.state.active_color().as_str()))),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|r| share(r.state.green_ppm)),
            )),
            text(rows.iter().map(|r| Some(r.spec.blue.version.as_str()))),
            text(rows.iter().map(|r| Some(r.spec.green.version.as_str()))),
            text(rows.iter().map(|r| Some(r.rules_hash.as_str()))),
            times(rows.iter().map(|r| Some(r.state.opened))),
            times(rows.iter().map(|r| r.state.settled)),
            text(
                rows.iter()
                    .map(|r| Some(serde_json::json!({ "blue": r.spec.blue, "green": r.spec.green }).to_string())),
            ),
        ],
    )
}

const fn mode(mode: proto::release::Mode) -> &'static str {
    match mode {
        proto::release::Mode::Observe => "observe",
        proto::release::Mode::Advise => "advise",
        proto::release::Mode::Act => "act",
    }
}

fn decisions(rows: &[DecisionRow], evidence: &[String]) -> Result<RecordBatch, ArrowError> {
    batch(
        &schema::DECISIONS,
        vec![
            text(rows.iter().map(|r| Some(r.id.as_str()))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.seq))),
            text(rows.iter().map(|r| Some(r.release.as_str()))),
            text(rows.iter().map(|r| Some(r.route.as_str()))),
            words(rows.iter().map(|r| Some(r.action.as_str()))),
            text(rows.iter().map(|r| r.cohort.as_deref())),
            text(rows.iter().map(|r| Some(r.reason.as_str()))),
            text(rows.iter().map(|r| Some(actor(&r.actor)))),
            text(rows.iter().map(|r| Some(r.rules_hash.as_str()))),
            times(rows.iter().map(|r| Some(r.decided_at))),
            text(evidence.iter().map(Some)),
        ],
    )
}

fn deliveries(rows: &[DeliveryRow]) -> Result<RecordBatch, ArrowError> {
    use gates::ledger::DeliveryState::{Dead, Delivered, Pending, Superseded};
    let state = |row: &DeliveryRow| match row.state {
        Pending => "pending",
        Delivered => "delivered",
        Dead => "dead",
        Superseded => "superseded",
    };
    let next = |row: &DeliveryRow| (row.state == Pending).then_some(row.next_attempt_at);
    batch(
        &schema::DELIVERIES,
        vec![
            text(rows.iter().map(|r| Some(r.id.as_str()))),
            text(rows.iter().map(|r| Some(r.decision_id.as_str()))),
            words(rows.iter().map(|r| Some(state(r)))),
            Arc::new(Int32Array::from_iter_values(
                rows.iter().map(|r| i32::try_from(r.attempts).unwrap_or(i32::MAX)),
            )),
            Arc::new(
                rows.iter()
                    .map(|r| r.last_status.map(i32::from))
                    .collect::<Int32Array>(),
            ),
            text(rows.iter().map(|r| r.last_error.as_deref())),
            times(rows.iter().map(next)),
            times(rows.iter().map(|r| r.delivered_at)),
        ],
    )
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn share(ppm: u32) -> f64 {
    f64::from(ppm) / f64::from(PPM)
}

fn text<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    let values: Vec<Option<T>> = values.collect();
    Arc::new(StringArray::from_iter(values.iter().map(Option::as_ref)))
}

fn words<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    builder.extend(values);
    Arc::new(builder.finish())
}

fn times(values: impl Iterator<Item = Option<Nanos>>) -> ArrayRef {
    let array: TimestampNanosecondArray = values.map(|at| at.map(|at| at.0)).collect();
    let array = array.with_timezone("UTC");
    debug_assert_eq!(array.data_type(), &schema::time());
    Arc::new(array)
}
