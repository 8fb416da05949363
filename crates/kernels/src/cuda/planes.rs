//! Planes: means, scales, biases, sums of maps, and pixels.

use super::{Activation, ActivationStorage, Argument, Launch, Place, THREADS, int, long, number};

/// Values that a block of an elementwise kernel takes, `EACH_BLOCK` in the source.
pub const EACH_BLOCK: usize = 16 * THREADS;
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

/// out = the factor where a bit of `bits`, 32 a word, is set, else 0.
pub fn mask(bits: Place, factor: f32, out: Place, count: usize) -> Launch {
    each("mask", count, &[bits.into(), out.into()], &[factor.into()])
}

/// y += x.
pub fn add(y: Place, x: Place, count: usize) -> Launch {
    each("add", count, &[y.into(), x.into()], &[])
}

/// What a copy makes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Activations stay what they are.
    Activations,
    /// f32 stays f32.
    Numbers,
    /// f32 becomes what activations are kept as.
    ToActivations,
    /// Activations become f32.
    ToNumbers,
}

/// How to copy from one storage to another, and whose sources do it: they know one kind of activations at a time.
pub fn copying(from: ActivationStorage, to: ActivationStorage) -> (Copying, ActivationStorage) {
    match (from, to) {
        (ActivationStorage::F32, ActivationStorage::F32) => (Copying::Numbers, ActivationStorage::F32),
        (ActivationStorage::F32, ActivationStorage::Bf16) => {
            (Copying::ToActivations, ActivationStorage::Bf16)
        }
        (ActivationStorage::Bf16, ActivationStorage::F32) => (Copying::ToNumbers, ActivationStorage::Bf16),
        (ActivationStorage::Bf16, ActivationStorage::Bf16) => (Copying::Activations, ActivationStorage::Bf16),
    }
}

/// Sizes and strides of a view of at most four axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strided<'a> {
    /// Values along each axis.
    pub sizes: &'a [usize],
    /// How far apart they are.
    pub strides: &'a [usize],
}

impl Strided<'_> {
    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// `struct View` of the source: axes of one value go first.
    fn argument(&self) -> Argument {
        let filled = |values: &[usize], filling: usize| {
            let missing = std::iter::repeat_n(filling, 4_usize.saturating_sub(values.len()));
            missing.chain(values.iter().copied()).map(super::i32_of).collect::<Vec<_>>()
        };
        Argument::Ints([filled(self.sizes, 1), filled(self.strides, 0)].concat())
    }
}

/// y = the values of a view of x, one after the other.
pub fn copy(x: Place, view: &Strided, y: Place, copying: Copying) -> Launch {
    let kernel = match copying {
        Copying::Activations => "copy_activations",
        Copying::Numbers => "copy_numbers",
        Copying::ToActivations => "to_activations",
        Copying::ToNumbers => "to_numbers",
    };
    strided(kernel, [x, y], view)
}

/// A view of y += x, all f32.
pub fn add_to_view(y: Place, view: &Strided, x: Place) -> Launch {
    strided("add_to_view", [y, x], view)
}

fn strided(kernel: &str, places: [Place; 2], view: &Strided) -> Launch {
    let count = view.count();
    assert!(
        view.sizes.len() <= 4 && u32::try_from(count + EACH_BLOCK).is_ok(),
        "a view of less than 2^32 values"
    );
    let arguments = [places[0].into(), places[1].into(), view.argument(), long(count)];
    Launch::new("planes", kernel, count.div_ceil(EACH_BLOCK), arguments)
}
