//! Depthwise convolution: one k x k kernel per channel, forward and backward.
//!
//! Two schemes. `plane` copies a map with a zero border around it and computes tiles of several rows, a
//! vector wide, so that each row is loaded once for all taps. Small maps leave most lanes of such a vector
//! empty; with enough images `batch` puts an image into each lane instead. `tile` holds the inner loops of
//! both.

mod batch;
mod plane;
mod tile;

use super::simd::vectorised;
use super::{Isa, for_each_group};
use batch::{
    backward_input as backward_input_by_batch, backward_weight as backward_weight_by_batch,
    forward as forward_by_batch,
};
use plane::{
    backward_input as backward_input_by_plane, backward_weight as backward_weight_by_plane,
    forward as forward_by_plane,
};

/// The maps of a depthwise convolution; padding is `kernel / 2`, so a map of `height` rows becomes one of
/// `height / stride` rows, rounded up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseShape {
    /// Channels of input and output.
    pub channels: usize,
    /// Images.
    pub images: usize,
    /// Height of the input map.
    pub height: usize,
    /// Width of the input map.
    pub width: usize,
    /// Side of the kernel: 3, 5 or 7.
    pub kernel: usize,
    /// Step in both directions: 1 or 2.
    pub stride: usize,
}

impl DepthwiseShape {
    /// Height of the output map.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Width of the output map.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Values of one map of the input.
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Values of one map of the output.
    pub(super) fn out_plane(&self) -> usize {
        self.out_height() * self.out_width()
    }

    /// Values of one channel of the input.
    pub(crate) fn channel(&self) -> usize {
        self.images * self.plane()
    }

    /// Values of one channel of the output.
    pub(crate) fn out_channel(&self) -> usize {
        self.images * self.out_plane()
    }

    /// Weights of one channel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Work of one channel: its products, six of which take as long as a value from memory, and its values.
    pub(super) fn work(&self) -> usize {
        self.out_channel() * self.taps() / 6 + self.channel() + self.out_channel()
    }

    fn check(&self, x: &[f32], w: &[f32], y: &[f32]) {
        assert!(matches!(self.kernel, 3 | 5 | 7) && matches!(self.stride, 1 | 2), "{self:?}");
        assert_eq!(x.len(), self.channels * self.channel());
        assert_eq!(w.len(), self.channels * self.taps());
        assert_eq!(y.len(), self.channels * self.out_channel());
    }
}

/// y = x convolved with w, channel by channel.
///
/// # Shapes
/// `x` `[C, N, H, W]`, `w` `[C, k * k]` to `y` `[C, N, Ho, Wo]`.
pub fn forward(isa: Isa, shape: &DepthwiseShape, x: &[f32], w: &[f32], y: &mut [f32]) {
    shape.check(x, w, y);
    for_each_group(y, shape.out_channel(), shape.work(), |first, y| {
        forward_channels(isa, shape, &x[first * shape.channel()..], &w[first * shape.taps()..], y);
    });
}

/// [`forward`] for the channels of `y`; `x` and `w` begin with the same channel.
pub(super) fn forward_channels(isa: Isa, shape: &DepthwiseShape, x: &[f32], w: &[f32], y: &mut [f32]) {
    let kernel = match (shape.kernel, shape.stride, batch::suits(isa, shape)) {
        (3, 1, false) => plane_forward::<3, 1>,
        (5, 1, false) => plane_forward::<5, 1>,
        (7, 1, false) => plane_forward::<7, 1>,
        (3, _, false) => plane_forward::<3, 2>,
        (5, _, false) => plane_forward::<5, 2>,
        (_, _, false) => plane_forward::<7, 2>,
        (3, 1, true) => batch_forward::<3, 1>,
        (5, 1, true) => batch_forward::<5, 1>,
        (7, 1, true) => batch_forward::<7, 1>,
        (3, _, true) => batch_forward::<3, 2>,
        (5, _, true) => batch_forward::<5, 2>,
        (_, _, true) => batch_forward::<7, 2>,
    };
    kernel(isa, shape, x, w, y);
}

vectorised!(
    fn plane_forward<const K, const S>(shape: &DepthwiseShape, x: &[f32], w: &[f32], y: &mut [f32]) =
        forward_by_plane
);
vectorised!(
    fn batch_forward<const K, const S>(shape: &DepthwiseShape, x: &[f32], w: &[f32], y: &mut [f32]) =
        forward_by_batch
);

/// The gradient of the input.
///
/// # Shapes
/// `dy` `[C, N, Ho, Wo]`, `w` `[C, k * k]` to `dx` `[C, N, H, W]`.
pub fn backward_input(isa: Isa, shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    shape.check(dx, w, dy);
    for_each_group(dx, shape.channel(), shape.work(), |first, dx| {
        let dy = &dy[first * shape.out_channel()..];
        let w = &w[first * shape.taps()..];
        backward_input_channels(isa, shape, dy, w, dx);
    });
}

/// [`backward_input`] for the channels of `dx`; `dy` and `w` begin with the same channel.
pub(super) fn backward_input_channels(
    isa: Isa,
    shape: &DepthwiseShape,
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
) {
    if shape.stride == 1 {
        // The sum over the outputs that a value went to: a convolution with the kernel turned by 180 degrees.
        let mut turned = w[..dx.len() / shape.channel() * shape.taps()].to_vec();
        turned.chunks_mut(shape.taps()).for_each(<[f32]>::reverse);
        forward_channels(isa, shape, dy, &turned, dx);
    } else if batch::suits(isa, shape) {
        batch_backward_input(isa, shape, dy, w, dx);
    } else {
        plane_backward_input(isa, shape, dy, w, dx);
    }
}

vectorised!(
    fn plane_backward_input(shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) =
        backward_input_by_plane
);
vectorised!(
    fn batch_backward_input(shape: &DepthwiseShape, dy: &[f32], w: &[f32], dx: &mut [f32]) =
        backward_input_by_batch
);

/// Adds the gradient of the weights to `dw`.
///
/// # Shapes
/// `x` `[C, N, H, W]`, `dy` `[C, N, Ho, Wo]`, `dw` `[C, k * k]`.
pub fn backward_weight(isa: Isa, shape: &DepthwiseShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    shape.check(x, dw, dy);
    for_each_group(dw, shape.taps(), shape.work(), |first, dw| {
        let x = &x[first * shape.channel()..];
        let dy = &dy[first * shape.out_channel()..];
        backward_weight_channels(isa, shape, x, dy, dw);
    });
}

/// [`backward_weight`] for the channels of `dw`; `x` and `dy` begin with the same channel.
pub(super) fn backward_weight_channels(
    isa: Isa,
    shape: &DepthwiseShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let kernel = match (shape.kernel, shape.stride, batch::suits(isa, shape)) {
        (3, 1, false) => plane_backward_weight::<3, 1>,
        (5, 1, false) => plane_backward_weight::<5, 1>,
        (7, 1, false) => plane_backward_weight::<7, 1>,
        (3, _, false) => plane_backward_weight::<3, 2>,
        (5, _, false) => plane_backward_weight::<5, 2>,
        (_, _, false) => plane_backward_weight::<7, 2>,
        (3, 1, true) => batch_backward_weight::<3, 1>,
        (5, 1, true) => batch_backward_weight::<5, 1>,
        (7, 1, true) => batch_backward_weight::<7, 1>,
        (3, _, true) => batch_backward_weight::<3, 2>,
        (5, _, true) => batch_backward_weight::<5, 2>,
        (_, _, true) => batch_backward_weight::<7, 2>,
    };
    kernel(isa, shape, x, dy, dw);
}

vectorised!(
    fn plane_backward_weight<const K, const S>(
        shape: &DepthwiseShape, x: &[f32], dy: &[f32], dw: &mut [f32],
    ) = backward_weight_by_plane
);
vectorised!(
    fn batch_backward_weight<const K, const S>(
        shape: &DepthwiseShape, x: &[f32], dy: &[f32], dw: &mut [f32],
    ) = backward_weight_by_batch
);

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, garbage, on_every_isa, values};
    use super::*;
    use crate::reference::depthwise as reference;

    /// Every (height, width) below with each of these (channels, images) in turn.
    const MAPS: [(usize, usize); 17] = [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 5),
        (7, 7),
        (8, 8),
        (11, 11),
        (14, 14),
        (16, 16),
        (20, 20),
        (28, 28),
        (33, 33),
        (1, 5),
        (7, 2),
        (3, 16),
        (4, 35),
    ];
    const BATCHES: [(usize, usize); 7] = [(3, 1), (1, 2), (8, 5), (3, 16), (17, 2), (2, 32), (17, 20)];

    /// Calls `check` for a covering part of the products of maps, batches, kernels and strides.
    fn for_each_shape(check: impl Fn(DepthwiseShape)) {
        for (i, (height, width)) in MAPS.into_iter().enumerate() {
            for (j, (channels, images)) in BATCHES.into_iter().enumerate() {
                for (l, kernel) in [3, 5, 7].into_iter().enumerate() {
                    let values = channels * images * height * width;
                    if values < 1500 || (i + j + l) % 3 == 0 && values < 40_000 {
                        for stride in [1, 2] {
                            check(DepthwiseShape { channels, images, height, width, kernel, stride });
                        }
                    }
                }
            }
        }
    }

    struct Case {
        x: Vec<f32>,
        w: Vec<f32>,
        dy: Vec<f32>,
    }

    fn case(shape: &DepthwiseShape) -> Case {
        Case {
            x: values(shape.channels * shape.channel(), 1),
            w: values(shape.channels * shape.taps(), 2),
            dy: values(shape.channels * shape.out_channel(), 3),
        }
    }

    #[test]
    fn forward_agrees_with_the_reference() {
        for_each_shape(|shape| {
            let Case { x, w, dy } = case(&shape);
            let mut expect = garbage(dy.len());
            reference::forward(&shape, &x, &w, &mut expect);
            on_every_isa(
                |isa| {
                    let mut y = garbage(dy.len());
                    forward(isa, &shape, &x, &w, &mut y);
                    y
                },
                |isa, y| assert_close(y, &expect, &(isa, shape)),
            );
        });
    }

    #[test]
    fn the_gradient_of_the_input_agrees_with_the_reference() {
        for_each_shape(|shape| {
            let Case { x, w, dy } = case(&shape);
            let mut expect = garbage(x.len());
            reference::backward_input(&shape, &dy, &w, &mut expect);
            on_every_isa(
                |isa| {
                    let mut dx = garbage(x.len());
                    backward_input(isa, &shape, &dy, &w, &mut dx);
                    dx
                },
                |isa, dx| assert_close(dx, &expect, &(isa, shape)),
            );
        });
    }

    #[test]
    fn the_gradient_of_the_weights_accumulates_as_in_the_reference() {
        for_each_shape(|shape| {
            let Case { x, w, dy } = case(&shape);
            let mut expect = w.clone();
            reference::backward_weight(&shape, &x, &dy, &mut expect);
            on_every_isa(
                |isa| {
                    let mut dw = w.clone();
                    backward_weight(isa, &shape, &x, &dy, &mut dw);
                    dw
                },
                |isa, dw| assert_close(dw, &expect, &(isa, shape)),
            );
        });
    }

    #[test]
    fn work_large_enough_for_threads_agrees_too() {
        for (height, kernel, stride) in [(4, 7, 1), (14, 5, 1), (28, 3, 2)] {
            let shape = DepthwiseShape { channels: 65, images: 16, height, width: height, kernel, stride };
            let Case { x, w, dy } = case(&shape);
            let mut y = garbage(dy.len());
            let mut dx = garbage(x.len());
            let mut dw = w.clone();
            reference::forward(&shape, &x, &w, &mut y);
            reference::backward_input(&shape, &dy, &w, &mut dx);
            reference::backward_weight(&shape, &x, &dy, &mut dw);
            on_every_isa(
                |isa| {
                    let mut y = garbage(dy.len());
                    let mut dx = garbage(x.len());
                    let mut dw = w.clone();
                    forward(isa, &shape, &x, &w, &mut y);
                    backward_input(isa, &shape, &dy, &w, &mut dx);
                    backward_weight(isa, &shape, &x, &dy, &mut dw);
                    [y, dx, dw].concat()
                },
                |isa, got| {
                    let (got_y, rest) = got.split_at(y.len());
                    let (got_dx, got_dw) = rest.split_at(dx.len());
                    assert_close(got_y, &y, &("y", isa, shape));
                    assert_close(got_dx, &dx, &("dx", isa, shape));
                    assert_close(got_dw, &dw, &("dw", isa, shape));
                },
            );
        }
    }
}
