//! Whether sessions keep their color though traces are drawn one by one: the guard against judging traces that are not
//! independent. The same as the view `metric_session_same`, of which a million rows would be sorted twice.

use super::{
    ADMITTED, Asked,
    gathered::{Gathered, Place, color_of, count, ppm},
    plain,
};
use crate::{QueryError, metrics::SERVED};
use proto::{Color, Grain, Metric, Nanos};

/// A session with its first trace.
struct Session {
    id: String,
    start: Nanos,
    color: Color,
    split_ppm: u32,
    /// Its second trace came.
    done: bool,
}

/// Adds the cells of `session_same`.
pub(super) async fn gather(asked: &Asked<'_>, out: &mut Gathered) -> Result<(), QueryError> {
    let sql = format!(
        "SELECT {} AS session, t.start_time, t.assigned_color, t.split FROM traces t
WHERE {ADMITTED} AND {SERVED} AND t.session_id IS NOT NULL AND t.assigned_color IS NOT NULL
  AND t.split > 0 AND t.split < 1
ORDER BY session, t.start_time, t.trace_id",
        plain("t.session_id")
    );
    let mut session: Option<Session> = None;
    asked
        .each(&sql, |rows| {
            for row in 0..rows.len() {
                let id = rows.text(0, row).unwrap_or_default();
                let color = color_of(rows.text(2, row));
                let split_ppm = ppm(rows.float(3, row).unwrap_or_default());
                match &mut session {
                    Some(first) if first.id == id => {
                        if first.done || first.split_ppm != split_ppm {
                            continue;
                        }
                        first.done = true;
                        let place = Place {
                            minute: out.minute_of(first.start),
                            cohort: None,
                            split_ppm: Some(split_ppm),
                            color: first.color,
                        };
                        let cell = out.cell(place, &Metric::SessionSame, Grain::Session);
                        count(cell, color == first.color);
                    }
                    _ => {
                        session = Some(Session {
                            id: id.to_owned(),
                            start: Nanos(rows.int(1, row).unwrap_or_default()),
                            color,
                            split_ppm,
                            done: false,
                        });
                    }
                }
            }
        })
        .await
}
