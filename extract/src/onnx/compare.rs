//! Checks that a decoded model is the one written for a network: names, order, attributes, and every number bit for
//! bit, so that 0.0 and -0.0 differ and a NaN equals itself.
//!
//! Not compared: the program that wrote the file, the graph's name, and the order of its initializers, which change
//! nothing that is computed.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::decoded::{Array, AttributeValue, DecodedNode, OnnxModel, invalid};
use crate::error::Result;

impl OnnxModel {
    /// Compares the model with another one.
    ///
    /// # Errors
    /// With the first thing in which it differs.
    pub fn compare(&self, expected: &Self) -> Result<()> {
        for key in expected.properties.keys().chain(self.properties.keys()) {
            let expected = expected.properties.get(key);
            let got = self.properties.get(key);
            if expected != got {
                let field = format!("metadata_props: {key}");
                return Err(invalid(&self.place, field, quoted(expected), quoted(got)));
            }
        }
        for (field, expected, got) in
            [("input", &expected.input, &self.input), ("output", &expected.output, &self.output)]
        {
            if expected != got {
                return Err(invalid(&self.place, field, expected, got));
            }
        }
        for index in 0..expected.nodes.len().max(self.nodes.len()) {
            let expected = expected.nodes.get(index);
            let got = self.nodes.get(index);
            if !expected.zip(got).is_some_and(|(expected, got)| expected.has_edges_of(got)) {
                return Err(invalid(
                    &self.place,
                    format!("node {index}"),
                    node_text(expected),
                    node_text(got),
                ));
            }
        }
        for (expected, got) in expected.nodes.iter().zip(&self.nodes) {
            compare_attributes(&got.place(&self.place), &expected.attributes, &got.attributes)?;
        }
        compare_initializers(&self.place, &expected.initializers, &self.initializers)
    }
}

impl DecodedNode {
    /// Whether two nodes have the same name and operator, read the same values and make the same one.
    fn has_edges_of(&self, other: &Self) -> bool {
        let Self { name, operator, inputs, output, attributes: _ } = other;
        (&self.name, &self.operator, &self.inputs, &self.output) == (name, operator, inputs, output)
    }
}

fn quoted(text: Option<&String>) -> String {
    text.map_or("none".to_string(), |text| format!("`{text}`"))
}

/// A node as a line: `output = Operator(inputs), named name`.
fn node_text(node: Option<&DecodedNode>) -> String {
    let Some(DecodedNode { name, operator, inputs, output, .. }) = node else { return "none".to_string() };
    format!("`{output}` = {operator}(`{}`), named `{name}`", inputs.join("`, `"))
}

fn compare_attributes(
    place: &str,
    expected: &BTreeMap<String, AttributeValue>,
    got: &BTreeMap<String, AttributeValue>,
) -> Result<()> {
    fn text(attribute: Option<&AttributeValue>) -> String {
        attribute.map_or("none".to_string(), |attribute| format!("{attribute}"))
    }
    for key in expected.keys().chain(got.keys()) {
        let expected = expected.get(key);
        let got = got.get(key);
        let equal = expected.zip(got).is_some_and(|(expected, got)| expected.equals(got));
        if !equal {
            return Err(invalid(place, key, text(expected), text(got)));
        }
    }
    Ok(())
}

fn compare_initializers(
    place: &str,
    expected: &BTreeMap<String, Array>,
    got: &BTreeMap<String, Array>,
) -> Result<()> {
    let differs =
        |name: &dyn Display, expected: String, got: String| Err(invalid(place, name, expected, got));
    for (name, expected) in expected {
        let Some(got) = got.get(name) else {
            return differs(name, "an initializer of this name".to_string(), "none".to_string());
        };
        if expected.shape != got.shape {
            return differs(name, format!("shape {:?}", expected.shape), format!("{:?}", got.shape));
        }
        if let Some(index) = expected
            .values
            .iter()
            .zip(&got.values)
            .position(|(a, b): (&f32, &f32)| a.to_bits() != b.to_bits())
        {
            let [expected, got] = [expected, got].map(|array| value_text(array.values[index]));
            return differs(&format!("{name}[{index}]"), expected, got);
        }
    }
    match got.keys().find(|&name| !expected.contains_key(name)) {
        Some(name) => differs(name, "no such initializer".to_string(), "one".to_string()),
        None => Ok(()),
    }
}

/// A value with its bits, which differ where the shortest decimals may not.
fn value_text(value: f32) -> String {
    format!("{value:?} ({:#010x})", value.to_bits())
}
