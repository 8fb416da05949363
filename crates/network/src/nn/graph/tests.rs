use std::cell::RefCell;

use candle_core::{Device, Tensor};
use kernels::Backend;
use space::{Activation, FeatureMap, LayerSpec, Operator};

use super::{Graph, InputGradients};

const MAP: FeatureMap = FeatureMap { channels: 2, height: 3, width: 3 };

fn layer(name: &str, operator: Operator, inputs: &[Option<usize>]) -> LayerSpec {
    LayerSpec {
        name: name.to_string(),
        slot: None,
        operator,
        input: MAP,
        output: MAP,
        inputs: inputs.to_vec(),
    }
}

/// A layer of one input; what it computes is the test's.
fn one(name: &str, input: Option<usize>) -> LayerSpec {
    layer(name, Operator::HeadConv { activation: Activation::None }, &[input])
}

fn sum(name: &str, inputs: &[Option<usize>]) -> LayerSpec {
    layer(name, Operator::Sum { of: inputs.len() }, inputs)
}

fn number(value: f32) -> Tensor {
    Tensor::full(value, 1, &Device::Cpu).expect("a tensor")
}

fn value(tensor: &Tensor) -> f32 {
    tensor.to_vec1::<f32>().expect("f32")[0]
}

/// Input -> a -> b, c; d = b + c; e = d + a + input.
fn diamond() -> Vec<LayerSpec> {
    vec![
        one("a", None),
        one("b", Some(0)),
        one("c", Some(0)),
        sum("d", &[Some(1), Some(2)]),
        sum("e", &[Some(3), Some(0), None]),
    ]
}

#[test]
fn every_layer_reads_its_inputs() {
    let graph = Graph::new(&diamond()).expect("a graph");
    let backend = Backend::reference();
    let output = graph.forward(number(1.0), |index, inputs| {
        // a doubles, b adds 10, c triples
        Ok(match index {
            0 => (inputs[0] * 2.0)?,
            1 => (inputs[0] + 10.0)?,
            2 => (inputs[0] * 3.0)?,
            _ => backend.sum(inputs)?,
        })
    });
    // (2 + 10) + 6, and 2, and 1
    assert_eq!(value(&output.expect("an output")), 21.0);
}

/// An output that says when it is dropped.
struct Output<'a> {
    name: &'static str,
    dropped: &'a RefCell<Vec<&'static str>>,
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        self.dropped.borrow_mut().push(self.name);
    }
}

#[test]
fn an_output_is_dropped_after_its_last_reader() {
    let graph = Graph::new(&diamond()).expect("a graph");
    let dropped = RefCell::default();
    let output = |name| Output { name, dropped: &dropped };
    let mut before = Vec::new();
    let last = graph.forward(output("input"), |index, _| {
        before.push(dropped.borrow().clone());
        Ok(output(["a", "b", "c", "d", "e"][index]))
    });
    assert_eq!(last.expect("an output").name, "e");
    // b and c when d has read them; all that e read, a and the input among it, when e is there
    assert_eq!(before, [vec![], vec![], vec![], vec![], vec!["b", "c"]]);
    assert_eq!(*dropped.borrow(), ["b", "c", "d", "a", "input", "e"]);
}

#[test]
fn a_gradient_is_the_sum_of_what_readers_give_and_its_own() {
    let graph = Graph::new(&diamond()).expect("a graph");
    let backend = Backend::reference();
    let mut seen = Vec::new();
    let input = graph.backward(number(1.0), &backend, |index, dy| {
        seen.push((index, value(&dy)));
        Ok(match index {
            3 | 4 => InputGradients::Same(dy),
            // writes over what it was given, as layers do
            index => {
                let given = value(&dy);
                backend.fill_zero(&dy)?;
                let factor = [2.0, 1.0, 3.0][index];
                InputGradients::One(Some(number(factor * given)))
            }
        })
    });
    // of a: 1 past the diamond, 3 through c, 1 through b
    assert_eq!(seen, [(4, 1.0), (3, 1.0), (2, 1.0), (1, 1.0), (0, 5.0)]);
    assert_eq!(value(&input.expect("a pass").expect("a gradient")), 11.0);
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let wider = FeatureMap { channels: 3, ..MAP };
    for (layers, part) in [
        (vec![one("a", Some(0))], "layer a: inputs: expected layers that run before it, got layer 0"),
        (vec![one("a", None), one("b", None)], "layer a: output: expected a layer that reads it, got none"),
        (
            vec![one("a", None), LayerSpec { input: wider, ..one("b", Some(0)) }],
            "layer b: inputs: expected a map of 3 channels, 3x3",
        ),
        (vec![layer("a", Operator::Sum { of: 2 }, &[None])], "layer a: inputs: expected 2 for sum2"),
    ] {
        let error = Graph::new(&layers).err().expect("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(Graph::new(&[]).is_ok());
}
