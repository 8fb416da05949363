//! The expected accuracy of sub-networks that a search found and that were then evaluated. The prediction is
//! biased because the search maximized it, and the highest of the counted accuracies is partly luck. So the
//! two are averaged, weighted by their variances (the normal-normal model of Efron and Morris 1975).
//!
//! The model: a counted accuracy is a linear function of the prediction, plus an error of the predictor for
//! this sub-network, plus chance. The line is fitted to all evaluated sub-networks; it corrects a predictor
//! that is too optimistic about a region or exaggerates the differences in it, as one does that adds up
//! saturating effects. The error for a single sub-network is shrunk. The highest of the results needs no
//! further correction, since each is an expectation given all evaluations.

/// Quantile of the normal distribution that leaves 2.5 % above it.
pub const NORMAL_95: f64 = 1.959_964;

/// Evaluated sub-networks from which on their own spread alone says how wrong the predictor is among them; the
/// cross-validated error stands in for those that fewer lack. It is that of sub-networks from all over the space, which
/// differ more than the best of a search.
const ENOUGH: f64 = 5.0;

/// Standard deviation that the line's slope has about 1 before anything is counted: anything between an order that says
/// nothing (0) and one that says all (1) is plausible.
const SLOPE_DEVIATION: f64 = 1.0;

/// Predicted and counted accuracies of evaluated sub-networks.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Accuracies that are expected of them.
    pub expected: &'a [f64],
    /// Shares of images that were classified right.
    pub top1: &'a [f64],
    /// Variance of one of these against the others, for the choice of images alone ([`variance_between`]).
    pub noise: f64,
    /// Mean squared error of the predictor on rows that it was not fitted to, where it is known.
    pub error: Option<f64>,
}

/// The accuracies expected after the evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// The predictor's error that all of them share.
    pub offset: f64,
    /// Slope of the line through the predictor's values.
    pub slope: f64,
    /// Share of a count's distance from the line that is believed.
    pub weight: f64,
    /// Expected accuracies, on images such as these.
    pub accuracies: Vec<f64>,
    /// Variance of each, on images such as these.
    pub variances: Vec<f64>,
}

/// Combines predictions and counts.
pub fn shrink(counted: &Counted<'_>) -> Shrunk {
    let Counted { expected, top1, noise, error } = *counted;
    let count = top1.len() as f64;
    let differences: Vec<f64> = top1.iter().zip(expected).map(|(top1, expected)| top1 - expected).collect();
    let line = Line::new(expected, &differences, error);
    let distances: Vec<f64> = expected.iter().map(|expected| expected - line.mean_expected).collect();
    let residual = |(difference, distance): (&f64, &f64)| difference - line.steepness * distance;
    let residuals: Vec<f64> = differences.iter().zip(&distances).map(residual).collect();
    // variance of a residual, chance included; two numbers of the line were fitted
    let fitted = if count > 2.0 { 2.0 } else { 1.0 };
    let spread = Spread::of(&residuals, fitted, error);
    let believed = if spread.variance > 0.0 { (1.0 - noise / spread.variance).max(0.0) } else { 0.0 };
    // a predictor is about as wrong for a region as for a row of it
    let precision = count + error.filter(|error| *error > 0.0).map_or(0.0, |error| spread.variance / error);
    let offset = mean(&differences) * count / precision;
    let of_offset = spread.variance / precision;
    let doubted = (1.0 - believed).powi(2);
    let mut accuracies = Vec::new();
    let mut variances = Vec::new();
    for ((top1, residual), distance) in top1.iter().zip(&residuals).zip(&distances) {
        let apart = residual - offset;
        accuracies.push(top1 - (1.0 - believed) * apart);
        // the weight is an estimate too (Morris 1983, section 5)
        let of_weight = 2.0 * apart.powi(2) / (spread.degrees - 2.0).max(1.0);
        let of_line = of_offset + line.variance * distance.powi(2);
        variances.push(believed * noise.min(spread.variance) + doubted * (of_line + of_weight));
    }
    Shrunk { offset, slope: 1.0 + line.steepness, weight: believed, accuracies, variances }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The regression of the differences of counts and predictions on predictions.
struct Line {
    mean_expected: f64,
    /// Slope of the differences: 0 where predictions are right, -1 where they say nothing.
    steepness: f64,
    /// The variance of the slope.
    variance: f64,
}

impl Line {
    fn new(expected: &[f64], differences: &[f64], error: Option<f64>) -> Self {
        let mean_expected = mean(expected);
        let mean_difference = mean(differences);
        let mut squares = 0.0;
        let mut products = 0.0;
        for (expected, difference) in expected.iter().zip(differences) {
            squares += (expected - mean_expected).powi(2);
            products += (expected - mean_expected) * (difference - mean_difference);
        }
        let spread = Spread::of(differences, 1.0, error).variance;
        let precision = squares + spread / SLOPE_DEVIATION.powi(2);
        let (steepness, variance) = match precision > 0.0 {
            true => ((products / precision).clamp(-1.0, 0.0), spread / precision),
            false => (0.0, 0.0),
        };
        Self { mean_expected, steepness, variance }
    }
}

/// A variance, and how many independent numbers it is of.
struct Spread {
    variance: f64,
    degrees: f64,
}

impl Spread {
    fn of(values: &[f64], fitted: f64, error: Option<f64>) -> Self {
        let count = values.len() as f64;
        let mean = mean(values);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let (error, missing) = error.map_or((0.0, 0.0), |error| (error, (ENOUGH - count).max(0.0)));
        let degrees = (count - fitted).max(0.0) + missing;
        let variance = if degrees > 0.0 { (squares + missing * error) / degrees } else { 0.0 };
        Self { variance, degrees }
    }
}

/// Variance that the choice of images gives the difference of two sub-networks' shares, halved: which images each
/// classifies right, of the same images all. An image that all classify alike says nothing about which is better, so it is
/// less than the binomial variance, which is taken where there is one sub-network alone.
pub fn variance_between(hits: &[&[bool]]) -> f64 {
    let images = hits.first().map_or(0, |first| first.len());
    if images == 0 {
        return 0.0;
    }
    let n = images as f64;
    let share = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as f64 / n;
    let mut sum = 0.0;
    let mut pairs = 0.0;
    for (place, ours) in hits.iter().enumerate() {
        for theirs in &hits[..place] {
            let differ = ours.iter().zip(*theirs).filter(|(a, b)| a != b).count() as f64 / n;
            sum += (differ - (share(ours) - share(theirs)).powi(2)) / (2.0 * n);
            pairs += 1.0;
        }
    }
    match hits {
        [only] => binomial(share(only), images as u64),
        _ => sum / pairs,
    }
}

/// Variance of a share of so many images.
pub fn binomial(share: f64, images: u64) -> f64 {
    let share = share.clamp(0.0, 1.0);
    share * (1.0 - share) / images.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum()
    }

    #[test]
    fn the_chosen_one_is_as_good_as_is_said() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        // predictor 40 points too high in the region, wrong by 30 for each, 20 of chance
        let bias = 0.004;
        let error = 0.003;
        let chance = 0.002;
        let mut raw = 0.0;
        let mut counted = 0.0;
        let mut shrunk_excess = 0.0;
        let mut inside = 0;
        let rounds = 2000;
        for _ in 0..rounds {
            let truth: Vec<f64> = (0..20).map(|_| 0.9 + 0.002 * normal(&mut rng)).collect();
            let wrong: Vec<f64> = truth.iter().map(|truth| truth + bias + error * normal(&mut rng)).collect();
            let top1: Vec<f64> = truth.iter().map(|truth| truth + chance * normal(&mut rng)).collect();
            let variance = f64::powi(0.002, 2);
            let slope = variance / (variance + error * error);
            let expected: Vec<f64> = wrong.iter().map(|wrong| 0.904 + slope * (wrong - 0.904)).collect();
            let prior = variance * (1.0 - slope);
            let Shrunk { accuracies, variances, .. } = shrink(&Counted {
                expected: &expected,
                top1: &top1,
                noise: chance * chance,
                error: Some(prior + chance * chance),
            });
            let best =
                |values: &[f64]| (0..20).max_by(|&a, &b| values[a].total_cmp(&values[b])).expect("some");
            let by_predictor = best(&wrong);
            let by_count = best(&top1);
            let by_both = best(&accuracies);
            raw += wrong[by_predictor] - truth[by_predictor];
            counted += top1[by_count] - truth[by_count];
            let off = accuracies[by_both] - truth[by_both];
            shrunk_excess += off;
            inside += usize::from(off.abs() < NORMAL_95 * variances[by_both].sqrt());
        }
        let [raw, counted, shrunk] = [raw, counted, shrunk_excess].map(|sum| sum / f64::from(rounds));
        assert!(raw > 0.006 && counted > 0.0015, "{raw} {counted}");
        assert!(shrunk.abs() < 0.0004, "{shrunk}");
        let inside = inside as f64 / f64::from(rounds);
        assert!((0.88..0.99).contains(&inside), "{inside}");
    }

    #[test]
    fn counts_without_chance_are_believed_and_mere_chance_is_not() {
        let expected = [0.8, 0.9, 0.7, 0.85];
        let top1 = [0.82, 0.89, 0.74, 0.8];
        let exact = shrink(&Counted { expected: &expected, top1: &top1, noise: 0.0, error: Some(1e-4) });
        assert_eq!(exact.weight, 1.0, "{exact:?}");
        assert!(exact.accuracies.iter().zip(top1).all(|(shrunk, top1)| (shrunk - top1).abs() < 1e-12));
        let chance = shrink(&Counted { expected: &expected, top1: &top1, noise: 1.0, error: Some(1e-4) });
        assert_eq!(chance.weight, 0.0, "{chance:?}");
        for (accuracy, expected) in chance.accuracies.iter().zip(expected) {
            let line = 0.8125 + chance.slope * (expected - 0.8125) + chance.offset;
            assert!((accuracy - line).abs() <= 1e-12, "{chance:?}");
        }
        // one alone, of which nothing is known but its count
        let one = shrink(&Counted { expected: &[0.9], top1: &[0.8], noise: 1e-4, error: None });
        assert!((one.accuracies[0] - 0.8).abs() < 1e-12);
        // one alone, half way between what is expected and what is counted
        let one = shrink(&Counted { expected: &[0.9], top1: &[0.8], noise: 1e-4, error: Some(1e-4) });
        assert!((one.accuracies[0] - 0.85).abs() < 1e-9, "{one:?}");
    }

    #[test]
    fn exaggerated_differences_are_learned() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut slope = 0.0;
        let mut excess = 0.0;
        for _ in 0..1000 {
            let truth: Vec<f64> = (0..20).map(|_| 0.9 + 0.002 * normal(&mut rng)).collect();
            let expected: Vec<f64> = truth.iter().map(|truth| 0.93 + 4.0 * (truth - 0.9)).collect();
            let top1: Vec<f64> = truth.iter().map(|truth| truth + 0.002 * normal(&mut rng)).collect();
            let shrunk =
                shrink(&Counted { expected: &expected, top1: &top1, noise: 4e-6, error: Some(2e-4) });
            let best =
                (0..20).max_by(|&a, &b| shrunk.accuracies[a].total_cmp(&shrunk.accuracies[b])).expect("some");
            slope += shrunk.slope / 1000.0;
            excess += (shrunk.accuracies[best] - truth[best]) / 1000.0;
        }
        assert!((slope - 0.25).abs() < 0.05, "{slope}");
        assert!(excess.abs() < 0.0007, "{excess}");
    }

    #[test]
    fn images_that_all_classify_alike_say_nothing_about_the_better_one() {
        let first = [true, true, false, true];
        let second = [true, true, false, false];
        // they differ on one of four: (1/4 - 1/16) / 8
        assert!((variance_between(&[&first, &second]) - 0.1875 / 8.0).abs() < 1e-15);
        assert_eq!(variance_between(&[&first, &first, &first]), 0.0);
        assert!((variance_between(&[&first]) - 0.75 * 0.25 / 4.0).abs() < 1e-15);
        assert_eq!(variance_between(&[]), 0.0);
    }
}
