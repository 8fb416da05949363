//! The residual bottleneck (He et al. 2016), its shortcut averaged where it shrinks (variant D of He et al. 2019).

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{Activation, LayerSpec};

use super::super::conv::{ConvNorm, Dense, Pointwise, given};
use super::super::flow::Flow;
use super::super::folding::{FoldedDense, Product};
use super::super::footprint::{Held, patches};
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `act(expansion(dense(reduction(x))) + shortcut(x))`, each convolution with its batch norm.
pub(in super::super) struct Bottleneck {
    reduction: ConvNorm<Pointwise>,
    dense: ConvNorm<Dense>,
    expansion: ConvNorm<Pointwise>,
    downsample: Option<Downsample>,
    activation: Activation,
    backend: Backend,
}

/// A shortcut that changes sizes: mean over `stride x stride`, 1x1 convolution, batch norm.
struct Downsample {
    stride: usize,
    convolution: ConvNorm<Pointwise>,
    backend: Backend,
}

impl Bottleneck {
    /// Reads `conv1.*`, `conv2.*`, `conv3.*` and, where the shortcut changes sizes, `downsample.*`.
    pub fn new(block: &space::Bottleneck, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let &space::Bottleneck { kernel, stride, mid, activation, downsample } = block;
        let input = spec.input.channels;
        let output = spec.output.channels;
        let within = source.pp("conv2");
        let dense = Dense::new([mid, mid], Window { kernel, stride }, &within.pp("conv"))?;
        Ok(Self {
            reduction: ConvNorm::pointwise(input, mid, activation, &source.pp("conv1"))?,
            dense: ConvNorm::new(dense, mid, activation, &within)?,
            expansion: ConvNorm::pointwise(mid, output, Activation::None, &source.pp("conv3"))?,
            downsample: downsample
                .then(|| Downsample::new([input, output], stride, &source.pp("downsample")))
                .transpose()?,
            activation,
            backend: source.backend().for_layer("residual"),
        })
    }
}

impl Layer for Bottleneck {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let x = only(inputs);
        let shortcut = self.downsample.as_ref().map(|downsample| downsample.forward(x, pass)).transpose()?;
        let inner = self.reduction.forward(x, None, pass)?; // [mid, N, H, W]
        let inner = self.dense.forward(&inner, None, pass)?; // [mid, N, H/s, W/s]
        let sum = self.expansion.forward(&inner, Some(shortcut.as_ref().unwrap_or(x)), pass)?;
        pass.save(&sum);
        let y = self.backend.bias_activation(&sum, None, self.activation)?; // [C', N, H/s, W/s]
        pass.see(&y, self.activation)?;
        Ok(y)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let sum = tape.pop()?;
        let dy = self.backend.bias_activation_backward(&sum, None, self.activation, &dy)?;
        let d = given(self.expansion.backward_keeping(&dy, tape)?)?;
        let d = given(self.dense.backward(d, tape)?)?;
        let d = given(self.reduction.backward(d, tape)?)?;
        let past = match &self.downsample {
            Some(downsample) => downsample.backward(dy, tape, &d)?,
            None => dy,
        };
        self.backend.add_assign(&d, &past)?;
        Ok(InputGradients::One(Some(d)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        let x = only(inputs);
        let y = self.expansion.flow(&self.dense.flow(&self.reduction.flow(x)?)?)?;
        let shortcut = self.downsample.as_ref().map(|downsample| downsample.flow(x)).transpose()?;
        Ok(Flow::sum(&[&y, shortcut.as_ref().unwrap_or(x)]))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded::new(self, backend)?))
    }
}

impl Downsample {
    fn new([input, output]: [usize; 2], stride: usize, source: &Source) -> Result<Self> {
        let convolution = ConvNorm::pointwise(input, output, Activation::None, source)?;
        Ok(Self { stride, convolution, backend: source.backend().for_layer("pool") })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if self.stride == 1 {
            return self.convolution.forward(x, None, pass);
        }
        self.convolution.forward(&self.backend.average_pool(x, self.window())?, None, pass)
    }

    /// Adjacent squares.
    fn window(&self) -> Window {
        Window { kernel: self.stride, stride: self.stride }
    }

    fn flow(&self, x: &Flow) -> Result<Flow> {
        self.convolution.flow(&x.averaged([self.stride; 2]))
    }

    /// `like` has the input's shape.
    fn backward(&self, dy: Tensor, tape: &mut Tape, like: &Tensor) -> Result<Tensor> {
        let d = given(self.convolution.backward(dy, tape)?)?;
        let (_, _, height, width) = like.dims4()?;
        if self.stride == 1 {
            return Ok(d);
        }
        Ok(self.backend.average_pool_backward(&d, self.window(), height, width)?)
    }
}

/// A bottleneck for inference alone.
struct Folded {
    reduction: Product,
    dense: FoldedDense,
    expansion: Product,
    /// The shortcut's convolution, and its stride.
    downsample: Option<(Product, usize)>,
    activation: Activation,
}

impl Folded {
    fn new(block: &Bottleneck, backend: &Backend) -> Result<Self> {
        let downsample = match &block.downsample {
            Some(Downsample { stride, convolution, .. }) => {
                Some((Product::pointwise(convolution, backend)?, *stride))
            }
            None => None,
        };
        Ok(Self {
            reduction: Product::pointwise(&block.reduction, backend)?,
            dense: FoldedDense::new(&block.dense, backend)?,
            expansion: Product::pointwise(&block.expansion, backend)?,
            downsample,
            activation: block.activation,
        })
    }
}

impl FoldedLayer for Folded {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        let x = only(inputs);
        let inner = self.reduction.maps(x, backend)?; // [mid, N, H, W]
        let inner = self.dense.maps(&inner, backend)?; // [mid, N, H/s, W/s]
        let y = self.expansion.maps(&inner, backend)?; // [C', N, H/s, W/s]
        match &self.downsample {
            Some((convolution, 1)) => backend.add_assign(&y, &convolution.maps(x, backend)?)?,
            Some((convolution, stride)) => {
                let pooled = backend.average_pool(x, Window { kernel: *stride, stride: *stride })?;
                let shortcut = convolution.maps(&pooled, backend)?;
                backend.add_assign(&y, &shortcut)?;
            }
            None => backend.add_assign(&y, x)?,
        }
        Ok(backend.bias_activation(&y, None, self.activation)?)
    }
}

/// The memory of passes over a bottleneck.
pub(super) fn held(block: &space::Bottleneck, spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    let mid_in = block.mid * spec.input.plane();
    let mid_out = block.mid * spec.output.plane();
    let pooled = match block.downsample && block.stride > 1 {
        true => spec.input.channels * spec.output.plane(),
        false => 0,
    };
    let shortcut = if block.downsample { output } else { 0 };
    let inner = pooled + shortcut + 2 * mid_in + 2 * mid_out + 2 * output;
    let norms = 2 * block.mid + spec.output.channels;
    // the gradient before the last activation waits with that after it
    let expansion = input + inner + 2 * output + output.max(mid_out);
    let dense = input + inner + output + mid_in - mid_out.min(mid_in);
    let reduction = input + pooled + shortcut + 3 * output + mid_in + input;
    let past = input + shortcut + 3 * output + 2 * input + pooled;
    Held {
        inner,
        keeps_input: true,
        statistics: 2 * (norms + if block.downsample { spec.output.channels } else { 0 }),
        forward: shortcut + output,
        backward: expansion.max(dense).max(reduction).max(past),
        forgetting: (shortcut + pooled).max(shortcut + mid_in + mid_out + 2 * output),
        patches: patches(block.mid, block.kernel, spec.output.plane()),
        scratch: 0,
    }
}

#[cfg(test)]
mod tests {
    use space::Activation::{self, HSwish, Relu};

    use crate::nn::testing::{Maps, Naive, check};

    /// The three convolutions of the main path.
    fn main_path(naive: &Naive, x: &Maps, stride: usize, activation: Activation) -> Maps {
        let inner = naive.conv_norm(x, "conv1", 1, activation);
        let inner = naive.conv_norm(&inner, "conv2", stride, activation);
        naive.conv_norm(&inner, "conv3", 1, Activation::None)
    }

    #[test]
    fn its_input_is_added_before_the_last_activation() {
        check("bottleneck k3 s1 4-2-4 h_swish @3x4", |naive, x| {
            main_path(naive, &x[0], 1, HSwish).plus(&x[0]).activated(HSwish)
        });
    }

    #[test]
    fn a_shortcut_that_changes_sizes_is_averaged_then_convolved() {
        for (key, stride) in
            [("bottleneck k3 s1 3-2-4 relu down @3x3", 1), ("bottleneck k3 s2 3-2-4 relu down @4x6", 2)]
        {
            check(key, |naive, x| {
                let pooled = x[0].average_pool(stride, stride);
                let shortcut = naive.conv_norm(&pooled, "downsample", 1, Activation::None);
                main_path(naive, &x[0], stride, Relu).plus(&shortcut).activated(Relu)
            });
        }
    }
}
