//! Whether sessions keep their color though traces are drawn one by one: the guard against judging traces that are not
//! independent.

use super::{
    ADMITTED, Asked,
    gathered::{Gathered, Place, color_of, count, ppm},
};
use crate::{
    QueryError,
    metrics::{SERVED, SESSION_SAME},
};
use proto::{Grain, Metric, Nanos};

/// Adds the cells of `session_same`.
pub(super) async fn gather(asked: &Asked<'_>, out: &mut Gathered) -> Result<(), QueryError> {
    let sessions = SESSION_SAME
        .replace("{served}", SERVED)
        .replace("{rows}", &format!(" AND {ADMITTED}"));
    let sql = format!("SELECT start_time, color, split, event FROM ({sessions})");
    asked
        .each(&sql, |rows| {
            for row in 0..rows.len() {
                let place = Place {
                    minute: out.minute_of(Nanos(rows.int(0, row).unwrap_or_default())),
                    cohort: None,
                    split_ppm: rows.float(2, row).map(ppm),
                    color: color_of(rows.text(1, row)),
                };
                count(out.cell(place, &Metric::SessionSame, Grain::Session), rows.is(3, row));
            }
        })
        .await
}
