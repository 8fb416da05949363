//! The order of the training images in an epoch: a function of labels, seed and epoch.

use std::collections::{BTreeMap, HashMap};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use base::random::{permutation, rng_for};

/// Frequency of each image in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each image once.
    #[default]
    Shuffled,
    /// Images of each class equally often: those of a rare class again and again, those of a frequent one in part.
    Balanced,
}

impl Sampling {
    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The images of an epoch, at least `draws` of them, by their places in `labels`.
    pub(super) fn order(self, labels: &[u32], draws: usize, seed: u64, epoch: u64) -> Vec<usize> {
        match self {
            Self::Shuffled => permutation(labels.len(), &mut rng_for("order of images", seed, &[epoch])),
            Self::Balanced => balanced(labels, draws, seed, epoch),
        }
    }
}

/// Of each class that has images as many, or one more, drawn anew in each epoch; within a class without replacement until
/// all have been drawn.
fn balanced(labels: &[u32], draws: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (image, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(image);
    }
    let each = draws / classes.len().max(1);
    let one_more = draws % classes.len().max(1);
    let turns = permutation(classes.len(), &mut rng_for("order of classes", seed, &[epoch]));
    let mut order = Vec::with_capacity(draws);
    for ((label, images), turn) in classes.iter().zip(turns) {
        let mut left = each + usize::from(turn < one_more);
        for round in 0.. {
            if left == 0 {
                break;
            }
            let numbers = [epoch, u64::from(*label), round];
            let places = permutation(images.len(), &mut rng_for("images of a class", seed, &numbers));
            order.extend(places.iter().take(left).map(|place| images[*place]));
            left -= left.min(images.len());
        }
    }
    order.shuffle(&mut rng_for("order of balanced images", seed, &[epoch]));
    order
}

/// Numbers that distinguish the views of images in a batch, by their places in it: the image, and, where it is repeated,
/// the number of its earlier places.
pub(super) fn views(images: &[usize]) -> Vec<Vec<u64>> {
    let mut before: HashMap<usize, u64> = HashMap::new();
    let mut views = Vec::with_capacity(images.len());
    for image in images {
        let seen = before.entry(*image).or_insert(0);
        views.push(if *seen == 0 { vec![*image as u64] } else { vec![*image as u64, *seen] });
        *seen += 1;
    }
    views
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 images of class 0, 7 of class 1, none of class 2, 20 of class 3.
    fn labels() -> Vec<u32> {
        [(0, 100), (1, 7), (3, 20)].iter().flat_map(|(label, count)| vec![*label; *count]).collect()
    }

    #[test]
    fn each_class_is_drawn_equally_often() {
        let labels = labels();
        let mut more = [0; 4];
        for epoch in 0..30 {
            let order = Sampling::Balanced.order(&labels, 121, 3, epoch);
            assert_eq!(order.len(), 121);
            let count = |label: u32| order.iter().filter(|image| labels[**image] == label).count();
            assert_eq!(count(2), 0);
            for label in [0, 1, 3] {
                assert!((40..=41).contains(&count(label)), "{label}: {}", count(label));
                more[label as usize] += count(label) - 40;
            }
            let often = |image: usize| order.iter().filter(|drawn| **drawn == image).count();
            assert!((0..100).all(|image| often(image) <= 1), "of many images none twice");
            assert!((100..107).all(|image| (5..=6).contains(&often(image))), "all before one again");
            assert!((107..127).all(|image| (2..=3).contains(&often(image))));
        }
        assert!([0, 1, 3].iter().all(|label| more[*label] > 3), "each in its turn once more: {more:?}");
    }

    #[test]
    fn an_order_is_a_function_of_seed_and_epoch() {
        let order = |sampling: Sampling, seed, epoch| sampling.order(&labels(), 120, seed, epoch);
        for sampling in [Sampling::Balanced, Sampling::Shuffled] {
            assert_eq!(order(sampling, 1, 2), order(sampling, 1, 2));
            assert_ne!(order(sampling, 1, 2), order(sampling, 1, 3));
            assert_ne!(order(sampling, 1, 2), order(sampling, 2, 2));
        }
        let former = permutation(127, &mut rng_for("order of images", 1, &[2]));
        assert_eq!(order(Sampling::Shuffled, 1, 2), former, "as it was before there was a choice");
    }

    #[test]
    fn an_image_that_stands_in_a_batch_again_is_another_view() {
        let expected: [&[u64]; 5] = [&[4], &[2], &[4, 1], &[0], &[4, 2]];
        assert_eq!(views(&[4, 2, 4, 0, 4]), expected);
    }
}
