//! Depthwise convolutions, cut into rectangles that a block's shared memory holds.

use super::batch_norm::BatchNormLaunches;
use super::{Activation, Argument, BUSY, Launch, Place, add_splits, i32_of, int, long, number};
use crate::cpu::depthwise::DepthwiseShape;

/// Values of the input that a block holds, `TILE` in the source.
pub const TILE: usize = 6144;
/// Values of the gradient next to them, `GRADIENT_TILE`.
pub const GRADIENT_TILE: usize = 4096;

/// The maps that are cut into rectangles, and the values that a rectangle reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Cuts the output; reads the input around it.
    Forward,
    /// Cuts the input, at stride 2; reads the outputs that it reaches.
    Input,
    /// Cuts the output; reads the input around it, and the gradient's rectangle.
    Weight,
}

/// Rectangles of `rows x columns`, and `maps` maps of a channel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    maps: usize,
    rows: usize,
    columns: usize,
    tiles: [usize; 2],
}

impl Cut {
    fn of(shape: &DepthwiseShape, pass: Pass) -> Self {
        let (height, width) = match pass {
            Pass::Input => (shape.height, shape.width),
            Pass::Forward | Pass::Weight => (shape.out_height(), shape.out_width()),
        };
        // as the kernels lay their tiles out
        let reads = |rows: usize, columns: usize| match pass {
            Pass::Input => {
                let window = shape.kernel.div_ceil(2);
                (rows / 2 + window - 1) * pitch(columns.div_ceil(4) * 2 + window)
            }
            Pass::Forward | Pass::Weight => {
                let along = |len: usize| (len - 1) * shape.stride + shape.kernel;
                along(rows) * pitch(along(columns.next_multiple_of(4)))
            }
        };
        let gradient = |rows: usize, columns: usize| match pass {
            Pass::Weight => rows * pitch(columns),
            Pass::Forward | Pass::Input => 0,
        };
        // rectangles of the gradient of the input begin at even places, those that are cut across at places for packs
        let step = if pass == Pass::Input { 2 } else { 1 };
        let part = |len: usize, parts: usize| len.div_ceil(parts).next_multiple_of(step);
        let width_part = |parts: usize| {
            if parts == 1 { part(width, 1) } else { width.div_ceil(parts).next_multiple_of(4) }
        };
        let mut across = 1;
        let mut along = 1;
        let mut rows = part(height, across);
        let mut columns = width_part(along);
        while reads(rows, columns) > TILE || gradient(rows, columns) > GRADIENT_TILE {
            if rows >= columns {
                across += 1;
                rows = part(height, across);
            } else {
                along += 1;
                columns = width_part(along);
            }
        }
        let tiles = [height.div_ceil(rows), width.div_ceil(columns)];
        let mut most = TILE / reads(rows, columns);
        if pass == Pass::Weight {
            most = most.min(GRADIENT_TILE / gradient(rows, columns));
        }
        // enough blocks for all multiprocessors, if there is enough to do
        let rectangles = shape.channels * shape.images * tiles[0] * tiles[1];
        let maps = most.min(rectangles / BUSY).clamp(1, shape.images.max(1));
        Self { maps, rows, columns, tiles }
    }

    /// Rectangles per channel, the maps of a group together.
    fn count(&self, images: usize) -> usize {
        images.div_ceil(self.maps) * self.tiles[0] * self.tiles[1]
    }

    /// `struct Cut` of the source.
    fn argument(&self, shape: &DepthwiseShape) -> Argument {
        let sizes = [shape.images, shape.height, shape.width, shape.out_height(), shape.out_width()];
        let cut = [self.maps, self.rows, self.columns, self.tiles[0], self.tiles[1]];
        Argument::Ints(sizes.into_iter().chain(cut).map(i32_of).collect())
    }
}

/// Values from row to row of a tile, `pitch_of` in the source.
fn pitch(columns: usize) -> usize {
    (columns.div_ceil(4) | 1) * 4
}

fn launch(name: &str, shape: &DepthwiseShape, blocks: usize, arguments: Vec<Argument>) -> Launch {
    let module = match shape.kernel {
        3 => "depthwise_3",
        5 => "depthwise_5",
        _ => "depthwise_7",
    };
    Launch::new(module, format!("{name}_k{}_s{}", shape.kernel, shape.stride), blocks, arguments)
}

/// A batch norm with its activation before a convolution, and its statistics.
pub type Before = Option<(BatchNormLaunches, Place)>;

/// `struct Before` of the source, as arguments.
fn before_arguments(before: Before) -> [Argument; 6] {
    match before {
        Some((norm, stats)) => [
            stats.into(),
            norm.gamma.into(),
            norm.beta.into(),
            long(norm.rows),
            norm.epsilon.into(),
            number(norm.activation),
        ],
        None => [None.into(), None.into(), None.into(), long(0), 0.0.into(), number(Activation::None)],
    }
}

/// The input of a convolution: x, or x after a batch norm.
#[derive(Clone, Copy, Debug)]
pub struct ConvolutionInput {
    pub x: Place,
    pub before: Before,
}

/// y = input convolved with w.
pub fn forward(shape: &DepthwiseShape, input: ConvolutionInput, w: Place, y: Place) -> Launch {
    convolution(shape, [input.x, w, y], input.before, false)
}

fn convolution(shape: &DepthwiseShape, places: [Place; 3], before: Before, flipped: bool) -> Launch {
    let cut = Cut::of(shape, Pass::Forward);
    let mut arguments: Vec<_> = places.map(Argument::from).into();
    arguments.extend([cut.argument(shape), int(usize::from(flipped))]);
    arguments.extend(before_arguments(before));
    let blocks = shape.channels * cut.count(shape.images);
    launch("depthwise", shape, blocks, arguments)
}

/// dx from dy.
pub fn backward_input(shape: &DepthwiseShape, dy: Place, w: Place, dx: Place) -> Launch {
    if shape.stride == 1 {
        return convolution(shape, [dy, w, dx], None, true);
    }
    let cut = Cut::of(shape, Pass::Input);
    let arguments = [dy.into(), w.into(), dx.into(), cut.argument(shape)];
    let blocks = shape.channels * cut.count(shape.images);
    launch("depthwise_input", shape, blocks, arguments.into())
}

/// Blocks that share the gradient of a channel's weights.
fn weight_splits(shape: &DepthwiseShape) -> usize {
    let tiles = Cut::of(shape, Pass::Weight).count(shape.images);
    BUSY.div_ceil(shape.channels.max(1)).clamp(1, tiles.max(1))
}

/// Values of f32 that [`backward_weight`] works in.
pub fn weight_scratch(shape: &DepthwiseShape) -> usize {
    weight_splits(shape) * shape.channels * shape.taps()
}

/// Adds dw.
pub fn backward_weight(
    shape: &DepthwiseShape,
    input: ConvolutionInput,
    dy: Place,
    dw: Place,
    scratch: Place,
) -> impl Iterator<Item = Launch> {
    let cut = Cut::of(shape, Pass::Weight);
    let splits = weight_splits(shape);
    let to = if splits == 1 { dw } else { scratch };
    let mut arguments =
        vec![input.x.into(), dy.into(), to.into(), cut.argument(shape), long(shape.channels), int(splits)];
    arguments.extend(before_arguments(input.before));
    let blocks = shape.channels * splits;
    let sums = launch("depthwise_weight", shape, blocks, arguments);
    let add = add_splits(scratch, dw, shape.channels * shape.taps(), splits, true);
    [sums].into_iter().chain((splits > 1).then_some(add))
}
