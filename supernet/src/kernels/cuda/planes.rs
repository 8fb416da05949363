//! Planes: means, scales, biases, sums of maps, and pixels.

use super::{Activation, Argument, Launch, Place, THREADS, int, long, number};

/// Values that a block of an elementwise kernel takes.
pub const EACH_BLOCK: usize = 4 * THREADS;
/// Planes that a block adds up.
pub const PLANES: usize = THREADS / 32;

fn each(kernel: &str, count: usize, places: &[Argument], rest: &[Argument]) -> Launch {
    assert!(u32::try_from(count + EACH_BLOCK).is_ok(), "a tensor has less than 2^32 values");
    let arguments = [places, &[long(count)], rest].concat();
    Launch::new("planes", kernel, count.div_ceil(EACH_BLOCK), arguments)
}

/// out = mean of each of `planes` planes.
pub fn mean(x: Place, (planes, plane): (usize, usize), out: Place) -> Launch {
    sums([x.into(), None.into(), out.into()], (planes, plane), 1.0 / plane as f32)
}

/// ds = sum of dy * x over each plane: the gradient of a scale.
pub fn scale_backward_scale(x: Place, dy: Place, (planes, plane): (usize, usize), ds: Place) -> Launch {
    sums([x.into(), dy.into(), ds.into()], (planes, plane), 1.0)
}

fn sums(places: [Argument; 3], (planes, plane): (usize, usize), factor: f32) -> Launch {
    let mut arguments: Vec<_> = places.into();
    arguments.extend([long(planes), int(plane), factor.into()]);
    Launch::new("planes", "plane_sums", planes.div_ceil(PLANES), arguments)
}

/// y = x * s; y may be x.
pub fn scale(x: Place, s: Place, (planes, plane): (usize, usize), y: Place) -> Launch {
    each("scale", planes * plane, &[x.into(), s.into(), y.into()], &[int(plane)])
}

/// dx = dy * s + dmean / plane, either of which may be left out (what is left out of dy * s is all of it).
pub fn scale_backward_input(
    dy: Place,
    [s, dmean]: [Option<Place>; 2],
    (planes, plane): (usize, usize),
    dx: Place,
) -> Launch {
    let places = [dy.into(), s.into(), dmean.into(), dx.into()];
    each("scale_backward", planes * plane, &places, &[int(plane)])
}

/// y = act(x + bias), a bias a row.
pub fn bias_activation(
    x: Place,
    bias: Option<Place>,
    (rows, length): (usize, usize),
    activation: Activation,
    y: Place,
) -> Launch {
    let rest = [int(length), number(activation)];
    each("bias_activation", rows * length, &[x.into(), bias.into(), y.into()], &rest)
}

/// dx = dy * act'(x + bias).
pub fn bias_activation_backward(
    [x, dy]: [Place; 2],
    bias: Option<Place>,
    (rows, length): (usize, usize),
    activation: Activation,
    dx: Place,
) -> Launch {
    let places = [x.into(), bias.into(), dy.into(), dx.into()];
    each("bias_activation_backward", rows * length, &places, &[int(length), number(activation)])
}

/// y += x.
pub fn add(y: Place, x: Place, count: usize) -> Launch {
    each("add", count, &[y.into(), x.into()], &[])
}

/// Pixels `[N, C, H, W]`, bytes -> `[C, N, H, W]`, normalised by channel.
pub fn prepare_pixels(
    pixels: Place,
    [mean, std]: [Place; 2],
    out: Place,
    [images, channels, plane]: [usize; 3],
) -> Launch {
    let count = images * channels * plane;
    assert!(u32::try_from(count + EACH_BLOCK).is_ok(), "a batch has less than 2^32 values");
    let mut arguments: Vec<_> = [pixels, mean, std, out].map(Argument::from).into();
    arguments.extend([images, channels, plane].map(int));
    Launch::new("planes", "prepare_pixels", count.div_ceil(EACH_BLOCK), arguments)
}
