//! Scatter plots as SVG text: panels side by side, one color per series, one legend.
//!
//! Knows nothing of networks; the same input gives the same bytes.

use std::fmt::Write;

/// A point with what is known of how far off it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PlotPoint {
    /// The place, in the units of the panel's axes.
    pub at: (f64, f64),
    /// The ends of its interval to the right and left.
    pub across: Option<(f64, f64)>,
    /// The ends of its interval upwards and downwards.
    pub up: Option<(f64, f64)>,
}

/// The markers of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Dots.
    Dots,
    /// Dots in rising x, joined by a line.
    Joined,
    /// Rings that stand out from the dots.
    Rings,
}

/// Points of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend; series of one name share a color over all panels.
    pub name: String,
    /// Where they are.
    pub points: Vec<PlotPoint>,
    /// The markers.
    pub style: Style,
}

/// One coordinate system.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// The horizontal axis's label, with its unit.
    pub x: String,
    /// The vertical axis's label, with its unit.
    pub y: String,
    /// A limit on what runs to the right.
    pub limit: Option<f64>,
    /// The series, the last on top.
    pub series: Vec<Series>,
}

/// Width and height of a panel's coordinate system, and the room around it, in pixels.
const PLOT: (f64, f64) = (350.0, 260.0);
const MARGIN: f64 = 62.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 58.0;

/// Okabe and Ito's palette, which the color-blind can distinguish too, and three more for pictures of many series.
const COLORS: [&str; 11] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000", "#8c564b",
    "#6a3d9a", "#b5bd00",
];

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

fn color(names: &[&str], name: &str) -> &'static str {
    let place = names.iter().position(|known| *known == name).unwrap_or_default();
    COLORS[place % COLORS.len()]
}

/// A panel's scales.
struct Axes {
    across: Axis,
    up: Axis,
}

impl Axes {
    /// Scales that hold all points with their intervals.
    fn of(panel: &Panel, left: f64) -> Self {
        let points: Vec<PlotPoint> = panel.series.iter().flat_map(|series| finite(&series.points)).collect();
        let held = |at: fn(&PlotPoint) -> f64, ends: fn(&PlotPoint) -> Option<(f64, f64)>| {
            let mut all = Vec::with_capacity(4 * points.len());
            for point in &points {
                let at = at(point);
                let (low, high) = ends(point).unwrap_or((at, at));
                all.extend([low, high, at, at]);
            }
            all.into_iter()
        };
        let limit = panel.limit.filter(|limit| limit.is_finite());
        let across = held(|point| point.at.0, |point| point.across).chain(limit);
        Self {
            across: Axis::over(across, (left, left + PLOT.0)),
            up: Axis::over(held(|point| point.at.1, |point| point.up), (TOP + PLOT.1, TOP)),
        }
    }
}

/// The points whose numbers are all finite.
fn finite(points: &[PlotPoint]) -> impl Iterator<Item = PlotPoint> + '_ {
    let whole = |(a, b): (f64, f64)| a.is_finite() && b.is_finite();
    let is_finite = move |point: &PlotPoint| {
        whole(point.at) && point.across.is_none_or(whole) && point.up.is_none_or(whole)
    };
    points.iter().copied().filter(is_finite)
}

fn draw(out: &mut String, panel: &Panel, left: f64, names: &[&str]) {
    let axes = Axes::of(panel, left);
    grid(out, panel, left, &axes);
    if let Some(limit) = panel.limit.filter(|limit| limit.is_finite()) {
        let x = axes.across.place(limit);
        let dashed = "stroke=\"#222\" stroke-dasharray=\"4 3\"";
        line(out, (x, TOP), (x, TOP + PLOT.1), dashed);
        text(out, (x - 4.0, TOP + PLOT.1 - 6.0), "end", "fill=\"#555\"", "limit");
    }
    for series in &panel.series {
        draw_series(out, series, &axes, color(names, &series.name));
    }
}

/// Lines, numbers and names of the scales.
fn grid(out: &mut String, panel: &Panel, left: f64, axes: &Axes) {
    let light = "stroke=\"#e4e4e4\"";
    let dark = "stroke=\"#222\"";
    for tick in axes.across.ticks() {
        let x = axes.across.place(tick);
        line(out, (x, TOP), (x, TOP + PLOT.1), light);
        text(out, (x, TOP + PLOT.1 + 16.0), "middle", "", &axes.across.label(tick));
    }
    for tick in axes.up.ticks() {
        let y = axes.up.place(tick);
        line(out, (left, y), (left + PLOT.0, y), light);
        text(out, (left - 6.0, y + 4.0), "end", "", &axes.up.label(tick));
    }
    line(out, (left, TOP), (left, TOP + PLOT.1), dark);
    line(out, (left, TOP + PLOT.1), (left + PLOT.0, TOP + PLOT.1), dark);
    text(out, (left + PLOT.0 / 2.0, TOP + PLOT.1 + 34.0), "middle", "", &panel.x);
    let middle = (left - 44.0, TOP + PLOT.1 / 2.0);
    let turned = format!("transform=\"rotate(-90 {} {})\"", middle.0, middle.1);
    text(out, middle, "middle", &turned, &panel.y);
}

fn draw_series(out: &mut String, series: &Series, axes: &Axes, color: &str) {
    let points: Vec<PlotPoint> = finite(&series.points).collect();
    let place = |(x, y): (f64, f64)| (axes.across.place(x), axes.up.place(y));
    // the intervals of dots and of a front, which are many, are pale
    let opacity = if series.style == Style::Rings { ".9" } else { ".25" };
    let bar = format!("stroke=\"{color}\" stroke-opacity=\"{opacity}\"");
    for PlotPoint { at: (x, y), across, up } in &points {
        if let Some((low, high)) = across {
            line(out, place((*low, *y)), place((*high, *y)), &bar);
        }
        if let Some((low, high)) = up {
            line(out, place((*x, *low)), place((*x, *high)), &bar);
        }
    }
    if series.style == Style::Joined {
        let path: Vec<String> = points
            .iter()
            .map(|point: &PlotPoint| place(point.at))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let path = path.join(" ");
        let _ = writeln!(
            out,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
        );
    }
    for point in &points {
        marker(out, place(point.at), series.style, color);
    }
}

fn marker(out: &mut String, at: (f64, f64), style: Style, color: &str) {
    let (x, y) = at;
    let look = match style {
        Style::Rings => format!("r=\"5.5\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\""),
        Style::Dots | Style::Joined => format!("r=\"2.8\" fill=\"{color}\" fill-opacity=\".75\""),
    };
    let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" {look}/>");
}

fn legend(out: &mut String, panels: &[Panel], names: &[&str]) {
    let mut x = MARGIN;
    let y = TOP + PLOT.1 + BOTTOM - 8.0;
    for name in names {
        let mut styles = panels.iter().flat_map(|panel| &panel.series).filter(|series| series.name == *name);
        let joined = styles.clone().any(|series| series.style == Style::Joined);
        let style = styles.next().map_or(Style::Dots, |series| series.style);
        let color = color(names, name);
        if joined {
            let _ = writeln!(
                out,
                "<path d=\"M{:.1} {:.1}h14\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
                x - 4.0,
                y - 4.0
            );
        }
        marker(out, (x + 3.0, y - 4.0), style, color);
        text(out, (x + 13.0, y), "start", "", name);
        // no font is at hand to measure with: letters of this size are 6 pixels wide on average
        x += 30.0 + 6.0 * name.chars().count() as f64;
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), look: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {look}/>",
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

    fn panel(points: &[(f64, f64)], style: Style) -> Panel {
        let points = points.iter().map(|at| PlotPoint { at: *at, ..PlotPoint::default() }).collect();
        let series = vec![Series { name: "a < b".to_string(), points, style }];
        Panel { x: "MACs & more".to_string(), y: "top-1 [%]".to_string(), limit: None, series }
    }

    #[test]
    fn intervals_and_limits_are_within_the_picture() {
        let mut one = panel(&[(1.0, 50.0), (2.0, 60.0)], Style::Rings);
        one.series[0].points[0].across = Some((0.5, 30.0));
        one.series[0].points[1].up = Some((10.0, 90.0));
        one.limit = Some(45.0);
        let picture = svg("t", &[one.clone()]);
        // one line for each tick and both edges, then the limit and two intervals
        let ticks = Axis::over([0.5, 45.0].into_iter(), (0.0, 1.0)).ticks().count()
            + Axis::over([10.0, 90.0].into_iter(), (0.0, 1.0)).ticks().count();
        assert_eq!(picture.matches("<line").count(), ticks + 2 + 1 + 2, "{picture}");
        assert_eq!(picture.matches("stroke-dasharray").count(), 1);
        assert!(
            picture.contains(">0</text>")
                && picture.contains(">50</text>")
                && picture.contains(">100</text>")
        );
        one.series[0].points[0].across = Some((0.5, f64::INFINITY));
        assert_eq!(svg("t", &[one]).matches("<circle").count(), 2, "one is left out, one is the legend's");
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
            for style in [Style::Dots, Style::Joined, Style::Rings] {
                let finite = points.iter().filter(|point| point.1.is_finite()).count();
                let picture = svg("t < u", &[panel(&points, style), panel(&points, Style::Dots)]);
                assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
                assert!(picture.contains("t &lt; u") && picture.contains("MACs &amp; more"));
                assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
                assert_eq!(picture.matches("<circle").count(), 2 * finite + 1, "points and a legend's");
                assert_eq!(picture.matches("<polyline").count(), usize::from(style == Style::Joined));
            }
        }
    }
}
