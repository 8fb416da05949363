//! An ONNX file as a checked graph: what [`super::model`] writes can be read, and nothing else.
//!
//! A file is refused unless each of its bytes is understood: the decoded messages, written again, must be the file. So
//! no field that another reader would obey can hide from the comparison or from the interpreter.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::Message;

use super::graph::{IR_VERSION, OPERATOR_SET};
use super::proto;
use crate::error::{Error, Result};
pub(super) use node::{AttributeValue, DecodedNode};

/// A decoded ONNX file. Its nodes stand in an order in which they can run, and every name is made once.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    pub(super) place: String,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) input: Port,
    pub(super) output: Port,
    pub(super) initializers: BTreeMap<String, Array>,
    pub(super) nodes: Vec<DecodedNode>,
}

/// The graph's input or output: its name and its sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) sizes: Vec<Size>,
}

/// A size that is known, or the name of an open one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Fixed(usize),
    Open(String),
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<_> = self
            .sizes
            .iter()
            .map(|size: &Size| match size {
                Size::Fixed(size) => size.to_string(),
                Size::Open(name) => name.clone(),
            })
            .collect();
        write!(formatter, "`{}` [{}]", self.name, sizes.join(", "))
    }
}

/// Numbers in row-major order; no size is 0, and there are as many values as the shape says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// An error that names the file and a part of it.
pub(super) fn invalid(
    place: &str,
    field: impl ToString,
    expected: impl ToString,
    got: impl ToString,
) -> Error {
    base::Error::invalid(place, field, expected, got).into()
}

impl OnnxModel {
    /// Reads a file's bytes; `place` names it in messages.
    ///
    /// # Errors
    /// If the bytes are no ONNX file, or hold anything that [`super::model`] does not write: other versions, number types
    /// or fields, a constant whose size is not its shape's, a name that is made twice or read before it is made.
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let whole = "a whole ONNX file";
        let file =
            proto::ModelProto::decode(bytes).map_err(|error| invalid(place, "content", whole, error))?;
        if file.graph.is_none() {
            return Err(invalid(place, "content", whole, "one without a graph"));
        }
        check_canonical(place, &file, bytes)?;
        check_versions(place, &file)?;
        let proto::GraphProto { node, initializer, input, output, .. } = file.graph.unwrap_or_default();
        let model = Self {
            place: place.to_string(),
            properties: properties(place, file.metadata_props)?,
            input: port(place, "input", input)?,
            output: port(place, "output", output)?,
            initializers: initializers(place, initializer)?,
            nodes: node.into_iter().map(|node| DecodedNode::new(place, node)).collect::<Result<_>>()?,
        };
        model.check_names()?;
        Ok(model)
    }

    /// The model's `metadata_props` by key.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// The number of constants that the nodes read.
    pub fn initializers(&self) -> usize {
        self.initializers.len()
    }

    /// The shape of the input for a number of images, which is used wherever the file leaves a size open.
    pub fn input_shape(&self, batch: usize) -> Vec<usize> {
        self.input
            .sizes
            .iter()
            .map(|size: &Size| match size {
                Size::Fixed(size) => *size,
                Size::Open(_) => batch,
            })
            .collect()
    }

    /// Whether every value is made once and before it is read; a graph with a cycle has no such order.
    fn check_names(&self) -> Result<()> {
        let mut known: BTreeSet<&str> = self.initializers.keys().map(String::as_str).collect();
        let twice =
            |name: &str| invalid(&self.place, name, "a name that is given once", "another of that name");
        if !known.insert(&self.input.name) {
            return Err(twice(&self.input.name));
        }
        for node in &self.nodes {
            for input in node.inputs.iter().filter(|input| !input.is_empty()) {
                if !known.contains(input.as_str()) {
                    let expected = "values that were made before it";
                    return Err(invalid(&node.place(&self.place), "input", expected, format!("`{input}`")));
                }
            }
            if !known.insert(&node.output) {
                return Err(twice(&node.output));
            }
        }
        let output = self.output.name.as_str();
        if self.nodes.iter().any(|node| node.output == output) {
            return Ok(());
        }
        Err(invalid(&self.place, "output", "a value that a node makes", format!("`{output}`")))
    }
}

/// Whether the messages, written again, are the file's bytes.
fn check_canonical(place: &str, file: &proto::ModelProto, bytes: &[u8]) -> Result<()> {
    let again = file.encode_to_vec();
    if again == bytes {
        return Ok(());
    }
    let at = again.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let got = format!("something else at byte {at}");
    Err(invalid(place, "content", "only fields that are written here, in their order", got))
}

fn check_versions(place: &str, file: &proto::ModelProto) -> Result<()> {
    if file.ir_version != Some(IR_VERSION) {
        let got = file.ir_version.map_or("none".to_string(), |version| version.to_string());
        return Err(invalid(place, "ir_version", IR_VERSION, got));
    }
    let sets: Vec<_> = file.opset_import.iter().map(|set| (set.domain(), set.version())).collect();
    if sets != [("", OPERATOR_SET)] {
        let expected = format!("version {OPERATOR_SET} of ONNX's own operators alone");
        return Err(invalid(place, "opset_import", expected, format!("{sets:?}")));
    }
    Ok(())
}

fn properties(place: &str, pairs: Vec<proto::Property>) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for pair in pairs {
        if properties.insert(pair.key().to_string(), pair.value().to_string()).is_some() {
            let field = format!("metadata_props: {}", pair.key());
            return Err(invalid(place, field, "one value", "several"));
        }
    }
    Ok(properties)
}

/// The graph's only input or output.
fn port(place: &str, field: &str, values: Vec<proto::ValueInfoProto>) -> Result<Port> {
    let [value] = <[proto::ValueInfoProto; 1]>::try_from(values)
        .map_err(|values| invalid(place, field, "one value", values.len()))?;
    let name = value.name().to_string();
    if name.is_empty() {
        return Err(invalid(place, field, "a name", "none"));
    }
    let tensor = value.r#type.and_then(|kind| kind.tensor_type);
    let tensor = tensor.ok_or_else(|| invalid(place, &name, "a tensor", "another type"))?;
    check_type(place, &name, tensor.elem_type)?;
    let shape = tensor.shape.ok_or_else(|| invalid(place, &name, "a shape", "none"))?;
    let mut sizes = Vec::with_capacity(shape.dim.len());
    for dimension in shape.dim {
        sizes.push(match (dimension.dim_value, dimension.dim_param) {
            (Some(size), None) => Size::Fixed(positive(place, &name, size)?),
            (None, Some(open)) if !open.is_empty() => Size::Open(open),
            other => {
                let got = format!("{other:?}");
                return Err(invalid(place, &name, "a size or the name of an open one", got));
            }
        });
    }
    Ok(Port { name, sizes })
}

fn initializers(place: &str, tensors: Vec<proto::Tensor>) -> Result<BTreeMap<String, Array>> {
    let mut arrays = BTreeMap::new();
    for tensor in tensors {
        let name = tensor.name().to_string();
        let array = array(place, tensor)?;
        if name.is_empty() {
            return Err(invalid(place, "initializer", "a name", "none"));
        }
        if arrays.insert(name.clone(), array).is_some() {
            return Err(invalid(place, name, "one initializer of this name", "several"));
        }
    }
    Ok(arrays)
}

/// The values of a constant; nothing is reserved but for the bytes that are there.
fn array(place: &str, tensor: proto::Tensor) -> Result<Array> {
    let name = tensor.name();
    check_type(place, name, tensor.data_type)?;
    let shape: Vec<usize> =
        tensor.dims.iter().map(|&size| positive(place, name, size)).collect::<Result<_>>()?;
    let bytes = tensor.raw_data();
    if elements(&shape).and_then(|count| count.checked_mul(size_of::<f32>())) != Some(bytes.len()) {
        let expected = format!("the bytes of f32 values of shape {shape:?}");
        return Err(invalid(place, name, expected, format!("{} bytes", bytes.len())));
    }
    let (words, _) = bytes.as_chunks();
    Ok(Array { shape, values: words.iter().map(|word| f32::from_le_bytes(*word)).collect() })
}

/// The number of values of a shape, where it can be counted.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size))
}

fn check_type(place: &str, name: &str, kind: Option<i32>) -> Result<()> {
    if kind == Some(proto::NumberType::Float as i32) {
        return Ok(());
    }
    let got = kind.map_or("none".to_string(), |kind| kind.to_string());
    Err(invalid(place, name, "numbers of type 1 (f32)", got))
}

fn positive(place: &str, name: &str, size: i64) -> Result<usize> {
    let size = usize::try_from(size).ok().filter(|&size| size > 0);
    size.ok_or_else(|| invalid(place, name, "sizes of at least 1", "another"))
}
