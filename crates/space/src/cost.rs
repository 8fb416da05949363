//! Costs of a list of layers: multiply-accumulates, parameters, peak activation memory.

use serde::{Deserialize, Serialize};

use crate::layer::LayerSpec;

/// Exact costs of one sub-network for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of convolutions, squeeze-and-excite and the linear layer.
    pub macs: u64,
    /// Trainable parameters, batch norms included.
    pub params: u64,
    /// Most bytes of activations that live at once, in f32 at batch 1: an operator's input and output, and the block's
    /// input where it is added at the end; batch norm and activation work in place.
    pub peak_activation_bytes: u64,
}

/// The costs of a network. An input that no earlier layer of the list makes is the network's input, so that a part of a
/// network has costs as well.
pub fn cost(layers: &[LayerSpec]) -> Cost {
    let macs = layers.iter().map(|layer| layer.operator.macs(layer.maps()) as u64).sum();
    let weights = layers.iter().flat_map(LayerSpec::weights);
    let params = weights.map(|weight| weight.len() as u64).sum();
    Cost { macs, params, peak_activation_bytes: 4 * peak_values(layers) as u64 }
}

/// The layers that make a layer's inputs, each once, rising; `None` is the network's input.
fn distinct_inputs(layers: &[LayerSpec], at: usize) -> Vec<Option<usize>> {
    let mut inputs: Vec<Option<usize>> =
        layers[at].inputs.iter().map(|input: &Option<usize>| input.filter(|input| *input < at)).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

/// The output of one layer of a list, or the list's input.
#[derive(Clone, Copy)]
struct Made {
    values: usize,
    /// The last layer that reads it.
    last_reader: Option<usize>,
}

/// Most values that live at once: an output lives until its last reader has run, and the input of a network as well.
fn peak_values(layers: &[LayerSpec]) -> usize {
    let inputs: Vec<_> = (0..layers.len()).map(|at| distinct_inputs(layers, at)).collect();
    let mut input = Made { values: layers.first().map_or(0, |layer| layer.input.len()), last_reader: None };
    let mut made: Vec<Made> =
        layers.iter().map(|layer| Made { values: layer.output.len(), last_reader: None }).collect();
    for (at, read) in inputs.iter().enumerate() {
        for from in read {
            from.map_or(&mut input, |from| &mut made[from]).last_reader = Some(at);
        }
    }
    let of = |from: Option<usize>| from.map_or(input, |from| made[from]);
    let mut live = input.values;
    let mut peak = 0;
    for (at, (layer, read)) in layers.iter().zip(&inputs).enumerate() {
        let first = layer.inputs.first().copied().flatten().filter(|from| *from < at);
        let kept = of(first).last_reader > Some(at);
        let others = live - of(first).values;
        peak = peak.max(others + layer.operator.peak(layer.maps(), kept));
        let dropped: usize = read
            .iter()
            .filter(|from: &&Option<usize>| of(**from).last_reader == Some(at))
            .map(|from| of(*from).values)
            .sum();
        let kept_output = if made[at].last_reader.is_some() { made[at].values } else { 0 };
        live = live + kept_output - dropped;
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::{largest, smallest};
    use crate::{Arch, End, Operator, SearchSpace, preset};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn macs(space: &SearchSpace, arch: &Arch) -> u64 {
        cost(&space.lower(arch).expect("legal")).macs
    }

    /// Counted by forward hooks on the static networks of PyTorch's `ofa` package.
    #[test]
    fn ofa_mobilenet_v3_costs_are_exact() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let largest = largest(&space);
        let smallest = smallest(&space);
        for (side, large, small) in [
            (64, 50_822_016, 12_457_152),
            (128, 188_248_320, 41_476_224),
            (160, 291_318_048, 63_240_528),
            (192, 417_292_160, 89_841_344),
            (224, 566_170_656, 121_278_672),
        ] {
            assert_eq!(
                (macs(&space, &largest.at(side)), macs(&space, &smallest.at(side))),
                (large, small),
                "{side}"
            );
        }
        let deep = space.genome().corner(|dimension| match dimension.key {
            "resolution" | "depth" => End::Largest,
            _ => End::Smallest,
        });
        assert_eq!(macs(&space, &space.arch(&deep)), 226_193_808);
        let middle: Arch = format!("r224:{}", ["k5e4,k5e4,k5e4"; 5].join("/")).parse().expect("an arch");
        assert_eq!(macs(&space, &middle), 250_746_944);
        let params = |arch| cost(&space.lower(arch).expect("legal")).params;
        assert_eq!((params(&largest), params(&smallest)), (7_664_760, 3_410_792));
    }

    #[test]
    fn ofa_mobilenet_v3_has_its_number_of_subnetworks() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let count = space.subnetworks();
        assert_eq!(count, num_bigint::BigUint::from(9u32 * 9 + 9 * 9 * 9 + 9 * 9 * 9 * 9).pow(5));
        assert!(count.to_string().starts_with("21758") && count.to_string().len() == 20, "{count}");
    }

    #[test]
    fn peak_memory_counts_what_lives_at_once() {
        let space = preset("tiny").expect("a preset");
        let layers = space.lower(&"r8:k3e3,k3e3/k3e3".parse().expect("an arch")).expect("legal");
        // Block 1 (16 -> 48 at 8x8, stride 2): the expansion's input and output, then its output and the
        // depthwise output.
        assert_eq!(cost(&layers[2..3]).peak_activation_bytes, 4 * (16 * 64 + 48 * 64));
        // Block 2 (residual at 4x4): input kept, expansion's output, depthwise output.
        assert_eq!(cost(&layers[3..4]).peak_activation_bytes, 4 * (16 * 16 + 48 * 16 + 48 * 16));
    }

    /// A chain whose layers then get other inputs.
    fn graph(keys: &[&str], inputs: &[&[Option<usize>]]) -> Vec<LayerSpec> {
        keys.iter()
            .zip(inputs)
            .map(|(key, inputs): (&&str, &&[Option<usize>])| {
                let layer: LayerSpec = key.parse().expect(key);
                LayerSpec { inputs: inputs.to_vec(), ..layer }
            })
            .collect()
    }

    #[test]
    fn an_output_lives_until_its_last_reader_has_run() {
        let keys = ["stem k3 s1 2-4 relu @8x8", "mbconv k3 s1 4-24-4 relu @8x8", "sum2 4 @8x8"];
        let peak = |last: [Option<usize>; 2]| {
            let layers = graph(&keys, &[&[None], &[Some(0)], &last]);
            cost(&layers).peak_activation_bytes
        };
        // the block's input is dropped after its expansion, or waits for the sum
        assert_eq!(peak([Some(1), Some(1)]), 4 * (2 * 24 * 64));
        assert_eq!(peak([Some(0), Some(1)]), 4 * (2 * 24 * 64 + 4 * 64));
        // so does the image, through all of the network
        assert_eq!(peak([None, Some(1)]), 4 * (2 * 24 * 64 + 2 * 64));
    }

    /// Compares random graphs with the sum over all maps that a later layer reads, computed anew for each layer.
    #[test]
    fn the_peak_is_that_of_brute_force() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..300 {
            let count: usize = rng.random_range(1..9);
            let mut layers: Vec<LayerSpec> = Vec::new();
            for at in 0..count {
                let of = rng.random_range(1..4);
                let inputs: Vec<Option<usize>> =
                    (0..of).map(|_| rng.random_range(0..=at).checked_sub(1)).collect();
                let map = |from: Option<usize>| {
                    let image = crate::FeatureMap { channels: 3, height: 5, width: 5 };
                    from.map_or(layers.first().map_or(image, |first| first.input), |from| layers[from].output)
                };
                let input = map(inputs[0]);
                let mut output = map(inputs[0]);
                let operator = if of == 1 { Operator::MaxPool { stride: 2 } } else { Operator::Sum { of } };
                output.channels = rng.random_range(1..100);
                layers.push(LayerSpec { name: at.to_string(), slot: None, operator, input, output, inputs });
            }
            // the list's input is what its first layer reads
            layers[0].inputs.fill(None);
            let lives = |from: Option<usize>, at: usize| {
                layers[at..].iter().any(|reader| reader.inputs.contains(&from))
            };
            let expected = (0..count)
                .map(|at: usize| {
                    let image = if lives(None, at) { layers[0].input.len() } else { 0 };
                    let before = (0..at).filter(|from| lives(Some(*from), at));
                    image
                        + before.map(|from| layers[from].output.len()).sum::<usize>()
                        + layers[at].output.len()
                })
                .max()
                .expect("a layer");
            assert_eq!(cost(&layers).peak_activation_bytes, 4 * expected as u64, "{layers:?}");
        }
    }
}
