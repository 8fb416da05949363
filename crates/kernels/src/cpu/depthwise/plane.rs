//! Depthwise convolution plane by plane: lanes are columns, tiles go down the rows.

use super::super::scratch::Line;
use super::super::simd::{Lanes, load_up_to, store_up_to};
use super::DepthwiseShape;
use super::tile::{MAX_KERNEL, PHASE_MARGIN, Phase, Taps, correlate, tile, tile_len};

/// Zero columns left of a row and right of it: as many as the longest vector, more than any tap reaches.
const MARGIN: usize = Line::LEN;

/// A map inside a border of zeros. At stride 2 each row is split into its even and its odd columns, so that
/// the values that one tap reads for neighboring outputs are neighbors.
struct Padded {
    lines: Vec<Line>,
    height: usize,
    width: usize,
    /// Zero rows above the map.
    top: usize,
    /// Values from the even to the odd columns of a row.
    half: usize,
    /// Values from row to row.
    pitch: usize,
}

impl Padded {
    /// A border for maps of `height` x `width`, with `top` and `bottom` zero rows, for reading at stride `S`.
    fn new<const S: usize>(height: usize, width: usize, top: usize, bottom: usize) -> Self {
        let half = MARGIN + width.div_ceil(S).next_multiple_of(Line::LEN);
        let pitch = S * half;
        // The last row borrows no left margin from a next one; and a vector may begin anywhere in a margin.
        let len = (top + height + bottom) * pitch + 2 * MARGIN;
        Self { lines: Line::zeros(len), height, width, top, half, pitch }
    }

    /// The first value of the first border row.
    fn start(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    /// The place in a row of the column `shift` columns right of column `S * lane`.
    fn column<const S: usize>(&self, shift: isize) -> usize {
        let stride = S as isize;
        let part = shift.rem_euclid(stride) as usize;
        part * self.half + MARGIN.wrapping_add_signed(shift.div_euclid(stride))
    }

    /// Copies a map into the border. Values beyond its width stay zero.
    #[inline(always)]
    fn fill<T: Lanes, const S: usize>(&mut self, map: &[f32]) {
        assert_eq!(map.len(), self.height * self.width);
        let start: *mut f32 = self.lines.as_mut_ptr().cast();
        let zero = T::splat(0.0);
        for y in 0..self.height {
            for x in (0..self.width.div_ceil(S)).step_by(T::COUNT) {
                let left = self.width - S * x;
                let low = left.min(T::COUNT);
                let high = left.saturating_sub(T::COUNT).min(T::COUNT);
                // SAFETY: `low + high <= left` values are left in row `y` of the map, the second ones are
                // read only if there are any; both targets lie in row `top + y`, whose parts are rounded up
                // to vectors.
                unsafe {
                    let from = map.as_ptr().add(y * self.width + S * x);
                    let to = start.add((self.top + y) * self.pitch + MARGIN + x);
                    // The next map lies behind this one, and is needed when this one has been used up.
                    (0..S).for_each(|part| T::prefetch(from.wrapping_add(map.len() + part * T::COUNT)));
                    let first = load_up_to(from, low, zero);
                    if S == 1 {
                        first.store(to);
                    } else {
                        let second = if high > 0 { load_up_to(from.add(T::COUNT), high, zero) } else { zero };
                        let (even, odd) = first.deinterleave(second);
                        even.store(to);
                        odd.store(to.add(self.half));
                    }
                }
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
    let mut padded = Padded::new::<S>(shape.height, shape.width, K / 2, K / 2);
    let offsets: [usize; K] = std::array::from_fn(|kx| padded.column::<S>(kx as isize - (K / 2) as isize));
    let channels = y.chunks_mut(shape.out_channel()).zip(x.chunks(shape.channel()));
    for ((y, x), w) in channels.zip(w.chunks(K * K)) {
        let taps = Taps::new(K, K, |kx| offsets[kx], |kx, ky| w[ky * K + kx]);
        for (y, x) in y.chunks_mut(shape.out_plane()).zip(x.chunks(shape.plane())) {
            padded.fill::<T, S>(x);
            sweep::<T, K, S>(&padded, &taps, y, shape.out_width());
        }
    }
}

/// One output map of `width` columns from the padded input.
#[inline(always)]
fn sweep<T: Lanes, const K: usize, const S: usize>(
    padded: &Padded,
    taps: &Taps,
    out: &mut [f32],
    width: usize,
) {
    // The pitches of maps of up to 16 and 32 columns as constants: a known distance between rows is part of
    // an instruction, an unknown one has to be computed for each row of each tile.
    match padded.pitch {
        pitch if T::WIDE && pitch == S * 32 => sweep_at::<T, K, S>(padded, S * 32, taps, out, width),
        pitch if T::WIDE && pitch == S * 48 => sweep_at::<T, K, S>(padded, S * 48, taps, out, width),
        pitch => sweep_at::<T, K, S>(padded, pitch, taps, out, width),
    }
}

/// [`sweep`], given the pitch.
#[inline(always)]
fn sweep_at<T: Lanes, const K: usize, const S: usize>(
    padded: &Padded,
    pitch: usize,
    taps: &Taps,
    out: &mut [f32],
    width: usize,
) {
    let height = out.len() / width;
    assert!(width == padded.width.div_ceil(S) && height == padded.height.div_ceil(S) && padded.top == K / 2);
    assert_eq!(pitch, padded.pitch);
    let mut y = 0;
    while y < height {
        let rows = tile_len::<T, S>(height, height - y);
        y = y.min(height - rows);
        // SAFETY: `y + rows <= height`, and row `S * (y + rows - 1) + K - 1` is in the border at most; a
        // vector at a column below `width` and any tap ends inside of the row's margins.
        unsafe {
            let source = padded.start().add(S * y * pitch);
            let to = out.as_mut_ptr().add(y * width);
            match rows {
                8 => sweep_rows::<T, K, 8, S>(source, pitch, taps, to, width),
                4 => sweep_rows::<T, K, 4, S>(source, pitch, taps, to, width),
                2 => sweep_rows::<T, K, 2, S>(source, pitch, taps, to, width),
                _ => sweep_rows::<T, K, 1, S>(source, pitch, taps, to, width),
            }
        }
        y += rows;
    }
}

/// `R` whole rows of the output, so that memory is written in about the order of its addresses.
///
/// # Safety
/// As for [`tile`] from every vector of the row on; `R * width` values are writable at `to`.
#[inline(always)]
unsafe fn sweep_rows<T: Lanes, const K: usize, const R: usize, const S: usize>(
    source: *const f32,
    pitch: usize,
    taps: &Taps,
    to: *mut f32,
    width: usize,
) {
    let mut x = 0;
    while x < width {
        // SAFETY: the caller's promise; `width - x` columns are left.
        unsafe {
            let rows = tile::<T, K, R, S>(source.add(x), pitch, taps, 0..K);
            for (r, row) in rows.into_iter().enumerate() {
                store_up_to(row, to.add(r * width + x), T::COUNT.min(width - x));
            }
        }
        x += T::COUNT;
    }
}

/// The gradient of the input at stride 2: one convolution at stride 1 for each parity of rows and columns.
/// The channels are those of `dx`.
#[inline(always)]
pub(super) fn backward_input<T: Lanes>(shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let mut padded = Padded::new::<1>(shape.out_height(), shape.out_width(), PHASE_MARGIN, PHASE_MARGIN);
    let channels = dx.chunks_mut(shape.channel()).zip(dy.chunks(shape.out_channel()));
    for ((dx, dy), w) in channels.zip(w.chunks(shape.taps())) {
        let taps = [0, 1].map(|row| [0, 1].map(|column| parity_taps(&padded, shape.kernel, row, column, w)));
        for (dx, dy) in dx.chunks_mut(shape.plane()).zip(dy.chunks(shape.out_plane())) {
            padded.fill::<T, 1>(dy);
            for (parity, taps) in taps.iter().enumerate() {
                match Phase::new(shape.kernel, parity).count {
                    1 => sweep_parity::<T, 1>(&padded, parity, taps, dx, shape),
                    2 => sweep_parity::<T, 2>(&padded, parity, taps, dx, shape),
                    3 => sweep_parity::<T, 3>(&padded, parity, taps, dx, shape),
                    _ => sweep_parity::<T, 4>(&padded, parity, taps, dx, shape),
                }
            }
        }
    }
}

/// The taps that reach inputs of one parity of rows and one of columns.
fn parity_taps(padded: &Padded, kernel: usize, row: usize, column: usize, w: &[f32]) -> Taps {
    let rows = Phase::new(kernel, row);
    let columns = Phase::new(kernel, column);
    Taps::new(
        columns.count,
        rows.count,
        |i| padded.column::<1>(columns.start + i as isize),
        |i, j| w[rows.tap(j) * kernel + columns.tap(i)],
    )
}

/// The rows of one parity of one map of `dx`, even and odd columns together.
#[inline(always)]
fn sweep_parity<T: Lanes, const K: usize>(
    padded: &Padded,
    parity: usize,
    taps: &[Taps; 2],
    dx: &mut [f32],
    shape: &DepthwiseShape,
) {
    let height = (shape.height + 1 - parity) / 2;
    let width = shape.width;
    assert!(dx.len() == shape.plane() && padded.top == PHASE_MARGIN);
    assert!(padded.width == width.div_ceil(2) && padded.height == shape.height.div_ceil(2));
    let top = PHASE_MARGIN.wrapping_add_signed(Phase::new(shape.kernel, parity).start);
    let mut y = 0;
    while y < height {
        let rows = tile_len::<T, 1>(height, height - y);
        y = y.min(height - rows);
        // SAFETY: `y + rows <= height`, the number of rows of this parity; a phase reaches at most
        // `PHASE_MARGIN` rows over the map, and a vector with any tap ends in the row's margins.
        unsafe {
            let source = padded.start().add((top + y) * padded.pitch);
            let to = dx.as_mut_ptr().add((2 * y + parity) * width);
            match rows {
                8 => sweep_columns::<T, K, 8>(source, padded.pitch, taps, to, width),
                4 => sweep_columns::<T, K, 4>(source, padded.pitch, taps, to, width),
                2 => sweep_columns::<T, K, 2>(source, padded.pitch, taps, to, width),
                _ => sweep_columns::<T, K, 1>(source, padded.pitch, taps, to, width),
            }
        }
        y += rows;
    }
}

/// Every other one of `2 * R - 1` rows of `width` columns, from its even and its odd columns.
///
/// # Safety
/// As for [`tile`] from every vector of the row on; the rows are writable at `to`.
#[inline(always)]
unsafe fn sweep_columns<T: Lanes, const K: usize, const R: usize>(
    source: *const f32,
    pitch: usize,
    taps: &[Taps; 2],
    to: *mut f32,
    width: usize,
) {
    let mut x = 0;
    while 2 * x < width {
        let left = width - 2 * x;
        // SAFETY: the caller's promise; `left` columns are left.
        unsafe {
            let even = tile::<T, K, R, 1>(source.add(x), pitch, &taps[0], 0..taps[0].count);
            let odd = tile::<T, K, R, 1>(source.add(x), pitch, &taps[1], 0..taps[1].count);
            for r in 0..R {
                let (low, high) = even[r].interleave(odd[r]);
                let to = to.add(2 * (r * width + x));
                store_up_to(low, to, left.min(T::COUNT));
                if left > T::COUNT {
                    store_up_to(high, to.add(T::COUNT), (left - T::COUNT).min(T::COUNT));
                }
            }
        }
        x += T::COUNT;
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
    let reach = (K - 1) / S;
    let mut inputs = Padded::new::<S>(shape.height, shape.width, K / 2, S);
    let mut gradients = Padded::new::<1>(shape.out_height(), shape.out_width(), reach, reach + 1);
    let channels = x.chunks(shape.channel()).zip(dy.chunks(shape.out_channel()));
    for ((x, dy), dw) in channels.zip(dw.chunks_mut(K * K)) {
        let mut sums = [[T::splat(0.0); K]; MAX_KERNEL]; // [kx][ky]
        for (x, dy) in x.chunks(shape.plane()).zip(dy.chunks(shape.out_plane())) {
            inputs.fill::<T, S>(x);
            gradients.fill::<T, 1>(dy);
            add_products::<T, K, S>(&inputs, &gradients, &mut sums);
        }
        for (tap, dw) in dw.iter_mut().enumerate() {
            *dw += sums[tap % K][tap / K].sum();
        }
    }
}

/// Adds one map's products to the sums of all taps, in blocks of columns that leave their sums in registers.
#[inline(always)]
fn add_products<T: Lanes, const K: usize, const S: usize>(
    inputs: &Padded,
    gradients: &Padded,
    sums: &mut [[T; K]; MAX_KERNEL],
) {
    let block = if T::WIDE || K == 3 {
        3
    } else if K == 5 {
        2
    } else {
        1
    };
    for kx in (0..K).step_by(block) {
        match block.min(K - kx) {
            3 => add_block::<T, K, 3, S>(inputs, gradients, kx, sums),
            2 => add_block::<T, K, 2, S>(inputs, gradients, kx, sums),
            _ => add_block::<T, K, 1, S>(inputs, gradients, kx, sums),
        }
    }
}

/// [`add_products`] for the columns `kx..kx + B` of the kernel.
#[inline(always)]
fn add_block<T: Lanes, const K: usize, const B: usize, const S: usize>(
    inputs: &Padded,
    gradients: &Padded,
    kx: usize,
    sums: &mut [[T; K]; MAX_KERNEL],
) {
    assert!(
        inputs.top == K / 2 && gradients.top == (K - 1) / S && inputs.height.div_ceil(S) == gradients.height
    );
    let offsets: [usize; B] =
        std::array::from_fn(|b| inputs.column::<S>((kx + b) as isize - (K / 2) as isize));
    // Groups of S input rows, from the first that holds one of the map to the last.
    let first = K / 2 / S;
    let last = (inputs.height + K / 2 - 1) / S;
    let mut block = [[T::splat(0.0); K]; B];
    for x in (0..gradients.width).step_by(T::COUNT) {
        // SAFETY: rows up to `S * last + S - 1` are in the border of `inputs`, rows `first - reach` to `last`
        // in that of `gradients`; a vector at column `x` and any tap ends in the row's margins.
        unsafe {
            let input = inputs.start().add(S * first * inputs.pitch + x);
            let gradient = gradients.start().add((first + gradients.top) * gradients.pitch + MARGIN + x);
            correlate::<T, K, B, S>(
                offsets.map(|offset| input.add(offset)),
                gradient,
                (inputs.pitch, gradients.pitch),
                last + 1 - first,
                &mut block,
            );
        }
    }
    for (sums, block) in sums[kx..].iter_mut().zip(block) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = sum.add(value);
        }
    }
}
