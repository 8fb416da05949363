//! The keys of OFA's latency tables, and the layers that they mean.
//!
//! Their form is what `MBv3LatencyTable.query` of PyPI's `ofa` asks for (`ofa/nas/efficiency_predictor/
//! latency_lookup_table.py`). A key leaves out what all of OFA's MobileNetV3 have in common: the stem's kernel of 3, the
//! activation h_swish of stem and head, the channels inside squeeze-and-excite, and that a block expands unless its
//! inner channels are as many as it reads.
//!
//! ProxylessNAS's tables (`ProxylessNASLatencyTable` there) have keys of the same kinds: a block's end with `idskip`, for
//! they know neither squeeze-and-excite nor h_swish, their `expand` is a ratio, their activation is relu6 everywhere, and
//! their `Logits` pools the map that it reads. Knows nothing of times.

use std::fmt;
use std::str::Split;

use base::{Error, Result as Checked};
use space::{Activation, FeatureMap, LayerSpec, Operator};

use crate::error::Result;

/// Activation of stem, head convolution and feature mix in OFA's MobileNetV3 (`ofa_mbv3.py`).
const OUTER_ACTIVATION: Activation = Activation::HSwish;
/// Activation everywhere in ProxylessNAS's networks.
const PROXYLESS_ACTIVATION: Activation = Activation::Relu6;
/// Side of the stem's kernel in both.
const STEM_KERNEL: usize = 3;
/// Greatest number in a key: channels; layers themselves allow less of most.
const MOST: usize = 65_536;
/// Greatest expand ratio of a ProxylessNAS block; its networks have up to 6.
const MOST_RATIO: usize = 16;
/// Greatest side of a kernel, as for every layer.
const MOST_KERNEL: usize = 31;

/// The key under which OFA's code looks a layer up, such as
/// `expanded_conv-input:56x56x32-output:28x28x48-expand:96-kernel:5-stride:2-idskip:0-se:1-hs:0`.
///
/// # Errors
/// If OFA's tables do not have the layer's operator, or if the key is ambiguous, so that [`layer_of`] the key
/// returns a different layer.
pub fn ofa_key(layer: &LayerSpec) -> Result<String> {
    let place = format!("layer \"{layer}\"");
    let expected = "a layer that a key of OFA's tables can mean";
    let Some(key) = key_of(layer) else {
        let got = "one of an operator that its tables do not have";
        return Err(Error::invalid(place, "OFA's key", expected, got).into());
    };
    let meant = parse(&key).map_err(|error| error.in_place(&place))?;
    if meant.key() != layer.key() || meant.output != layer.output {
        let got = format!("\"{key}\", which means \"{meant}\"");
        return Err(Error::invalid(place, "OFA's key", expected, got).into());
    }
    Ok(key)
}

/// The layer that a key of OFA's tables means, by itself: its block's number is 0 and it reads the image.
///
/// # Errors
/// If it is no key of OFA's MobileNetV3, or its sizes do not fit together; the message names the part.
pub fn layer_of(key: &str) -> Result<LayerSpec> {
    Ok(parse(key)?)
}

/// The operator's name in the keys of OFA's tables; `None` for operators that its tables, of MobileNetV3 and ProxylessNAS
/// alone, do not have.
fn kind_of(operator: &Operator) -> Option<&'static str> {
    match operator {
        Operator::Stem { .. } => Some("Conv"),
        Operator::MbConv(_) => Some("expanded_conv"),
        Operator::HeadConv { .. } => Some("Conv_1"),
        Operator::Pool => Some("AvgPool2D"),
        Operator::FeatureMix { .. } => Some("Conv_2"),
        Operator::Classifier => Some("Logits"),
        _ => None,
    }
}

/// A layer's key, whether or not that means the layer.
fn key_of(layer: &LayerSpec) -> Option<String> {
    kind_of(&layer.operator).map(|kind| Key { kind, layer }.to_string())
}

/// Writes the key of a layer of this kind.
struct Key<'a> {
    kind: &'static str,
    layer: &'a LayerSpec,
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LayerSpec { operator, input, output, .. } = self.layer;
        let side = |map: &FeatureMap| format!("{}x{}x{}", map.height, map.width, map.channels);
        f.write_str(self.kind)?;
        write!(f, "-input:{}-output:", side(input))?;
        match operator {
            Operator::Classifier => write!(f, "{}", output.channels)?,
            _ => f.write_str(&side(output))?,
        }
        let Operator::MbConv(block) = operator else { return Ok(()) };
        let flag = u8::from;
        write!(f, "-expand:{}-kernel:{}-stride:{}", block.mid, block.kernel, block.stride)?;
        let skip = flag(block.residual);
        let squeeze = flag(block.squeeze.is_some());
        write!(f, "-idskip:{skip}-se:{squeeze}-hs:{}", flag(block.activation == Activation::HSwish))
    }
}

/// Whose keys a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// OFA's MobileNetV3.
    MobileNetV3,
    /// ProxylessNAS.
    ProxylessNas,
}

impl KeyForm {
    /// The form that a key has by itself; `None` where both write it alike.
    pub(super) fn of(key: &str) -> Option<Self> {
        if key.starts_with("expanded_conv-") {
            let squeeze = key.contains("-se:") || key.contains("-hs:");
            return Some(if squeeze { Self::MobileNetV3 } else { Self::ProxylessNas });
        }
        if key.starts_with("AvgPool2D-") || key.starts_with("Conv_2-") {
            return Some(Self::MobileNetV3);
        }
        let logits = key.strip_prefix("Logits-input:")?;
        Some(if logits.starts_with("1x1x") { Self::MobileNetV3 } else { Self::ProxylessNas })
    }
}

/// The layers that a key of a form means, each with its share of the key's time. It is one layer, but for ProxylessNAS's
/// `Logits`, which pools too: the pool's part is that of the values that it reads among those that both read.
///
/// # Errors
/// As [`layer_of`].
pub fn layers_of(key: &str, form: KeyForm) -> Result<Vec<(LayerSpec, f64)>> {
    Ok(match form {
        KeyForm::MobileNetV3 => vec![(parse(key)?, 1.0)],
        KeyForm::ProxylessNas => parse_proxyless(key)?,
    })
}

pub(super) fn parse_proxyless(key: &str) -> Checked<Vec<(LayerSpec, f64)>> {
    let mut fields = Fields::new(key);
    let kind = fields.kind;
    let [height, width, input] = fields.sizes("input")?;
    let activation = PROXYLESS_ACTIVATION;
    let words = match kind {
        "Conv" => stem(&mut fields, [height, width, input], activation)?,
        "expanded_conv" => proxyless_block(&mut fields, input)?,
        "Conv_1" => format!("conv1x1 {input}-{} {activation}", fields.channels("output")?),
        "Logits" => {
            let classes = fields.number("output")?;
            fields.end()?;
            let spec =
                |words: String| words.parse().map_err(|error: base::Error| error.in_place(fields.place()));
            let pool = (height * width) as f64 / (height * width + classes) as f64;
            let linear = (spec(format!("linear {input}-{classes} @1x1"))?, 1.0 - pool);
            return Ok(vec![(spec(format!("pool {input} @{height}x{width}"))?, pool), linear]);
        }
        other => {
            let kinds = "Conv, expanded_conv, Conv_1 or Logits, as the table is one of ProxylessNAS";
            return Err(fields.wrong("kind", kinds, format!("\"{}\"", shown(other))));
        }
    };
    fields.end()?;
    if let Some(padded) =
        key.split(['-', ':', 'x']).find(|part| part.len() > 1 && part.starts_with(['0', '+']))
    {
        return Err(fields.wrong("numbers", "no sign and no 0 before them", shown(padded)));
    }
    let layer = format!("{words} @{height}x{width}").parse::<LayerSpec>();
    let layer = layer.map_err(|error| error.in_place(fields.place()))?;
    let written = Fields::new(key).output()?;
    let output = [layer.output.height, layer.output.width, layer.output.channels];
    if written != output {
        let [height, width, channels] = output;
        return Err(fields.wrong("output", format!("{height}x{width}x{channels}"), "another"));
    }
    Ok(vec![(layer, 1.0)])
}

/// `expand` is a ratio: the inner channels are so many times those that the block reads.
fn proxyless_block(fields: &mut Fields, input: usize) -> Checked<String> {
    let output = fields.channels("output")?;
    let [ratio, kernel, stride] =
        [fields.number("expand")?, fields.number("kernel")?, fields.number("stride")?];
    let residual = fields.flag("idskip")?;
    if ratio > MOST_RATIO {
        let error = fields.wrong("expand", format!("a ratio from 1 to {MOST_RATIO}"), ratio);
        return Err(
            error.and_then_do("a key without se and hs is one of ProxylessNAS's, whose expand is a ratio")
        );
    }
    let shape = Shape { input, mid: input * ratio, output, kernel, stride, residual };
    shape.words(fields, PROXYLESS_ACTIVATION, false)
}

pub(super) fn parse(key: &str) -> Checked<LayerSpec> {
    let mut fields = Fields::new(key);
    let kind = fields.kind;
    let [height, width, input] = fields.sizes("input")?;
    let words = match kind {
        "Conv" => stem(&mut fields, [height, width, input], OUTER_ACTIVATION)?,
        "expanded_conv" => block(&mut fields, input)?,
        "Conv_1" => format!("conv1x1 {input}-{} {OUTER_ACTIVATION}", fields.channels("output")?),
        "AvgPool2D" => {
            fields.sizes("output")?;
            format!("pool {input}")
        }
        "Conv_2" | "Logits" if (height, width) != (1, 1) => {
            return Err(fields.wrong("input", "1x1xCHANNELS", format!("{height}x{width}x{input}")));
        }
        "Conv_2" => format!("mix {input}-{} {OUTER_ACTIVATION}", fields.channels("output")?),
        "Logits" => format!("linear {input}-{}", fields.number("output")?),
        other => {
            let kinds = "Conv, expanded_conv, Conv_1, AvgPool2D, Conv_2 or Logits";
            return Err(fields.wrong("kind", kinds, format!("\"{}\"", shown(other))));
        }
    };
    fields.end()?;
    // the layer has its output from the one shape walk; written again, it must say what the key says
    let layer = format!("{words} @{height}x{width}").parse::<LayerSpec>();
    let layer = layer.map_err(|error| error.in_place(fields.place()))?;
    let canonical = key_of(&layer).unwrap_or_default();
    if canonical != key {
        return Err(fields.wrong("sizes", format!("\"{canonical}\""), "others"));
    }
    Ok(layer)
}

/// OFA's stem always has stride 2; a key gives another by its sizes.
fn stem(fields: &mut Fields, [height, width, input]: [usize; 3], activation: Activation) -> Checked<String> {
    let [out_height, out_width, output] = fields.sizes("output")?;
    let same = (out_height, out_width) == (height, width) && height * width > 1;
    let stride = if same { 1 } else { 2 };
    Ok(format!("stem k{STEM_KERNEL} s{stride} {input}-{output} {activation}"))
}

fn block(fields: &mut Fields, input: usize) -> Checked<String> {
    let output = fields.channels("output")?;
    let [mid, kernel, stride] =
        [fields.number("expand")?, fields.number("kernel")?, fields.number("stride")?];
    let [residual, squeeze, h_swish] = [fields.flag("idskip")?, fields.flag("se")?, fields.flag("hs")?];
    let activation = if h_swish { Activation::HSwish } else { Activation::Relu };
    Shape { input, mid, output, kernel, stride, residual }.words(fields, activation, squeeze)
}

/// A block's numbers.
struct Shape {
    input: usize,
    mid: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    residual: bool,
}

impl Shape {
    /// The block as a layer's text says it.
    fn words(&self, fields: &Fields, activation: Activation, squeeze: bool) -> Checked<String> {
        let Self { input, mid, output, kernel, stride, residual } = *self;
        if kernel % 2 == 0 || kernel > MOST_KERNEL {
            return Err(fields.wrong("kernel", format!("an odd number up to {MOST_KERNEL}"), kernel));
        }
        if stride > 2 {
            return Err(fields.wrong("stride", "1 or 2", stride));
        }
        if residual && (stride != 1 || input != output) {
            return Err(fields.wrong("idskip", "0 where channels change or the stride is not 1", 1));
        }
        let mut words = format!("mbconv k{kernel} s{stride} {input}-{mid}-{output} {activation}");
        if mid == input {
            words += " e1";
        }
        if squeeze {
            words += &format!(" se{}", LayerSpec::squeeze_of(mid));
        }
        if residual {
            words += " skip";
        }
        Ok(words)
    }
}

/// A key's parts, `KIND-NAME:VALUE-NAME:VALUE…`, taken one after the other.
struct Fields<'a> {
    key: &'a str,
    kind: &'a str,
    parts: Split<'a, char>,
}

impl<'a> Fields<'a> {
    fn new(key: &'a str) -> Self {
        let mut parts = key.split('-');
        let kind = parts.next().unwrap_or_default();
        Self { key, kind, parts }
    }

    fn wrong(&self, field: &str, expected: impl ToString, got: impl ToString) -> Error {
        Error::invalid(self.place(), field, expected, got)
    }

    fn place(&self) -> String {
        format!("OFA's key \"{}\"", shown(self.key))
    }

    fn take(&mut self, name: &str) -> Checked<&'a str> {
        let part = self.parts.next();
        let value = part.and_then(|part| part.strip_prefix(name)?.strip_prefix(':'));
        value.ok_or_else(|| {
            let error = self.wrong(name, format!("{name}:VALUE"), part.map_or("the end".to_string(), shown));
            match name {
                "se" => {
                    error.and_then_do("a key that ends here is of ProxylessNAS's networks, not MobileNetV3's")
                }
                _ => error,
            }
        })
    }

    fn number(&mut self, name: &str) -> Checked<usize> {
        let text = self.take(name)?;
        number(text).ok_or_else(|| self.wrong(name, format!("a number from 1 to {MOST}"), shown(text)))
    }

    fn flag(&mut self, name: &str) -> Checked<bool> {
        match self.take(name)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(self.wrong(name, "0 or 1", shown(other))),
        }
    }

    /// `HEIGHTxWIDTHxCHANNELS`.
    fn sizes(&mut self, name: &str) -> Checked<[usize; 3]> {
        let text = self.take(name)?;
        let sizes: Option<Vec<usize>> = text.split('x').map(number).collect();
        sizes.and_then(|sizes| sizes.try_into().ok()).ok_or_else(|| {
            self.wrong(name, format!("HEIGHTxWIDTHxCHANNELS, each from 1 to {MOST}"), shown(text))
        })
    }

    /// The output's sizes of a key that was not begun yet.
    fn output(mut self) -> Checked<[usize; 3]> {
        self.sizes("input")?;
        self.sizes("output")
    }

    fn channels(&mut self, name: &str) -> Checked<usize> {
        self.sizes(name).map(|[_, _, channels]| channels)
    }

    fn end(&mut self) -> Checked<()> {
        match self.parts.next() {
            None => Ok(()),
            Some(part) => Err(self.wrong("end", "no further part", shown(part))),
        }
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=MOST).contains(number))
}

/// The beginning of what may be anything, for a message of one line.
fn shown(text: &str) -> String {
    one_line(text, 120)
}

/// At most so many letters of a text, none of them a line's end or another control.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let letters = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let rest = if text.chars().nth(most).is_some() { "…" } else { "" };
    letters.take(most).chain(rest.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::preset;

    #[test]
    fn every_layer_of_ofas_spaces_comes_back_from_its_key() {
        for name in ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2"] {
            let layers = preset(name).expect("a preset").layers();
            for layer in layers.values() {
                let key = ofa_key(layer).unwrap_or_else(|error| panic!("{error}"));
                let again = layer_of(&key).expect("own key");
                assert_eq!((again.key(), again.output), (layer.key(), layer.output), "{key}");
            }
        }
    }

    #[test]
    fn keys_and_layers_side_by_side() {
        for (key, layer) in [
            ("Conv-input:161x160x3-output:81x80x24", "stem k3 s2 3-24 h_swish @161x160"),
            ("Conv-input:28x28x1-output:28x28x8", "stem k3 s1 1-8 h_swish @28x28"),
            ("Conv-input:1x1x1-output:1x1x8", "stem k3 s2 1-8 h_swish @1x1"),
            (
                "expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
                "mbconv k3 s1 24-24-24 relu e1 skip @80x80",
            ),
            (
                "expanded_conv-input:17x17x40-output:9x9x80-expand:240-kernel:7-stride:2-idskip:0-se:1-hs:1",
                "mbconv k7 s2 40-240-80 h_swish se64 @17x17",
            ),
            (
                "expanded_conv-input:7x7x8-output:7x7x8-expand:16-kernel:5-stride:1-idskip:0-se:0-hs:0",
                "mbconv k5 s1 8-16-8 relu @7x7",
            ),
            ("Conv_1-input:5x5x192-output:5x5x1152", "conv1x1 192-1152 h_swish @5x5"),
            ("AvgPool2D-input:5x5x1152-output:1x1x1152", "pool 1152 @5x5"),
            ("Conv_2-input:1x1x1152-output:1x1x1536", "mix 1152-1536 h_swish @1x1"),
            ("Logits-input:1x1x1536-output:1000", "linear 1536-1000 @1x1"),
        ] {
            assert_eq!(layer_of(key).unwrap_or_else(|error| panic!("{error}")).key(), layer);
            let layer: LayerSpec = layer.parse().expect("a layer");
            assert_eq!(ofa_key(&layer).unwrap_or_else(|error| panic!("{error}")), key);
        }
    }

    #[test]
    fn operators_that_ofas_tables_do_not_have_are_refused() {
        for layer in [
            "maxpool 64 @56x56",
            "conv k3 8-8 relu skip @56x56",
            "bottleneck k3 s1 8-4-8 relu @7x7",
            "sum2 8 @7x7",
        ] {
            let layer: LayerSpec = layer.parse().expect("a layer");
            let error = ofa_key(&layer).expect_err("not of OFA").to_string();
            assert!(error.ends_with("of an operator that its tables do not have"), "{error}");
        }
    }

    #[test]
    fn keys_of_proxyless_nas_and_layers_side_by_side() {
        for (key, layers) in [
            ("Conv-input:224x224x3-output:112x112x32", &[("stem k3 s2 3-32 relu6 @224x224", 1.0)][..]),
            (
                "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
                &[("mbconv k3 s1 32-32-16 relu6 e1 @112x112", 1.0)],
            ),
            (
                "expanded_conv-input:7x7x192-output:7x7x320-expand:6-kernel:5-stride:1-idskip:0",
                &[("mbconv k5 s1 192-1152-320 relu6 @7x7", 1.0)],
            ),
            (
                "expanded_conv-input:15x15x80-output:15x15x80-expand:3-kernel:7-stride:1-idskip:1",
                &[("mbconv k7 s1 80-240-80 relu6 skip @15x15", 1.0)],
            ),
            ("Conv_1-input:7x7x320-output:7x7x1280", &[("conv1x1 320-1280 relu6 @7x7", 1.0)]),
            (
                "Logits-input:7x7x1280-output:951",
                &[("pool 1280 @7x7", 0.049), ("linear 1280-951 @1x1", 0.951)],
            ),
        ] {
            let found = layers_of(key, KeyForm::ProxylessNas).unwrap_or_else(|error| panic!("{error}"));
            let found: Vec<_> = found.iter().map(|(layer, share)| (layer.key(), *share)).collect();
            assert_eq!(found.len(), layers.len());
            for ((found, share), (layer, expected)) in found.iter().zip(layers) {
                assert!(found == layer && (share - expected).abs() < 1e-12, "{key}: {found} {share}");
            }
        }
    }

    #[test]
    fn every_layer_of_ofas_proxyless_nas_has_a_key_there() {
        let space = preset("ofa-proxyless-w1.3").expect("a preset");
        let mut pooled = 0;
        for layer in space.layers().values() {
            let side = |map: &FeatureMap| format!("{}x{}x{}", map.height, map.width, map.channels);
            let key = match &layer.operator {
                Operator::MbConv(block) => {
                    let ratio = block.mid / layer.input.channels;
                    let kernel = block.kernel;
                    let stride = block.stride;
                    let skip = u8::from(block.residual);
                    let sizes = format!("input:{}-output:{}", side(&layer.input), side(&layer.output));
                    format!(
                        "expanded_conv-{sizes}-expand:{ratio}-kernel:{kernel}-stride:{stride}-idskip:{skip}"
                    )
                }
                Operator::Pool => {
                    pooled += 1;
                    format!("Logits-input:{}-output:1000", side(&layer.input))
                }
                Operator::Classifier => format!("Logits-input:1x1x{}-output:1000", layer.input.channels),
                _ => key_of(layer).expect("OFA has it"),
            };
            let means = layers_of(&key, KeyForm::ProxylessNas).unwrap_or_else(|error| panic!("{error}"));
            assert!(means.iter().any(|(found, _)| found.key() == layer.key()), "{key} for {layer}");
        }
        assert!(pooled > 1);
    }

    #[test]
    fn other_keys_of_proxyless_nas_are_refused_with_the_part() {
        let good = "expanded_conv-input:8x8x8-output:8x8x8-expand:6-kernel:5-stride:1-idskip:1";
        for (from, to, part) in [
            (
                "expand:6",
                "expand:48",
                "expand: expected a ratio from 1 to 16, got 48; a key without se and hs",
            ),
            ("output:8x8x8", "output:4x4x8", "output: expected 8x8x8"),
            ("idskip:1", "idskip:1-se:0-hs:0", "end: expected no further part, got se:0"),
            ("input:8x8x8", "input:08x8x8", "numbers: expected no sign and no 0 before them, got 08"),
            ("stride:1", "stride:2", "idskip: expected 0"),
            (
                good,
                "AvgPool2D-input:8x8x8-output:1x1x8",
                "kind: expected Conv, expanded_conv, Conv_1 or Logits",
            ),
            (good, "Logits-input:7x7x8-output:1x1x8", "output: expected a number"),
            (good, "Conv-input:8x8x3-output:3x3x8", "output: expected 4x4x8"),
        ] {
            let key = good.replacen(from, to, 1);
            let error = layers_of(&key, KeyForm::ProxylessNas).expect_err(to).to_string();
            assert!(error.starts_with("OFA's key \"") && error.contains(part), "{to}: {error}");
        }
    }

    #[test]
    fn layers_that_a_key_cannot_tell_are_refused() {
        for (layer, part) in [
            ("mbconv k3 s1 8-16-8 relu6 skip @8x8", "which means \"mbconv k3 s1 8-16-8 relu skip @8x8\""),
            ("mbconv k3 s1 8-16-8 h_swish se16 @8x8", "which means \"mbconv k3 s1 8-16-8 h_swish se8 @8x8\""),
            ("mbconv k3 s1 8-8-8 relu @8x8", "which means \"mbconv k3 s1 8-8-8 relu e1 @8x8\""),
            ("stem k5 s2 3-8 h_swish @8x8", "which means \"stem k3 s2 3-8 h_swish @8x8\""),
            ("stem k3 s2 3-8 relu @8x8", "which means \"stem k3 s2 3-8 h_swish @8x8\""),
            ("stem k3 s1 3-8 h_swish @1x1", "which means \"stem k3 s2 3-8 h_swish @1x1\""),
            ("conv1x1 8-16 relu6 @8x8", "which means \"conv1x1 8-16 h_swish @8x8\""),
            ("mix 8-16 relu @1x1", "which means \"mix 8-16 h_swish @1x1\""),
            ("mix 8-16 h_swish @2x2", "input: expected 1x1xCHANNELS, got 2x2x8"),
        ] {
            let error = ofa_key(&layer.parse().expect("a layer")).expect_err(layer).to_string();
            assert!(error.starts_with(&format!("layer \"{layer}\": ")) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn other_keys_are_refused_with_the_part() {
        let good = "expanded_conv-input:8x8x8-output:8x8x8-expand:16-kernel:5-stride:1-idskip:1-se:1-hs:0";
        layer_of(good).expect("a key");
        let long = "9".repeat(5000);
        for (from, to, part) in [
            ("expanded_conv", "Conv_3", "kind: expected Conv, expanded_conv"),
            ("expanded_conv-", "", "input: expected input:VALUE, got output:8x8x8"),
            ("8x8x8-output", "8x8-output", "input: expected HEIGHTxWIDTHxCHANNELS"),
            ("8x8x8-output", "8x8x8x8-output", "input: expected HEIGHTxWIDTHxCHANNELS"),
            ("8x8x8-output", "0x8x8-output", "input: expected HEIGHTxWIDTHxCHANNELS"),
            ("8x8x8-output", "5000x5000x8-output", "key: expected a key such as"),
            ("8x8x8-output", "9x8x8-output", "sizes: expected \"expanded_conv-input:9x8x8-output:9x8x8"),
            ("8x8x8-output", "08x8x8-output", "sizes: expected \"expanded_conv-input:8x8x8-"),
            ("8x8x8-expand", "8x8x16-expand", "idskip: expected 0"),
            ("expand:16", "expand:18446744073709551615", "expand: expected a number from 1 to 65536"),
            ("expand:16", &format!("expand:{long}"), "expand: expected a number from 1 to 65536"),
            ("expand:16", "mid:16", "expand: expected expand:VALUE, got mid:16"),
            ("kernel:5", "kernel:4", "kernel: expected an odd number up to 31, got 4"),
            ("kernel:5", "kernel:33", "kernel: expected an odd number up to 31, got 33"),
            ("stride:1", "stride:2", "idskip: expected 0"),
            ("stride:1", "stride:3", "stride: expected 1 or 2, got 3"),
            ("stride:1", "stride:-1", "stride: expected a number from 1 to 65536"),
            ("idskip:1", "idskip:2", "idskip: expected 0 or 1, got 2"),
            (
                "-se:1-hs:0",
                "",
                "se: expected se:VALUE, got the end; a key that ends here is of ProxylessNAS's",
            ),
            ("-hs:0", "", "hs: expected hs:VALUE, got the end"),
            ("-hs:0", "-hs:0-more", "end: expected no further part, got more"),
            (good, "", "input: expected input:VALUE, got the end"),
            (good, "Conv-input:8x8x3-output:3x3x8", "sizes: expected \"Conv-input:8x8x3-output:4x4x8\""),
            (good, "Conv_1-input:8x8x3-output:4x4x8", "sizes: expected"),
            (good, "AvgPool2D-input:8x8x8-output:1x1x9", "sizes: expected"),
            (good, "AvgPool2D-input:8x8x8-output:2x2x8", "sizes: expected"),
            (good, "Conv_2-input:2x1x8-output:2x1x8", "input: expected 1x1xCHANNELS, got 2x1x8"),
            (good, "Logits-input:7x7x1280-output:1000", "input: expected 1x1xCHANNELS, got 7x7x1280"),
            (good, "Logits-input:1x1x8-output:1x1x9", "output: expected a number"),
            (good, "Logits-input:1x1x65536-output:65536", "values in a map or a weight"),
        ] {
            let error = layer_of(&good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with("OFA's key \"") && error.contains(part), "{to}: {error}");
            assert!(error.len() < 1000, "{error}");
        }
    }
}
