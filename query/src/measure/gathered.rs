//! Cells as they are gathered from rows.

use proto::{
    Cell, Color, Grain, Metric, Nanos,
    cell::{Minute, Minutes, PPM, Series},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Where a unit is counted, but for the metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Start of the minute, unix seconds.
    pub minute: i64,
    pub cohort: Option<Arc<str>>,
    pub split_ppm: Option<u32>,
    pub color: Color,
}

/// Cells of many places.
pub(super) struct Gathered {
    minute_secs: i64,
    cells: HashMap<Place, Vec<(Metric, Grain, Cell)>>,
    cohorts: HashSet<Arc<str>>,
}

impl Gathered {
    pub fn new(minute_secs: i64) -> Self {
        Self {
            minute_secs: minute_secs.max(1),
            cells: HashMap::new(),
            cohorts: HashSet::new(),
        }
    }

    /// Start of the minute that holds a moment, unix seconds.
    pub fn minute_of(&self, at: Nanos) -> i64 {
        at.0.div_euclid(1_000_000_000).div_euclid(self.minute_secs) * self.minute_secs
    }

    /// The shared text of a cohort.
    pub fn cohort(&mut self, cohort: Option<&str>) -> Option<Arc<str>> {
        let cohort = cohort?;
        if let Some(known) = self.cohorts.get(cohort) {
            return Some(Arc::clone(known));
        }
        let shared: Arc<str> = cohort.into();
        self.cohorts.insert(Arc::clone(&shared));
        Some(shared)
    }

    /// The cell of a metric at a place.
    pub fn cell(&mut self, place: Place, metric: &Metric, grain: Grain) -> &mut Cell {
        let cells = self.cells.entry(place).or_default();
        let at = cells
            .iter()
            .position(|(m, g, _)| m == metric && *g == grain)
            .unwrap_or_else(|| {
                cells.push((metric.clone(), grain, Cell::default()));
                cells.len() - 1
            });
        &mut cells[at].2
    }

    /// Adds what another has gathered.
    pub fn absorb(&mut self, other: Self) {
        for (place, cells) in other.cells {
            let into = self.cells.entry(place).or_default();
            if into.is_empty() {
                *into = cells;
                continue;
            }
            for (metric, grain, cell) in cells {
                match into.iter_mut().find(|(m, g, _)| *m == metric && *g == grain) {
                    Some((.., sum)) => sum.merge(&cell, 1),
                    None => into.push((metric, grain, cell)),
                }
            }
        }
    }

    pub fn into_minutes(self) -> Arc<Minutes> {
        let mut minutes: BTreeMap<i64, Minute> = BTreeMap::new();
        for (place, cells) in self.cells {
            let minute = minutes.entry(place.minute).or_default();
            for (metric, grain, cell) in cells.into_iter().filter(|(_, _, cell)| !cell.is_zero()) {
                let series = Series {
                    metric,
                    grain,
                    cohort: place.cohort.clone(),
                    split_ppm: place.split_ppm,
                    color: place.color,
                    admitted: true,
                };
                minute.insert(series, Arc::new(cell));
            }
        }
        minutes.retain(|_, minute| !minute.is_empty());
        Arc::new(minutes.into_iter().map(|(at, minute)| (at, Arc::new(minute))).collect())
    }
}

/// Counts one unit of a rate.
pub(super) fn count(cell: &mut Cell, event: bool) {
    cell.n += 1;
    cell.events += i64::from(event);
}

/// Counts one unit of an amount, in the integer unit of the metric.
pub(super) fn record(cell: &mut Cell, value: u64) {
    cell.n += 1;
    cell.sum = cell.sum.saturating_add(i64::try_from(value).unwrap_or(i64::MAX));
    cell.hdr.record(value, 1);
}

/// A share as ppm.
pub(super) fn ppm(share: f64) -> u32 {
    (share * f64::from(PPM)).round() as u32
}

/// A color's word in a row.
pub(super) fn color_of(word: Option<&str>) -> Color {
    word.and_then(Color::parse).unwrap_or_default()
}
