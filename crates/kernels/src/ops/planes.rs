//! Operations plane by plane or row by row: means, scales, biases, sums.

use candle_core::{Result, Tensor, bail};

use super::{Backend, Op, bias_rows, on_gpu, run, same_shape};
use crate::cpu::planes::BiasActivation;
use space::Activation;

impl Backend {
    /// Mean of each map: `[C, N, H, W] -> [C, N]`.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn mean(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, images, height, width) = x.dims4()?;
        on_gpu!(self, Op::new("mean"), [x], gpu => gpu.mean(x));
        self.compute(Op::new("mean"), [x], (channels, images), |[x], out| {
            run!(self, planes::mean(x.contiguous()?, height * width, out));
            Ok(())
        })
    }

    /// The gradient of [`Backend::mean`]'s input: `[C, N] -> [C, N, H, W]`.
    ///
    /// # Errors
    /// If the tensor is not contiguous.
    pub fn mean_backward(&self, dy: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (channels, images) = dy.dims2()?;
        on_gpu!(self, Op::new("mean backward"), [dy], gpu => gpu.mean_backward(dy, height, width));
        self.compute(Op::new("mean backward"), [dy], (channels, images, height, width), |[dy], dx| {
            run!(self, planes::mean_backward(dy.contiguous()?, height * width, dx));
            Ok(())
        })
    }

    /// Each map times its factor: `[C, N, H, W]`, `[C, N]` -> `[C, N, H, W]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale(&self, x: &Tensor, factor: &Tensor) -> Result<Tensor> {
        let plane = plane_of(x, factor)?;
        on_gpu!(self, Op::new("scale"), [x, x], gpu => gpu.scale(x, factor));
        self.compute(Op::new("scale"), [x, factor], x.shape(), |[x, factor], y| {
            run!(self, planes::scale(x.contiguous()?, factor.contiguous()?, plane, y));
            Ok(())
        })
    }

    /// [`Backend::scale`] in place.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale_in_place(&self, x: &Tensor, factor: &Tensor) -> Result<()> {
        let plane = plane_of(x, factor)?;
        on_gpu!(self, Op::new("scale in place"), [x, x], gpu => gpu.scale_in_place(x, factor));
        self.update(Op::new("scale in place"), x, [factor], |mut x, views| {
            run!(self, planes::scale_in_place(x.contiguous()?, views[0].contiguous()?, plane));
            Ok(())
        })
    }

    /// The gradient of [`Backend::scale`]'s factor: `[C, N]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn scale_backward_factor(&self, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
        same_shape("scale backward", x, dy)?;
        let (channels, images, height, width) = x.dims4()?;
        on_gpu!(self, Op::new("scale backward factor"), [x, dy], gpu => gpu.scale_backward_factor(x, dy));
        self.compute(Op::new("scale backward factor"), [x, dy], (channels, images), |[x, dy], out| {
            run!(self, planes::scale_backward_scale(x.contiguous()?, dy.contiguous()?, height * width, out));
            Ok(())
        })
    }

    /// `act(x + bias)`, one bias per row: `[R, M]`, `[R]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn bias_activation(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let rows = bias_rows(x, bias)?;
        on_gpu!(self, Op::new("bias activation"), [x, x], gpu => gpu.bias_activation(x, bias, activation));
        self.compute(Op::new("bias activation"), [x, bias.unwrap_or(x)], x.shape(), |[x, bias_view], y| {
            let bias = bias.map(|_| bias_view.contiguous()).transpose()?;
            let with = BiasActivation { rows, bias, activation };
            run!(self, planes::bias_activation(x.contiguous()?, with, y));
            Ok(())
        })
    }

    /// The gradient of [`Backend::bias_activation`]'s input.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn bias_activation_backward(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        activation: Activation,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let rows = bias_rows(x, bias)?;
        same_shape("bias_activation backward", x, dy)?;
        on_gpu!(self, Op::new("bias activation backward"), [x, dy, x], gpu => {
            gpu.bias_activation_backward(x, bias, activation, dy)
        });
        self.compute(
            Op::new("bias activation backward"),
            [x, bias.unwrap_or(x), dy],
            x.shape(),
            |[x, bias_view, dy], dx| {
                let bias = bias.map(|_| bias_view.contiguous()).transpose()?;
                let x = x.contiguous()?;
                let dy = dy.contiguous()?;
                let with = BiasActivation { rows, bias, activation };
                run!(self, planes::bias_activation_backward(x, with, dy, dx));
                Ok(())
            },
        )
    }

    /// Adds the sum of each row of `[R, M]` to `destination`, `[R]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn add_row_sums(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        let rows = bias_rows(x, Some(destination))?;
        on_gpu!(self, Op::new("add row sums"), [x], gpu => gpu.add_row_sums(destination, x));
        self.update(Op::new("add row sums"), destination, [x], |mut destination, views| {
            run!(self, planes::row_sums(views[0].contiguous()?, rows, destination.contiguous()?));
            Ok(())
        })
    }
}

fn plane_of(x: &Tensor, factor: &Tensor) -> Result<usize> {
    let (channels, images, height, width) = x.dims4()?;
    if factor.dims() != [channels, images] {
        bail!("scale: factors {:?} for {:?}", factor.dims(), x.dims());
    }
    Ok(height * width)
}
