//! Layers from their keys: what a plan for a device lists, and what a latency table's rows are called by.

use std::str::FromStr;

use base::error::{Error, Result};

use super::activation::Activation;
use super::layer::{Bottleneck, FeatureMap, LayerSpec, MbConv, Operator};

/// Most channels, inner ones included.
const MOST_CHANNELS: usize = 65_536;
/// Greatest side of a map, as for every sub-network.
const MOST_SIDE: usize = 4096;
/// Greatest side of a kernel.
const MOST_KERNEL: usize = 31;
/// Most inputs of a sum.
const MOST_SUMMANDS: usize = 64;
/// Most values in a map or a weight: 1 GiB of f32.
const MOST_VALUES: usize = 1 << 28;

/// The layer that a key names, by itself: its block's number is 0 and each of its inputs is the network's.
impl FromStr for LayerSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |expected: &str| Error::invalid(format!("layer \"{text}\""), "key", expected, text);
        let example = "a key such as \"mbconv k5 s2 24-96-40 relu se24 skip @56x56\"";
        let layer = parse(text).ok_or_else(|| wrong(example))?;
        if layer.to_string() != text {
            return Err(wrong(&format!("the canonical text \"{layer}\"")));
        }
        let weights = layer.weights().into_iter().map(|weight| weight.shape.iter().product::<usize>());
        let inner = match &layer.operator {
            Operator::MbConv(block) => block.mid * layer.input.plane(),
            Operator::Bottleneck(block) => block.mid * layer.input.plane(),
            _ => 0,
        };
        if weights.chain([inner, layer.input.len(), layer.output.len()]).any(|values| values > MOST_VALUES) {
            return Err(wrong(&format!("at most {MOST_VALUES} values in a map or a weight")));
        }
        Ok(layer)
    }
}

fn parse(text: &str) -> Option<LayerSpec> {
    let (body, side) = text.rsplit_once(" @")?;
    let (height, width) = side.split_once('x')?;
    let (height, width) = (number(height, MOST_SIDE)?, number(width, MOST_SIDE)?);
    let mut words = body.split(' ');
    let kind = words.next()?;
    let words: Vec<&str> = words.collect();
    let (name, operator, [input, output]) = match kind {
        "mbconv" => mbconv(&words)?,
        "bottleneck" => bottleneck(&words)?,
        "conv" => conv(&words)?,
        "stem" => stem(&words)?,
        _ => head(kind, &words)?,
    };
    let input = FeatureMap { channels: input, height, width };
    let output = match &operator {
        Operator::Stem { stride, .. } => input.through(output, *stride),
        Operator::MbConv(block) => input.through(output, block.stride),
        Operator::Bottleneck(block) => input.through(output, block.stride),
        Operator::MaxPool => input.through(output, 2),
        Operator::Pool => FeatureMap { channels: output, height: 1, width: 1 },
        _ => FeatureMap { channels: output, ..input },
    };
    let slot = name.contains('.').then_some(0);
    let (name, inputs) = (name.to_string(), vec![None; operator.arity()]);
    Some(LayerSpec { name, slot, operator, input, output, inputs })
}

/// Name, operator, and channels of input and output.
type Parts = (&'static str, Operator, [usize; 2]);

fn stem(words: &[&str]) -> Option<Parts> {
    let [kernel, stride, channels, activation] = words else { return None };
    let (kernel, stride) = (kernel_of(kernel)?, stride_of(stride)?);
    let operator = Operator::Stem { kernel, stride, activation: activation_of(activation)? };
    Some(("first_conv", operator, channel_list(channels)?))
}

fn mbconv(words: &[&str]) -> Option<Parts> {
    let [kernel, stride, channels, activation, flags @ ..] = words else { return None };
    let [input, mid, output] = channel_list(channels)?;
    let block = block(kernel_of(kernel)?, stride_of(stride)?, mid, activation_of(activation)?, flags)?;
    // only shapes that lowering gives
    let expands = block.expansion || mid == input;
    let adds = !block.residual || (block.stride == 1 && input == output);
    (expands && adds).then_some(("blocks.0", Operator::MbConv(block), [input, output]))
}

fn bottleneck(words: &[&str]) -> Option<Parts> {
    let [kernel, stride, channels, activation, flags @ ..] = words else { return None };
    let [input, mid, output] = channel_list(channels)?;
    let (kernel, stride) = (kernel_of(kernel)?, stride_of(stride)?);
    let downsample = flag(flags, "down")?;
    let activation = activation_of(activation)?;
    let block = Bottleneck { kernel, stride, mid, activation, downsample };
    // only shapes that lowering gives
    let adds = downsample || (stride == 1 && input == output);
    adds.then_some(("blocks.0", Operator::Bottleneck(block), [input, output]))
}

fn conv(words: &[&str]) -> Option<Parts> {
    let [kernel, channels, activation, flags @ ..] = words else { return None };
    let [input, output] = channel_list(channels)?;
    let (kernel, activation) = (kernel_of(kernel)?, activation_of(activation)?);
    let residual = flag(flags, "skip")?;
    let operator = Operator::Conv { kernel, activation, residual };
    (!residual || input == output).then_some(("input_stem.0", operator, [input, output]))
}

/// Whether the one flag that may follow does.
fn flag(flags: &[&str], name: &str) -> Option<bool> {
    match flags {
        [] => Some(false),
        [flag] if *flag == name => Some(true),
        _ => None,
    }
}

/// What stands between the blocks or follows them.
fn head(kind: &str, words: &[&str]) -> Option<Parts> {
    Some(match (kind, words) {
        ("conv1x1", [channels, activation]) => {
            let operator = Operator::HeadConv { activation: activation_of(activation)? };
            ("final_expand_layer", operator, channel_list(channels)?)
        }
        ("maxpool", [channels]) => ("max_pooling", Operator::MaxPool, [number(channels, MOST_CHANNELS)?; 2]),
        ("pool", [channels]) => ("pool", Operator::Pool, [number(channels, MOST_CHANNELS)?; 2]),
        ("mix", [channels, activation]) => {
            let operator = Operator::FeatureMix { activation: activation_of(activation)? };
            ("feature_mix_layer", operator, channel_list(channels)?)
        }
        (sum, [channels]) if sum.starts_with("sum") => {
            let of = number(sum.strip_prefix("sum")?, MOST_SUMMANDS).filter(|of| *of >= 2)?;
            ("sum", Operator::Sum { of }, [number(channels, MOST_CHANNELS)?; 2])
        }
        ("linear", [channels]) => ("classifier", Operator::Classifier, channel_list(channels)?),
        _ => return None,
    })
}

fn block(kernel: usize, stride: usize, mid: usize, activation: Activation, flags: &[&str]) -> Option<MbConv> {
    let mut block =
        MbConv { kernel, stride, mid, expansion: true, activation, squeeze: None, residual: false };
    for flag in flags {
        match *flag {
            "e1" => block.expansion = false,
            "skip" => block.residual = true,
            other => block.squeeze = Some(number(other.strip_prefix("se")?, MOST_CHANNELS)?),
        }
    }
    Some(block)
}

fn number(text: &str, most: usize) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=most).contains(number))
}

fn kernel_of(text: &str) -> Option<usize> {
    number(text.strip_prefix('k')?, MOST_KERNEL).filter(|kernel| kernel % 2 == 1)
}

fn stride_of(text: &str) -> Option<usize> {
    number(text.strip_prefix('s')?, 2)
}

fn channel_list<const N: usize>(text: &str) -> Option<[usize; N]> {
    let channels: Vec<usize> =
        text.split('-').map(|channels| number(channels, MOST_CHANNELS)).collect::<Option<_>>()?;
    channels.try_into().ok()
}

fn activation_of(text: &str) -> Option<Activation> {
    Activation::ALL.into_iter().find(|activation| activation.name() == text)
}

impl LayerSpec {
    /// Layers one after the other as a network: blocks are numbered as they stand, the convolutions of a stem by
    /// themselves, and each reads the one before.
    ///
    /// # Errors
    /// Names the first whose input is not what the one before makes.
    pub fn chain(layers: Vec<Self>) -> Result<Vec<Self>> {
        let mut chained = Vec::<Self>::with_capacity(layers.len());
        let mut numbers = std::collections::BTreeMap::<String, usize>::new();
        for (index, mut layer) in layers.into_iter().enumerate() {
            if let Some(before) = chained.last().filter(|before| before.output != layer.input) {
                let (expected, got) = (format!("what \"{before}\" makes"), format!("\"{layer}\""));
                return Err(Error::invalid("network", format!("layer {}", index + 1), expected, got));
            }
            if let (Some(_), Some((list, _))) = (layer.slot, layer.name.rsplit_once('.')) {
                let next = numbers.entry(list.to_string()).or_default();
                (layer.name, layer.slot) = (format!("{list}.{next}"), Some(*next));
                *next += 1;
            }
            layer.inputs = vec![index.checked_sub(1); layer.operator.arity()];
            chained.push(layer);
        }
        Ok(chained)
    }
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
            for _ in 0..50 {
                let layers = space.lower(&sampler::random(&space, &mut rng)).expect("legal");
                let parsed =
                    layers.iter().map(|layer| layer.key().parse()).collect::<Result<Vec<LayerSpec>>>();
                let chained = LayerSpec::chain(parsed.expect("own keys")).expect("fits");
                for (chained, layer) in chained.iter().zip(&layers) {
                    let LayerSpec { name, slot, .. } = chained.clone();
                    let layer = LayerSpec { name, slot, ..layer.clone() };
                    assert_eq!(*chained, layer, "all but where it stands in the largest network");
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
                .contains("layer 2: expected what \"pool 8 @4x4\" makes")
        );
    }
}
