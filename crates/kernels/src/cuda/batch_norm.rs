//! Batch norms over rows: a channel of `[C, N, H, W]` is a row.

use super::{Activation, Argument, Launch, Place, RowSizes, add_splits, int, long, number, splits};

/// A batch norm over rows, and its activation.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormLaunches {
    /// Channels.
    pub rows: usize,
    /// Values of each row.
    pub length: usize,
    /// Scale, `[rows]`.
    pub gamma: Place,
    /// Shift, `[rows]`.
    pub beta: Place,
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied last.
    pub activation: Activation,
}

impl BatchNormLaunches {
    fn splits(&self) -> usize {
        splits(self.rows, self.length)
    }

    /// Values of f32 that [`BatchNormLaunches::statistics`] and [`BatchNormLaunches::backward`] work in.
    pub fn scratch(&self) -> usize {
        2 * self.splits() * self.rows
    }

    fn sizes(&self) -> [Argument; 5] {
        [long(self.rows), long(self.length), int(self.splits()), self.epsilon.into(), number(self.activation)]
    }

    fn launch(&self, kernel: &str, places: &[Argument], sizes: &[Argument]) -> Launch {
        Launch::new("batch_norm", kernel, self.rows * self.splits(), [places, sizes].concat())
    }

    /// Mean and biased variance of each row, `[2, rows]`.
    pub fn statistics(&self, x: Place, stats: Place, scratch: Place) -> Vec<Launch> {
        let splits = self.splits();
        let sizes = self.sizes();
        let to = if splits == 1 { stats } else { scratch };
        let mut launches = vec![self.launch("row_moments", &[x.into(), to.into()], &sizes[..3])];
        if splits > 1 {
            let places = [scratch.into(), stats.into()];
            let blocks = self.rows.div_ceil(super::THREADS);
            let arguments = [&places[..], &sizes[..3]].concat();
            launches.push(Launch::new("batch_norm", "join_moments", blocks, arguments));
        }
        launches
    }

    /// y = act(gamma xhat + beta) + addend; y may be x.
    pub fn apply(&self, x: Place, stats: Place, addend: Option<Place>, y: Place) -> Launch {
        let places = [x, stats, self.gamma, self.beta].map(Argument::from);
        self.launch("normalize", &[&places[..], &[addend.into(), y.into()]].concat(), &self.sizes())
    }

    /// The gradients of gamma, beta and x; works in `sums`, `[2, rows]`, and in `scratch`.
    pub fn backward(&self, places: BatchNormBackwardPlaces, sums: Place, scratch: Place) -> Vec<Launch> {
        let BatchNormBackwardPlaces { x, dy, stats, excite, slopes, dx } = places;
        let splits = self.splits();
        let [factors, dmeans] = [excite.map(|excite| excite.factors), excite.map(|excite| excite.dmeans)];
        let plane = excite.map_or(1, |excite| excite.plane);
        let more = [factors.into(), dmeans.into(), int(plane)];
        let sizes = [&self.sizes()[..], &more].concat();
        let partial = if splits == 1 { sums } else { scratch };
        let given = [x, dy, stats, self.gamma, self.beta].map(Argument::from);
        let first = self.launch("normalize_sums", &[&given[..], &[partial.into()]].concat(), &sizes);
        let sizes = [&sizes[..], &slopes.map(Argument::from)].concat();
        let last =
            self.launch("normalize_backward", &[&given[..], &[sums.into(), dx.into()]].concat(), &sizes);
        let join = (splits > 1).then(|| add_splits(partial, sums, 2 * self.rows, splits, false));
        [first].into_iter().chain(join).chain([last]).collect()
    }
}

/// Where a batch norm's backward reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormBackwardPlaces {
    pub x: Place,
    pub dy: Place,
    /// Mean and biased variance of each row, `[2, rows]`.
    pub stats: Place,
    pub excite: Option<Excite>,
    /// Where the gradients of gamma and beta are added, `[rows]` each.
    pub slopes: [Place; 2],
    /// May be `dy`.
    pub dx: Place,
}

/// Squeeze-and-excite after a batch norm: its output's gradient is `dy * factor + dmean / plane`.
#[derive(Clone, Copy, Debug)]
pub struct Excite {
    /// The factor of each plane.
    pub factors: Place,
    /// The gradient of each plane's mean.
    pub dmeans: Place,
    /// Values of a plane.
    pub plane: usize,
}

/// Adds the sum of each row to `out`; `scratch` is `splits(rows, length) * rows` values.
pub fn add_row_sums(
    x: Place,
    sizes: RowSizes,
    out: Place,
    scratch: Place,
) -> impl Iterator<Item = Launch> + use<> {
    let RowSizes { rows, length } = sizes;
    let splits = splits(rows, length);
    let to = if splits == 1 { out } else { scratch };
    let arguments = [x.into(), to.into(), long(rows), long(length), int(splits)];
    let sums = Launch::new("batch_norm", "row_sums", rows * splits, arguments);
    [sums].into_iter().chain((splits > 1).then(|| add_splits(scratch, out, rows, splits, true)))
}
