//! Nodes and their attributes.

use std::collections::BTreeMap;
use std::fmt;

use super::super::proto;
use super::invalid;
use crate::error::Result;

/// One operator, by the names of its inputs and of its output. An empty name stands for an optional input left out.
#[derive(Clone, Debug)]
pub(in crate::onnx) struct DecodedNode {
    pub(in crate::onnx) name: String,
    pub(in crate::onnx) operator: String,
    pub(in crate::onnx) inputs: Vec<String>,
    pub(in crate::onnx) output: String,
    pub(in crate::onnx) attributes: BTreeMap<String, AttributeValue>,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(in crate::onnx) enum AttributeValue {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

impl DecodedNode {
    pub(super) fn new(place: &str, node: proto::NodeProto) -> Result<Self> {
        let proto::NodeProto { input, output, name, op_type, attribute } = node;
        let name = name.unwrap_or_default();
        let operator = op_type.unwrap_or_default();
        let [output] = <[String; 1]>::try_from(output).map_err(|output| {
            invalid(&place_of(place, &name, &operator), "output", "one value", output.len())
        })?;
        if output.is_empty() {
            return Err(invalid(&place_of(place, &name, &operator), "output", "a name", "none"));
        }
        let mut attributes = BTreeMap::new();
        for attribute in attribute {
            let key = attribute.name().to_string();
            let place = place_of(place, &name, &operator);
            if attributes.insert(key.clone(), AttributeValue::new(&place, &key, attribute)?).is_some() {
                return Err(invalid(&place, key, "one attribute of this name", "several"));
            }
        }
        Ok(Self { name, operator, inputs: input, output, attributes })
    }

    /// The file's name with the node's, for messages.
    pub(in crate::onnx) fn place(&self, file: &str) -> String {
        place_of(file, &self.name, &self.operator)
    }
}

fn place_of(file: &str, name: &str, operator: &str) -> String {
    format!("{file}: node `{name}` ({operator})")
}

impl AttributeValue {
    /// The field that the attribute's kind names; the others must be absent.
    fn new(place: &str, key: &str, attribute: proto::AttributeProto) -> Result<Self> {
        let proto::AttributeProto { f, i, ints, kind, .. } = attribute;
        let kind = kind.and_then(|kind| proto::AttributeKind::try_from(kind).ok());
        match (kind, f, i, ints.is_empty()) {
            (Some(proto::AttributeKind::Float), Some(value), None, true) => Ok(Self::Float(value)),
            (Some(proto::AttributeKind::Int), None, Some(value), true) => Ok(Self::Int(value)),
            (Some(proto::AttributeKind::Ints), None, None, _) => Ok(Self::Ints(ints)),
            (kind, ..) => Err(invalid(
                place,
                key,
                "one number, or a list of whole ones",
                format!("another value of kind {kind:?}"),
            )),
        }
    }

    /// Whether two attributes are equal, numbers bit for bit.
    pub(in crate::onnx) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Ints(a), Self::Ints(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(formatter, "{value}"),
            Self::Float(value) => write!(formatter, "{value:?}"),
            Self::Ints(values) => write!(formatter, "{values:?}"),
        }
    }
}
