//! Runs a decoded model by plain loops, as the ONNX specification of operator set 17 says: one function per operator.
//!
//! It exists to check files, so it reads shapes and attributes from the file alone and knows nothing of layers. Other
//! operators and attributes than those that are written here are refused.

mod call;
mod convolution;
mod elementwise;
mod matrix;
mod pooling;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;

use super::decoded::{Array, DecodedNode, OnnxModel, Port, Size, elements, invalid};
use crate::error::Result;
use call::{Call, Limits};

impl OnnxModel {
    /// The model's output for an input, row by row.
    ///
    /// # Errors
    /// With the node, where the input or a value has another shape than the file declares or an operator takes, where an
    /// operator or an attribute is not supported, or where a value would be out of all proportion to the input.
    pub fn run(&self, shape: &[usize], input: &[f32]) -> Result<Vec<f32>> {
        let open = self.input.check(&self.place, shape)?;
        if elements(shape) != Some(input.len()) {
            let expected = format!("values of shape {shape:?}");
            return Err(invalid(&self.place, &self.input.name, expected, format!("{} values", input.len())));
        }
        let weights = self.initializers.values().map(|array| array.values.len()).sum();
        let mut limits = Limits::new(input.len(), weights);
        let input = Array { shape: shape.to_vec(), values: input.to_vec() };
        let mut values = HashMap::from([(self.input.name.as_str(), input)]);
        let last_uses = self.last_uses();
        for (index, node) in self.nodes.iter().enumerate() {
            let made = self.compute(node, &values, &mut limits)?;
            for name in
                node.inputs.iter().filter(|name: &&String| last_uses.get(name.as_str()) == Some(&index))
            {
                if let Some(array) = values.remove(name.as_str()) {
                    limits.release(array.values.len());
                }
            }
            values.insert(&node.output, made);
        }
        let output = values
            .remove(self.output.name.as_str())
            .ok_or_else(|| invalid(&self.place, &self.output.name, "a value that was made", "none"))?;
        self.check_output(&open, &output)?;
        Ok(output.values)
    }

    /// Whether the output has the declared shape, and the input's sizes wherever both name an open one.
    fn check_output(&self, open: &HashMap<&str, usize>, output: &Array) -> Result<()> {
        for (name, size) in self.output.check(&self.place, &output.shape)? {
            if let Some(&expected) = open.get(name).filter(|&&expected| expected != size) {
                let expected = format!("size {name} of {expected}, as the input has");
                return Err(invalid(&self.place, &self.output.name, expected, size));
            }
        }
        Ok(())
    }

    /// The last node that reads each value; the graph's output is retained to the end.
    fn last_uses(&self) -> HashMap<&str, usize> {
        let mut last = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            last.extend(node.inputs.iter().map(|input| (input.as_str(), index)));
        }
        last.remove(self.output.name.as_str());
        last
    }

    fn compute(
        &self,
        node: &DecodedNode,
        values: &HashMap<&str, Array>,
        limits: &mut Limits,
    ) -> Result<Array> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(values.get(name.as_str()).or_else(|| self.initializers.get(name)));
        }
        let mut call = Call::new(node.place(&self.place), &node.attributes, inputs, limits);
        match node.operator.as_str() {
            "Add" => elementwise::add(&mut call),
            "AveragePool" => pooling::average_pool(&mut call),
            "Clip" => elementwise::clip(&mut call),
            "Conv" => convolution::conv(&mut call),
            "Flatten" => matrix::flatten(&mut call),
            "Gemm" => matrix::gemm(&mut call),
            "GlobalAveragePool" => pooling::global_average_pool(&mut call),
            "HardSigmoid" => elementwise::hard_sigmoid(&mut call),
            "HardSwish" => elementwise::hard_swish(&mut call),
            "Identity" => elementwise::identity(&mut call),
            "MaxPool" => pooling::max_pool(&mut call),
            "Mul" => elementwise::mul(&mut call),
            "Relu" => elementwise::relu(&mut call),
            other => Err(call.wrong("operator", "one of those that are written here", other)),
        }
    }
}

impl Port {
    /// Whether a value has the declared shape; returns the sizes of the open dimensions by name.
    fn check<'a>(&'a self, place: &str, shape: &[usize]) -> Result<HashMap<&'a str, usize>> {
        let wrong = || invalid(place, &self.name, self, format!("shape {shape:?}"));
        if shape.len() != self.sizes.len() {
            return Err(wrong());
        }
        let mut open = HashMap::new();
        for (declared, &size) in self.sizes.iter().zip(shape) {
            let fits = match declared {
                Size::Fixed(fixed) => *fixed == size,
                Size::Open(name) => *open.entry(name.as_str()).or_insert(size) == size,
            };
            if !fits {
                return Err(wrong());
            }
        }
        Ok(open)
    }
}
