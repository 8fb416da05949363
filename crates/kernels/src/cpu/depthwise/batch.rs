//! Depthwise convolution of small maps: lanes are images, tiles go along the pixels of a row.
//!
//! The maps of as many images as a vector has lanes are transposed to `[pixels][images]`. All lanes are in
//! use, stride 2 costs nothing, and rows of taps that miss the map are left out.

use super::super::Isa;
use super::super::scratch::Line;
use super::super::simd::{Lanes, prefetch, store_up_to, transpose};
use super::DepthwiseShape;
use super::tile::{MAX_KERNEL, PHASE_MARGIN, Phase, Taps, correlate, tile, tile_len};

/// Whether this scheme is the faster one.
pub(super) fn suits(isa: Isa, shape: &DepthwiseShape) -> bool {
    // The largest map, in values: measured. Above it, transposing the maps costs more than full lanes gain; with
    // more taps per transposed value that point comes later.
    let area = match (shape.kernel, shape.stride) {
        (7, 1) => 100,
        (7, _) => 256,
        _ => 64,
    };
    shape.plane() <= area && 2 * shape.images >= isa.lanes()
}

/// The maps of up to `COUNT` images with a border of zeros: one vector per pixel.
struct Pixels {
    lines: Vec<Line>,
    /// Where each pixel of the map lies.
    places: Vec<usize>,
    /// Where each image's map begins in memory, relative to the first.
    images: Vec<usize>,
    height: usize,
    width: usize,
    border: Border,
    /// Values from row to row.
    pitch: usize,
}

/// Zero pixels around a map.
#[derive(Clone, Copy)]
struct Border {
    /// Rows above, and rows below.
    rows: usize,
    /// Columns on the left.
    left: usize,
    /// Columns on the right.
    right: usize,
}

impl Border {
    const NONE: Self = Self::even(0);

    /// So many pixels on every side.
    const fn even(pixels: usize) -> Self {
        Self { rows: pixels, left: pixels, right: pixels }
    }
}

impl Pixels {
    /// For maps of `height` x `width`.
    fn new<T: Lanes>(height: usize, width: usize, border: Border) -> Self {
        let Border { rows, left, right } = border;
        let pitch = (left + width + right) * T::COUNT;
        Self {
            lines: Line::zeros((height + 2 * rows) * pitch),
            places: (0..height * width)
                .map(|i: usize| (i / width + rows) * pitch + (i % width + left) * T::COUNT)
                .collect(),
            images: (0..T::COUNT).map(|image| image * height * width).collect(),
            height,
            width,
            border,
            pitch,
        }
    }

    /// The first value of the border.
    fn start(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    /// Copies the maps of up to `COUNT` images; the lanes of missing ones are zero.
    #[inline(always)]
    fn fill<T: Lanes>(&mut self, maps: &[f32]) {
        let plane = self.places.len();
        let images = &self.images[..maps.len() / plane];
        for (i, places) in self.places.chunks(T::COUNT).enumerate() {
            // SAFETY: image `images[..]` has `places.len()` pixels from `i * COUNT` on; every place is the
            // beginning of a vector in `lines`.
            unsafe {
                let to = self.lines.as_mut_ptr().cast();
                transpose::<T>(maps.as_ptr().add(i * T::COUNT), images, to, places, T::COUNT);
            }
        }
        // The next maps lie behind these.
        self.expect::<T>(&maps[maps.len()..]);
    }

    /// Prefetches the memory from the beginning of `maps` on that maps will be read from or written to: the images' rows
    /// are too many and too short for the CPU to predict.
    #[inline(always)]
    fn expect<T: Lanes>(&self, maps: &[f32]) {
        let plane = self.places.len();
        if plane > T::COUNT {
            prefetch::<T>(maps.as_ptr(), T::COUNT * plane);
        }
    }

    /// Copies the maps of up to `COUNT` images to `maps`.
    #[inline(always)]
    fn read<T: Lanes>(&self, maps: &mut [f32]) {
        let plane = self.places.len();
        let images = &self.images[..maps.len() / plane];
        for (i, places) in self.places.chunks(T::COUNT).enumerate() {
            // SAFETY: as in `fill`, the other way round.
            unsafe {
                let to = maps.as_mut_ptr().add(i * T::COUNT);
                transpose::<T>(self.start(), places, to, images, places.len());
            }
        }
    }

    /// Sets the pixels `x, x + step, …` of row `y`.
    #[inline(always)]
    fn set<T: Lanes, const R: usize>(&mut self, y: usize, x: usize, step: usize, values: [T; R]) {
        assert!(y < self.height && x + step * (R - 1) < self.width);
        let place = (y + self.border.rows) * self.pitch + (x + self.border.left) * T::COUNT;
        for (r, value) in values.into_iter().enumerate() {
            // SAFETY: the pixel is inside of the map, and each pixel is a vector of `lines`.
            unsafe {
                let to: *mut f32 = self.lines.as_mut_ptr().cast();
                store_up_to(value, to.add(place + step * r * T::COUNT), T::COUNT);
            }
        }
    }
}

/// Forward; the channels are those of `y`.
#[inline(always)]
pub(super) fn forward<T: Lanes, const K: usize, const S: usize>(
    shape: &DepthwiseShape,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
) {
    let mut inputs = Pixels::new::<T>(shape.height, shape.width, Border::even(K / 2));
    let mut outputs = Pixels::new::<T>(shape.out_height(), shape.out_width(), Border::NONE);
    let pitch = inputs.pitch;
    let channels = y.chunks_mut(shape.out_channel()).zip(x.chunks(shape.channel()));
    for ((y, x), w) in channels.zip(w.chunks(K * K)) {
        let taps = Taps::new(K, K, |ky| ky * pitch, |ky, kx| w[ky * K + kx]);
        let maps = y.chunks_mut(T::COUNT * shape.out_plane()).zip(x.chunks(T::COUNT * shape.plane()));
        for (y, x) in maps {
            inputs.fill::<T>(x);
            outputs.expect::<T>(y);
            for row in 0..shape.out_height() {
                forward_row::<T, K, S>(&inputs, &taps, row, &mut outputs);
            }
            outputs.read::<T>(y);
        }
    }
}

/// Row `y` of the outputs.
#[inline(always)]
fn forward_row<T: Lanes, const K: usize, const S: usize>(
    inputs: &Pixels,
    taps: &Taps,
    y: usize,
    outputs: &mut Pixels,
) {
    let width = outputs.width;
    assert!(width == inputs.width.div_ceil(S) && y < inputs.height.div_ceil(S));
    assert_eq!((inputs.border.rows, inputs.border.left), (K / 2, K / 2));
    // The rows of taps that hit the map.
    let hit = (K / 2).saturating_sub(S * y)..K.min(inputs.height + K / 2 - S * y);
    let mut x = 0;
    while x < width {
        let pixels = tile_len::<T, S>(width, width - x);
        x = x.min(width - pixels);
        // SAFETY: `x + pixels <= width` and `y` is a row of the output, so that all taps are in the border.
        unsafe {
            let source = inputs.start().add(S * y * inputs.pitch + S * x * T::COUNT);
            match pixels {
                8 => outputs.set(y, x, 1, tile::<T, K, 8, S>(source, T::COUNT, taps, hit.clone())),
                4 => outputs.set(y, x, 1, tile::<T, K, 4, S>(source, T::COUNT, taps, hit.clone())),
                2 => outputs.set(y, x, 1, tile::<T, K, 2, S>(source, T::COUNT, taps, hit.clone())),
                _ => outputs.set(y, x, 1, tile::<T, K, 1, S>(source, T::COUNT, taps, hit.clone())),
            }
        }
        x += pixels;
    }
}

/// The gradient of the input at stride 2; the channels are those of `dx`.
#[inline(always)]
pub(super) fn backward_input<T: Lanes>(shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let kernel = shape.kernel;
    let mut inputs = Pixels::new::<T>(shape.out_height(), shape.out_width(), Border::even(PHASE_MARGIN));
    let mut outputs = Pixels::new::<T>(shape.height, shape.width, Border::NONE);
    let pitch = inputs.pitch;
    let channels = dx.chunks_mut(shape.channel()).zip(dy.chunks(shape.out_channel()));
    for ((dx, dy), w) in channels.zip(w.chunks(kernel * kernel)) {
        let parities = [0, 1].map(|row| [0, 1].map(|column| parity_taps(pitch, kernel, row, column, w)));
        let maps = dx.chunks_mut(T::COUNT * shape.plane()).zip(dy.chunks(T::COUNT * shape.out_plane()));
        for (dx, dy) in maps {
            inputs.fill::<T>(dy);
            outputs.expect::<T>(dx);
            for row in 0..shape.height {
                for parity in &parities[row % 2] {
                    match parity.columns.count {
                        1 => backward_row::<T, 1>(&inputs, parity, row, &mut outputs),
                        2 => backward_row::<T, 2>(&inputs, parity, row, &mut outputs),
                        3 => backward_row::<T, 3>(&inputs, parity, row, &mut outputs),
                        _ => backward_row::<T, 4>(&inputs, parity, row, &mut outputs),
                    }
                }
            }
            outputs.read::<T>(dx);
        }
    }
}

/// The taps that reach inputs of one parity of rows and one of columns.
struct ParityTaps {
    taps: Taps,
    rows: Phase,
    columns: Phase,
    /// Parity of the columns.
    column: usize,
}

fn parity_taps(pitch: usize, kernel: usize, row: usize, column: usize, w: &[f32]) -> ParityTaps {
    let rows = Phase::new(kernel, row);
    let columns = Phase::new(kernel, column);
    let weight = |i: usize, j: usize| w[rows.tap(i) * kernel + columns.tap(j)];
    let taps = Taps::new(rows.count, columns.count, |i| i * pitch, weight);
    ParityTaps { taps, rows, columns, column }
}

/// The pixels of one parity in row `y` of dx.
#[inline(always)]
fn backward_row<T: Lanes, const K: usize>(
    inputs: &Pixels,
    parity: &ParityTaps,
    y: usize,
    outputs: &mut Pixels,
) {
    let ParityTaps { taps, rows, columns, column } = parity;
    let width = (outputs.width + 1 - column) / 2;
    assert_eq!((inputs.border.rows, inputs.border.left), (PHASE_MARGIN, PHASE_MARGIN));
    assert!(
        inputs.width == outputs.width.div_ceil(2) && y.div_ceil(2) <= inputs.height && columns.count == K
    );
    let top = (PHASE_MARGIN + y / 2).wrapping_add_signed(rows.start);
    let left = PHASE_MARGIN.wrapping_add_signed(columns.start);
    // The rows of taps that hit the map.
    let hit = PHASE_MARGIN.saturating_sub(top)..rows.count.min(PHASE_MARGIN + inputs.height - top);
    let mut x = 0;
    while x < width {
        let pixels = tile_len::<T, 1>(width, width - x);
        x = x.min(width - pixels);
        let to = 2 * x + column;
        // SAFETY: `x + pixels <= width`, and a phase reaches at most `PHASE_MARGIN` pixels over the map.
        unsafe {
            let source = inputs.start().add(top * inputs.pitch + (left + x) * T::COUNT);
            match pixels {
                8 => outputs.set(y, to, 2, tile::<T, K, 8, 1>(source, T::COUNT, taps, hit.clone())),
                4 => outputs.set(y, to, 2, tile::<T, K, 4, 1>(source, T::COUNT, taps, hit.clone())),
                2 => outputs.set(y, to, 2, tile::<T, K, 2, 1>(source, T::COUNT, taps, hit.clone())),
                _ => outputs.set(y, to, 2, tile::<T, K, 1, 1>(source, T::COUNT, taps, hit.clone())),
            }
        }
        x += pixels;
    }
}

/// Adds the gradient of the weights; the channels are those of `dw`.
#[inline(always)]
pub(super) fn backward_weight<T: Lanes, const K: usize, const S: usize>(
    shape: &DepthwiseShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let padding = K / 2;
    let reach = (K - 1) / S;
    let border = Border { rows: padding, left: padding, right: padding + S };
    let mut inputs = Pixels::new::<T>(shape.height, shape.width, border);
    let border = Border { rows: 0, left: reach, right: reach + 1 };
    let mut gradients = Pixels::new::<T>(shape.out_height(), shape.out_width(), border);
    let channels = x.chunks(shape.channel()).zip(dy.chunks(shape.out_channel()));
    for ((x, dy), dw) in channels.zip(dw.chunks_mut(K * K)) {
        let mut sums = [[T::splat(0.0); K]; MAX_KERNEL]; // [ky][kx]
        let maps = x.chunks(T::COUNT * shape.plane()).zip(dy.chunks(T::COUNT * shape.out_plane()));
        for (x, dy) in maps {
            inputs.fill::<T>(x);
            gradients.fill::<T>(dy);
            add_products::<T, K, S>(&inputs, &gradients, &mut sums);
        }
        for (tap, dw) in dw.iter_mut().enumerate() {
            *dw += sums[tap / K][tap % K].sum();
        }
    }
}

/// Adds the products of all pixels to the sums of all taps, in blocks of rows that leave their sums in
/// registers.
#[inline(always)]
fn add_products<T: Lanes, const K: usize, const S: usize>(
    inputs: &Pixels,
    gradients: &Pixels,
    sums: &mut [[T; K]; MAX_KERNEL],
) {
    let block = if T::WIDE || K == 3 {
        3
    } else if K == 5 {
        2
    } else {
        1
    };
    for ky in (0..K).step_by(block) {
        match block.min(K - ky) {
            3 => add_block::<T, K, 3, S>(inputs, gradients, ky, sums),
            2 => add_block::<T, K, 2, S>(inputs, gradients, ky, sums),
            _ => add_block::<T, K, 1, S>(inputs, gradients, ky, sums),
        }
    }
}

/// [`add_products`] for the rows `ky..ky + B` of the kernel.
#[inline(always)]
fn add_block<T: Lanes, const K: usize, const B: usize, const S: usize>(
    inputs: &Pixels,
    gradients: &Pixels,
    ky: usize,
    sums: &mut [[T; K]; MAX_KERNEL],
) {
    assert_eq!((inputs.border.rows, inputs.border.left), (K / 2, K / 2));
    assert_eq!((gradients.border.rows, gradients.border.left), (0, (K - 1) / S));
    assert!(inputs.width.div_ceil(S) == gradients.width && inputs.height.div_ceil(S) == gradients.height);
    // Groups of S input pixels, from the first that holds one of the map to the last.
    let first = K / 2 / S;
    let last = (inputs.width + K / 2 - 1) / S;
    let mut block = [[T::splat(0.0); K]; B];
    for y in 0..gradients.height {
        let top = S * y + ky;
        if top + B <= K / 2 || top >= inputs.height + K / 2 {
            continue; // no row of the block hits the map
        }
        // SAFETY: row `top + B - 1` is in the border of `inputs`, pixels up to `S * last + S - 1` too, and
        // pixels `first - reach` to `last` in that of `gradients`.
        unsafe {
            let input = inputs.start().add(top * inputs.pitch + S * first * T::COUNT);
            let gradient =
                gradients.start().add(y * gradients.pitch + (first + gradients.border.left) * T::COUNT);
            correlate::<T, K, B, S>(
                std::array::from_fn(|b| input.add(b * inputs.pitch)),
                gradient,
                (T::COUNT, T::COUNT),
                last + 1 - first,
                &mut block,
            );
        }
    }
    for (sums, block) in sums[ky..].iter_mut().zip(block) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = sum.add(value);
        }
    }
}
