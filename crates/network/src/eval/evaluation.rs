//! A network's results for the images of a split, and metrics of them.

use serde::Serialize;

use super::Accuracy;
use crate::data::TaskMetric;
use crate::error::{Error, Result};

/// Classes that may stand before an image's own so that it still counts as found.
const TOP: usize = 5;

/// A network's result for one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The image's class.
    pub label: usize,
    /// The class that scored highest; of equal ones the first.
    pub predicted: usize,
    /// The network's probability of that class.
    pub probability: f64,
    /// Cross-entropy with its class, in nats.
    pub loss: f64,
    /// Number of classes ranked before the image's own; of equal scores the first class ranks first.
    pub rank: usize,
}

impl Judged {
    /// Of an image's logits, which are finite.
    pub(super) fn new(logits: &[f32], label: usize) -> Result<Self> {
        let own = logits.get(label).copied().ok_or_else(|| {
            let expected = format!("below the network's {} classes", logits.len());
            Error::invalid("network", "label of an image", expected, label)
        })?;
        let rank = logits
            .iter()
            .enumerate()
            .filter(|(index, value): &(usize, &f32)| **value > own || (**value == own && *index < label))
            .count();
        let predicted = super::best(logits).expect("there are finite logits");
        let most = f64::from(logits[predicted]);
        let sum: f64 = logits.iter().map(|value| (f64::from(*value) - most).exp()).sum();
        Ok(Self { label, predicted, probability: 1.0 / sum, loss: sum.ln() + most - f64::from(own), rank })
    }
}

/// A network's results for the images of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Number of classes.
    pub classes: usize,
    /// Each image, in order.
    pub images: Vec<Judged>,
}

/// Images of one class that were taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Their class.
    pub label: usize,
    /// The predicted class.
    pub predicted: usize,
    /// Number of such images.
    pub count: usize,
}

impl Evaluation {
    /// Share of images whose class scored highest.
    pub fn accuracy(&self) -> Accuracy {
        Accuracy { correct: self.within(1), n: self.images.len() }
    }

    /// Share of images whose class is among the five that score highest; `None` where there are no more classes than that.
    pub fn top5(&self) -> Option<f64> {
        (self.classes > TOP).then(|| self.within(TOP) as f64 / self.images.len().max(1) as f64)
    }

    /// The class that each image is taken for, in order.
    pub fn predicted(&self) -> impl Iterator<Item = usize> {
        self.images.iter().map(|image| image.predicted)
    }

    /// The class of each image, in order.
    pub fn labels(&self) -> impl Iterator<Item = usize> {
        self.images.iter().map(|image| image.label)
    }

    /// A metric of the task by its name; `None` where the evaluation has no such figure.
    pub fn value(&self, metric: &TaskMetric) -> Option<f64> {
        match metric.name {
            "top1" => Some(self.accuracy().top1()),
            "top5" => self.top5(),
            "loss" => Some(self.loss()),
            _ => None,
        }
    }

    fn within(&self, ranks: usize) -> usize {
        self.images.iter().filter(|image| image.rank < ranks).count()
    }

    /// Mean cross-entropy, in nats.
    pub fn loss(&self) -> f64 {
        self.images.iter().map(|image| image.loss).sum::<f64>() / self.images.len().max(1) as f64
    }

    /// Share of the images of each class whose class scored highest; `n` is 0 for a class without images.
    pub fn per_class(&self) -> Vec<Accuracy> {
        let mut counts = vec![Accuracy { correct: 0, n: 0 }; self.classes];
        for image in &self.images {
            counts[image.label].n += 1;
            counts[image.label].correct += usize::from(image.rank == 0);
        }
        counts
    }

    /// Number of images of each class (row) predicted as each class (column).
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; self.classes]; self.classes];
        self.images.iter().for_each(|image| counts[image.label][image.predicted] += 1);
        counts
    }

    /// The class that is most often taken for another, and for which; of equal counts the first.
    pub fn most_confused(&self) -> Option<Confusion> {
        let counts = self.confusion();
        let cells = counts.iter().enumerate().flat_map(|(label, row)| {
            row.iter().enumerate().map(move |(predicted, count)| Confusion {
                label,
                predicted,
                count: *count,
            })
        });
        let wrong = cells.filter(|cell| cell.label != cell.predicted && cell.count > 0);
        // the first of equal counts
        wrong.reduce(|most, cell| if cell.count > most.count { cell } else { most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Task;

    #[test]
    fn figures_are_those_of_a_count_by_hand() {
        // probabilities 1/7 x (1, 2, 4), and 1/3 each
        let logits = [[1f32, 2.0, 4.0].map(f32::ln), [0.5; 3]];
        let judged = |row: usize, label: usize| Judged::new(&logits[row], label).expect("a class");
        let images = vec![judged(0, 2), judged(0, 1), judged(0, 0), judged(1, 0), judged(1, 2)];
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-6, "{got} not {expected}");
        close(images[0].probability, 4.0 / 7.0);
        close(images[3].probability, 1.0 / 3.0);
        close(images[2].loss, 7f64.ln());
        assert_eq!(images.iter().map(|image| image.rank).collect::<Vec<_>>(), [0, 1, 2, 0, 2]);
        let evaluation = Evaluation { classes: 3, images };
        assert_eq!(evaluation.accuracy(), Accuracy { correct: 2, n: 5 });
        let sum = (7f64 / 4.0).ln() + (7f64 / 2.0).ln() + 7f64.ln() + 2.0 * 3f64.ln();
        close(evaluation.loss(), sum / 5.0);
        let counts: Vec<_> = evaluation.per_class().iter().map(|class| (class.correct, class.n)).collect();
        assert_eq!(counts, [(1, 2), (0, 1), (1, 2)]);
        assert_eq!(evaluation.confusion(), [[1, 0, 1], [0, 0, 1], [1, 0, 1]]);
        assert_eq!(evaluation.most_confused(), Some(Confusion { label: 0, predicted: 2, count: 1 }));
        assert_eq!(evaluation.top5(), None);
        // every metric of the task has its figure here
        let values = Task::Classify.metrics().iter().map(|metric| (metric.name, evaluation.value(metric)));
        let expected = [("top1", Some(0.4)), ("loss", Some(evaluation.loss())), ("top5", None)];
        assert_eq!(values.collect::<Vec<_>>(), expected);
        assert!(Judged::new(&logits[0], 3).is_err());
    }

    #[test]
    fn five_of_more_classes_count() {
        let logits = [6f32, 5.0, 4.0, 3.0, 2.0, 1.0];
        let images: Vec<_> = (0..6).map(|label| Judged::new(&logits, label).expect("a class")).collect();
        let evaluation = Evaluation { classes: 6, images };
        assert_eq!(evaluation.top5(), Some(5.0 / 6.0));
        // far logits leave no more than rounding
        assert_eq!(Judged::new(&[-3e38, 3e38], 1).expect("a class").loss, 0.0);
    }
}
