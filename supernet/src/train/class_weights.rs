//! Weights of classes in the loss.

use std::collections::BTreeMap;

use network::data::Dataset;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The largest weight; above it, a single class would dominate.
const MOST: f64 = 1e6;
/// Names of classes that a message lists.
const LISTED: usize = 20;

/// A rule that gives each class a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightRule {
    /// n / (classes * n of the class), as scikit-learn's `class_weight="balanced"`: all classes have the same total
    /// weight.
    Balanced,
}

/// Weights of classes as a recipe gives them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"balanced\", or a table of weights by the names of all classes")]
pub enum ClassWeights {
    /// By a rule.
    By(WeightRule),
    /// By the class's name.
    Given(BTreeMap<String, f64>),
}

impl WeightRule {
    /// The weights, by label, for the training images of a data set. A class without images has weight 1, which has
    /// no effect.
    pub fn weights(self, dataset: &Dataset) -> Vec<f64> {
        let labels = dataset.train().labels();
        let mut counts = vec![0usize; dataset.classes().len()];
        for label in labels {
            counts[*label as usize] += 1;
        }
        let present = counts.iter().filter(|count| **count > 0).count();
        counts
            .iter()
            .map(|count: &usize| match *count {
                0 => 1.0,
                count => labels.len() as f64 / (present * count) as f64,
            })
            .collect()
    }
}

impl ClassWeights {
    /// Checks all that needs no data; `place` names the recipe in messages.
    ///
    /// # Errors
    /// If a weight is not above 0, or too large.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let Self::Given(weights) = self else { return Ok(()) };
        match weights.iter().find(|(_, weight)| !(**weight > 0.0 && **weight <= MOST)) {
            Some((class, weight)) => {
                let field = format!("class_weights.{class}");
                Err(Error::invalid(place, field, format!("above 0, at most {MOST}"), weight))
            }
            None => Ok(()),
        }
    }

    /// The weights by label.
    ///
    /// # Errors
    /// If the names are not those of the data set's classes.
    pub fn weights(&self, dataset: &Dataset) -> Result<Vec<f64>> {
        let given = match self {
            Self::By(rule) => return Ok(rule.weights(dataset)),
            Self::Given(given) => given,
        };
        let classes = dataset.classes();
        let unknown: Vec<_> = given.keys().filter(|name| !classes.contains(name)).collect();
        let missing: Vec<_> = classes.iter().filter(|class| !given.contains_key(*class)).collect();
        if unknown.is_empty() && missing.is_empty() {
            return Ok(classes.iter().map(|class| given[class]).collect());
        }
        let wrong = [("unknown", unknown), ("missing", missing)];
        let wrong = wrong.iter().filter(|(_, names)| !names.is_empty());
        let got: Vec<_> = wrong.map(|(what, names)| format!("{what}: {}", listed(names))).collect();
        let place = format!("recipe for data {}", dataset.name());
        let expected = format!("a weight for each class: {}", listed(&classes.iter().collect::<Vec<_>>()));
        Err(Error::invalid(place, "class_weights", expected, got.join("; "))
            .and_then_do("name all classes, or say \"balanced\""))
    }
}

fn listed(names: &[&String]) -> String {
    let shown: Vec<_> = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Factor of each image's loss that makes the mean over the images `sum w l / sum w`, with the weight w of its label.
pub(super) fn scales(labels: &[u32], weights: &[f64]) -> Vec<f64> {
    let of = |label: &u32| weights[*label as usize];
    let mean = labels.iter().map(of).sum::<f64>() / labels.len() as f64;
    labels.iter().map(|label| of(label) / mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::data::{DatasetOrigin, ImageSet, Images, Splits};

    /// Six images of `cat`, two of `dog`, none of `emu`.
    fn dataset() -> Dataset {
        let set = |labels: Vec<u32>| {
            let pixels = vec![7; labels.len() * 16];
            Images::from(ImageSet::new(pixels, labels, [4, 4, 1], 3).expect("a set"))
        };
        let origin = DatasetOrigin { name: "animals".to_string(), source: String::new(), flip: true };
        let splits = Splits { train: set(vec![0, 0, 1, 0, 0, 1, 0, 0]), val: set(vec![0]), test: None };
        let classes = ["cat", "dog", "emu"].map(str::to_string).to_vec();
        Dataset::new(origin, classes, splits).expect("a data set")
    }

    #[test]
    fn balanced_classes_weigh_as_much_in_all() {
        let weights = ClassWeights::By(WeightRule::Balanced).weights(&dataset()).expect("a rule");
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1], y=[0] * 6 + [1] * 2)
        assert_eq!(weights, [8.0 / 12.0, 2.0, 1.0]);
    }

    #[test]
    fn names_are_those_of_the_classes() {
        let of = |names: &[(&str, f64)]| {
            let given = names.iter().map(|(name, weight)| ((*name).to_string(), *weight)).collect();
            ClassWeights::Given(given)
        };
        let good = of(&[("dog", 2.0), ("cat", 1.0), ("emu", 3.0)]);
        assert_eq!(good.weights(&dataset()).expect("all names"), [1.0, 2.0, 3.0]);
        let error = of(&[("dog", 2.0), ("cow", 1.0)]).weights(&dataset()).expect_err("names").to_string();
        assert_eq!(
            error,
            "recipe for data animals: class_weights: expected a weight for each class: `cat`, `dog`, `emu`, got unknown: \
             `cow`; missing: `cat`, `emu`; name all classes, or say \"balanced\""
        );
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
            let error = of(&[("dog", weight)]).check("r.toml").expect_err("no weight").to_string();
            assert!(
                error.starts_with("r.toml: class_weights.dog: expected above 0, at most 1000000"),
                "{error}"
            );
        }
        assert!(good.check("r.toml").is_ok());
    }

    #[test]
    fn scales_make_a_mean_a_weighted_one() {
        let weights = [1.0, 4.0];
        let losses = [0.5, 2.0, 1.0];
        let scales = scales(&[0, 1, 0], &weights);
        let scaled = scales.iter().zip(losses).map(|(scale, loss)| scale * loss);
        let expected = (0.5 + 4.0 * 2.0 + 1.0) / 6.0;
        assert!((scaled.sum::<f64>() / 3.0 - expected).abs() < 1e-12);
    }
}
