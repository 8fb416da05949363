//! The kernels as methods on tensors: shapes checked, then handed to the implementation.
//!
//! Everything here works on f32 tensors on the CPU; a tensor elsewhere is an error that names its device.

use candle_core::{Result, Tensor, bail};

use super::cpu::batch_norm::Affine;
use super::cpu::dense::PatchShape;
use super::cpu::depthwise::DepthwiseShape;
use super::cpu::product::{Matrix, MatrixMut, Write};
use super::cpu::sgd::SgdStep;
use super::tensors::{View, compute, update, with_views};
use super::{Kernels, Path, cpu, reference};
use crate::space::Activation;

/// Calls a slice kernel on the path that `$self` names.
macro_rules! run {
    ($self:expr, $module:ident :: $function:ident ( $($argument:expr),* $(,)? )) => {
        match $self.path {
            Path::Reference => reference::$module::$function($($argument),*),
            Path::Cpu(isa) => cpu::$module::$function(isa, $($argument),*),
        }
    };
}

/// What a batch norm does after centring: scale, shift, activation.
#[derive(Clone, Debug)]
pub struct Normalisation {
    /// Scale, `[C]`.
    pub gamma: Tensor,
    /// Shift, `[C]`.
    pub beta: Tensor,
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
}

/// One step of stochastic gradient descent with Nesterov's momentum, as PyTorch takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NesterovStep {
    /// Learning rate.
    pub lr: f32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
}

fn matrix<'a>(view: &View<'a>) -> Result<Matrix<'a>> {
    let (rows, columns) = view.layout.shape().dims2()?;
    let stride = view.layout.stride();
    Ok(Matrix { values: view.values, rows, columns, row_stride: stride[0], column_stride: stride[1] })
}

fn same_shape(name: &str, left: &Tensor, right: &Tensor) -> Result<()> {
    if left.dims() != right.dims() {
        bail!("{name}: shapes differ: {:?} and {:?}", left.dims(), right.dims());
    }
    Ok(())
}

impl Kernels {
    fn product_into(self, left: Matrix, right: Matrix, out: MatrixMut, write: Write) -> Result<()> {
        if left.columns != right.rows {
            bail!("product: {}x{} times {}x{}", left.rows, left.columns, right.rows, right.columns);
        }
        match self.path {
            Path::Reference => reference::matrix::product(left, right, out, write),
            Path::Cpu(_) => cpu::product::product(left, right, out, write),
        }
        Ok(())
    }

    /// `left x right`: `[M, K] x [K, N] -> [M, N]`; operands may be strided views.
    ///
    /// # Errors
    /// If the inner sizes differ.
    pub fn product(self, left: &Tensor, right: &Tensor) -> Result<Tensor> {
        let (m, n) = (left.dim(0)?, right.dim(1)?);
        compute([left, right], (m, n), |[left, right], out| {
            let out = MatrixMut { values: out, row_stride: n };
            self.product_into(matrix(&left)?, matrix(&right)?, out, Write::Replace)
        })
    }

    /// `destination += left x right`; `destination` is a view `[M, N]` whose columns are contiguous.
    ///
    /// # Errors
    /// If the sizes differ.
    pub fn add_product(self, destination: &Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
        let sizes = (left.dim(0)?, right.dim(1)?);
        if destination.dims2()? != sizes || (destination.stride()[1] != 1 && sizes.1 != 1) {
            bail!("add_product: destination {:?} for a product {sizes:?}", destination.layout());
        }
        update("add_product", destination, [left, right], |destination, views| {
            let row_stride = destination.layout.stride()[0].max(sizes.1);
            let out = MatrixMut { values: destination.values, row_stride };
            self.product_into(matrix(&views[0])?, matrix(&views[1])?, out, Write::Accumulate)
        })
    }

    /// Depthwise convolution with padding k/2: `[C, N, H, W]`, weight `[C, 1, k, k]` -> `[C, N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or the kernel or the stride is not supported.
    pub fn depthwise(self, x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
        let shape = depthwise_shape(x.dims4()?, weight, stride)?;
        let out = (shape.channels, shape.images, shape.out_height(), shape.out_width());
        compute([x, weight], out, |[x, weight], y| {
            let (x, weight) = (x.contiguous()?, weight.contiguous()?);
            run!(self, depthwise::forward(&shape, x, weight, y));
            Ok(())
        })
    }

    /// The gradient of [`Kernels::depthwise`]'s input, whose maps are `height` x `width`.
    ///
    /// # Errors
    /// As [`Kernels::depthwise`].
    pub fn depthwise_backward_input(
        self,
        dy: &Tensor,
        weight: &Tensor,
        stride: usize,
        (height, width): (usize, usize),
    ) -> Result<Tensor> {
        let (channels, images, out_height, out_width) = dy.dims4()?;
        let input = (channels, images, height, width);
        let shape = depthwise_shape(input, weight, stride)?;
        if (out_height, out_width) != (shape.out_height(), shape.out_width()) {
            bail!("depthwise backward: gradient of {out_height}x{out_width} for {shape:?}");
        }
        compute([dy, weight], input, |[dy, weight], dx| {
            let (dy, weight) = (dy.contiguous()?, weight.contiguous()?);
            run!(self, depthwise::backward_input(&shape, dy, weight, dx));
            Ok(())
        })
    }

    /// Adds the gradient of [`Kernels::depthwise`]'s weight to `gradient`, `[C, 1, k, k]`.
    ///
    /// # Errors
    /// As [`Kernels::depthwise`].
    pub fn depthwise_backward_weight(
        self,
        gradient: &Tensor,
        x: &Tensor,
        dy: &Tensor,
        stride: usize,
    ) -> Result<()> {
        let shape = depthwise_shape(x.dims4()?, gradient, stride)?;
        update("depthwise_backward_weight", gradient, [x, dy], |mut gradient, views| {
            let (x, dy) = (views[0].contiguous()?, views[1].contiguous()?);
            run!(self, depthwise::backward_weight(&shape, x, dy, gradient.contiguous()?));
            Ok(())
        })
    }

    /// Mean and biased variance of each channel: `[C, N, H, W] -> [2, C]`.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn statistics(self, x: &Tensor) -> Result<Tensor> {
        let channels = x.dim(0)?;
        compute([x], (2, channels), |[x], out| {
            run!(self, batch_norm::statistics(x.contiguous()?, channels, out));
            Ok(())
        })
    }

    /// `act(gamma (x - mean) / sqrt(var + eps) + beta)` with statistics `[2, C]`; same shape as `x`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalise(self, x: &Tensor, statistics: &Tensor, with: &Normalisation) -> Result<Tensor> {
        let inputs = [x, statistics, &with.gamma, &with.beta];
        compute(inputs, x.shape(), |[x, statistics, gamma, beta], y| {
            let affine = affine(&gamma, &beta, with)?;
            run!(self, batch_norm::apply(x.contiguous()?, statistics.contiguous()?, affine, y));
            Ok(())
        })
    }

    /// [`Kernels::normalise`] in place.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalise_in_place(self, x: &Tensor, statistics: &Tensor, with: &Normalisation) -> Result<()> {
        update("normalise_in_place", x, [], |mut x, _| {
            with_views([statistics, &with.gamma, &with.beta], |[statistics, gamma, beta]| {
                let affine = affine(&gamma, &beta, with)?;
                run!(self, batch_norm::apply_in_place(x.contiguous()?, statistics.contiguous()?, affine));
                Ok(())
            })
        })
    }

    /// Gradients of a batch norm's scale and shift, `[2, C]`, where `statistics` are the batch's own.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalise_backward_sums(
        self,
        x: &Tensor,
        dy: &Tensor,
        statistics: &Tensor,
        with: &Normalisation,
    ) -> Result<Tensor> {
        same_shape("normalise backward", x, dy)?;
        let inputs = [x, dy, statistics, &with.gamma, &with.beta];
        compute(inputs, (2, x.dim(0)?), |[x, dy, statistics, gamma, beta], sums| {
            let (x, dy, statistics) = (x.contiguous()?, dy.contiguous()?, statistics.contiguous()?);
            run!(self, batch_norm::backward_sums(x, dy, statistics, affine(&gamma, &beta, with)?, sums));
            Ok(())
        })
    }

    /// Gradient of a batch norm's input through the batch's own statistics; `sums` are
    /// [`Kernels::normalise_backward_sums`]'s.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalise_backward_input(
        self,
        x: &Tensor,
        dy: &Tensor,
        statistics: &Tensor,
        sums: &Tensor,
        with: &Normalisation,
    ) -> Result<Tensor> {
        same_shape("normalise backward", x, dy)?;
        let inputs = [x, dy, statistics, sums, &with.gamma, &with.beta];
        compute(inputs, x.shape(), |[x, dy, statistics, sums, gamma, beta], dx| {
            let (x, dy) = (x.contiguous()?, dy.contiguous()?);
            let (statistics, sums) = (statistics.contiguous()?, sums.contiguous()?);
            let affine = affine(&gamma, &beta, with)?;
            run!(self, batch_norm::backward_input(x, dy, statistics, sums, affine, dx));
            Ok(())
        })
    }

    /// Mean of each map: `[C, N, H, W] -> [C, N]`.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn mean(self, x: &Tensor) -> Result<Tensor> {
        let (channels, images, height, width) = x.dims4()?;
        compute([x], (channels, images), |[x], out| {
            run!(self, planes::mean(x.contiguous()?, height * width, out));
            Ok(())
        })
    }

    /// The gradient of [`Kernels::mean`]'s input: `[C, N] -> [C, N, H, W]`.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn mean_backward(self, dy: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let (channels, images) = dy.dims2()?;
        compute([dy], (channels, images, height, width), |[dy], dx| {
            run!(self, planes::mean_backward(dy.contiguous()?, height * width, dx));
            Ok(())
        })
    }

    /// Each map times its factor: `[C, N, H, W]`, `[C, N]` -> `[C, N, H, W]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale(self, x: &Tensor, factor: &Tensor) -> Result<Tensor> {
        let plane = plane_of(x, factor)?;
        compute([x, factor], x.shape(), |[x, factor], y| {
            run!(self, planes::scale(x.contiguous()?, factor.contiguous()?, plane, y));
            Ok(())
        })
    }

    /// [`Kernels::scale`] in place.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale_in_place(self, x: &Tensor, factor: &Tensor) -> Result<()> {
        let plane = plane_of(x, factor)?;
        update("scale_in_place", x, [factor], |mut x, views| {
            run!(self, planes::scale_in_place(x.contiguous()?, views[0].contiguous()?, plane));
            Ok(())
        })
    }

    /// The gradient of [`Kernels::scale`]'s factor: `[C, N]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale_backward_factor(self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        same_shape("scale backward", x, dy)?;
        let (channels, images, height, width) = x.dims4()?;
        compute([x, dy], (channels, images), |[x, dy], out| {
            run!(self, planes::scale_backward_scale(x.contiguous()?, dy.contiguous()?, height * width, out));
            Ok(())
        })
    }

    /// The gradient of what was both averaged and scaled: `dy factor + dmean / (H W)`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale_backward_input(self, dy: &Tensor, factor: &Tensor, dmean: &Tensor) -> Result<Tensor> {
        let plane = plane_of(dy, factor)?;
        same_shape("scale backward", factor, dmean)?;
        compute([dy, factor, dmean], dy.shape(), |[dy, factor, dmean], dx| {
            let (factor, dmean) = (factor.contiguous()?, dmean.contiguous()?);
            run!(self, planes::scale_backward_input(dy.contiguous()?, factor, dmean, plane, dx));
            Ok(())
        })
    }

    /// `act(x + bias)`, the bias one value a row: `[R, M]`, `[R]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn bias_activation(
        self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let rows = bias_rows(x, bias)?;
        compute([x, bias.unwrap_or(x)], x.shape(), |[x, bias_view], y| {
            let bias = bias.map(|_| bias_view.contiguous()).transpose()?;
            run!(self, planes::bias_activation(x.contiguous()?, bias, rows, activation, y));
            Ok(())
        })
    }

    /// The gradient of [`Kernels::bias_activation`]'s input.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn bias_activation_backward(
        self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let rows = bias_rows(x, bias)?;
        same_shape("bias_activation backward", x, dy)?;
        compute([x, bias.unwrap_or(x), dy], x.shape(), |[x, bias_view, dy], dx| {
            let bias = bias.map(|_| bias_view.contiguous()).transpose()?;
            let (x, dy) = (x.contiguous()?, dy.contiguous()?);
            run!(self, planes::bias_activation_backward(x, bias, rows, activation, dy, dx));
            Ok(())
        })
    }

    /// Adds the sum of each row of `[R, M]` to `destination`, `[R]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn add_row_sums(self, destination: &Tensor, x: &Tensor) -> Result<()> {
        let rows = bias_rows(x, Some(destination))?;
        update("add_row_sums", destination, [x], |mut destination, views| {
            run!(self, planes::row_sums(views[0].contiguous()?, rows, destination.contiguous()?));
            Ok(())
        })
    }

    /// `destination += x`, both contiguous and of one shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_assign(self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_assign", destination, x)?;
        update("add_assign", destination, [x], |mut destination, views| {
            run!(self, planes::add_assign(destination.contiguous()?, views[0].contiguous()?));
            Ok(())
        })
    }

    /// `destination += x` where `destination` is any narrowed view of the same shape: for small weights.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_to_view(self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_to_view", destination, x)?;
        update("add_to_view", destination, [x], |destination, views| {
            let (dims, strides) = (destination.layout.dims(), destination.layout.stride());
            for (index, value) in views[0].contiguous()?.iter().enumerate() {
                destination.values[place(index, dims, strides)] += value;
            }
            Ok(())
        })
    }

    /// Sets every value of a contiguous tensor to zero.
    ///
    /// # Errors
    /// If it is not contiguous.
    pub fn fill_zero(self, destination: &Tensor) -> Result<()> {
        update("fill_zero", destination, [], |mut destination, _| {
            destination.contiguous()?.fill(0.0);
            Ok(())
        })
    }

    /// Patches under a dense convolution's kernel, padding k/2: `[C, N, H, W] -> [C k k, N Ho Wo]`, with the
    /// output's height and width.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn patches(self, x: &Tensor, kernel: usize, stride: usize) -> Result<(Tensor, (usize, usize))> {
        let (channels, images, height, width) = x.dims4()?;
        let shape = PatchShape { channels, images, height, width, kernel, stride };
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        let sizes = (channels * kernel * kernel, images * out_height * out_width);
        let patches = compute([x], sizes, |[x], out| {
            run!(self, dense::patches(&shape, x.contiguous()?, out));
            Ok(())
        })?;
        Ok((patches, (out_height, out_width)))
    }

    /// One step on a parameter and its velocity, which is made anew in place.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn nesterov(
        self,
        parameter: &Tensor,
        gradient: &Tensor,
        velocity: &Tensor,
        step: NesterovStep,
    ) -> Result<()> {
        same_shape("nesterov", parameter, gradient)?;
        same_shape("nesterov", parameter, velocity)?;
        let NesterovStep { lr, momentum, weight_decay } = step;
        let step = SgdStep { lr, momentum, weight_decay };
        update("nesterov", velocity, [gradient], |mut velocity, views| {
            let velocity = std::cell::RefCell::new(velocity.contiguous()?);
            let gradient = views[0].contiguous()?;
            update("nesterov", parameter, [], |mut parameter, _| {
                let mut velocity = velocity.borrow_mut();
                run!(self, sgd::nesterov(parameter.contiguous()?, gradient, &mut velocity, step));
                Ok(())
            })
        })
    }
}

/// Where the element of this row-major index lies in a strided tensor.
fn place(mut index: usize, dims: &[usize], strides: &[usize]) -> usize {
    let mut place = 0;
    for (&length, &stride) in dims.iter().zip(strides).rev() {
        place += index % length * stride;
        index /= length;
    }
    place
}

fn depthwise_shape(
    input: (usize, usize, usize, usize),
    weight: &Tensor,
    stride: usize,
) -> Result<DepthwiseShape> {
    let (channels, images, height, width) = input;
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

fn affine<'a>(gamma: &View<'a>, beta: &View<'a>, with: &Normalisation) -> Result<Affine<'a>> {
    let (gamma, beta) = (gamma.contiguous()?, beta.contiguous()?);
    Ok(Affine { gamma, beta, epsilon: with.epsilon, activation: with.activation })
}

fn plane_of(x: &Tensor, factor: &Tensor) -> Result<usize> {
    let (channels, images, height, width) = x.dims4()?;
    if factor.dims() != [channels, images] {
        bail!("scale: factors {:?} for {:?}", factor.dims(), x.dims());
    }
    Ok(height * width)
}

fn bias_rows(x: &Tensor, bias: Option<&Tensor>) -> Result<usize> {
    let rows = x.dim(0)?;
    if let Some(bias) = bias
        && bias.dims() != [rows]
    {
        bail!("bias {:?} for {:?}", bias.dims(), x.dims());
    }
    Ok(rows)
}
