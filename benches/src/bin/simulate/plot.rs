//! The study as a picture: what an equal green, a worse one and a late onset see.

use crate::{
    Study,
    nulls::{ALPHA, Null},
    onset::Onset,
    versus::{self, LATE, Measure, Versus},
};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::error::Error;

type Failure = Box<dyn Error>;
type Panel<'a, 'b> = DrawingArea<SVGBackend<'a>, Shift>;
/// (x, y) of a line.
type Line = Vec<(f64, f64)>;

const SIZE: (u32, u32) = (1_160, 880);
/// Height of the two upper panels.
const UPPER: u32 = 470;
const FONT: &str = "sans-serif";
/// Colors that most color-blind people tell apart.
const OURS: RGBColor = RGBColor(0, 114, 178);
const OTHERS: [RGBColor; 5] = [
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
/// Lowest share drawn on the logarithmic scale.
const FLOOR: f64 = 0.000_4;

/// As SVG.
pub fn svg(study: &Study) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(UPPER);
        let (left, right) = upper.split_horizontally(SIZE.0 / 2);
        let failures: Vec<&Versus> = study.versus.iter().filter(|v| v.measure == Measure::Failures).collect();
        let until = versus::arm(&study.scale) as f64;
        equal(&left, &failures, until, &study.nulls, study.scale.arm as f64)?;
        worse(&right, &failures, until)?;
        onsets(&lower, &study.onsets)?;
        root.present()?;
    }
    Ok(svg)
}

/// Share of runs rolled back by so many traces, as steps up to `end`.
fn steps(runs: &[Option<u64>], end: f64) -> Line {
    let mut at: Vec<u64> = runs.iter().flatten().copied().collect();
    at.sort_unstable();
    let mut line = Vec::new();
    let mut share = 0.0;
    for (i, traces) in at.iter().enumerate() {
        let x = (*traces as f64).max(1.0);
        line.push((x, share));
        share = (i + 1) as f64 / runs.len() as f64;
        line.push((x, share));
    }
    line.push((end, share));
    line
}

/// What is drawn, with its style: one form of ours, and every other rule.
fn shown<'a>(failures: &'a [&Versus]) -> impl Iterator<Item = (&'a Versus, ShapeStyle)> {
    let ours = failures.iter().filter(|v| v.rule == LATE);
    let others = failures.iter().filter(|v| !v.rule.starts_with("tracegate"));
    let colors = OTHERS.iter().cycle().map(|color| color.stroke_width(2));
    let ours = ours.map(|v| (*v, OURS.stroke_width(3)));
    ours.chain(others.copied().zip(colors))
}

/// Equal greens rolled back, on logarithmic scales: ours until `end`, as in the search for false rollbacks, the others
/// until `until`.
fn equal(panel: &Panel<'_, '_>, failures: &[&Versus], until: f64, nulls: &[Null], end: f64) -> Result<(), Failure> {
    let long = nulls
        .iter()
        .find(|n| n.statistic.starts_with("(a)") && n.statistic.ends_with("late starts"));
    let per_arm = |n: &Null| n.crossed.iter().map(|c| c.map(|served| served / 2)).collect::<Vec<_>>();
    let mut chart = ChartBuilder::on(panel)
        .caption("An equal green (failures 3 %): share rolled back", (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d((100.0..end).log_scale(), (FLOOR..1.0f64).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(format!(
            "traces of each color (rules of others: until {})",
            thousands(until)
        ))
        .light_line_style(WHITE)
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&|y| format!("{} %", (1e4 * y).round() / 100.0))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    let level = vec![(100.0, ALPHA), (end, ALPHA)];
    chart.draw_series(DashedLineSeries::new(level, 6, 5, BLACK.stroke_width(1)))?;
    let above = (FONT, 14)
        .into_text_style(panel)
        .pos(Pos::new(HPos::Right, VPos::Bottom));
    chart.draw_series([Text::new("alpha", (end * 0.9, ALPHA * 1.05), above)])?;
    for (versus, style) in shown(failures) {
        let ours = long.filter(|_| versus.rule == LATE).map(per_arm);
        let (runs, until) = ours.map_or((versus.equal.clone(), until), |runs| (runs, end));
        let line = steps(&runs, until).into_iter().map(|(x, y)| (x, y.max(FLOOR)));
        let share = 100.0 * runs.iter().flatten().count() as f64 / runs.len() as f64;
        let rule = short(versus.rule);
        chart
            .draw_series(LineSeries::new(line, style))?
            .label(format!("{rule}: {share:.1} %"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// Worse greens rolled back.
fn worse(panel: &Panel<'_, '_>, failures: &[&Versus], end: f64) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(panel)
        .caption("A worse green (failures 3 > 6 %): share rolled back", (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d((100.0..end).log_scale(), 0.0..1.0f64)?;
    chart
        .configure_mesh()
        .x_desc("traces of each color")
        .light_line_style(WHITE)
        .x_label_formatter(&|x| thousands(*x))
        .y_label_formatter(&|y| format!("{:.0} %", 100.0 * y))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for (versus, style) in shown(failures) {
        chart
            .draw_series(LineSeries::new(steps(&versus.worse, end), style))?
            .label(short(versus.rule))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// Name of a form of the statistic, its color, where its numbers stand, and its minutes.
type Form = (&'static str, RGBColor, (Pos, (i32, i32)), fn(&Onset) -> Option<u64>);

/// Minutes to rollback by how long green was healthy before.
fn onsets(panel: &Panel<'_, '_>, onsets: &[Onset]) -> Result<(), Failure> {
    let mut rates: Vec<f64> = onsets.iter().map(|o| o.rate).collect();
    rates.dedup();
    let names: Vec<&str> = onsets.iter().filter(|o| o.rate == rates[0]).map(|o| o.name).collect();
    let last = (names.len() - 1) as f64;
    let mut chart = ChartBuilder::on(panel)
        .caption("A regression that starts late: median minutes to rollback", (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(62)
        .build_cartesian_2d(-0.25..last + 1.2, (1.0..500.0f64).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(names.len() + 2)
        .x_desc("onset, after so much health")
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&|x| {
            let whole = (x - x.round()).abs() < 1e-9 && *x > -0.1;
            let name = names.get(x.round() as usize).filter(|_| whole);
            name.map_or_else(String::new, |&n| n.to_owned())
        })
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    let left_above = (Pos::new(HPos::Right, VPos::Bottom), (-5, -2));
    let right_below = (Pos::new(HPos::Left, VPos::Top), (6, 3));
    let forms: [Form; 2] = [
        ("one start", OTHERS[0], left_above, |o| o.plain),
        ("mixture over starts", OURS, right_below, |o| o.late),
    ];
    for (i, rate) in rates.iter().enumerate() {
        for (form, color, (anchor, beside), minutes) in &forms {
            let of_rate = onsets.iter().filter(|o| o.rate == *rate).enumerate();
            let points: Line = of_rate
                .filter_map(|(x, o)| Some((x as f64, minutes(o)? as f64)))
                .collect();
            let style = color.stroke_width(if i == 0 { 3 } else { 1 });
            let dots = points.iter().map(|&point| Circle::new(point, 4, color.filled()));
            chart.draw_series(dots)?;
            let written = (FONT, 13).into_font().color(color).pos(*anchor);
            let number = |&point: &(f64, f64)| {
                EmptyElement::at(point) + Text::new(format!("{:.0}", point.1), *beside, written.clone())
            };
            chart.draw_series(points.iter().map(number))?;
            chart
                .draw_series(LineSeries::new(points.clone(), style))?
                .label(format!("3 > {:.0} %, {form}", 100.0 * rate))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
    }
    legend(&mut chart, SeriesLabelPosition::MiddleRight)
}

fn legend<'a, 'b, C>(chart: &mut ChartContext<'a, SVGBackend<'b>, C>, at: SeriesLabelPosition) -> Result<(), Failure>
where
    C: CoordTranslate,
    'b: 'a,
{
    chart
        .configure_series_labels()
        .position(at)
        .margin(8)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(190, 190, 190))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}

fn short(rule: &str) -> String {
    rule.replace(", one gate, late starts", "")
}

fn thousands(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.0} M", x / 1e6),
        x if x >= 1e3 => format!("{:.0} k", x / 1e3),
        x => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_climbs_by_one_run_at_each_rollback() {
        let line = steps(&[Some(300), None, Some(200), Some(300)], 1_000.0);
        assert_eq!(line[1], (200.0, 0.25));
        assert_eq!(line.last(), Some(&(1_000.0, 0.75)));
        assert!(line.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 <= two[1].1));
    }
}
