//! Planes: means, scales, biases, sums of maps, and pixels.

use super::{Activation, ActivationStorage, Argument, Launch, Place, RowSizes, THREADS, int, long, number};

/// Values that a block of an elementwise kernel takes, `EACH_BLOCK` in the source.
pub const EACH_BLOCK: usize = 16 * THREADS;
/// Planes that a block sums.
pub const PLANES: usize = THREADS / 32;

fn each(kernel: &str, count: usize, places: &[Argument], rest: &[Argument]) -> Launch {
    assert!(u32::try_from(count + EACH_BLOCK).is_ok(), "a tensor has less than 2^32 values");
    let arguments = [places, &[long(count)], rest].concat();
    Launch::new("planes", kernel, count.div_ceil(EACH_BLOCK), arguments)
}

/// out = mean of each plane.
pub fn mean(x: Place, planes: RowSizes, out: Place) -> Launch {
    sums([x.into(), None.into(), out.into()], planes, 1.0 / planes.length as f32)
}

/// ds = sum of dy * x over each plane: the gradient of a scale.
pub fn scale_backward_scale(x: Place, dy: Place, planes: RowSizes, ds: Place) -> Launch {
    sums([x.into(), dy.into(), ds.into()], planes, 1.0)
}

fn sums(places: [Argument; 3], planes: RowSizes, factor: f32) -> Launch {
    let mut arguments: Vec<_> = places.into();
    arguments.extend([long(planes.rows), int(planes.length), factor.into()]);
    Launch::new("planes", "plane_sums", planes.rows.div_ceil(PLANES), arguments)
}

/// y = x * s; y may be x.
pub fn scale(x: Place, s: Place, planes: RowSizes, y: Place) -> Launch {
    each("scale", planes.count(), &[x.into(), s.into(), y.into()], &[int(planes.length)])
}

/// dx = dy * s + dmean / plane; without `s` the first term is left out, without `dmean` the second.
pub fn scale_backward_input(
    dy: Place,
    s: Option<Place>,
    dmean: Option<Place>,
    planes: RowSizes,
    dx: Place,
) -> Launch {
    let places = [dy.into(), s.into(), dmean.into(), dx.into()];
    each("scale_backward", planes.count(), &places, &[int(planes.length)])
}

/// A bias, one value per row, and an activation.
#[derive(Clone, Copy, Debug)]
pub struct BiasLaunches {
    pub sizes: RowSizes,
    /// `[rows]`; no bias is 0.
    pub bias: Option<Place>,
    pub activation: Activation,
}

impl BiasLaunches {
    /// y = act(x + bias).
    pub fn forward(&self, x: Place, y: Place) -> Launch {
        let rest = [int(self.sizes.length), number(self.activation)];
        each("bias_activation", self.sizes.count(), &[x.into(), self.bias.into(), y.into()], &rest)
    }

    /// dx = dy * act'(x + bias).
    pub fn backward(&self, x: Place, dy: Place, dx: Place) -> Launch {
        let places = [x.into(), self.bias.into(), dy.into(), dx.into()];
        let rest = [int(self.sizes.length), number(self.activation)];
        each("bias_activation_backward", self.sizes.count(), &places, &rest)
    }
}

/// out = the factor where a bit of `bits`, 32 per word, is set, else 0.
pub fn mask(bits: Place, factor: f32, out: Place, count: usize) -> Launch {
    each("mask", count, &[bits.into(), out.into()], &[factor.into()])
}

/// y += x.
pub fn add(y: Place, x: Place, count: usize) -> Launch {
    each("add", count, &[y.into(), x.into()], &[])
}

/// How a copy converts values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Activations stay what they are.
    Activations,
    /// f32 stays f32.
    Numbers,
    /// f32 becomes activations.
    ToActivations,
    /// Activations become f32.
    ToNumbers,
}

/// How to copy from one storage to another, and the storage whose sources do it: sources are compiled for one storage of
/// activations.
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
