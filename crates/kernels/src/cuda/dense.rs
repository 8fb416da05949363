//! Patches of dense convolutions; [`super::product`] multiplies.

use std::ops::Range;

use super::{Argument, Launch, Place, THREADS, i32_of, long};
use crate::cpu::dense::PatchShape;

fn launch(
    kernel: &str,
    places: [Place; 2],
    shape: &PatchShape,
    images: &Range<usize>,
    count: usize,
) -> Launch {
    let of = [shape.images, images.start, images.len(), shape.height, shape.width];
    let to = [shape.out_height(), shape.out_width(), shape.kernel, shape.stride];
    let sizes = Argument::Ints(of.into_iter().chain(to).map(i32_of).collect());
    let arguments = [places[0].into(), places[1].into(), sizes, long(count)];
    Launch::new("dense", kernel, count.div_ceil(THREADS), arguments)
}

/// im2col of some images.
pub fn patches(shape: &PatchShape, images: Range<usize>, x: Place, out: Place) -> Launch {
    let count = shape.taps() * images.len() * shape.out_plane();
    launch("patches", [x, out], shape, &images, count)
}

/// The adjoint of im2col, for the same images of dx alone.
pub fn fold_patches(shape: &PatchShape, images: Range<usize>, patches: Place, dx: Place) -> Launch {
    let count = shape.channels * images.len() * shape.height * shape.width;
    launch("fold_patches", [patches, dx], shape, &images, count)
}
