//! Writes a sub-network as the classes of PyTorch's `ofa` build it, field by field.

use base::error::{Error, Result};
use serde_json::{Map, Value, json};

use super::class_of;
use crate::families::STEM_STAGES;
use crate::{Activation, Arch, Bottleneck, FamilyName, LayerSpec, MbConv, Operator, Ratio, SearchSpace};

/// PyTorch's default, and OFA's; it matters only in training.
const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A sub-network of `space` as the `net.config` of PyTorch's `ofa`: the named class builds the same network from it,
/// with the weight names of an exported folder.
///
/// # Errors
/// If the sub-network is not in the space, or the package has no form for it: it leaves out an expansion whose ratio is
/// 1, cannot run a block without an activation, and averages shortcuts by a block's fields, not by the space.
pub fn net_config(space: &SearchSpace, arch: &Arch) -> Result<Value> {
    let mut config = Map::new();
    config.insert("name".to_string(), json!(class_of(space)?));
    let epsilon = decimal(space.batch_norm_epsilon());
    config.insert("bn".to_string(), json!({ "momentum": BATCH_NORM_MOMENTUM, "eps": epsilon }));
    let mut ratios = expand_ratios(space, arch)?.into_iter();
    for layer in &space.lower(arch)? {
        let elastic = match &layer.operator {
            Operator::MbConv(block) => block.expansion,
            Operator::Bottleneck(_) => true,
            _ => false,
        };
        let ratio = if elastic { ratios.next() } else { None };
        let Some(form) = form(space, ratio.unwrap_or(Ratio::whole(1)), layer)? else { continue };
        match layer.name.split_once('.') {
            Some((list, _)) => {
                let list = config.entry(list).or_insert_with(|| json!([]));
                list.as_array_mut().expect("numbered layers have a list of their own").push(form);
            }
            None => {
                config.insert(layer.name.clone(), form);
            }
        }
    }
    Ok(Value::Object(config))
}

/// The number whose shortest decimal text is the value's.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// The config of a layer, without the fields that the classes have anyway. The list has the operators that they know.
fn form(space: &SearchSpace, expand: Ratio, layer: &LayerSpec) -> Result<Option<Value>> {
    Ok(Some(match &layer.operator {
        Operator::Stem { kernel, stride, activation } => conv(layer, [*kernel, *stride], true, *activation),
        Operator::Conv { kernel, stride, activation, residual } => {
            let conv = conv(layer, [*kernel, *stride], true, *activation);
            if *residual { residual_block(layer, conv, true) } else { conv }
        }
        Operator::HeadConv { activation } => conv(layer, [1, 1], true, *activation),
        Operator::FeatureMix { activation } => conv(layer, [1, 1], false, *activation),
        Operator::MbConv(block) => residual_block(layer, mbconv(expand, layer, block)?, block.residual),
        Operator::Bottleneck(block) => bottleneck(expand, layer, block)?,
        Operator::Classifier => linear(layer, space.dropout()),
        Operator::Pool | Operator::MaxPool { .. } => return Ok(None),
        _ => return Err(no_form(layer, "operator", "one of its own classes", &layer.key())),
    }))
}

fn name_of(activation: Activation) -> Value {
    if activation == Activation::None { Value::Null } else { json!(activation.name()) }
}

fn conv(layer: &LayerSpec, [kernel, stride]: [usize; 2], norm: bool, activation: Activation) -> Value {
    json!({
        "name": "ConvLayer",
        "kernel_size": kernel,
        "stride": stride,
        "dilation": 1,
        "groups": 1,
        "bias": false,
        "has_shuffle": false,
        "use_se": false,
        "in_channels": layer.input.channels,
        "out_channels": layer.output.channels,
        "use_bn": norm,
        "act_func": name_of(activation),
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    })
}

fn residual_block(layer: &LayerSpec, conv: Value, residual: bool) -> Value {
    let channels = layer.output.channels;
    let identity = json!({
        "name": "IdentityLayer",
        "in_channels": channels,
        "out_channels": channels,
        "use_bn": false,
        "act_func": null,
        "dropout_rate": 0,
        "ops_order": "weight_bn_act",
    });
    let shortcut = if residual { identity } else { Value::Null };
    json!({ "name": "ResidualBlock", "conv": conv, "shortcut": shortcut })
}

fn mbconv(expand: Ratio, layer: &LayerSpec, block: &MbConv) -> Result<Value> {
    let mid = if block.expansion { json!(block.mid) } else { Value::Null };
    if block.expansion && expand == Ratio::whole(1) {
        return Err(no_form(
            layer,
            "expand_ratio",
            "a value other than 1, for which ofa has no expansion",
            "1",
        ));
    }
    Ok(json!({
        "name": "MBConvLayer",
        "in_channels": layer.input.channels,
        "out_channels": layer.output.channels,
        "kernel_size": block.kernel,
        "stride": block.stride,
        "expand_ratio": expand,
        "mid_channels": mid,
        "act_func": inner(layer, block.activation)?,
        "use_se": block.squeeze.is_some(),
        "groups": null,
    }))
}

fn bottleneck(expand: Ratio, layer: &LayerSpec, block: &Bottleneck) -> Result<Value> {
    let changes = block.stride != 1 || layer.input.channels != layer.output.channels;
    if changes != block.downsample {
        let expected = "one that changes stride or channels where its shortcut has a convolution";
        return Err(no_form(layer, "shortcut", expected, &layer.key()));
    }
    Ok(json!({
        "name": "ResNetBottleneckBlock",
        "in_channels": layer.input.channels,
        "out_channels": layer.output.channels,
        "kernel_size": block.kernel,
        "stride": block.stride,
        "expand_ratio": expand,
        "mid_channels": block.mid,
        "act_func": inner(layer, block.activation)?,
        "groups": 1,
        "downsample_mode": "avgpool_conv",
    }))
}

fn linear(layer: &LayerSpec, dropout: f32) -> Value {
    json!({
        "name": "LinearLayer",
        "in_features": layer.input.channels,
        "out_features": layer.output.channels,
        "bias": true,
        "use_bn": false,
        "act_func": null,
        "dropout_rate": decimal(dropout),
        "ops_order": "weight_bn_act",
    })
}

/// The expand ratio of each block that can be chosen, in the order in which they run.
fn expand_ratios(space: &SearchSpace, arch: &Arch) -> Result<Vec<Ratio>> {
    let stem = if space.family() == FamilyName::ResNetD { STEM_STAGES } else { 0 };
    let stages = space.ofa_blocks(arch)?.stages;
    Ok(stages.iter().skip(stem).flatten().map(|block| block.expand).collect())
}

/// The name of an activation inside a block.
fn inner(layer: &LayerSpec, activation: Activation) -> Result<Value> {
    match name_of(activation) {
        Value::Null => {
            Err(no_form(layer, "act_func", "an activation, which every block of ofa needs", "none"))
        }
        name => Ok(name),
    }
}

fn no_form(layer: &LayerSpec, field: &str, expected: &str, got: &str) -> Error {
    let field = format!("{}.{field}", layer.name);
    Error::invalid("net.config", field, expected, got).and_then_do("PyTorch's ofa has no form for it")
}
