//! The operations between the products, on tensors whose shapes were checked: looks up places and runs launches.

use candle_core::{Result, Tensor};

use super::batch_norm::{BatchNormBackwardPlaces, BatchNormLaunches, add_row_sums};
use super::chain::{ChainLaunches, ChainRooms, GradientPlaces, KeptPlaces, OutputGradientPlaces};
use super::gpu::{Gpu, contiguous, kept_as, numbers};
use super::planes::BiasLaunches;
use super::{ActivationStorage, Launch, Place, RowSizes, depthwise, planes, pool, splits};
use crate::cpu::depthwise::DepthwiseShape;
use crate::cpu::pool::{Pool, Sampling};
use crate::ops::BatchNormBackward;
use crate::{BatchNormAffine, ChainKept, ChainOutputGradient, DepthwiseChain};
use space::Activation;

/// A batch norm over rows of these sizes.
fn norm(with: &BatchNormAffine, sizes: RowSizes) -> Result<BatchNormLaunches> {
    let RowSizes { rows, length } = sizes;
    let gamma = numbers(&with.gamma)?;
    let beta = numbers(&with.beta)?;
    Ok(BatchNormLaunches { rows, length, gamma, beta, epsilon: with.epsilon, activation: with.activation })
}

/// Rows of a tensor `[R, …]`.
fn rows(x: &Tensor) -> Result<RowSizes> {
    let rows = x.dim(0)?;
    Ok(RowSizes { rows, length: x.elem_count() / rows.max(1) })
}

/// Maps of a tensor `[C, N, H, W]`.
fn maps(x: &Tensor) -> Result<RowSizes> {
    let (channels, images, height, width) = x.dims4()?;
    Ok(RowSizes { rows: channels * images, length: height * width })
}

/// Where the gradients of scale and shift are added.
fn slopes(gradient: &BatchNormAffine) -> Result<[Place; 2]> {
    Ok([numbers(&gradient.gamma)?, numbers(&gradient.beta)?])
}

impl Gpu {
    /// Mean and biased variance of each row, `[2, R]`.
    fn statistics(&self, norm: &BatchNormLaunches, x: Place, storage: ActivationStorage) -> Result<Tensor> {
        let statistics = self.unfilled((2, norm.rows), ActivationStorage::F32)?;
        let room = self.room(norm.scratch())?;
        self.run(storage, norm.statistics(x, numbers(&statistics)?, numbers(&room)?))?;
        Ok(statistics)
    }

    /// `act(batch norm of x) + addend` into `y`, with the batch's own statistics or `given` ones; returns the statistics.
    pub fn normalize(
        &self,
        x: &Tensor,
        with: &BatchNormAffine,
        addend: Option<&Tensor>,
        given: Option<&Tensor>,
        y: &Tensor,
    ) -> Result<Tensor> {
        let sizes = rows(x)?;
        let x = contiguous(x)?;
        let norm = norm(with, sizes)?;
        let statistics = match given {
            Some(given) => given.clone(),
            None => self.statistics(&norm, x.place, x.storage)?,
        };
        let addend = addend.map(|addend| kept_as(addend, x.storage)).transpose()?;
        let y = kept_as(y, x.storage)?;
        self.run(x.storage, [norm.apply(x.place, numbers(&statistics)?, addend, y)])?;
        Ok(statistics)
    }

    /// The gradient of a batch norm's input into `dx`, which may be `dy`.
    pub fn normalize_backward(
        &self,
        given: &BatchNormBackward,
        gradient: &BatchNormAffine,
        dx: &Tensor,
    ) -> Result<()> {
        let sizes = rows(given.x)?;
        let x = contiguous(given.x)?;
        let norm = norm(given.with, sizes)?;
        let sums = self.room(2 * norm.rows)?;
        let room = self.room(norm.scratch())?;
        let places = BatchNormBackwardPlaces {
            x: x.place,
            dy: kept_as(given.dy, x.storage)?,
            stats: numbers(given.statistics)?,
            excite: None,
            slopes: slopes(gradient)?,
            dx: kept_as(dx, x.storage)?,
        };
        self.run(x.storage, norm.backward(places, numbers(&sums)?, numbers(&room)?))
    }

    fn planned(&self, chain: &DepthwiseChain, shape: &DepthwiseShape) -> Result<ChainLaunches> {
        let rows = shape.channels;
        let before = match &chain.before {
            Some(before) => Some(norm(before, RowSizes { rows, length: shape.channel() })?),
            None => None,
        };
        let after = norm(&chain.after, RowSizes { rows, length: shape.out_channel() })?;
        Ok(ChainLaunches { shape: *shape, before, weight: numbers(&chain.weight)?, after })
    }

    fn chain_output(&self, shape: &DepthwiseShape, storage: ActivationStorage) -> Result<Tensor> {
        self.unfilled((shape.channels, shape.images, shape.out_height(), shape.out_width()), storage)
    }

    /// A block's chain with the batch's own statistics, and the results that backward reads.
    pub fn chain(
        &self,
        chain: &DepthwiseChain,
        shape: &DepthwiseShape,
        x: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>, ChainKept)> {
        let x = contiguous(x)?;
        let planned = self.planned(chain, shape)?;
        let statistics = || self.unfilled((2, shape.channels), ActivationStorage::F32);
        let before = chain.before.is_some().then(statistics).transpose()?;
        let after = statistics()?;
        let room = self.room(planned.scratch())?;
        let convolved = self.chain_output(shape, x.storage)?;
        let output = self.chain_output(shape, x.storage)?;
        let means = || self.unfilled((shape.channels, shape.images), x.storage);
        let means = chain.with_means.then(means).transpose()?;
        let kept = KeptPlaces {
            before: before.as_ref().map_or(Ok(Place(0)), numbers)?,
            convolved: contiguous(&convolved)?.place,
            after: numbers(&after)?,
            output: contiguous(&output)?.place,
            means: means
                .as_ref()
                .map(|means| Ok::<_, candle_core::Error>(contiguous(means)?.place))
                .transpose()?,
        };
        self.run(x.storage, planned.forward(x.place, kept, numbers(&room)?))?;
        Ok((output, means, ChainKept { before, convolved, after }))
    }

    /// A chain that retains nothing for backward: the output, and the statistics before and after.
    pub fn chain_forgetting(
        &self,
        chain: &DepthwiseChain,
        shape: &DepthwiseShape,
        x: &Tensor,
        given: Option<(Option<&Tensor>, &Tensor)>,
    ) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let x = contiguous(x)?;
        let planned = self.planned(chain, shape)?;
        let before = match (&planned.before, given) {
            (None, _) => None,
            (Some(_), Some((Some(given), _))) => Some(given.clone()),
            (Some(norm), _) => Some(self.statistics(norm, x.place, x.storage)?),
        };
        let y = self.chain_output(shape, x.storage)?;
        let read = match (planned.before, &before) {
            (Some(norm), Some(statistics)) => Some((norm, numbers(statistics)?)),
            _ => None,
        };
        let at = contiguous(&y)?.place;
        let input = depthwise::ConvolutionInput { x: x.place, before: read };
        self.run(x.storage, [depthwise::forward(shape, input, planned.weight, at)])?;
        let after = self.normalize(&y, &chain.after, None, given.map(|(_, after)| after), &y)?;
        Ok((y, before, after))
    }

    /// The gradient of a chain's input; adds the gradients of its weights to `gradient`.
    pub fn chain_backward(
        &self,
        chain: &DepthwiseChain,
        x: &Tensor,
        kept: &ChainKept,
        output_gradient: &ChainOutputGradient,
        gradient: &DepthwiseChain,
    ) -> Result<Tensor> {
        let shape = &chain.shape(x)?;
        let planned = self.planned(chain, shape)?;
        let storage = ActivationStorage::of(x)?;
        let at = |tensor: &Tensor| kept_as(tensor, storage);
        let dx = self.unfilled(x.shape(), storage)?;
        let inner = self.chain_output(shape, storage)?;
        let sums = self.room(2 * shape.channels)?;
        let room = self.room(planned.scratch())?;
        let was = KeptPlaces {
            before: kept.before.as_ref().map_or(Ok(Place(0)), numbers)?,
            convolved: at(&kept.convolved)?,
            after: numbers(&kept.after)?,
            output: Place(0),
            means: None,
        };
        let to = GradientPlaces {
            dx: at(&dx)?,
            before: gradient.before.as_ref().map_or(Ok([Place(0); 2]), slopes)?,
            weight: numbers(&gradient.weight)?,
            after: slopes(&gradient.after)?,
        };
        let excite = match &output_gradient.excite {
            Some(excite) => Some([at(excite.factor)?, at(excite.dmean)?]),
            None => None,
        };
        let output = OutputGradientPlaces { dy: at(output_gradient.dy)?, excite };
        let rooms = ChainRooms { inner: at(&inner)?, sums: numbers(&sums)?, scratch: numbers(&room)? };
        self.run(storage, planned.backward(at(x)?, was, output, to, rooms))?;
        Ok(dx)
    }

    /// `act(x convolved with weight + shift)`.
    pub fn depthwise_activated(
        &self,
        x: &Tensor,
        weight: &Tensor,
        shape: &DepthwiseShape,
        shift: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let x = contiguous(x)?;
        let y = self.chain_output(shape, x.storage)?;
        let input = depthwise::ConvolutionInput { x: x.place, before: None };
        let convolve = depthwise::forward(shape, input, numbers(weight)?, contiguous(&y)?.place);
        self.run(x.storage, [convolve])?;
        self.activate(&y, shift, activation)?;
        Ok(y)
    }

    /// The output of one launch on inputs that are all activations.
    fn fill<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        shape: impl Into<candle_core::Shape>,
        plan: impl FnOnce([Place; N], Place) -> Launch,
    ) -> Result<Tensor> {
        let storage = ActivationStorage::of(inputs[0])?;
        let out = self.unfilled(shape, storage)?;
        let mut places = [Place(0); N];
        for (place, input) in places.iter_mut().zip(inputs) {
            *place = kept_as(input, storage)?;
        }
        self.run(storage, [plan(places, contiguous(&out)?.place)])?;
        Ok(out)
    }

    /// Mean of each map: `[C, N, H, W] -> [C, N]`.
    pub fn mean(&self, x: &Tensor) -> Result<Tensor> {
        let sizes = maps(x)?;
        self.fill([x], &x.dims()[..2], |[x], out| planes::mean(x, sizes, out))
    }

    /// The gradient of the mean's input.
    pub fn mean_backward(&self, dy: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (channels, images) = dy.dims2()?;
        let sizes = RowSizes { rows: channels * images, length: height * width };
        self.fill([dy], (channels, images, height, width), |[dy], dx| {
            planes::scale_backward_input(dy, None, Some(dy), sizes, dx)
        })
    }

    /// Each map times its factor.
    pub fn scale(&self, x: &Tensor, factor: &Tensor) -> Result<Tensor> {
        let sizes = maps(x)?;
        self.fill([x, factor], x.shape(), |[x, factor], y| planes::scale(x, factor, sizes, y))
    }

    /// [`Gpu::scale`] in place.
    pub fn scale_in_place(&self, x: &Tensor, factor: &Tensor) -> Result<()> {
        let sizes = maps(x)?;
        let at = contiguous(x)?;
        self.run(at.storage, [planes::scale(at.place, kept_as(factor, at.storage)?, sizes, at.place)])
    }

    /// The gradient of the factors, `[C, N]`.
    pub fn scale_backward_factor(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let sizes = maps(x)?;
        self.fill([x, dy], &x.dims()[..2], |[x, dy], out| planes::scale_backward_scale(x, dy, sizes, out))
    }

    /// `act(x + bias)`.
    pub fn bias_activation(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let sizes = rows(x)?;
        let launches = BiasLaunches { sizes, bias: bias.map(numbers).transpose()?, activation };
        self.fill([x], x.shape(), |[x], y| launches.forward(x, y))
    }

    /// The gradient of [`Gpu::bias_activation`]'s input.
    pub fn bias_activation_backward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let sizes = rows(x)?;
        let launches = BiasLaunches { sizes, bias: bias.map(numbers).transpose()?, activation };
        self.fill([x, dy], x.shape(), |[x, dy], dx| launches.backward(x, dy, dx))
    }

    /// Adds the sum of each row to `destination`.
    pub fn add_row_sums(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        let sizes = rows(x)?;
        let x = contiguous(x)?;
        let room = self.room(splits(sizes.rows, sizes.length) * sizes.rows)?;
        let add = add_row_sums(x.place, sizes, numbers(destination)?, numbers(&room)?);
        self.run(x.storage, add)
    }

    /// Maximum of each window.
    pub fn max_pool(&self, x: &Tensor, pool: &Pool, out: &[usize; 4]) -> Result<Tensor> {
        self.fill([x], out, |[x], y| pool::max(pool, out[0] * out[1], x, y))
    }

    /// The gradient of [`Gpu::max_pool`]'s input.
    pub fn max_pool_backward(&self, x: &Tensor, dy: &Tensor, pool: &Pool) -> Result<Tensor> {
        let count = maps(x)?.rows;
        self.fill([x, dy], x.shape(), |given, dx| pool::max_backward(pool, count, given, dx))
    }

    /// Mean of each window.
    pub fn average_pool(&self, x: &Tensor, pool: &Pool, out: &[usize; 4]) -> Result<Tensor> {
        self.fill([x], out, |[x], y| pool::average(pool, out[0] * out[1], x, y))
    }

    /// The gradient of [`Gpu::average_pool`]'s input, which has this shape.
    pub fn average_pool_backward(&self, dy: &Tensor, pool: &Pool, input: &[usize; 4]) -> Result<Tensor> {
        self.fill([dy], input, |[dy], dx| pool::average_backward(pool, input[0] * input[1], dy, dx))
    }

    /// Every second place.
    pub fn sample(&self, x: &Tensor, sampling: &Sampling, out: &[usize; 4]) -> Result<Tensor> {
        self.fill([x], out, |[x], y| pool::sample(sampling, out[0] * out[1], x, y))
    }

    /// The gradient of [`Gpu::sample`]'s input, which has this shape.
    pub fn sample_backward(&self, dy: &Tensor, sampling: &Sampling, input: &[usize; 4]) -> Result<Tensor> {
        self.fill([dy], input, |[dy], dx| pool::sample_backward(sampling, input[0] * input[1], dy, dx))
    }
}
