//! Convolutions without bias, and each with the batch norm after it.

use candle_core::{Tensor, bail};
use kernels::{Backend, Window};
use space::Activation;

use super::batch_norm::BatchNorm;
use super::flow::Flow;
use super::parameter::Parameter;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// A convolution, forward and backward.
pub trait Convolution {
    /// `[C, N, H, W] -> [C', N, H', W']`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor>;

    /// Adds the weight's gradient; returns the input's, or `None` for a convolution on the image.
    ///
    /// # Errors
    /// If the tape does not fit, or there are no gradients.
    fn backward(&self, dy: &Tensor, tape: &mut Tape) -> Result<Option<Tensor>>;

    /// The flow of paths through it.
    ///
    /// # Errors
    /// If the weight cannot be read.
    fn flow(&self, x: &Flow) -> Result<Flow>;

    /// Name in the profile.
    const NAME: &'static str;
}

/// 1x1 convolution: one matrix product `W[O, I] x X[I, N H W]`.
pub struct Pointwise {
    weight: Parameter, // [O, I]
    backend: Backend,
}

impl Pointwise {
    /// Reads `weight`, `[O, I, 1, 1]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new(input: usize, output: usize, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input, 1, 1), "weight")?;
        let weight = weight.seen(|weight| weight.squeeze(3)?.squeeze(2))?;
        Ok(Self { weight, backend: source.backend().for_layer(Self::NAME) })
    }
}

impl Pointwise {
    /// Adds the weight's gradient, and the input's to `skip`, the input's gradient from the path past the convolution.
    ///
    /// # Errors
    /// If the tape does not fit, or there are no gradients.
    pub fn backward_adding(&self, dy: &Tensor, tape: &mut Tape, skip: &Tensor) -> Result<()> {
        let dy = dy.flatten_from(1)?; // [O, N H W]
        self.add_gradient(&dy, &tape.pop()?)?;
        Ok(self.backend.add_product(&skip.flatten_from(1)?, &self.weight.operand().t()?, &dy)?)
    }

    fn add_gradient(&self, dy: &Tensor, x: &Tensor) -> Result<()> {
        Ok(self.backend.add_product(self.weight.gradient()?, dy, &x.flatten_from(1)?.t()?)?)
    }

    /// The weight, `[O, I]`.
    pub(super) fn weight(&self) -> &Tensor {
        self.weight.value()
    }
}

impl Convolution for Pointwise {
    const NAME: &'static str = "pointwise";

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.save(x);
        let (_, images, height, width) = x.dims4()?;
        let y = self.backend.product(self.weight.operand(), &x.flatten_from(1)?)?; // [O, N H W]
        Ok(y.reshape((y.dim(0)?, images, height, width))?)
    }

    fn backward(&self, dy: &Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        let x = tape.pop()?;
        let dy = dy.flatten_from(1)?; // [O, N H W]
        self.add_gradient(&dy, &x)?;
        let dx = self.backend.product(&self.weight.operand().t()?, &dy)?;
        Ok(Some(dx.reshape(x.shape())?))
    }

    fn flow(&self, x: &Flow) -> Result<Flow> {
        x.convolved(self.weight.value(), 1)
    }
}

/// Dense k x k convolution, padding k/2.
pub struct Dense {
    weight: Parameter, // [O, I, k, k]
    window: Window,
    /// Whether the input is the image, whose gradient is not needed.
    on_image: bool,
    backend: Backend,
}

impl Dense {
    /// A convolution on maps; reads `weight`, `[O, I, k, k]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new([output, input]: [usize; 2], window: Window, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input, window.kernel, window.kernel), "weight")?;
        Ok(Self { weight, window, on_image: false, backend: source.backend().for_layer(Self::NAME) })
    }

    /// A convolution on the image, whose gradient is not needed.
    ///
    /// # Errors
    /// As [`Dense::new`].
    pub fn on_image(channels: [usize; 2], window: Window, source: &Source) -> Result<Self> {
        let backend = source.backend().for_layer("stem");
        Ok(Self { on_image: true, backend, ..Self::new(channels, window, source)? })
    }

    /// The weight, `[O, I, k, k]`, and its window.
    pub(super) fn parts(&self) -> (&Tensor, Window) {
        (self.weight.value(), self.window)
    }
}

impl Convolution for Dense {
    const NAME: &'static str = "dense";

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.save(x);
        Ok(self.backend.convolve(self.weight.operand(), x, self.window.stride)?)
    }

    fn backward(&self, dy: &Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        let x = tape.pop()?;
        let stride = self.window.stride;
        self.backend.add_convolve_weight(self.weight.gradient()?, &x, dy, stride)?;
        if self.on_image && !tape.reaches_images() {
            return Ok(None);
        }
        let (_, _, height, width) = x.dims4()?;
        Ok(Some(self.backend.convolve_backward_input(self.weight.operand(), dy, stride, height, width)?))
    }

    fn flow(&self, x: &Flow) -> Result<Flow> {
        x.convolved(self.weight.value(), self.window.stride)
    }
}

/// A convolution, its batch norm and the activation.
pub struct ConvNorm<C> {
    convolution: C,
    norm: BatchNorm,
}

impl ConvNorm<Pointwise> {
    /// Reads `conv.weight`, `[O, I, 1, 1]`, and `bn.*`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn pointwise(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let convolution = Pointwise::new(input, output, &source.pp("conv"))?;
        Ok(Self { convolution, norm: BatchNorm::new(output, activation, &source.pp("bn"))? })
    }
}

impl<C: Convolution> ConvNorm<C> {
    /// `convolution`, then the batch norm under `bn`.
    ///
    /// # Errors
    /// If a weight of the batch norm is missing or has another shape.
    pub fn new(convolution: C, channels: usize, activation: Activation, source: &Source) -> Result<Self> {
        Ok(Self { convolution, norm: BatchNorm::new(channels, activation, &source.pp("bn"))? })
    }

    /// The normalized convolution plus `addend`, if there is one: `[C, N, H, W] -> [C', N, H', W']`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, addend: Option<&Tensor>, pass: &mut Pass) -> Result<Tensor> {
        let y = self.convolution.forward(x, pass)?;
        self.norm.forward(y, addend, pass)
    }

    /// Adds the weights' gradients; returns the input's where the convolution gives one. Overwrites `dy`.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        let dy = self.norm.backward(dy, tape)?;
        self.convolution.backward(&dy, tape)
    }

    /// [`ConvNorm::backward`] that leaves `dy` as it is.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward_keeping(&self, dy: &Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        let dy = self.norm.backward_keeping(dy, tape)?;
        self.convolution.backward(&dy, tape)
    }

    /// The flow of paths through it, without the batch norm.
    ///
    /// # Errors
    /// If the weight cannot be read.
    pub fn flow(&self, x: &Flow) -> Result<Flow> {
        self.convolution.flow(x)
    }

    pub(super) fn parts(&self) -> (&C, &BatchNorm) {
        (&self.convolution, &self.norm)
    }
}

/// The gradient of a convolution that is not on the image.
pub(super) fn given(gradient: Option<Tensor>) -> candle_core::Result<Tensor> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => bail!("no input gradient from a convolution that is not on the image"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{source, tensor, values};

    /// A source with `weight` and a gradient of zeros for it, which is returned too.
    fn weight(shape: &[usize], values: &[f32]) -> (Source<'static>, Tensor) {
        let gradient = tensor(shape, &vec![0.0; values.len()]);
        let gradients = [("x.weight".to_string(), gradient.clone())].into();
        let source = source(&[("x.weight", tensor(shape, values))]).with_gradients(gradients);
        (source.pp("x"), gradient)
    }

    #[test]
    fn a_pointwise_convolution_adds_its_gradients() {
        let (source, gradient) = weight(&[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
        let convolution = Pointwise::new(2, 2, &source).expect("its weight");
        let x = tensor(&[2, 1, 1, 2], &[1.0, 2.0, 10.0, 20.0]);
        let mut tape = Tape::new();
        let y = convolution.forward(&x, &mut Pass::Training(&mut tape)).expect("maps");
        assert_eq!(values(&y), [21.0, 42.0, 43.0, 86.0]);
        let dy = tensor(&[2, 1, 1, 2], &[1.0, 0.0, 0.0, 1.0]);
        let skip = tensor(&[2, 1, 1, 2], &[100.0; 4]);
        convolution.backward_adding(&dy, &mut tape, &skip).expect("a tape");
        assert_eq!(values(&skip), [101.0, 103.0, 102.0, 104.0]);
        assert_eq!(values(&gradient), [1.0, 10.0, 2.0, 20.0]);
    }

    #[test]
    fn a_convolution_on_the_image_gives_no_input_gradient() {
        let image = tensor(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let dy = tensor(&[1, 1, 2, 2], &[1.0; 4]);
        let window = Window { kernel: 1, stride: 1 };
        for on_image in [true, false] {
            let (source, gradient) = weight(&[1, 1, 1, 1], &[5.0]);
            let new = if on_image { Dense::on_image } else { Dense::new };
            let convolution = new([1, 1], window, &source).expect("its weight");
            let mut tape = Tape::new();
            let y = convolution.forward(&image, &mut Pass::Training(&mut tape)).expect("maps");
            assert_eq!(values(&y), [5.0, 10.0, 15.0, 20.0]);
            let dx = convolution.backward(&dy, &mut tape).expect("a tape");
            assert_eq!(values(&gradient), [10.0]);
            match given(dx) {
                Ok(dx) => {
                    assert!(!on_image, "a convolution on the image has no input gradient");
                    assert_eq!(values(&dx), [5.0; 4]);
                }
                Err(error) => {
                    assert!(on_image && error.to_string().starts_with("no input gradient"), "{error}");
                }
            }
        }
    }
}
