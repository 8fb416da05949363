//! Pooling over windows: a ResNet's stem and its shortcuts, and the edges of cells.
//!
//! Each value is read once, so speed comes from spreading planes over threads.

use super::{Isa, for_each_group};

/// A pooling of planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Height of the input map.
    pub height: usize,
    /// Width of the input map.
    pub width: usize,
    /// Side of the square window.
    pub side: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Rows and columns outside of the map on each side; they hold nothing.
    pub padding: usize,
}

impl Pool {
    /// Height of the output map: every value of the input lies in a window.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Width of the output map.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    fn planes(&self) -> [usize; 2] {
        [self.height * self.width, self.out_height() * self.out_width()]
    }

    /// Where the window of an output begins and ends along an axis of `len` values.
    #[inline(always)]
    fn span(&self, out: usize, len: usize) -> (usize, usize) {
        (
            (out * self.stride).saturating_sub(self.padding),
            (out * self.stride + self.side - self.padding).min(len),
        )
    }

    fn check(&self, input: usize, output: usize) {
        assert!(self.padding < self.side && self.stride > 0 && self.stride <= self.side);
        let [plane, out_plane] = self.planes();
        assert_eq!(input * out_plane, output * plane);
    }

    /// Calls `visit(output, first row, row after the last, first column, column after the last)` for each window.
    #[inline(always)]
    fn for_each_window(&self, mut visit: impl FnMut(usize, [usize; 4])) {
        let height = self.out_height();
        let width = self.out_width();
        for oy in 0..height {
            let (top, bottom) = self.span(oy, self.height);
            for ox in 0..width {
                let (left, right) = self.span(ox, self.width);
                visit(oy * width + ox, [top, bottom, left, right]);
            }
        }
    }

    /// Calls `body(input planes' first, output planes)` for groups of output planes.
    fn for_each_plane(&self, out: &mut [f32], plane: usize, body: impl Fn(usize, &mut [f32]) + Send + Sync) {
        let [input, output] = self.planes();
        for_each_group(out, plane, 4 * input + 8 * output, |first, out| {
            for (i, out) in out.chunks_mut(plane).enumerate() {
                body(first + i, out);
            }
        });
    }

    /// The place of the first greatest value of a window; a NaN is greater than any number.
    #[inline(always)]
    fn greatest(&self, x: &[f32], [top, bottom, left, right]: [usize; 4]) -> usize {
        let mut best = top * self.width + left;
        for y in top..bottom {
            for at in y * self.width + left..y * self.width + right {
                if x[at] > x[best] || x[at].is_nan() {
                    best = at;
                }
            }
        }
        best
    }
}

/// The greatest value of each window.
///
/// # Shapes
/// `x` `[planes, H, W]` to `y` `[planes, Ho, Wo]`.
pub fn max(_isa: Isa, pool: &Pool, x: &[f32], y: &mut [f32]) {
    pool.check(x.len(), y.len());
    let [plane, out_plane] = pool.planes();
    pool.for_each_plane(y, out_plane, |index, y| {
        let x = &x[index * plane..][..plane];
        pool.for_each_window(|out, window| y[out] = x[pool.greatest(x, window)]);
    });
}

/// The gradient of [`max`]: each dy goes to the first greatest value of its window.
///
/// # Shapes
/// `x`, `dx` `[planes, H, W]`, `dy` `[planes, Ho, Wo]`.
pub fn max_backward(_isa: Isa, pool: &Pool, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    pool.check(x.len(), dy.len());
    let [plane, out_plane] = pool.planes();
    pool.for_each_plane(dx, plane, |index, dx| {
        let x = &x[index * plane..][..plane];
        let dy = &dy[index * out_plane..][..out_plane];
        dx.fill(0.0);
        pool.for_each_window(|out, window| dx[pool.greatest(x, window)] += dy[out]);
    });
}

/// The mean of each window's values inside the map.
///
/// # Shapes
/// `x` `[planes, H, W]` to `y` `[planes, Ho, Wo]`.
pub fn average(_isa: Isa, pool: &Pool, x: &[f32], y: &mut [f32]) {
    pool.check(x.len(), y.len());
    let [plane, out_plane] = pool.planes();
    pool.for_each_plane(y, out_plane, |index, y| {
        let x = &x[index * plane..][..plane];
        pool.for_each_window(|out, [top, bottom, left, right]| {
            let rows = (top..bottom).map(|y| &x[y * pool.width + left..y * pool.width + right]);
            let sum = rows.map(|row| row.iter().sum::<f32>()).sum::<f32>();
            y[out] = sum / ((bottom - top) * (right - left)) as f32;
        });
    });
}

/// The gradient of [`average`].
///
/// # Shapes
/// `dy` `[planes, Ho, Wo]` to `dx` `[planes, H, W]`.
pub fn average_backward(_isa: Isa, pool: &Pool, dy: &[f32], dx: &mut [f32]) {
    pool.check(dx.len(), dy.len());
    let [plane, out_plane] = pool.planes();
    pool.for_each_plane(dx, plane, |index, dx| {
        let dy = &dy[index * out_plane..][..out_plane];
        dx.fill(0.0);
        pool.for_each_window(|out, [top, bottom, left, right]| {
            let share = dy[out] / ((bottom - top) * (right - left)) as f32;
            for y in top..bottom {
                dx[y * pool.width + left..y * pool.width + right].iter_mut().for_each(|dx| *dx += share);
            }
        });
    });
}

/// Every second place of planes in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Height of the input map.
    pub height: usize,
    /// Width of the input map.
    pub width: usize,
    /// The first place in both directions: 0 or 1.
    pub first: usize,
}

impl Sampling {
    /// Height of the output map; a place beyond the input map is 0.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(2)
    }

    /// Width of the output map.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(2)
    }

    fn planes(&self) -> [usize; 2] {
        [self.height * self.width, self.out_height() * self.out_width()]
    }
}

/// The sampled places.
///
/// # Shapes
/// `x` `[planes, H, W]` to `y` `[planes, H / 2, W / 2]`, rounded up.
pub fn sample(_isa: Isa, sampling: &Sampling, x: &[f32], y: &mut [f32]) {
    let [plane, out_plane] = sampling.planes();
    assert_eq!(x.len() * out_plane, y.len() * plane);
    let &Sampling { height, width, first } = sampling;
    for_each_group(y, out_plane, plane + out_plane, |group, y| {
        for (index, y) in y.chunks_mut(out_plane).enumerate() {
            let x = &x[(group + index) * plane..][..plane];
            for (row, y) in y.chunks_mut(sampling.out_width()).enumerate() {
                let from = 2 * row + first;
                let x = if from < height { &x[from * width..][..width] } else { &[] };
                let places = x.get(first..).unwrap_or_default().iter().step_by(2);
                let beyond = std::iter::repeat(&0.0);
                y.iter_mut().zip(places.chain(beyond)).for_each(|(y, x)| *y = *x);
            }
        }
    });
}

/// The gradient of [`sample`]'s input: 0 where nothing was sampled.
///
/// # Shapes
/// `dy` `[planes, H / 2, W / 2]`, rounded up, to `dx` `[planes, H, W]`.
pub fn sample_backward(_isa: Isa, sampling: &Sampling, dy: &[f32], dx: &mut [f32]) {
    let [plane, out_plane] = sampling.planes();
    assert_eq!(dx.len() * out_plane, dy.len() * plane);
    let &Sampling { width, first, .. } = sampling;
    for_each_group(dx, plane, plane + out_plane, |group, dx| {
        for (index, dx) in dx.chunks_mut(plane).enumerate() {
            let dy = &dy[(group + index) * out_plane..][..out_plane];
            dx.fill(0.0);
            for (row, dx) in dx.chunks_mut(width).skip(first).step_by(2).enumerate() {
                let dy = &dy[row * sampling.out_width()..];
                dx.iter_mut().skip(first).step_by(2).zip(dy).for_each(|(dx, dy)| *dx = *dy);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::pool as reference;

    /// (planes, height, width, side, stride, padding)
    const SHAPES: [[usize; 6]; 10] = [
        [1, 1, 1, 3, 2, 1],
        [3, 7, 5, 3, 2, 1],
        [2, 8, 9, 3, 2, 1],
        [96, 112, 112, 3, 2, 1],
        [5, 7, 7, 2, 2, 0],
        [2, 1, 6, 2, 2, 0],
        [64, 56, 56, 2, 2, 0],
        [3, 6, 7, 3, 1, 1],
        [16, 32, 32, 3, 1, 1],
        [2, 5, 9, 5, 2, 2],
    ];

    fn check(
        kernel: impl Fn(Isa, &Pool, &[f32], &[f32], &mut [f32]) + Sync,
        reference: impl Fn(&Pool, &[f32], &[f32], &mut [f32]),
        backward: bool,
    ) {
        for [planes, height, width, side, stride, padding] in SHAPES {
            let pool = Pool { height, width, side, stride, padding };
            let [plane, out_plane] = pool.planes();
            // few different values, so that windows have several greatest
            let x: Vec<f32> = values(planes * plane, 1).iter().map(|x| (4.0 * x).round()).collect();
            let dy = values(planes * out_plane, 2);
            let len = planes * if backward { plane } else { out_plane };
            let mut expect = garbage(len);
            reference(&pool, &x, &dy, &mut expect);
            on_every_isa(
                |isa| {
                    let mut out = garbage(len);
                    kernel(isa, &pool, &x, &dy, &mut out);
                    out
                },
                |isa, out| assert_close(out, &expect, &(isa, pool)),
            );
        }
    }

    #[test]
    fn pools_agree_with_the_reference() {
        check(|isa, pool, x, _, y| max(isa, pool, x, y), |pool, x, _, y| reference::max(pool, x, y), false);
        check(
            |isa, pool, x, _, y| average(isa, pool, x, y),
            |pool, x, _, y| reference::average(pool, x, y),
            false,
        );
    }

    #[test]
    fn gradients_agree_with_the_reference() {
        check(max_backward, reference::max_backward, true);
        let average =
            |pool: &Pool, _: &[f32], dy: &[f32], dx: &mut [f32]| reference::average_backward(pool, dy, dx);
        check(|isa, pool, _, dy, dx| average_backward(isa, pool, dy, dx), average, true);
    }

    #[test]
    fn sampling_and_its_gradient_agree_with_the_reference() {
        for [planes, height, width] in [[1, 1, 1], [3, 7, 5], [2, 8, 6], [5, 1, 4], [64, 28, 28], [2, 9, 33]]
        {
            for first in [0, 1] {
                let sampling = Sampling { height, width, first };
                let [plane, out_plane] = sampling.planes();
                let x = values(planes * plane, 1);
                let dy = values(planes * out_plane, 2);
                let mut y = garbage(dy.len());
                let mut dx = garbage(x.len());
                reference::sample(&sampling, &x, &mut y);
                reference::sample_backward(&sampling, &dy, &mut dx);
                on_every_isa(
                    |isa| {
                        let mut y = garbage(dy.len());
                        let mut dx = garbage(x.len());
                        sample(isa, &sampling, &x, &mut y);
                        sample_backward(isa, &sampling, &dy, &mut dx);
                        [y, dx].concat()
                    },
                    |isa, got| assert_close(got, &[&y[..], &dx].concat(), &(isa, sampling)),
                );
            }
        }
    }
}
