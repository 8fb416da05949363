//! Reads layers from latency keys, the names of layers in plans for devices and in latency tables.

use std::collections::BTreeMap;
use std::str::FromStr;

use base::error::{Error, Result};

use crate::feature_map::FeatureMap;
use crate::layer::LayerSpec;
use crate::operators::{Operator, Parsed, number};
use crate::value::Extent;

/// Greatest side of a map, as for every sub-network.
const MOST_SIDE: usize = 4096;
/// Most values in a map or a weight: 1 GiB of f32.
const MOST_VALUES: usize = 1 << 28;

/// The layer that a key names, alone: its block's number is 0 and each of its inputs is the network's.
impl FromStr for LayerSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |expected: &str| Error::invalid(format!("layer \"{text}\""), "key", expected, text);
        let example = "a key such as \"mbconv k5 s2 24-96-40 relu se24 skip @56x56\"";
        let layer = parse(text).ok_or_else(|| wrong(example))?;
        if layer.to_string() != text {
            return Err(wrong(&format!("the canonical text \"{layer}\"")));
        }
        let weights = layer.weights().into_iter().map(|weight| weight.len());
        let inner = layer.operator.widest(layer.input);
        if weights.chain([inner, layer.input.len(), layer.output.len()]).any(|values| values > MOST_VALUES) {
            return Err(wrong(&format!("at most {MOST_VALUES} values in a map or a weight")));
        }
        Ok(layer)
    }
}

fn parse(text: &str) -> Option<LayerSpec> {
    let (body, side) = text.rsplit_once(" @")?;
    let (height, width) = side.split_once('x')?;
    let extent = Extent { height: number(height, MOST_SIDE)?, width: number(width, MOST_SIDE)? };
    let words: Vec<&str> = body.split(' ').collect();
    let Parsed { name, operator, channels } = Operator::read(&words)?;
    let input = FeatureMap::of(channels[0], extent);
    let output = FeatureMap::of(channels[1], operator.extent(extent));
    let slot = name.contains('.').then_some(0);
    let name = name.to_string();
    let inputs = vec![None; operator.arity()];
    Some(LayerSpec { name, slot, operator, input, output, inputs })
}

impl LayerSpec {
    /// Layers in sequence as a network, each of which reads the one before.
    ///
    /// # Errors
    /// As [`LayerSpec::graph`].
    pub fn chain(mut layers: Vec<Self>) -> Result<Vec<Self>> {
        for (index, layer) in layers.iter_mut().enumerate() {
            layer.inputs = vec![index.checked_sub(1); layer.operator.arity()];
        }
        Self::graph(layers)
    }

    /// Layers as a network, connected by their `inputs`. Blocks and the convolutions of a stem are numbered by
    /// position, so that no two layers have weights of one name.
    ///
    /// # Errors
    /// Names the first layer whose number of inputs is not its operator's, or with an input that does not come before
    /// it, or of another size.
    pub fn graph(layers: Vec<Self>) -> Result<Vec<Self>> {
        let mut graph = Vec::<Self>::with_capacity(layers.len());
        let mut numbers = BTreeMap::<String, usize>::new();
        for mut layer in layers {
            check_inputs(&layer, &graph)?;
            let listed = layer.slot.and(layer.name.rsplit_once('.')).map(|(list, _)| list.to_string());
            let next = numbers.entry(listed.clone().unwrap_or_else(|| layer.name.clone())).or_default();
            if let Some(list) = listed {
                (layer.name, layer.slot) = (format!("{list}.{next}"), Some(*next));
            } else if *next > 0 {
                layer.name = format!("{}.{next}", layer.name);
            }
            *next += 1;
            graph.push(layer);
        }
        Ok(graph)
    }

    /// Whether each layer reads the one before it and nothing else, as in [`LayerSpec::chain`].
    pub fn is_chain(layers: &[Self]) -> bool {
        layers.iter().enumerate().all(|(at, layer): (usize, &Self)| layer.inputs == [at.checked_sub(1)])
    }
}

/// Checks that a layer, with its inputs, can follow these.
fn check_inputs(layer: &LayerSpec, before: &[LayerSpec]) -> Result<()> {
    let place = format!("layer {}", before.len() + 1);
    let wrong = |expected: String, got: String| Err(Error::invalid("network", &place, expected, got));
    let arity = layer.operator.arity();
    if layer.inputs.len() != arity {
        return wrong(format!("\"{layer}\" to have {arity} inputs"), layer.inputs.len().to_string());
    }
    for &input in &layer.inputs {
        match input.map(|index| before.get(index)) {
            Some(Some(read)) if read.output != layer.input => {
                return wrong(format!("the output of \"{read}\""), format!("\"{layer}\""));
            }
            Some(None) => {
                return wrong("inputs from layers before it".to_string(), format!("{:?}", layer.inputs));
            }
            None if before.first().is_some_and(|first| first.input != layer.input) => {
                let expected = format!("the input of \"{}\", as the network's input", before[0]);
                return wrong(expected, format!("\"{layer}\""));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{preset, preset_names, sampler};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn every_layer_of_every_preset_comes_back_from_its_key() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let chains = space.index().is_chain();
            for _ in 0..50 {
                let layers = space.lower(&sampler::random(&space, &mut rng)).expect("legal");
                let parsed =
                    layers.iter().map(|layer| layer.key().parse()).collect::<Result<Vec<LayerSpec>>>();
                let parsed = parsed.expect("own keys");
                for (parsed, layer) in parsed.iter().zip(&layers) {
                    let LayerSpec { name, slot, .. } = parsed.clone();
                    assert_eq!(*parsed, LayerSpec { name, slot, ..layer.alone() }, "all but where it stands");
                }
                assert!(LayerSpec::is_chain(&layers) || !chains, "{name}");
                if LayerSpec::is_chain(&layers) {
                    let chained = LayerSpec::chain(parsed).expect("fits");
                    assert!(LayerSpec::is_chain(&chained));
                    let inputs = |layers: &[LayerSpec]| -> Vec<_> {
                        layers.iter().map(|layer| layer.inputs.clone()).collect()
                    };
                    assert_eq!(inputs(&chained), inputs(&layers));
                }
            }
        }
    }

    #[test]
    fn a_sum_reads_as_often_as_it_has_inputs() {
        let sum: LayerSpec = "sum3 40 @14x7".parse().expect("a key");
        assert_eq!((sum.operator.arity(), sum.inputs.as_slice()), (3, [None; 3].as_slice()));
        assert_eq!((sum.output, sum.key().as_str()), (sum.input, "sum3 40 @14x7"));
        assert!(sum.weights().is_empty());
        let chained = LayerSpec::chain(vec![sum.clone(), sum]).expect("fits");
        assert_eq!([&chained[0].inputs, &chained[1].inputs], [&vec![None; 3], &vec![Some(0); 3]]);
        assert!(!LayerSpec::is_chain(&chained));
    }

    #[test]
    fn a_graph_reads_what_its_inputs_say() {
        let layer = |key: &str, inputs: &[Option<usize>]| LayerSpec {
            inputs: inputs.to_vec(),
            ..key.parse().expect("a key")
        };
        let conv = "conv k3 4-4 relu @8x8";
        let diamond = |last: &[Option<usize>]| {
            let left = layer(conv, &[Some(0)]);
            let right = layer(conv, &[Some(0)]);
            vec![layer(conv, &[None]), left, right, layer("sum2 4 @8x8", last), layer("sum2 4 @8x8", last)]
        };
        let graph = LayerSpec::graph(diamond(&[Some(1), Some(2)])).expect("fits");
        let names: Vec<&str> = graph.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["input_stem.0", "input_stem.1", "input_stem.2", "sum", "sum.1"]);
        assert_eq!(graph[3].inputs, [Some(1), Some(2)]);
        assert!(!LayerSpec::is_chain(&graph));
        for (layers, part) in [
            (diamond(&[Some(1)]), "layer 4: expected \"sum2 4 @8x8\" to have 2 inputs, got 1"),
            (diamond(&[Some(1), Some(3)]), "layer 4: expected inputs from layers before it"),
            (
                vec![layer(conv, &[None]), layer("pool 5 @8x8", &[Some(0)])],
                "layer 2: expected the output of \"conv",
            ),
            (vec![layer(conv, &[None]), layer("pool 5 @8x8", &[None])], "as the network's input, got \"pool"),
        ] {
            let error = LayerSpec::graph(layers).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_convolution_may_have_a_stride() {
        let conv: LayerSpec = "conv k1 s2 8-16 none @13x7".parse().expect("a key");
        assert_eq!(conv.key(), "conv k1 s2 8-16 none @13x7");
        assert_eq!((conv.output.channels, conv.output.height, conv.output.width), (16, 7, 4));
        assert_eq!(crate::cost(&[conv]).macs, 16 * 7 * 4 * 8);
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, part) in [
            ("", "a key such as"),
            ("mbconv", "a key such as"),
            ("mbconv k4 s1 8-16-8 relu @8x8", "a key such as"),
            ("mbconv k3 s3 8-16-8 relu @8x8", "a key such as"),
            ("mbconv k3 s1 8-16 relu @8x8", "a key such as"),
            ("mbconv k3 s1 8-16-8 gelu @8x8", "a key such as"),
            ("mbconv k3 s1 8-16-8 relu se0 @8x8", "a key such as"),
            ("mbconv k3 s1 8-16-8 relu e1 @8x8", "a key such as"),
            ("mbconv k3 s2 8-16-8 relu skip @8x8", "a key such as"),
            ("mbconv k3 s1 8-16-16 relu skip @8x8", "a key such as"),
            ("mbconv k3 s1 8-16-8 relu @0x8", "a key such as"),
            ("pool 8 @8x5000", "a key such as"),
            ("linear 8-99999999999999999999 @1x1", "a key such as"),
            ("linear 65536-65536 @1x1", "values in a map or a weight"),
            ("stem k3 s1 1-65536 relu @4096x4096", "values in a map or a weight"),
            ("bottleneck k3 s2 8-16-8 relu @8x8", "a key such as"),
            ("bottleneck k3 s1 8-16-16 relu @8x8", "a key such as"),
            ("bottleneck k3 s1 8-16-8 relu skip @8x8", "a key such as"),
            ("conv k3 8-16 relu skip @8x8", "a key such as"),
            ("conv k3 s2 8-8 relu skip @8x8", "a key such as"),
            ("conv k3 s3 8-8 relu @8x8", "a key such as"),
            ("conv k3 s1 8-8 relu @8x8", "the canonical text \"conv k3 8-8 relu @8x8\""),
            ("maxpool 8-8 @8x8", "a key such as"),
            ("sum1 8 @8x8", "a key such as"),
            ("sum 8 @8x8", "a key such as"),
            ("sum02 8 @8x8", "the canonical text \"sum2 8 @8x8\""),
            ("sum65 8 @8x8", "a key such as"),
            ("mbconv k3 s1 8-016-8 relu @8x8", "the canonical text \"mbconv k3 s1 8-16-8 relu @8x8\""),
            ("mbconv k3 s1 8-16-8 relu skip se8 @8x8", "the canonical text"),
        ] {
            let error = text.parse::<LayerSpec>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let layer = |key: &str| key.parse::<LayerSpec>().expect("a key");
        let error = LayerSpec::chain(vec![layer("pool 8 @4x4"), layer("linear 9-2 @1x1")]);
        assert!(
            error
                .expect_err("9 is not 8")
                .to_string()
                .contains("layer 2: expected the output of \"pool 8 @4x4\"")
        );
    }
}
