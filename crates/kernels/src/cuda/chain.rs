//! The depthwise middle of an inverted residual block, as launches: batch norm and activation, depthwise convolution, batch
//! norm and activation, means; and the backward of all of it.
//!
//! The first batch norm is applied where the convolution reads, so the activated expansion is never in memory.

use super::batch_norm::{BatchNormBackwardPlaces, BatchNormLaunches, Excite};
use super::depthwise;
use super::{Launch, Place, RowSizes, planes};
use crate::cpu::depthwise::DepthwiseShape;

/// The chain's constants.
#[derive(Clone, Copy, Debug)]
pub struct ChainLaunches {
    /// The convolution's maps.
    pub shape: DepthwiseShape,
    /// Batch norm and activation before it, where the block has an expansion.
    pub before: Option<BatchNormLaunches>,
    /// The convolution's weight, `[C, k * k]`.
    pub weight: Place,
    /// Batch norm and activation after it.
    pub after: BatchNormLaunches,
}

/// Where forward writes its output and the values that backward reads.
#[derive(Clone, Copy, Debug)]
pub struct KeptPlaces {
    /// Statistics of the batch norm before, `[2, C]`.
    pub before: Place,
    /// The convolution's output.
    pub convolved: Place,
    /// Statistics of the batch norm after, `[2, C]`.
    pub after: Place,
    /// The chain's output.
    pub output: Place,
    /// The mean of each map of the output, where it is needed.
    pub means: Option<Place>,
}

/// Where backward writes the gradients.
#[derive(Clone, Copy, Debug)]
pub struct GradientPlaces {
    /// Of the chain's input.
    pub dx: Place,
    /// Of gamma and beta before, `[C]` each; added, as the gradients below are.
    pub before: [Place; 2],
    /// Of the weight.
    pub weight: Place,
    /// Of gamma and beta after, `[C]` each.
    pub after: [Place; 2],
}

/// The gradient that backward begins with.
#[derive(Clone, Copy, Debug)]
pub struct OutputGradientPlaces {
    /// Of the chain's output.
    pub dy: Place,
    /// Where squeeze-and-excite follows: its factors, and the gradient of the means.
    pub excite: Option<[Place; 2]>,
}

/// Memory that backward works in.
#[derive(Clone, Copy, Debug)]
pub struct ChainRooms {
    /// The gradient of the convolution's output; may be that of the chain's output.
    pub inner: Place,
    /// `[2, C]`.
    pub sums: Place,
    /// [`ChainLaunches::scratch`] values.
    pub scratch: Place,
}

impl ChainLaunches {
    fn out_planes(&self) -> RowSizes {
        let DepthwiseShape { channels, images, .. } = self.shape;
        RowSizes { rows: channels * images, length: self.shape.out_height() * self.shape.out_width() }
    }

    /// Values of f32 that either pass works in.
    pub fn scratch(&self) -> usize {
        let norms = self.before.iter().chain([&self.after]).map(BatchNormLaunches::scratch);
        norms.chain([depthwise::weight_scratch(&self.shape)]).max().unwrap_or(0)
    }

    /// The convolution's input, from the chain's and the statistics before.
    fn input(&self, x: Place, stats: Place) -> depthwise::ConvolutionInput {
        depthwise::ConvolutionInput { x, before: self.before.map(|before| (before, stats)) }
    }

    /// Forward with the batch's own statistics.
    pub fn forward(&self, x: Place, kept: KeptPlaces, scratch: Place) -> Vec<Launch> {
        let mut launches = Vec::new();
        if let Some(before) = &self.before {
            launches.extend(before.statistics(x, kept.before, scratch));
        }
        let input = self.input(x, kept.before);
        launches.push(depthwise::forward(&self.shape, input, self.weight, kept.convolved));
        launches.extend(self.after.statistics(kept.convolved, kept.after, scratch));
        launches.push(self.after.apply(kept.convolved, kept.after, None, kept.output));
        launches.extend(kept.means.map(|means| planes::mean(kept.output, self.out_planes(), means)));
        launches
    }

    /// Backward of a forward that left `kept`.
    pub fn backward(
        &self,
        x: Place,
        kept: KeptPlaces,
        output: OutputGradientPlaces,
        slopes: GradientPlaces,
        rooms: ChainRooms,
    ) -> Vec<Launch> {
        let Self { shape, before, weight, after } = self;
        let ChainRooms { inner, sums, scratch } = rooms;
        let plane = self.out_planes().length;
        let places = BatchNormBackwardPlaces {
            x: kept.convolved,
            dy: output.dy,
            stats: kept.after,
            excite: output.excite.map(|[factors, dmeans]| Excite { factors, dmeans, plane }),
            slopes: slopes.after,
            dx: inner,
        };
        let mut launches = after.backward(places, sums, scratch);
        let input = self.input(x, kept.before);
        launches.extend(depthwise::backward_weight(shape, input, inner, slopes.weight, scratch));
        launches.push(depthwise::backward_input(shape, inner, *weight, slopes.dx));
        if let Some(before) = before {
            let places = BatchNormBackwardPlaces {
                x,
                dy: slopes.dx,
                stats: kept.before,
                excite: None,
                slopes: slopes.before,
                dx: slopes.dx,
            };
            launches.extend(before.backward(places, sums, scratch));
        }
        launches
    }
}
