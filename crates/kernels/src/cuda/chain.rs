//! What an inverted residual block does channel by channel, as launches: batch norm and activation, depthwise convolution,
//! batch norm and activation, means; and all of it backward.
//!
//! The first batch norm is applied where the convolution reads, so the activated expansion is never in memory.

use super::batch_norm::{BatchNormLaunches, Excite};
use super::depthwise::{self, Before};
use super::{Launch, Place, planes};
use crate::cpu::depthwise::DepthwiseShape;

/// The chain's constants.
#[derive(Clone, Copy, Debug)]
pub struct ChainLaunches {
    /// The convolution's maps.
    pub shape: DepthwiseShape,
    /// Before it, where the block has an expansion.
    pub before: Option<BatchNormLaunches>,
    /// Its weight, `[C, k * k]`.
    pub weight: Place,
    /// After it.
    pub after: BatchNormLaunches,
}

/// Where forward leaves what backward needs, and its output.
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
    /// The mean of each of its maps, where it is asked for.
    pub means: Option<Place>,
}

/// Where backward leaves the gradients.
#[derive(Clone, Copy, Debug)]
pub struct GradientPlaces {
    /// Of the chain's input.
    pub dx: Place,
    /// Of gamma and beta before, `[C]` each, added to what is there, as the others are.
    pub before: [Place; 2],
    /// Of the weight.
    pub weight: Place,
    /// Of gamma and beta after, `[C]` each.
    pub after: [Place; 2],
}

impl ChainLaunches {
    fn out_planes(&self) -> (usize, usize) {
        (self.shape.channels * self.shape.images, self.shape.out_height() * self.shape.out_width())
    }

    /// Values of f32 that either pass works in.
    pub fn scratch(&self) -> usize {
        let norms = self.before.iter().chain([&self.after]).map(BatchNormLaunches::scratch);
        norms.chain([depthwise::weight_scratch(&self.shape)]).max().unwrap_or(0)
    }

    fn read(&self, stats: Place) -> Before {
        self.before.map(|before| (before, stats))
    }

    /// Forward with the batch's own statistics.
    pub fn forward(&self, x: Place, kept: KeptPlaces, scratch: Place) -> Vec<Launch> {
        let mut launches = Vec::new();
        if let Some(before) = &self.before {
            launches.extend(before.statistics(x, kept.before, scratch));
        }
        launches.push(depthwise::forward(
            &self.shape,
            x,
            self.read(kept.before),
            self.weight,
            kept.convolved,
        ));
        launches.extend(self.after.statistics(kept.convolved, kept.after, scratch));
        launches.push(self.after.apply(kept.convolved, kept.after, None, kept.output));
        launches.extend(kept.means.map(|means| planes::mean(kept.output, self.out_planes(), means)));
        launches
    }

    /// Backward of a forward that left `kept`. The gradient of what the convolution gave is left in `inner`, which may be
    /// `dy`; `excite` are the factors of squeeze-and-excite and the gradient of the means. Works in `sums`, `[2, C]`, too.
    pub fn backward(
        &self,
        x: Place,
        kept: KeptPlaces,
        [dy, inner]: [Place; 2],
        excite: Option<[Place; 2]>,
        slopes: GradientPlaces,
        [sums, scratch]: [Place; 2],
    ) -> Vec<Launch> {
        let Self { shape, before, weight, after } = self;
        let plane = self.out_planes().1;
        let excite = excite.map(|[factors, dmeans]| Excite { factors, dmeans, plane });
        let given = [kept.convolved, dy, kept.after];
        let mut launches = after.backward(given, excite, (sums, slopes.after), inner, scratch);
        launches.extend(depthwise::backward_weight(
            shape,
            x,
            self.read(kept.before),
            inner,
            slopes.weight,
            scratch,
        ));
        launches.push(depthwise::backward_input(shape, inner, *weight, slopes.dx));
        if let Some(before) = before {
            launches.extend(before.backward(
                [x, slopes.dx, kept.before],
                None,
                (sums, slopes.before),
                slopes.dx,
                scratch,
            ));
        }
        launches
    }
}
