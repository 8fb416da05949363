//! A study as a text and as panels of a picture.

use study::study::Results;
use study::{Curve, Study, Summary};

use crate::plot::{Panel, PlotPoint, Series, Style};

/// Number of intervals along a line.
const INTERVALS: usize = 8;

/// The table of a study: what each strategy has at the end.
pub fn text(study: &Study) -> String {
    let [rows, kept] = study.rows;
    let of_rows = if rows == kept { String::new() } else { format!(", {kept} of which keep the limits") };
    let mut lines = vec![
        format!("problem       {}: {rows} rows{of_rows}", study.name),
        format!("runs          {} of each strategy, {} {} each", study.seeds, study.budget, study.price_unit),
        format!("best          {}", study.best),
    ];
    for oracle in &study.oracles {
        let (metric, best, by_goal) = (&oracle.metric, shown(oracle.best), shown(oracle.by_goal));
        lines.push(format!("{metric:<14}{best} at best, {by_goal} for the best by {}", study.goals[0]));
    }
    let mut header = format!("\n{:<24}{:>12}{:>36}", "strategy", "evaluations", "regret (quartiles)");
    for oracle in &study.oracles {
        header += &format!("{:>25}", oracle.metric);
    }
    if study.results.iter().any(|results| results.hypervolume.is_some()) {
        header += &format!("{:>30}", "hypervolume (quartiles)");
    }
    lines.push(header);
    lines.extend(study.results.iter().map(line));
    lines.join("\n")
}

fn line(results: &Results) -> String {
    let quartiles = |summary: &Summary| {
        let [low, median, high] = [summary.low, summary.median, summary.high].map(shown);
        format!("{median} ({low} to {high})")
    };
    let end = |curve: &Curve| curve.values.last().copied().flatten();
    let regret = results.end.as_ref().map_or_else(|| "none kept".to_string(), quartiles);
    let mut line = format!("{:<24}{:>12.1}{regret:>36}", results.label, results.evaluations.mean);
    for curve in &results.values {
        let mean = |summary: Summary| format!("{} +- {}", shown(summary.mean), shown(summary.deviation));
        line += &format!("{:>25}", end(curve).map_or_else(String::new, mean));
    }
    if let Some(volume) = results.hypervolume.as_ref().and_then(end) {
        line += &format!("{:>30}", quartiles(&volume));
    }
    if results.proved > 0.0 {
        line += &format!("  proved in {:.0} % of the runs", 100.0 * results.proved);
    }
    line
}

/// A number with four significant digits.
fn shown(value: f64) -> String {
    let whole = value.abs().log10().floor();
    let decimals = if whole.is_finite() { (3.0 - whole).clamp(0.0, 12.0) } else { 0.0 };
    format!("{value:.*}", decimals as usize)
}

/// The medians over the price, with the middle half of the runs at some of the prices.
pub fn panels(study: &Study) -> Vec<Panel> {
    let unit = |at: usize| study.oracles.get(at).map_or("1", |oracle| &oracle.unit);
    let regret = format!("regret of {} [{}]", study.goals[0], unit(0));
    let mut panels = vec![panel(study, &regret, |results| &results.regret)];
    for (at, oracle) in study.oracles.iter().enumerate().skip(1) {
        let y = format!("{} of the best [{}]", oracle.metric, unit(at));
        panels.push(panel(study, &y, |results| &results.values[at]));
    }
    if study.results.iter().any(|results| results.hypervolume.is_some()) {
        panels.push(panel(study, "hypervolume, share of the whole table's", |results| {
            results.hypervolume.as_ref().unwrap_or(&results.regret)
        }));
    }
    panels
}

fn panel(study: &Study, y: &str, of: impl Fn(&Results) -> &Curve) -> Panel {
    let every = study.prices.len().div_ceil(INTERVALS);
    let count = study.results.len();
    let series = study.results.iter().enumerate().map(|(number, results)| {
        let values = study.prices.iter().zip(&of(results).values).enumerate();
        let points = values.filter_map(|(at, (price, summary))| {
            let Summary { low, median, high, .. } = (*summary)?;
            // the intervals of different strategies stand beside one another
            let shown = at % every == number * every / count;
            Some(PlotPoint { at: (*price, median), across: None, up: shown.then_some((low, high)) })
        });
        Series { name: results.label.clone(), points: points.collect(), style: Style::Joined }
    });
    Panel {
        x: format!("price [{}]", study.price_unit),
        y: y.to_string(),
        limit: None,
        series: series.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let texts = [0.0, 0.00012345, 0.1234567, 5.4321, 94.371, 1234.6, 123_456.7].map(shown);
        assert_eq!(texts, ["0", "0.0001234", "0.1235", "5.432", "94.37", "1235", "123457"]);
    }
}
