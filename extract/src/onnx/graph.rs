//! Builds a graph node by node, and writes its file.
//!
//! Knows ONNX and nothing of layers: every node has one output, named as the node is.

use std::collections::BTreeMap;

use prost::Message;

use super::proto;

/// The operator set that the nodes are of: the first with `HardSwish` is 14.
pub(super) const OPERATOR_SET: i64 = 17;
/// The file format's version that came with that operator set.
pub(super) const IR_VERSION: i64 = 8;

/// Name of the graph's input.
pub(super) const INPUT: &str = "input";
/// Name of the graph's output.
pub(super) const OUTPUT: &str = "output";

/// Nodes and constants; [`GraphBuilder::tip`] is what the next layer reads.
pub(super) struct GraphBuilder {
    nodes: Vec<proto::NodeProto>,
    constants: Vec<proto::Tensor>,
    tip: String,
}

impl GraphBuilder {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), constants: Vec::new(), tip: INPUT.to_string() }
    }

    /// Name of the newest value.
    pub(super) fn tip(&self) -> String {
        self.tip.clone()
    }

    /// Makes another value what the next layer reads.
    pub(super) fn set_tip(&mut self, value: String) {
        self.tip = value;
    }

    /// Adds a constant and returns its name.
    pub(super) fn constant(&mut self, name: String, shape: &[usize], values: &[f32]) -> String {
        self.constants.push(proto::Tensor {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(proto::NumberType::Float as i32),
            name: Some(name.clone()),
            raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        });
        name
    }

    /// Whether a constant of this name was added.
    pub(super) fn has_constant(&self, name: &str) -> bool {
        self.constants.iter().any(|constant| constant.name() == name)
    }

    /// Adds a node; its output is the new tip.
    pub(super) fn node(
        &mut self,
        name: String,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<proto::AttributeProto>,
    ) {
        self.nodes.push(proto::NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.clone()],
            name: Some(name.clone()),
            op_type: Some(operator.to_string()),
            attribute: attributes,
        });
        self.tip = name;
    }

    /// The file; what the last node makes is the graph's output. Nothing may read it.
    pub(super) fn into_file(mut self, [input, output]: [Sizes; 2], properties: Properties) -> Vec<u8> {
        if let Some(made) = self.nodes.last_mut().and_then(|node| node.output.first_mut()) {
            *made = OUTPUT.to_string();
        }
        let graph = proto::GraphProto {
            node: self.nodes,
            name: Some("network".to_string()),
            initializer: self.constants,
            input: vec![value(INPUT, input)],
            output: vec![value(OUTPUT, output)],
        };
        let model = proto::ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(env!("CARGO_PKG_NAME").to_string()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
            graph: Some(graph),
            opset_import: vec![proto::OperatorSetProto {
                domain: Some(String::new()),
                version: Some(OPERATOR_SET),
            }],
            metadata_props: properties
                .into_iter()
                .map(|(key, value)| proto::Property { key: Some(key), value: Some(value) })
                .collect(),
        };
        model.encode_to_vec()
    }
}

/// A model's metadata by key.
pub(super) type Properties = BTreeMap<String, String>;

/// The sizes of a value; the first may be open, and then has a name.
pub(super) struct Sizes(Vec<proto::DimensionProto>);

impl Sizes {
    pub(super) fn fixed(sizes: &[usize]) -> Self {
        Self(
            sizes
                .iter()
                .map(|&size: &usize| proto::DimensionProto { dim_value: Some(size as i64), dim_param: None })
                .collect(),
        )
    }

    /// The same sizes with any first one.
    pub(super) fn with_open_first(mut self, name: &str) -> Self {
        if let Some(first) = self.0.first_mut() {
            *first = proto::DimensionProto { dim_value: None, dim_param: Some(name.to_string()) };
        }
        self
    }
}

fn value(name: &str, sizes: Sizes) -> proto::ValueInfoProto {
    let shape = proto::TensorShape { dim: sizes.0 };
    let tensor = proto::TensorType { elem_type: Some(proto::NumberType::Float as i32), shape: Some(shape) };
    proto::ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(proto::ValueType { tensor_type: Some(tensor) }),
    }
}

/// An attribute that is one whole number.
pub(super) fn int(name: &str, value: usize) -> proto::AttributeProto {
    proto::AttributeProto { i: Some(value as i64), ..attribute(name, proto::AttributeKind::Int) }
}

/// An attribute that is a list of whole numbers.
pub(super) fn ints(name: &str, values: &[usize]) -> proto::AttributeProto {
    let ints = values.iter().map(|&value| value as i64).collect();
    proto::AttributeProto { ints, ..attribute(name, proto::AttributeKind::Ints) }
}

/// An attribute that is one number.
pub(super) fn float(name: &str, value: f32) -> proto::AttributeProto {
    proto::AttributeProto { f: Some(value), ..attribute(name, proto::AttributeKind::Float) }
}

fn attribute(name: &str, kind: proto::AttributeKind) -> proto::AttributeProto {
    proto::AttributeProto { name: Some(name.to_string()), kind: Some(kind as i32), ..Default::default() }
}
