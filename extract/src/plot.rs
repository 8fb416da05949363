//! Scatter plots as SVG text: panels side by side, one colour a series, one legend.
//!
//! Knows nothing of networks; the same input gives the same bytes.

use std::fmt::Write;

/// Points of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it; series of one name share a colour over all panels.
    pub name: String,
    /// Places as (x, y) in the units of the panel's axes.
    pub points: Vec<(f64, f64)>,
    /// Whether a line joins the points, which then come in rising x.
    pub joined: bool,
}

/// One coordinate system.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What runs to the right, with its unit.
    pub x: String,
    /// What runs upwards, with its unit.
    pub y: String,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// Width and height of a panel's coordinate system, and the room around it, in pixels.
const PLOT: (f64, f64) = (350.0, 260.0);
const MARGIN: f64 = 62.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 58.0;

/// Okabe and Ito's palette, told apart by the colour-blind too.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"];

/// A picture of panels side by side under a title. Points that are not finite are left out.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let width = panels.len() as f64 * (PLOT.0 + MARGIN) + 0.5 * MARGIN;
    let height = TOP + PLOT.1 + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        escaped(title)
    );
    text(&mut out, (MARGIN, 18.0), "start", "font-size=\"14\" font-weight=\"bold\"", title);
    let names = names(panels);
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, MARGIN + index as f64 * (PLOT.0 + MARGIN), &names);
    }
    legend(&mut out, panels, &names);
    out.push_str("</svg>\n");
    out
}

/// Names of the series, each once, in the order in which they come.
fn names(panels: &[Panel]) -> Vec<&str> {
    let mut names = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !names.contains(&series.name.as_str()) {
            names.push(&series.name);
        }
    }
    names
}

fn colour(names: &[&str], name: &str) -> &'static str {
    let place = names.iter().position(|known| *known == name).unwrap_or_default();
    COLOURS[place % COLOURS.len()]
}

fn draw(out: &mut String, panel: &Panel, left: f64, names: &[&str]) {
    let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
    let points: Vec<_> =
        panel.series.iter().flat_map(|series| &series.points).copied().filter(finite).collect();
    let across = Axis::over(points.iter().map(|point| point.0), (left, left + PLOT.0));
    let up = Axis::over(points.iter().map(|point| point.1), (TOP + PLOT.1, TOP));
    for tick in across.ticks() {
        let x = across.place(tick);
        line(out, (x, TOP), (x, TOP + PLOT.1), "#e4e4e4");
        text(out, (x, TOP + PLOT.1 + 16.0), "middle", "", &across.label(tick));
    }
    for tick in up.ticks() {
        let y = up.place(tick);
        line(out, (left, y), (left + PLOT.0, y), "#e4e4e4");
        text(out, (left - 6.0, y + 4.0), "end", "", &up.label(tick));
    }
    line(out, (left, TOP), (left, TOP + PLOT.1), "#222");
    line(out, (left, TOP + PLOT.1), (left + PLOT.0, TOP + PLOT.1), "#222");
    text(out, (left + PLOT.0 / 2.0, TOP + PLOT.1 + 34.0), "middle", "", &panel.x);
    let middle = (left - 44.0, TOP + PLOT.1 / 2.0);
    let turned = format!("transform=\"rotate(-90 {} {})\"", middle.0, middle.1);
    text(out, middle, "middle", &turned, &panel.y);
    for series in &panel.series {
        let colour = colour(names, &series.name);
        let places: Vec<_> = series
            .points
            .iter()
            .filter(|point| finite(point))
            .map(|point| (across.place(point.0), up.place(point.1)))
            .collect();
        if series.joined {
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                path.join(" ")
            );
        }
        for (x, y) in places {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\" fill-opacity=\".75\"/>"
            );
        }
    }
}

fn legend(out: &mut String, panels: &[Panel], names: &[&str]) {
    let mut x = MARGIN;
    let y = TOP + PLOT.1 + BOTTOM - 8.0;
    for name in names {
        let joined = panels.iter().flat_map(|panel| &panel.series).any(|s| s.name == *name && s.joined);
        let colour = colour(names, name);
        if joined {
            let _ = writeln!(
                out,
                "<path d=\"M{:.1} {:.1}h14\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                x - 4.0,
                y - 4.0
            );
        }
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
            x + 3.0,
            y - 4.0
        );
        text(out, (x + 13.0, y), "start", "", name);
        // no font is at hand to measure with: letters of this size are 6 pixels wide on average
        x += 30.0 + 6.0 * name.chars().count() as f64;
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, more: &str, words: &str) {
    let space = if more.is_empty() { "" } else { " " };
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\"{space}{more}>{}</text>",
        at.0,
        at.1,
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    let printable: String = words.chars().filter(|letter| !letter.is_control()).collect();
    printable.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A linear scale from values to pixels, with round ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    pixels: (f64, f64),
}

impl Axis {
    /// An axis that holds all values and ends on ticks.
    fn over(values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match (low, high) {
            (low, high) if low > high => (0.0, 1.0),
            (low, high) if low == high => (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0)),
            ends => ends,
        };
        let step = round_step((high - low) / 5.0);
        Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step, pixels }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|index| self.low + index as f64 * self.step)
    }

    fn label(&self, tick: f64) -> String {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{tick:.decimals$}")
    }
}

/// The next step of 1, 2 or 5 times a power of ten that is not smaller.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|factor| factor * power).find(|round| *round >= step * 0.999_999).unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, f64)>, joined: bool) -> Panel {
        let series = vec![Series { name: "a < b".to_string(), points, joined }];
        Panel { x: "MACs & more".to_string(), y: "top-1 [%]".to_string(), series }
    }

    #[test]
    fn axes_hold_their_values_and_end_on_round_ticks() {
        for (low, high, ticks) in [
            (0.0, 10.0, vec!["0", "2", "4", "6", "8", "10"]),
            (86.3, 92.4, vec!["86", "88", "90", "92", "94"]),
            (0.61, 0.83, vec!["0.60", "0.65", "0.70", "0.75", "0.80", "0.85"]),
        ] {
            let axis = Axis::over([low, high].into_iter(), (0.0, 100.0));
            assert_eq!(axis.ticks().map(|tick| axis.label(tick)).collect::<Vec<_>>(), ticks);
            assert!(axis.place(low) >= 0.0 && axis.place(high) <= 100.0);
        }
    }

    #[test]
    fn a_picture_is_whole_whatever_the_points() {
        for points in
            [vec![], vec![(1.0, 1.0)], vec![(0.0, f64::NAN), (2.0, 3.0)], vec![(1e-9, 1e12), (2e-9, 3e12)]]
        {
            for joined in [false, true] {
                let finite = points.iter().filter(|point| point.1.is_finite()).count();
                let picture = svg("t < u", &[panel(points.clone(), joined), panel(points.clone(), false)]);
                assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
                assert!(picture.contains("t &lt; u") && picture.contains("MACs &amp; more"));
                assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
                assert_eq!(picture.matches("<circle").count(), 2 * finite + 1, "points and a legend's");
                assert_eq!(picture.matches("<polyline").count(), usize::from(joined));
            }
        }
    }
}
