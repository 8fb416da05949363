//! Patches for the dense k x k convolutions (stems, bottlenecks): im2col and its adjoint, for some images of a batch.
//!
//! A dense convolution is `W [O, C*k*k] x patches [C*k*k, N*Ho*Wo]`; [`super::product`] multiplies.

use super::simd::{Lanes, vectorised, zip_in_place};
use super::{Isa, for_each_group};
use std::ops::Range;

/// The maps a convolution reads, and how; padding is `kernel / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchShape {
    /// Channels of the input.
    pub channels: usize,
    /// Images.
    pub images: usize,
    /// Height of the input map.
    pub height: usize,
    /// Width of the input map.
    pub width: usize,
    /// Side of the square kernel, odd.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
}

impl PatchShape {
    /// Height of the output map.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Width of the output map.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Values of one row of the patches for each image.
    pub fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Rows of the patches.
    pub fn taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    /// Groups of images whose patches are made together, of at most `most` values unless one image has more: a function of
    /// sizes alone.
    pub fn groups(&self, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let images = self.images;
        let group = (most / (self.taps() * self.out_plane()).max(1)).clamp(1, images.max(1));
        (0..images).step_by(group).map(move |first| first..(first + group).min(images))
    }

    /// Values of one channel of one image.
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Values of one channel of the input.
    fn channel(&self) -> usize {
        self.images * self.plane()
    }

    fn check(&self, images: &Range<usize>, x: usize, patches: usize) {
        assert!(self.stride > 0 && self.kernel % 2 == 1 && images.end <= self.images);
        assert_eq!(x, self.channels * self.channel());
        assert_eq!(patches, self.taps() * images.len() * self.out_plane());
    }
}

/// Along one axis: the outputs for which tap `tap` hits the map, and the place where the first one hits.
fn hits(tap: usize, kernel: usize, stride: usize, len: usize) -> (Range<usize>, usize) {
    let padding = kernel / 2;
    let first = padding.saturating_sub(tap).div_ceil(stride);
    let end = (len + padding).saturating_sub(tap).div_ceil(stride).min(len.div_ceil(stride));
    (first..end.max(first), (first * stride + tap).saturating_sub(padding))
}

/// The values under each tap of the kernel, side by side (im2col), of `n` images; zero outside of the map.
///
/// # Shapes
/// `x` `[C, N, H, W]` to `out` `[C * k * k, n * Ho * Wo]`, rows in the order (c, ky, kx).
pub fn patches(isa: Isa, shape: &PatchShape, images: Range<usize>, x: &[f32], out: &mut [f32]) {
    shape.check(&images, x.len(), out.len());
    let row = images.len() * shape.out_plane();
    let taps = shape.kernel * shape.kernel;
    let within = images.start * shape.plane()..images.end * shape.plane();
    for_each_group(out, row, 2 * row, |first, out| {
        for (i, out) in out.chunks_mut(row).enumerate() {
            let channel = (first + i) / taps;
            let tap = (first + i) % taps;
            let x = &x[channel * shape.channel()..][within.clone()];
            gather_tap(isa, shape, tap, x, out);
        }
    });
}

/// The adjoint of [`patches`]: adds each value of the patches up where it came from. Writes the `n` images of `dx` and
/// no other.
///
/// # Shapes
/// `patches` `[C * k * k, n * Ho * Wo]` to `dx` `[C, N, H, W]`.
pub fn fold_patches(isa: Isa, shape: &PatchShape, images: Range<usize>, patches: &[f32], dx: &mut [f32]) {
    shape.check(&images, dx.len(), patches.len());
    let row = images.len() * shape.out_plane();
    let taps = shape.kernel * shape.kernel;
    let within = images.start * shape.plane()..images.end * shape.plane();
    let work = images.len() * shape.plane() + 2 * taps * row;
    for_each_group(dx, shape.channel(), work, |first, dx| {
        for (i, dx) in dx.chunks_mut(shape.channel()).enumerate() {
            let dx = &mut dx[within.clone()];
            dx.fill(0.0);
            for (tap, patches) in patches[(first + i) * taps * row..].chunks(row).take(taps).enumerate() {
                scatter_tap(isa, shape, tap, patches, dx);
            }
        }
    });
}

vectorised!(fn scatter_tap(shape: &PatchShape, tap: usize, patches: &[f32], dx: &mut [f32]) = scatter_tap_on);

/// Adds one row of the patches to one channel.
#[inline(always)]
fn scatter_tap_on<T: Lanes>(shape: &PatchShape, tap: usize, patches: &[f32], dx: &mut [f32]) {
    let ky = tap / shape.kernel;
    let kx = tap % shape.kernel;
    let (rows, top) = hits(ky, shape.kernel, shape.stride, shape.height);
    let (columns, left) = hits(kx, shape.kernel, shape.stride, shape.width);
    let width = shape.out_width();
    if columns.is_empty() {
        return;
    }
    for (dx, patches) in dx.chunks_mut(shape.plane()).zip(patches.chunks(shape.out_plane())) {
        for y in rows.clone() {
            let from = &patches[y * width..][columns.clone()];
            let to = &mut dx[(top + (y - rows.start) * shape.stride) * shape.width..][left..shape.width];
            if shape.stride == 1 {
                zip_in_place::<T>(&mut to[..from.len()], from, T::add);
            } else {
                to.iter_mut().step_by(shape.stride).zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }
}

vectorised!(fn gather_tap(shape: &PatchShape, tap: usize, x: &[f32], out: &mut [f32]) = gather_tap_on);

/// One row of the patches, from one channel.
#[inline(always)]
fn gather_tap_on<T: Lanes>(shape: &PatchShape, tap: usize, x: &[f32], out: &mut [f32]) {
    let ky = tap / shape.kernel;
    let kx = tap % shape.kernel;
    let (rows, top) = hits(ky, shape.kernel, shape.stride, shape.height);
    let (columns, left) = hits(kx, shape.kernel, shape.stride, shape.width);
    let height = shape.out_height();
    let width = shape.out_width();
    let images = x.chunks(shape.height * shape.width);
    for (x, out) in images.zip(out.chunks_mut(height * width)) {
        for (y, out) in out.chunks_mut(width).enumerate() {
            if !rows.contains(&y) || columns.is_empty() {
                out.fill(0.0);
                continue;
            }
            out[..columns.start].fill(0.0);
            out[columns.end..].fill(0.0);
            let from = (top + (y - rows.start) * shape.stride) * shape.width;
            gather_row::<T>(&x[from..][left..shape.width], shape.stride, &mut out[columns.clone()]);
        }
    }
}

/// `out[i] = x[i * stride]`.
#[inline(always)]
fn gather_row<T: Lanes>(x: &[f32], stride: usize, out: &mut [f32]) {
    if stride == 1 {
        return out.copy_from_slice(&x[..out.len()]);
    }
    let mut done = 0;
    if stride == 2 {
        while done + T::COUNT <= out.len() && 2 * (done + T::COUNT) <= x.len() {
            // SAFETY: two vectors are left in `x` from `2 * done` on, and one in `out` from `done` on.
            unsafe {
                let from = x.as_ptr().add(2 * done);
                let (even, _) = T::load(from).deinterleave(T::load(from.add(T::COUNT)));
                even.store(out.as_mut_ptr().add(done));
            }
            done += T::COUNT;
        }
    }
    for (i, out) in out.iter_mut().enumerate().skip(done) {
        *out = x[i * stride];
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::dense as reference;

    /// (channels, images, height, width, kernel, stride)
    const SHAPES: [[usize; 6]; 9] = [
        [1, 1, 1, 1, 3, 1],
        [3, 2, 2, 3, 3, 2],
        [3, 1, 7, 5, 5, 1],
        [2, 2, 8, 9, 7, 2],
        [3, 2, 33, 35, 3, 2],
        [3, 2, 64, 64, 3, 2],
        [8, 5, 14, 14, 3, 1],
        [2, 1, 1, 2, 7, 1],
        [3, 1, 11, 10, 1, 2],
    ];

    #[test]
    fn patches_agree_with_the_reference() {
        for case in SHAPES {
            let [channels, images, height, width, kernel, stride] = case;
            let shape = PatchShape { channels, images, height, width, kernel, stride };
            let x = values(channels * shape.channel(), 1);
            for images in [0..images, images - 1..images] {
                let len = shape.taps() * images.len() * shape.out_plane();
                let mut expect = garbage(len);
                reference::patches(&shape, images.clone(), &x, &mut expect);
                on_every_isa(
                    |isa| {
                        let mut out = garbage(len);
                        patches(isa, &shape, images.clone(), &x, &mut out);
                        out
                    },
                    |isa, out| assert_close(out, &expect, &(isa, shape)),
                );
            }
        }
    }

    #[test]
    fn folded_patches_agree_with_the_reference() {
        for case in SHAPES {
            let [channels, images, height, width, kernel, stride] = case;
            let shape = PatchShape { channels, images, height, width, kernel, stride };
            for images in [0..images, images - 1..images] {
                let columns = values(shape.taps() * images.len() * shape.out_plane(), 2);
                // other images' maps stay unchanged
                let before = values(channels * shape.channel(), 3);
                let mut expect = before.clone();
                reference::fold_patches(&shape, images.clone(), &columns, &mut expect);
                on_every_isa(
                    |isa| {
                        let mut dx = before.clone();
                        fold_patches(isa, &shape, images.clone(), &columns, &mut dx);
                        dx
                    },
                    |isa, dx| assert_close(dx, &expect, &(isa, shape)),
                );
            }
        }
    }
}
