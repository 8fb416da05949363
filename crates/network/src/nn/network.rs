//! A static network: the list of layers, run forward, and read in reverse.

use candle_core::{Tensor, bail};
use kernels::{Kernels, Window};
use space::{LayerSpec, Operator};

use super::bottleneck::Bottleneck;
use super::conv::{ConvNorm, Dense, Pointwise};
use super::linear::{FeatureMix, Linear};
use super::mbconv::{MbConv, given};
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::{Error, Result};

/// A network with weights; or, from a source of gradients, the gradients of one.
pub struct Network {
    layers: Vec<Layer>,
    kernels: Kernels,
}

pub(super) enum Layer {
    Stem(ConvNorm<Dense>),
    MbConv(Box<MbConv>),
    Conv { conv: ConvNorm<Dense>, residual: bool },
    MaxPool,
    Bottleneck(Box<Bottleneck>),
    HeadConv(ConvNorm<Pointwise>),
    Pool,
    FeatureMix(FeatureMix),
    Classifier(Linear),
}

impl Layer {
    fn new(layer: &LayerSpec, source: &Source) -> Result<Self> {
        let source = source.pp(&layer.name);
        let (input, output) = (layer.input.channels, layer.output.channels);
        Ok(match &layer.operator {
            Operator::Stem { kernel, stride, activation } => {
                let window = Window { kernel: *kernel, stride: *stride };
                let convolution = Dense::on_image([output, input], window, &source.pp("conv"))?;
                Self::Stem(ConvNorm::new(convolution, output, *activation, &source)?)
            }
            Operator::MbConv(block) => Self::MbConv(Box::new(MbConv::new(block, layer, &source)?)),
            Operator::HeadConv { activation } => {
                Self::HeadConv(ConvNorm::pointwise(input, output, *activation, &source)?)
            }
            Operator::Conv { kernel, activation, residual } => {
                let source = if *residual { source.pp("conv") } else { source };
                let window = Window { kernel: *kernel, stride: 1 };
                let convolution = Dense::new([output, input], window, &source.pp("conv"))?;
                let conv = ConvNorm::new(convolution, output, *activation, &source)?;
                Self::Conv { conv, residual: *residual }
            }
            Operator::MaxPool => Self::MaxPool,
            Operator::Bottleneck(block) => {
                Self::Bottleneck(Box::new(Bottleneck::new(block, layer, &source)?))
            }
            Operator::Pool => Self::Pool,
            Operator::FeatureMix { activation } => {
                Self::FeatureMix(FeatureMix::new(input, output, *activation, &source.for_layer("linear"))?)
            }
            Operator::Sum { .. } => {
                let place = format!("layer {}", layer.name);
                return Err(Error::invalid(place, "operator", "one of a chain", "a sum"));
            }
            Operator::Classifier => {
                Self::Classifier(Linear::new(input, output, &source.pp("linear").for_layer("linear"))?)
            }
        })
    }
}

impl Network {
    /// Builds the layers; `source` is asked for each weight by its full name and shape.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(layers: &[LayerSpec], source: &Source) -> Result<Self> {
        let layers = layers.iter().map(|layer| Layer::new(layer, source)).collect::<Result<_>>()?;
        Ok(Self { layers, kernels: source.kernels().for_layer("pool") })
    }

    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(crate) fn kernels(&self) -> Kernels {
        self.kernels.clone()
    }

    /// Class scores of images.
    ///
    /// # Shapes
    /// `[N, C, H, W] -> [N, classes]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, images: &Tensor, mut pass: Pass) -> Result<Tensor> {
        let x = self.kernels.activations(&images.transpose(0, 1)?)?; // [C, N, H, W]
        let logits = self.forward_maps(x, &mut pass)?; // [classes, N, 1, 1]
        Ok(self.kernels.numbers(&logits.flatten_from(1)?.t()?)?) // [N, classes]
    }

    /// Runs the layers on channel-major maps: what a layer by itself is measured with.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C', N, H', W']` of the first and the last layer.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward_maps(&self, maps: Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut x = maps;
        for layer in &self.layers {
            x = self.forward_layer(layer, &x, pass)?;
        }
        Ok(x)
    }

    fn forward_layer(&self, layer: &Layer, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match layer {
            Layer::Stem(stem) => stem.forward(x, None, pass),
            Layer::MbConv(block) => block.forward(x, pass),
            Layer::Conv { conv, residual } => conv.forward(x, residual.then_some(x), pass),
            Layer::MaxPool => {
                pass.save(x);
                Ok(self.kernels.max_pool(x)?) // [C, N, H/2, W/2]
            }
            Layer::Bottleneck(block) => block.forward(x, pass),
            Layer::HeadConv(conv) => conv.forward(x, None, pass),
            Layer::Pool => {
                pass.save(x);
                Ok(self.kernels.mean(x)?.unsqueeze(2)?.unsqueeze(3)?) // [C, N, 1, 1]
            }
            Layer::FeatureMix(mix) => mix.forward(x, pass),
            Layer::Classifier(linear) => {
                let mask = if let Pass::Training(tape) = &*pass { tape.dropout() } else { None };
                let features = mask.map_or_else(|| Ok(x.clone()), |mask| self.kernels.scale(x, mask))?;
                Ok(linear.forward(&features.flatten_from(1)?, pass)?.unsqueeze(2)?.unsqueeze(3)?) // [classes, N, 1, 1]
            }
        }
    }

    /// Adds the gradients of every weight to `gradients`, the same network over gradients.
    ///
    /// # Shapes
    /// `dlogits` is `[N, classes]`: the loss's gradient at the logits of the training pass that made `tape`.
    ///
    /// # Errors
    /// If the tape or the gradients do not fit.
    pub fn backward(&self, dlogits: &Tensor, mut tape: Tape, gradients: &Self) -> Result<()> {
        let dlogits = self.kernels.activations(&dlogits.t()?)?.unsqueeze(2)?.unsqueeze(3)?; // [classes, N, 1, 1]
        self.backward_maps(dlogits, &mut tape, gradients)?;
        Ok(())
    }

    /// As [`Network::backward`], from the gradient of the last layer's maps, which may be written over; returns the first layer's input
    /// gradient, which a stem does not give.
    ///
    /// # Errors
    /// If the tape or the gradients do not fit.
    pub fn backward_maps(&self, dy: Tensor, tape: &mut Tape, gradients: &Self) -> Result<Option<Tensor>> {
        let mut dy = Some(dy);
        for (layer, gradient) in self.layers.iter().zip(&gradients.layers).rev() {
            dy = self.backward_layer(layer, given(dy)?, tape, gradient)?;
        }
        Ok(dy)
    }

    fn backward_layer(
        &self,
        layer: &Layer,
        dy: Tensor,
        tape: &mut Tape,
        gradient: &Layer,
    ) -> Result<Option<Tensor>> {
        Ok(match (layer, gradient) {
            (Layer::Stem(stem), Layer::Stem(gradient)) => stem.backward(dy, tape, gradient)?,
            (Layer::MbConv(block), Layer::MbConv(gradient)) => Some(block.backward(dy, tape, gradient)?),
            (Layer::Conv { conv, residual: false }, Layer::Conv { conv: gradient, .. }) => {
                conv.backward(dy, tape, gradient)?
            }
            (Layer::Conv { conv, residual: true }, Layer::Conv { conv: gradient, .. }) => {
                let d = given(conv.backward_keeping(&dy, tape, gradient)?)?;
                self.kernels.add_assign(&d, &dy)?;
                Some(d)
            }
            (Layer::MaxPool, Layer::MaxPool) => Some(self.kernels.max_pool_backward(&tape.pop()?, &dy)?),
            (Layer::Bottleneck(block), Layer::Bottleneck(gradient)) => {
                Some(block.backward(dy, tape, gradient)?)
            }
            (Layer::HeadConv(conv), Layer::HeadConv(gradient)) => conv.backward(dy, tape, gradient)?,
            (Layer::Pool, Layer::Pool) => {
                let (_, _, height, width) = tape.pop()?.dims4()?;
                Some(self.kernels.mean_backward(&dy.flatten_from(1)?, (height, width))?)
            }
            (Layer::FeatureMix(mix), Layer::FeatureMix(gradient)) => mix.backward(&dy, tape, gradient)?,
            (Layer::Classifier(linear), Layer::Classifier(gradient)) => {
                let d = linear.backward(&dy.flatten_from(1)?, tape, gradient)?; // [C, N]
                let d = d.unsqueeze(2)?.unsqueeze(3)?;
                Some(tape.dropout().map_or_else(|| Ok(d.clone()), |mask| self.kernels.scale(&d, mask))?)
            }
            _ => bail_mismatch()?,
        })
    }
}

fn bail_mismatch() -> candle_core::Result<Option<Tensor>> {
    bail!("the gradients are another network's")
}
