//! The task of a network: its targets, its loss and its metric.

use serde::{Deserialize, Serialize};

/// The task that a network learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The class of each input, one of several.
    #[default]
    Classify,
}

/// Comparison of outputs with targets in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Cross-entropy of a softmax over logits, with smoothed labels and soft targets.
    CrossEntropy,
}

/// A metric of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskMetric {
    /// Name in files and JSON documents.
    pub name: &'static str,
    /// Name in messages.
    pub words: &'static str,
    /// Whether more of it is better.
    pub more_is_better: bool,
}

/// The metrics of classification, the headline first.
const OF_CLASSES: [TaskMetric; 3] = [
    TaskMetric { name: "top1", words: "top-1", more_is_better: true },
    TaskMetric { name: "loss", words: "loss", more_is_better: false },
    TaskMetric { name: "top5", words: "top-5", more_is_better: true },
];

impl Task {
    /// The loss in training.
    pub fn loss(self) -> LossKind {
        match self {
            Self::Classify => LossKind::CrossEntropy,
        }
    }

    /// The metrics of this task, the headline first.
    pub fn metrics(self) -> &'static [TaskMetric] {
        match self {
            Self::Classify => &OF_CLASSES,
        }
    }

    /// The metric of choices, and the one reported for a network.
    pub fn headline(self) -> TaskMetric {
        self.metrics()[0]
    }
}

/// Targets of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// The class of each input.
    Classes(Vec<u32>),
    /// The class of each input, and the partner that is mixed into it.
    Mixed(Vec<u32>, Partners),
}

/// The inputs that are mixed into the inputs of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Partners {
    /// The class of each input's partner.
    pub classes: Vec<u32>,
    /// Share of each input in its mixture, in 0..=1; the rest is its partner's.
    pub share: f32,
}

impl Targets {
    /// The task that they are targets of.
    pub fn task(&self) -> Task {
        match self {
            Self::Classes(_) | Self::Mixed(..) => Task::Classify,
        }
    }

    /// The targets of the inputs from `first` on, this many.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> Self {
        let of = |classes: &[u32]| classes[first..first + count].to_vec();
        match self {
            Self::Classes(classes) => Self::Classes(of(classes)),
            Self::Mixed(classes, Partners { classes: partners, share }) => {
                Self::Mixed(of(classes), Partners { classes: of(partners), share: *share })
            }
        }
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.classes().len()
    }

    /// Whether they are for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of each input; of a mixture, the class of the image itself.
    pub fn classes(&self) -> &[u32] {
        match self {
            Self::Classes(classes) | Self::Mixed(classes, _) => classes,
        }
    }

    /// The partners of inputs that are mixtures.
    pub fn partners(&self) -> Option<&Partners> {
        match self {
            Self::Classes(_) => None,
            Self::Mixed(_, partners) => Some(partners),
        }
    }

    /// The targets once each input is mixed with the one at the mirrored place of the batch.
    pub(super) fn mirrored(self, share: f32) -> Self {
        match self {
            Self::Classes(classes) | Self::Mixed(classes, _) => {
                let partners = classes.iter().rev().copied().collect();
                Self::Mixed(classes, Partners { classes: partners, share })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_is_one_of_the_metrics_and_names_differ() {
        let metrics = Task::Classify.metrics();
        assert_eq!(Task::Classify.headline().name, "top1");
        for (index, metric) in metrics.iter().enumerate() {
            assert!(metrics[..index].iter().all(|other| other.name != metric.name), "{}", metric.name);
        }
    }

    #[test]
    fn targets_know_their_task() {
        let targets = Targets::Classes(vec![3, 1]);
        assert_eq!((targets.task(), targets.len(), targets.classes()), (Task::Classify, 2, &[3, 1][..]));
        assert!(targets.partners().is_none());
        assert!(Targets::Classes(Vec::new()).is_empty());
    }

    #[test]
    fn a_part_has_its_own_partners() {
        let part = Targets::Classes(vec![3, 1, 7, 2]).mirrored(0.75).part(1, 2);
        assert_eq!(part, Targets::Mixed(vec![1, 7], Partners { classes: vec![7, 1], share: 0.75 }));
        assert_eq!(Targets::Classes(vec![3, 1, 7]).part(2, 1).classes(), [7]);
    }

    #[test]
    fn partners_are_at_the_mirrored_place() {
        let mixed = Targets::Classes(vec![3, 1, 7]).mirrored(0.75);
        assert_eq!((mixed.task(), mixed.len(), mixed.classes()), (Task::Classify, 3, &[3, 1, 7][..]));
        assert_eq!(mixed.partners(), Some(&Partners { classes: vec![7, 1, 3], share: 0.75 }));
    }
}
