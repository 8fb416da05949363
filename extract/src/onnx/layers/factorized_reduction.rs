//! Two 1x1 convolutions of stride 2 side by side, and a batch norm: one convolution over 2 x 2, in which each filter has one place.

use super::nodes::weighted;
use crate::error::Result;
use crate::onnx::graph::{GraphBuilder, ints};
use crate::onnx::weights::{LayerWeights, Numbers};

/// `extent` is the input's; a row and a column of zeros are added where its sides are odd.
pub(super) fn append(
    graph: &mut GraphBuilder,
    name: &str,
    extent: [usize; 2],
    weights: &LayerWeights,
) -> Result<()> {
    let [scale, shift] = weights.norm("")?;
    let parts = [weights.get(".even.weight")?, weights.get(".odd.weight")?];
    let inputs = parts[0].shape[1];
    let mut values = Vec::with_capacity(4 * inputs * scale.values.len());
    let mut scales = scale.values.iter();
    for (part, place) in parts.iter().zip([0, 3]) {
        for (filter, scale) in part.values.chunks(inputs).zip(scales.by_ref()) {
            for weight in filter {
                let mut taps = [0.0; 4];
                taps[place] = weight * scale;
                values.extend(taps);
            }
        }
    }
    let filters = Numbers { shape: vec![scale.values.len(), inputs, 2, 2], values };
    let attributes = vec![
        ints("kernel_shape", &[2; 2]),
        ints("strides", &[2; 2]),
        ints("pads", &[0, 0, extent[0] % 2, extent[1] % 2]),
    ];
    weighted(graph, format!("{name}.conv"), "Conv", [filters, shift], attributes);
    Ok(())
}
