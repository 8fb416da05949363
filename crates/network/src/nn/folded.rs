//! A network for inference alone: batch norms multiplied into the convolutions before them, activations computed as
//! products are written.
//!
//! What it computes differs from the unfolded network by rounding. Files hold unfolded weights; folding is done after
//! loading.

use candle_core::{DType, Device, Tensor};
use kernels::{Kernels, PackedWeight, Window};
use space::{Activation, LayerSpec};

use super::batch_norm::BatchNorm;
use super::conv::{self, ConvNorm, Pointwise};
use super::linear::{FeatureMix, Linear};
use super::mbconv::MbConv;
use super::network::{Layer, Network};
use super::source::Source;
use crate::error::Result;
use crate::nn;

/// A network with its batch norms folded into its weights.
pub struct FoldedNetwork {
    layers: Vec<Folded>,
    kernels: Kernels,
}

enum Folded {
    Dense(Dense),
    Residual(Dense),
    Block(Box<Block>),
    MaxPool,
    Bottleneck(Box<Bottleneck>),
    HeadConv(Product),
    Pool,
    Mix(Product),
    Classifier(Product),
}

/// `act(W x + shift)`.
struct Product {
    weight: PackedWeight,
    shift: Tensor, // [O]
    activation: Activation,
}

/// A dense convolution.
struct Dense {
    filters: Product, // [O, I k k]
    window: Window,
}

/// A residual bottleneck.
struct Bottleneck {
    reduction: Product,
    dense: Dense,
    expansion: Product,
    /// The shortcut's convolution, and its stride.
    downsample: Option<(Product, usize)>,
    activation: Activation,
}

/// An inverted residual block.
struct Block {
    expansion: Option<Product>,
    depthwise: Tensor, // [C, 1, k, k]
    stride: usize,
    shift: Tensor, // [C]
    activation: Activation,
    squeeze_excite: Option<[Product; 2]>,
    projection: Product,
    residual: bool,
}

/// What a batch norm multiplies the convolution before it by, and what it adds, `[C]` each. Folding is done on the CPU.
fn scale_and_shift(norm: &BatchNorm) -> Result<(Tensor, Tensor)> {
    let (with, running) = (norm.normalisation(), on_cpu(norm.running()?)?);
    let (mean, variance) = (running.get(0)?, running.get(1)?);
    let deviation = (variance + f64::from(with.epsilon))?.sqrt()?;
    let scale = (on_cpu(&with.gamma)? / deviation)?;
    let shift = (on_cpu(&with.beta)? - (&scale * mean)?)?;
    Ok((scale, shift))
}

fn on_cpu(tensor: &Tensor) -> candle_core::Result<Tensor> {
    tensor.to_device(&Device::Cpu)
}

impl Product {
    fn new(weight: &Tensor, shift: Tensor, activation: Activation, kernels: &Kernels) -> Result<Self> {
        let device = kernels.device();
        let weight = kernels.pack(&weight.to_device(&device)?)?;
        Ok(Self { weight, shift: shift.to_device(&device)?, activation })
    }

    /// A convolution's weight `[O, I]` with the batch norm after it.
    fn folded(weight: &Tensor, norm: &BatchNorm, kernels: &Kernels) -> Result<Self> {
        let (scale, shift) = scale_and_shift(norm)?;
        let weight = on_cpu(weight)?.broadcast_mul(&scale.unsqueeze(1)?)?;
        Self::new(&weight, shift, norm.normalisation().activation, kernels)
    }

    fn pointwise(conv: &ConvNorm<Pointwise>, kernels: &Kernels) -> Result<Self> {
        let (convolution, norm) = conv.parts();
        Self::folded(convolution.weight(), norm, kernels)
    }

    fn linear(linear: &Linear, kernels: &Kernels) -> Result<Self> {
        let (weight, bias, activation) = linear.parts();
        Self::new(weight, bias.clone(), activation, kernels)
    }

    /// `[I, N] -> [O, N]`.
    fn forward(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        Ok(kernels.product_activated(&self.weight, x, &self.shift, self.activation)?)
    }

    /// `[I, N, H, W] -> [O, N, H, W]`.
    fn forward_maps(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        let (_, images, height, width) = x.dims4()?;
        let y = self.forward(&x.flatten_from(1)?, kernels)?; // [O, N H W]
        Ok(y.reshape(((), images, height, width))?)
    }
}

impl Dense {
    fn new(conv: &ConvNorm<conv::Dense>, kernels: &Kernels) -> Result<Self> {
        let (convolution, norm) = conv.parts();
        let (weight, window) = convolution.parts();
        Ok(Self { filters: Product::folded(&on_cpu(weight)?.flatten_from(1)?, norm, kernels)?, window })
    }

    /// `[I, N, H, W] -> [O, N, H/s, W/s]`.
    fn forward(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        let Product { weight, shift, activation } = &self.filters;
        Ok(kernels.convolve_activated(weight, x, self.window, shift, *activation)?)
    }
}

impl Bottleneck {
    fn new(block: &nn::Bottleneck, kernels: &Kernels) -> Result<Self> {
        let parts = block.parts();
        let downsample = match parts.downsample {
            Some((convolution, stride)) => Some((Product::pointwise(convolution, kernels)?, stride)),
            None => None,
        };
        Ok(Self {
            reduction: Product::pointwise(parts.reduction, kernels)?,
            dense: Dense::new(parts.dense, kernels)?,
            expansion: Product::pointwise(parts.expansion, kernels)?,
            downsample,
            activation: parts.activation,
        })
    }

    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        let inner = self.reduction.forward_maps(x, kernels)?; // [mid, N, H, W]
        let inner = self.dense.forward(&inner, kernels)?; // [mid, N, H/s, W/s]
        let y = self.expansion.forward_maps(&inner, kernels)?; // [C', N, H/s, W/s]
        match &self.downsample {
            Some((convolution, 1)) => kernels.add_assign(&y, &convolution.forward_maps(x, kernels)?)?,
            Some((convolution, stride)) => {
                let shortcut = convolution.forward_maps(&kernels.average_pool(x, *stride)?, kernels)?;
                kernels.add_assign(&y, &shortcut)?;
            }
            None => kernels.add_assign(&y, x)?,
        }
        Ok(kernels.bias_activation(&y, None, self.activation)?)
    }
}

impl Block {
    fn new(block: &MbConv, kernels: &Kernels) -> Result<Self> {
        let parts = block.parts();
        let (before, chain, after) = parts.inner.parts();
        let expansion = match (parts.expansion, before) {
            (Some(convolution), Some(norm)) => Some(Product::folded(convolution.weight(), norm, kernels)?),
            _ => None,
        };
        let ((scale, shift), device) = (scale_and_shift(after)?, kernels.device());
        let squeeze_excite = match parts.squeeze_excite {
            Some(squeeze_excite) => {
                let [reduce, expand] = squeeze_excite.parts();
                Some([Product::linear(reduce, kernels)?, Product::linear(expand, kernels)?])
            }
            None => None,
        };
        Ok(Self {
            expansion,
            depthwise: on_cpu(&chain.weight)?
                .broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?
                .to_device(&device)?,
            stride: chain.stride,
            shift: shift.to_device(&device)?,
            activation: chain.after.activation,
            squeeze_excite,
            projection: Product::pointwise(parts.projection, kernels)?,
            residual: parts.residual,
        })
    }

    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        let expanded = match &self.expansion {
            Some(expansion) => &expansion.forward_maps(x, kernels)?, // [mid, N, H, W]
            None => x,
        };
        let depthwise = (&self.depthwise, self.stride);
        let inner = kernels.depthwise_activated(expanded, depthwise, &self.shift, self.activation)?;
        if let Some([reduce, expand]) = &self.squeeze_excite {
            let hidden = reduce.forward(&kernels.mean(&inner)?, kernels)?; // [squeeze, N]
            kernels.scale_in_place(&inner, &expand.forward(&hidden, kernels)?)?;
        }
        let y = self.projection.forward_maps(&inner, kernels)?; // [C', N, H/s, W/s]
        if self.residual {
            kernels.add_assign(&y, x)?;
        }
        Ok(y)
    }
}

impl FoldedNetwork {
    /// The network of these layers with its running statistics folded into its weights; `source` is asked for each by its
    /// full name and shape.
    ///
    /// # Errors
    /// If a weight is missing or has another shape, or [`crate::Error::Uncalibrated`] where a batch norm has no statistics.
    pub fn from_source(layers: &[LayerSpec], source: Source) -> Result<Self> {
        Self::new(&Network::new(layers, &source.as_they_are())?)
    }

    /// Folds the running statistics of a network's batch norms into its weights, which must be f32.
    ///
    /// # Errors
    /// [`crate::Error::Uncalibrated`] where a batch norm has none.
    pub fn new(network: &Network) -> Result<Self> {
        let kernels = network.kernels();
        let fold = |layer: &Layer| -> Result<Folded> {
            Ok(match layer {
                Layer::Stem(conv) | Layer::Conv { conv, residual: false } => {
                    Folded::Dense(Dense::new(conv, &kernels)?)
                }
                Layer::Conv { conv, residual: true } => Folded::Residual(Dense::new(conv, &kernels)?),
                Layer::MaxPool => Folded::MaxPool,
                Layer::Bottleneck(block) => Folded::Bottleneck(Box::new(Bottleneck::new(block, &kernels)?)),
                Layer::MbConv(block) => Folded::Block(Box::new(Block::new(block, &kernels)?)),
                Layer::HeadConv(conv) => Folded::HeadConv(Product::pointwise(conv, &kernels)?),
                Layer::Pool => Folded::Pool,
                Layer::FeatureMix(mix) => Folded::mix(mix, &kernels)?,
                Layer::Classifier(linear) => Folded::Classifier(Product::linear(linear, &kernels)?),
            })
        };
        Ok(Self { layers: network.layers().iter().map(fold).collect::<Result<_>>()?, kernels })
    }

    /// Class scores of images.
    ///
    /// # Shapes
    /// `[N, C, H, W] -> [N, classes]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.kernels.activations(&images.transpose(0, 1)?)?; // [C, N, H, W]
        let logits = self.forward_maps(x)?; // [classes, N, 1, 1]
        Ok(self.kernels.numbers(&logits.flatten_from(1)?.t()?)?) // [N, classes]
    }

    /// Runs the layers on channel-major maps: what a layer by itself is measured with.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C', N, H', W']` of the first and the last layer.
    ///
    /// # Errors
    /// As [`FoldedNetwork::forward`].
    pub fn forward_maps(&self, maps: Tensor) -> Result<Tensor> {
        self.forward_layers(maps, &mut || ())
    }

    /// As [`FoldedNetwork::forward_maps`]; calls `done` after each layer, so that layers can be timed in place.
    ///
    /// # Errors
    /// As [`FoldedNetwork::forward`].
    pub fn forward_layers(&self, maps: Tensor, done: &mut dyn FnMut()) -> Result<Tensor> {
        let mut x = maps;
        for layer in &self.layers {
            x = layer.forward(&x, &self.kernels)?;
            done();
        }
        Ok(x)
    }
}

impl Folded {
    /// `[C, N, H, W] -> [C', N, H', W']`.
    fn forward(&self, x: &Tensor, kernels: &Kernels) -> Result<Tensor> {
        match self {
            Self::Dense(dense) => dense.forward(x, kernels),
            Self::Residual(dense) => {
                let y = dense.forward(x, kernels)?;
                kernels.add_assign(&y, x)?;
                Ok(y)
            }
            Self::MaxPool => Ok(kernels.max_pool(x)?), // [C, N, H/2, W/2]
            Self::Bottleneck(block) => block.forward(x, kernels),
            Self::Block(block) => block.forward(x, kernels),
            Self::HeadConv(product) | Self::Mix(product) => product.forward_maps(x, kernels),
            Self::Pool => Ok(kernels.mean(x)?.unsqueeze(2)?.unsqueeze(3)?), // [C, N, 1, 1]
            Self::Classifier(linear) => linear.forward_maps(x, kernels),    // [classes, N, 1, 1]
        }
    }

    fn mix(mix: &FeatureMix, kernels: &Kernels) -> Result<Self> {
        let (convolution, activation) = mix.parts();
        let weight = convolution.weight();
        let shift = Tensor::zeros(weight.dim(0)?, DType::F32, &Device::Cpu)?;
        Ok(Self::Mix(Product::new(weight, shift, activation, kernels)?))
    }
}
