//! The channel by channel middle of an inverted residual block as one operation; see
//! [`crate::cpu::chain`].

use candle_core::{Result, Shape, Tensor, bail};

use super::{Backend, BatchNormAffine, Op, View, on_gpu, run};
use crate::cpu::chain::{ChainSlices, GradientSlices, KeptSlices, Moments, Saved};
use crate::cpu::depthwise::DepthwiseShape;
use space::Activation;

/// Batch norm and activation, depthwise convolution with padding k/2, batch norm and activation. As gradients: the
/// same with gradients in the place of weights.
pub struct DepthwiseChain {
    /// Before the convolution, where there is an expansion.
    pub before: Option<BatchNormAffine>,
    /// The convolution's weight, `[C, 1, k, k]`.
    pub weight: Tensor,
    /// The convolution's stride.
    pub stride: usize,
    /// After the convolution.
    pub after: BatchNormAffine,
    /// Whether the mean of each map of the output is wanted, for squeeze-and-excite.
    pub with_means: bool,
}

/// What the chain's backward needs of its forward.
pub struct ChainKept {
    /// Statistics of the batch norm before, `[2, C]`.
    pub before: Option<Tensor>,
    /// The convolution's output.
    pub convolved: Tensor,
    /// Statistics of the batch norm after, `[2, C]`.
    pub after: Tensor,
}

impl DepthwiseChain {
    /// The convolution's sizes for an input `[C, N, H, W]`.
    fn shape(&self, x: &Tensor) -> Result<DepthwiseShape> {
        depthwise_shape(x, &self.weight, self.stride)
    }

    /// What the kernel reads of the chain; where there is no batch norm before, the one after stands in for it.
    fn constants(&self) -> [&Tensor; 5] {
        let before = self.before.as_ref().unwrap_or(&self.after);
        [&before.gamma, &before.beta, &self.weight, &self.after.gamma, &self.after.beta]
    }

    /// The chain over the values of [`DepthwiseChain::constants`].
    fn over<'a>(&self, shape: DepthwiseShape, constants: [View<'a>; 5]) -> Result<ChainSlices<'a>> {
        let [gamma, beta, weight, after_gamma, after_beta] = constants;
        let before = self.before.as_ref().map(|before| before.affine(&gamma, &beta)).transpose()?;
        let after = self.after.affine(&after_gamma, &after_beta)?;
        Ok(ChainSlices { shape, before, weight: weight.contiguous()?, after })
    }

    fn op(&self, name: &'static str, shape: &DepthwiseShape, passes: usize) -> Op {
        let pixels = shape.images * shape.out_height() * shape.out_width();
        Op::new(name).macs(passes * shape.channels * pixels * shape.kernel * shape.kernel)
    }
}

fn depthwise_shape(x: &Tensor, weight: &Tensor, stride: usize) -> Result<DepthwiseShape> {
    let (channels, images, height, width) = x.dims4()?;
    let (out, group, kernel, other) = weight.dims4()?;
    if (out, group) != (channels, 1)
        || kernel != other
        || ![3, 5, 7].contains(&kernel)
        || ![1, 2].contains(&stride)
    {
        bail!("depthwise: weight {:?} with stride {stride} for {channels} channels", weight.dims());
    }
    Ok(DepthwiseShape { channels, images, height, width, kernel, stride })
}

fn output(shape: &DepthwiseShape) -> Shape {
    Shape::from((shape.channels, shape.images, shape.out_height(), shape.out_width()))
}

/// `shape` where `wanted`, else of no values.
fn shape_if(wanted: bool, shape: impl Into<Shape>) -> Shape {
    if wanted { shape.into() } else { Shape::from(0) }
}

impl Backend {
    /// Forward with the batch's own statistics: the output, the mean of each of its maps `[C, N]` where wanted, and
    /// what backward needs.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C, N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or the kernel or the stride is not supported.
    pub fn chain(&self, chain: &DepthwiseChain, x: &Tensor) -> Result<(Tensor, Option<Tensor>, ChainKept)> {
        let shape = chain.shape(x)?;
        let channels = shape.channels;
        let expands = chain.before.is_some();
        let op = chain.op("norm, depthwise, norm", &shape, 1);
        on_gpu!(self, op, [x, x], gpu => gpu.chain(chain, &shape, x));
        let shapes = [
            shape_if(expands, (2, channels)),
            output(&shape),
            Shape::from((2, channels)),
            output(&shape),
            shape_if(chain.with_means, (channels, shape.images)),
        ];
        let [gamma, beta, weight, after_gamma, after_beta] = chain.constants();
        let inputs = [x, gamma, beta, weight, after_gamma, after_beta];
        let [before, convolved, after, output, means] =
            self.compute_many(op, inputs, shapes, |[x, constants @ ..], out| {
                let [before, convolved, after, output, means] = out;
                let kept = KeptSlices { before, convolved, after, output, means };
                run!(self, chain::forward(&chain.over(shape, constants)?, x.contiguous()?, kept));
                Ok(())
            })?;
        let kept = ChainKept { before: expands.then_some(before), convolved, after };
        Ok((output, chain.with_means.then_some(means), kept))
    }

    /// Forward for which nothing is kept: the output, and the statistics, `[2, C]`, that the batch norms before and
    /// after normalized with: the batch's own, or those that are `given`.
    ///
    /// # Errors
    /// As [`Backend::chain`].
    pub fn chain_forgetting(
        &self,
        chain: &DepthwiseChain,
        x: &Tensor,
        given: Option<(Option<&Tensor>, &Tensor)>,
    ) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let shape = chain.shape(x)?;
        let channels = shape.channels;
        let expands = chain.before.is_some();
        let op = chain.op("norm, depthwise, norm", &shape, 1);
        on_gpu!(self, op, [x, x], gpu => gpu.chain_forgetting(chain, &shape, x, given));
        let shapes = [output(&shape), shape_if(expands, (2, channels)), Shape::from((2, channels))];
        let [gamma, beta, weight, after_gamma, after_beta] = chain.constants();
        let (given_before, given_after) = given.unwrap_or((None, after_beta));
        let given_before = given_before.unwrap_or(given_after);
        let inputs = [x, given_before, given_after, gamma, beta, weight, after_gamma, after_beta];
        let [output, before, after] = self.compute_many(op, inputs, shapes, |views, out| {
            let [x, given_before, given_after, constants @ ..] = views;
            let slices = chain.over(shape, constants)?;
            let moments = match given {
                Some(_) => Moments::Given(given_before.contiguous()?, given_after.contiguous()?),
                None => Moments::OfBatch,
            };
            let [output, before, after] = out;
            run!(self, chain::forward_forgetting(&slices, x.contiguous()?, moments, [before, after], output));
            Ok(())
        })?;
        Ok((output, expands.then_some(before), after))
    }

    /// The gradient of [`Backend::chain`]'s input; adds those of its weights to `gradient`. Where squeeze-and-excite
    /// follows, `excite` holds its factors and the gradient of the means, `[C, N]` each.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn chain_backward(
        &self,
        chain: &DepthwiseChain,
        (x, kept): (&Tensor, &ChainKept),
        dy: &Tensor,
        excite: Option<(&Tensor, &Tensor)>,
        gradient: &DepthwiseChain,
    ) -> Result<Tensor> {
        let shape = chain.shape(x)?;
        let channels = shape.channels;
        let expands = chain.before.is_some();
        if dy.shape() != &output(&shape) {
            bail!("depthwise backward: gradient {:?} for {shape:?}", dy.dims());
        }
        let op = chain.op("norm, depthwise, norm backward", &shape, 2);
        on_gpu!(self, op, [x, x, dy, dy], gpu => {
            gpu.chain_backward((chain, &shape), (x, kept), dy, excite, gradient)
        });
        let shapes = [
            x.shape().clone(),
            shape_if(expands, (2, channels)),
            chain.weight.shape().clone(),
            Shape::from((2, channels)),
        ];
        let [gamma, beta, weight, after_gamma, after_beta] = chain.constants();
        let (factor, dmean) = excite.unwrap_or((after_beta, after_beta));
        let inputs = [
            x,
            kept.before.as_ref().unwrap_or(&kept.after),
            &kept.convolved,
            &kept.after,
            dy,
            factor,
            dmean,
            gamma,
            beta,
            weight,
            after_gamma,
            after_beta,
        ];
        let [dx, before, weight, after] = self.compute_many(op, inputs, shapes, |views, out| {
            let [x, stats_before, convolved, stats_after, dy, factor, dmean, constants @ ..] = views;
            let slices = chain.over(shape, constants)?;
            let saved = Saved {
                x: x.contiguous()?,
                before: stats_before.contiguous()?,
                convolved: convolved.contiguous()?,
                after: stats_after.contiguous()?,
                dy: dy.contiguous()?,
                excite: match excite {
                    Some(_) => Some((factor.contiguous()?, dmean.contiguous()?)),
                    None => None,
                },
            };
            let [dx, before, weight, after] = out;
            run!(self, chain::backward(&slices, &saved, GradientSlices { dx, before, weight, after }));
            Ok(())
        })?;
        if let Some(gradient) = &gradient.before {
            self.add_sums(gradient, &before)?;
        }
        self.add_assign(&gradient.weight, &weight)?;
        self.add_sums(&gradient.after, &after)?;
        Ok(dx)
    }

    /// `act(x convolved with weight + shift)`, the shift one value a channel: a chain after its statistics were folded
    /// into the weights.
    ///
    /// # Errors
    /// As [`Backend::chain`].
    pub fn depthwise_activated(
        &self,
        x: &Tensor,
        (weight, stride): (&Tensor, usize),
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let shape = depthwise_shape(x, weight, stride)?;
        if shift.dims() != [shape.channels] {
            bail!("depthwise_activated: shift {:?} for {} channels", shift.dims(), shape.channels);
        }
        let op = Op::new("depthwise activated");
        on_gpu!(self, op, [x, x], gpu => gpu.depthwise_activated(x, (weight, &shape), shift, activation));
        self.compute(op, [x, weight, shift], output(&shape), |[x, weight, shift], y| {
            let x = x.contiguous()?;
            let weight = weight.contiguous()?;
            let shift = shift.contiguous()?;
            run!(self, chain::forward_activated(&shape, x, weight, (shift, activation), y));
            Ok(())
        })
    }
}
