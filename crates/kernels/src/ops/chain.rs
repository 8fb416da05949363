//! The depthwise middle of an inverted residual block as one operation; see [`crate::cpu::chain`].

use candle_core::{Result, Shape, Tensor, bail};

use super::{Backend, BatchNormAffine, Op, View, on_gpu, run};
use crate::cpu::chain::{
    ChainSlices, FoldedSlices, GradientSlices, KeptSlices, Moments, OutputSlices, Saved,
};
use crate::cpu::depthwise::DepthwiseShape;
use space::Activation;

/// Batch norm and activation, depthwise convolution with padding k/2, batch norm and activation. Gradients of
/// a chain are a `DepthwiseChain` that holds gradients in the place of weights.
pub struct DepthwiseChain {
    /// Before the convolution, where there is an expansion.
    pub before: Option<BatchNormAffine>,
    /// The convolution's weight, `[C, 1, k, k]`.
    pub weight: Tensor,
    /// The convolution's stride.
    pub stride: usize,
    /// After the convolution.
    pub after: BatchNormAffine,
    /// Whether to compute the mean of each map of the output, for squeeze-and-excite.
    pub with_means: bool,
}

/// The results of a chain's forward that its backward reads.
pub struct ChainKept {
    /// Statistics of the batch norm before, `[2, C]`.
    pub before: Option<Tensor>,
    /// The convolution's output.
    pub convolved: Tensor,
    /// Statistics of the batch norm after, `[2, C]`.
    pub after: Tensor,
}

/// The gradient of a chain's output, as [`Backend::chain_backward`] reads it.
#[derive(Clone, Copy)]
pub struct ChainOutputGradient<'a> {
    /// Of the output, or, where squeeze-and-excite follows, of the output times its factors.
    pub dy: &'a Tensor,
    /// Squeeze-and-excite, where it follows.
    pub excite: Option<ExciteBackward<'a>>,
}

/// Squeeze-and-excite, as the backward of the chain before it reads it.
#[derive(Clone, Copy)]
pub struct ExciteBackward<'a> {
    /// The factor of each map, `[C, N]`.
    pub factor: &'a Tensor,
    /// The gradient of each map's mean, `[C, N]`.
    pub dmean: &'a Tensor,
}

impl DepthwiseChain {
    /// The convolution's sizes for an input `[C, N, H, W]`.
    pub(crate) fn shape(&self, x: &Tensor) -> Result<DepthwiseShape> {
        depthwise_shape(x, &self.weight, self.stride)
    }

    /// The tensors that the kernel reads; without a batch norm before, the one after stands in for it.
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

/// `shape` if it `is_needed`, else one of no values.
fn shape_if(is_needed: bool, shape: impl Into<Shape>) -> Shape {
    if is_needed { shape.into() } else { Shape::from(0) }
}

/// The slices that backward reads, from views of x, the statistics before, the convolution's output, the statistics after,
/// dy, and the factors and mean gradients of squeeze-and-excite, which are read only if it follows.
fn saved<'a>(views: &[View<'a>; 7], is_excited: bool) -> Result<Saved<'a>> {
    let [x, before, convolved, after, dy, factor, dmean] = views;
    let excite = if is_excited { Some((factor.contiguous()?, dmean.contiguous()?)) } else { None };
    Ok(Saved {
        x: x.contiguous()?,
        before: before.contiguous()?,
        convolved: convolved.contiguous()?,
        after: after.contiguous()?,
        dy: dy.contiguous()?,
        excite,
    })
}

impl Backend {
    /// Forward with the batch's own statistics: the output, the mean of each of its maps `[C, N]` if the chain is
    /// `with_means`, and the results that backward reads.
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

    /// Forward that retains nothing for backward: the output, and the statistics, `[2, C]`, that the batch norms before
    /// and after normalized with: the batch's own, or the `given` ones.
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
            let to = OutputSlices { before, after, output };
            run!(self, chain::forward_forgetting(&slices, x.contiguous()?, moments, to));
            Ok(())
        })?;
        Ok((output, expands.then_some(before), after))
    }

    /// The gradient of [`Backend::chain`]'s input; adds the gradients of its weights to `gradient`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn chain_backward(
        &self,
        chain: &DepthwiseChain,
        x: &Tensor,
        kept: &ChainKept,
        output_gradient: &ChainOutputGradient,
        gradient: &DepthwiseChain,
    ) -> Result<Tensor> {
        let &ChainOutputGradient { dy, excite } = output_gradient;
        let shape = chain.shape(x)?;
        let channels = shape.channels;
        let expands = chain.before.is_some();
        if dy.shape() != &output(&shape) {
            bail!("depthwise backward: gradient {:?} for {shape:?}", dy.dims());
        }
        let op = chain.op("norm, depthwise, norm backward", &shape, 2);
        on_gpu!(self, op, [x, x, dy, dy], gpu => {
            gpu.chain_backward(chain, x, kept, output_gradient, gradient)
        });
        let shapes = [
            x.shape().clone(),
            shape_if(expands, (2, channels)),
            chain.weight.shape().clone(),
            Shape::from((2, channels)),
        ];
        let [gamma, beta, weight, after_gamma, after_beta] = chain.constants();
        let ExciteBackward { factor, dmean } =
            excite.unwrap_or(ExciteBackward { factor: after_beta, dmean: after_beta });
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
            let [given @ .., gamma, beta, weight, after_gamma, after_beta] = views;
            let slices = chain.over(shape, [gamma, beta, weight, after_gamma, after_beta])?;
            let saved = saved(&given, excite.is_some())?;
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

    /// `act(x convolved with weight + shift)`, one shift per channel: a chain after its statistics were folded into the
    /// weights.
    ///
    /// # Errors
    /// As [`Backend::chain`].
    pub fn depthwise_activated(
        &self,
        x: &Tensor,
        weight: &Tensor,
        stride: usize,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let shape = depthwise_shape(x, weight, stride)?;
        if shift.dims() != [shape.channels] {
            bail!("depthwise_activated: shift {:?} for {} channels", shift.dims(), shape.channels);
        }
        let op = Op::new("depthwise activated");
        on_gpu!(self, op, [x, x], gpu => gpu.depthwise_activated(x, weight, &shape, shift, activation));
        self.compute(op, [x, weight, shift], output(&shape), |[x, weight, shift], y| {
            let weight = weight.contiguous()?;
            let shift = shift.contiguous()?;
            let chain = FoldedSlices { shape, weight, shift, activation };
            run!(self, chain::forward_activated(&chain, x.contiguous()?, y));
            Ok(())
        })
    }
}
