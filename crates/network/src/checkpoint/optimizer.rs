//! State of an optimizer as a checkpoint holds it: tensors of the weights' shapes, and for some a number of steps per weight;
//! beside it, where a run has them, an average of the weights and the state of what draws sub-networks.
//! The trainer alone knows their meaning.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use space::SearchSpace;

use crate::elastic::SharedWeights;
use crate::error::{Error, Result};

/// Name of stochastic gradient descent with Nesterov's momentum. A checkpoint that names no optimizer was written by it.
pub const NESTEROV: &str = "nesterov";
/// Name of AdamW.
pub const ADAMW: &str = "adamw";

/// Tensors beside those of any optimizer: the moving average of the weights, where a run keeps one.
pub const AVERAGE: &str = "average";
/// Tensors of what draws the sub-networks of a run, where that learns too: of any shape.
pub const POLICY: &str = "policy";

/// Tensors that each optimizer keeps of a weight; in a file they are called `velocity.NAME` and so on.
const OPTIMIZERS: [(&str, &[&str]); 2] =
    [(NESTEROV, &["velocity"]), (ADAMW, &["first_moment", "second_moment"])];

/// State of an optimizer between two steps.
#[derive(Clone, Debug)]
pub struct OptimizerState {
    /// Name of the optimizer: `nesterov`, `adamw`.
    pub kind: String,
    /// The tensors of all weights, by sort (`velocity`, `first_moment`, …, and [`AVERAGE`]); and those of [`POLICY`].
    pub tensors: BTreeMap<String, BTreeMap<String, Tensor>>,
    /// Number of steps that each weight has taken; empty where the optimizer does not count them.
    pub steps: BTreeMap<String, u64>,
}

/// The optimizer in a document; Nesterov's has no entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    kind: String,
    steps: BTreeMap<String, u64>,
}

impl OptimizerState {
    /// The tensors of one sort, taken out.
    ///
    /// # Errors
    /// If the state is another optimizer's, which has none such.
    pub fn take(&mut self, sort: &str) -> Result<BTreeMap<String, Tensor>> {
        self.tensors.remove(sort).ok_or_else(|| {
            let got = format!("the state of {}", self.kind);
            Error::invalid("optimizer", "state", format!("tensors called {sort}"), got)
                .and_then_do("resume with the optimizer that the run was started with")
        })
    }

    /// The document's entry.
    pub(super) fn said(&self) -> Option<Said> {
        let Self { kind, steps, .. } = self;
        (kind != NESTEROV).then(|| Said { kind: kind.clone(), steps: steps.clone() })
    }

    /// The tensors by their names in a file.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.tensors.iter().flat_map(|(sort, tensors): (&String, &BTreeMap<String, Tensor>)| {
            let sort = sort.clone();
            tensors.clone().into_iter().map(move |(name, tensor)| (format!("{sort}.{name}"), tensor))
        })
    }
}

/// Tensors of a file that are an optimizer's, before they are checked.
#[derive(Default)]
pub(super) struct Found(BTreeMap<String, BTreeMap<String, Tensor>>);

impl Found {
    /// Takes a tensor if by its name it is an optimizer's; else gives it back.
    pub(super) fn take(&mut self, name: String, tensor: Tensor) -> Option<(String, Tensor)> {
        let sorts = OPTIMIZERS.iter().flat_map(|(_, sorts)| *sorts).chain([&AVERAGE, &POLICY]);
        let split = name.split_once('.').filter(|(sort, _)| sorts.into_iter().any(|known| known == sort));
        let Some((sort, of)) = split else { return Some((name, tensor)) };
        self.0.entry(sort.to_string()).or_default().insert(of.to_string(), tensor);
        None
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The state after `step` steps of a training: all tensors of its optimizer and no other's, in the weights' shapes.
    ///
    /// # Errors
    /// Names the wrong field; `place` names the file.
    pub(super) fn checked(
        mut self,
        said: Option<Said>,
        space: &SearchSpace,
        step: u64,
        place: &str,
    ) -> Result<OptimizerState> {
        let Said { kind, steps } =
            said.unwrap_or_else(|| Said { kind: NESTEROV.to_string(), steps: BTreeMap::new() });
        let known = OPTIMIZERS.iter().find(|(known, _)| *known == kind);
        let Some((_, sorts)) = known else {
            let names = OPTIMIZERS.map(|(name, _)| name).join(" or ");
            return Err(Error::invalid(place, "optimizer.kind", names, kind));
        };
        let mut tensors = BTreeMap::new();
        let average = self.0.contains_key(AVERAGE).then_some(&AVERAGE);
        for sort in sorts.iter().chain(average) {
            let found = self.0.remove(*sort).unwrap_or_default();
            let checked = SharedWeights::from_tensors(space, found, &format!("{place}: {sort}"))?;
            tensors.insert((*sort).to_string(), checked.tensors().clone());
        }
        tensors.extend(self.0.remove_entry(POLICY));
        if let Some(sort) = self.0.keys().next() {
            return Err(Error::invalid(place, sort, format!("no such tensors for {kind}"), "some"));
        }
        let state = OptimizerState { kind, tensors, steps };
        state.check_steps(step, place)?;
        state.check_squares(place)?;
        Ok(state)
    }
}

impl OptimizerState {
    /// A weight has taken at most as many steps as the training, and each is counted or none.
    fn check_steps(&self, step: u64, place: &str) -> Result<()> {
        let weights = self.tensors.values().next().filter(|_| self.kind != NESTEROV);
        let mut names = weights.iter().flat_map(|tensors| tensors.keys());
        if let Some(name) = names.find(|name| !self.steps.contains_key(*name)) {
            return Err(Error::invalid(
                place,
                format!("optimizer.steps.{name}"),
                "a number of steps",
                "none",
            ));
        }
        for (name, count) in &self.steps {
            let field = format!("optimizer.steps.{name}");
            if !weights.is_some_and(|tensors| tensors.contains_key(name)) {
                return Err(Error::invalid(place, field, "a weight of this name", "none"));
            }
            if *count > step {
                return Err(Error::invalid(
                    place,
                    field,
                    format!("at most {step}, as provenance.step"),
                    count,
                ));
            }
        }
        Ok(())
    }

    /// Means of squares are not below 0.
    fn check_squares(&self, place: &str) -> Result<()> {
        for (name, tensor) in self.tensors.get("second_moment").into_iter().flatten() {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            if let Some(value) = values.into_iter().find(|value| *value < 0.0) {
                let field = format!("second_moment.{name}");
                return Err(Error::invalid(place, field, "values of at least 0", value));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{checkpoint_bytes, training};
    use super::super::{Checkpoint, Supernet};
    use super::*;
    use candle_core::Device;

    /// A state of AdamW in which each weight has taken as many steps as it has dimensions.
    fn adamw(weights: &BTreeMap<String, Tensor>) -> OptimizerState {
        let mut tensors: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for (sort, value) in [("first_moment", -0.5f32), ("second_moment", 0.25)] {
            for (name, weight) in weights {
                let full = Tensor::full(value, weight.dims(), &Device::Cpu).expect("a tensor");
                tensors.entry(sort.to_string()).or_default().insert(name.clone(), full);
            }
        }
        OptimizerState {
            kind: ADAMW.to_string(),
            tensors,
            steps: weights.iter().map(|(name, tensor)| (name.clone(), tensor.rank() as u64)).collect(),
        }
    }

    #[test]
    fn moments_and_steps_round_trip() {
        let bytes = checkpoint_bytes(adamw, |_, _| ());
        let checkpoint = Checkpoint::from_bytes("x", &bytes).expect("own bytes");
        let expected = adamw(checkpoint.supernet.weights.tensors());
        let state = &checkpoint.optimizer;
        assert_eq!((&state.kind, &state.steps), (&expected.kind, &expected.steps));
        let values = |state: &OptimizerState| -> Vec<(String, f32)> {
            let value =
                |tensor: &Tensor| tensor.flatten_all().and_then(|t| t.get(0)?.to_scalar()).expect("f32");
            state.named().map(|(name, tensor)| (name, value(&tensor))).collect()
        };
        assert_eq!(values(state), values(&expected));
        let error = state.clone().take("velocity").expect_err("none").to_string();
        assert!(
            error.contains("expected tensors called velocity, got the state of adamw; resume with"),
            "{error}"
        );
        let error = Supernet::from_bytes("x", &bytes).err().expect("refused").to_string();
        assert!(error.contains("supernet train --resume"), "{error}");
    }

    #[test]
    fn a_broken_state_is_refused() {
        type Change = fn(&mut serde_json::Value, &mut BTreeMap<String, Tensor>);
        let name = "classifier.linear.bias";
        assert_eq!(training().step, 12, "as the error says");
        let cases: [(Change, &str); 8] = [
            (|document, _| document["version"] = 3.into(), "x: version: expected 4 for an optimizer"),
            (
                |document, _| document["optimizer"] = serde_json::Value::Null,
                "x: optimizer: expected one in version 4",
            ),
            (
                |document, _| document["optimizer"]["kind"] = "lion".into(),
                "optimizer.kind: expected nesterov or adamw",
            ),
            (|document, _| document["optimizer"]["kind"] = "nesterov".into(), "x: velocity: "),
            (
                |document, _| document["optimizer"]["steps"]["classifier.linear.bias"] = 13.into(),
                "optimizer.steps.classifier.linear.bias: expected at most 12, as provenance.step, got 13",
            ),
            (
                |document, _| document["optimizer"]["steps"]["more"] = 1.into(),
                "optimizer.steps.more: expected a weight of this name, got none",
            ),
            (
                |_, tensors| drop(tensors.remove("first_moment.classifier.linear.bias")),
                "x: first_moment: classifier.linear.bias: expected a tensor [10]",
            ),
            (
                |_, tensors| {
                    let negative = Tensor::full(-1f32, 10, &Device::Cpu).expect("a tensor");
                    tensors.insert("second_moment.classifier.linear.bias".to_string(), negative);
                },
                "second_moment.classifier.linear.bias: expected values of at least 0, got -1",
            ),
        ];
        for (change, part) in cases {
            let bytes = checkpoint_bytes(adamw, change);
            let error = Checkpoint::from_bytes("x", &bytes).err().expect(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let without = checkpoint_bytes(adamw, |document, _| {
            let steps = document["optimizer"]["steps"].as_object_mut().expect("an object");
            steps.remove("classifier.linear.bias");
        });
        let error = Checkpoint::from_bytes("x", &without).err().expect("refused").to_string();
        assert!(
            error.contains(&format!("optimizer.steps.{name}: expected a number of steps, got none")),
            "{error}"
        );
    }
}
