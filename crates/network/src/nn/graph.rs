//! The graph of layers: outputs flow forward to their readers, gradients flow back.
//!
//! An output is dropped after its last reader, and a gradient is the sum over its readers. Gradients are added in
//! the order in which layers go backward, the last layer first.

use candle_core::Tensor;
use kernels::Backend;
use space::{FeatureMap, LayerSpec};

use crate::error::{Error, Result};

/// The gradients of a layer's inputs.
pub(super) enum InputGradients {
    /// The gradient of its only input; `None` from a layer on the image, whose gradient is not needed.
    One(Option<Tensor>),
    /// The same gradient for each of its inputs.
    Same(Tensor),
    /// A gradient for each of its inputs, in order.
    Each(Vec<Tensor>),
}

/// The inputs of each layer of a network, in the order in which layers run.
#[derive(Clone)]
pub(super) struct Graph {
    /// The places that each layer reads: 0 is the network's input, then the layers' outputs follow.
    inputs: Vec<Vec<usize>>,
    /// Number of reads of each place.
    readers: Vec<usize>,
}

impl Graph {
    /// The graph of some layers, the last of which makes the output.
    ///
    /// # Errors
    /// If a layer has too many or too few inputs, reads a layer that does not run before it or a map of another size than its
    /// input, or if no layer reads one that is not the last.
    pub fn new(layers: &[LayerSpec]) -> Result<Self> {
        let mut made: Vec<Option<FeatureMap>> = vec![None; layers.len() + 1];
        let mut readers = vec![0; layers.len() + 1];
        let mut inputs = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let places: Vec<usize> =
                layer.inputs.iter().map(|from| from.map_or(0, |from| from + 1)).collect();
            if places.len() != layer.operator.arity() {
                let expected = format!("{} for {}", layer.operator.arity(), layer.key());
                return Err(wrong(layer, expected, places.len()));
            }
            for &place in &places {
                if place > index {
                    return Err(wrong(layer, "layers that run before it", format!("layer {}", place - 1)));
                }
                let map = *made[place].get_or_insert(layer.input);
                if map != layer.input {
                    return Err(wrong(layer, text(layer.input), text(map)));
                }
                readers[place] += 1;
            }
            made[index + 1] = Some(layer.output);
            inputs.push(places);
        }
        let unread = readers.iter().skip(1).zip(layers).rev().skip(1).find(|(count, _)| **count == 0);
        match unread {
            Some((_, layer)) => Err(Error::invalid(
                format!("layer {}", layer.name),
                "output",
                "a layer that reads it",
                "none",
            )),
            None => Ok(Self { inputs, readers }),
        }
    }

    /// Runs each layer on its inputs; returns the last one's output, or the network's input where there are no layers. An
    /// output is dropped after its last reader.
    ///
    /// # Errors
    /// The errors of `run`.
    pub fn forward<T>(&self, input: T, mut run: impl FnMut(usize, &[&T]) -> Result<T>) -> Result<T> {
        let mut left = self.readers.clone();
        let mut outputs = vec![Some(input)];
        for (index, places) in self.inputs.iter().enumerate() {
            let read: Vec<&T> = places.iter().filter_map(|place| outputs[*place].as_ref()).collect();
            let output = run(index, &read)?;
            for &place in places {
                left[place] -= 1;
                if left[place] == 0 {
                    outputs[place] = None;
                }
            }
            outputs.push(Some(output));
        }
        Ok(outputs.pop().flatten().expect("nobody reads the last output"))
    }

    /// Runs each layer backward from the gradient of the last output, which may be overwritten; returns the gradient of the
    /// network's input, if a layer gives one.
    ///
    /// # Errors
    /// The errors of `run`, or if a layer gives no gradient to one before it.
    pub fn backward(
        &self,
        dy: Tensor,
        backend: &Backend,
        mut run: impl FnMut(usize, Tensor) -> Result<InputGradients>,
    ) -> Result<Option<Tensor>> {
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.inputs.len() + 1];
        *gradients.last_mut().expect("a place for the input") = Some(dy);
        for (index, places) in self.inputs.iter().enumerate().rev() {
            let dy = gradients[index + 1].take();
            let expected = "one from a layer that reads it";
            let dy =
                dy.ok_or_else(|| Error::invalid(format!("layer {index}"), "gradient", expected, "none"))?;
            match run(index, dy)? {
                InputGradients::One(None) => {}
                InputGradients::One(Some(gradient)) => add(&mut gradients[places[0]], gradient, backend)?,
                InputGradients::Same(gradient) => share(&mut gradients, places, gradient, backend)?,
                InputGradients::Each(own) => {
                    for (&place, gradient) in places.iter().zip(own) {
                        add(&mut gradients[place], gradient, backend)?;
                    }
                }
            }
        }
        Ok(gradients.swap_remove(0))
    }
}

/// Adds to a sum that owns its memory; its next reader may overwrite it.
fn add(sum: &mut Option<Tensor>, gradient: Tensor, backend: &Backend) -> Result<()> {
    match sum {
        Some(sum) => backend.add_assign(sum, &gradient)?,
        None => *sum = Some(gradient),
    }
    Ok(())
}

/// Adds one gradient at several places. All but the last get copies, since each may be overwritten.
fn share(
    gradients: &mut [Option<Tensor>],
    places: &[usize],
    gradient: Tensor,
    backend: &Backend,
) -> Result<()> {
    let [others @ .., last] = places else { return Ok(()) };
    for &place in others {
        match &gradients[place] {
            Some(sum) => backend.add_assign(sum, &gradient)?,
            None => gradients[place] = Some(backend.duplicate(&gradient)?),
        }
    }
    add(&mut gradients[*last], gradient, backend)
}

fn text(map: FeatureMap) -> String {
    format!("a map of {} channels, {}x{}", map.channels, map.height, map.width)
}

fn wrong(layer: &LayerSpec, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
    Error::invalid(format!("layer {}", layer.name), "inputs", expected, got)
}

#[cfg(test)]
mod tests;
