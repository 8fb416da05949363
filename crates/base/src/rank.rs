//! Agreement of predictions with measurements: error, rank correlations, and their confidence intervals.

use std::cmp::Ordering;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalEstimate {
    /// The value on all rows.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Resamples for an interval: 1,000, as Efron & Tibshirani (1993, section 13.3) advise for percentiles.
const RESAMPLES: usize = 1000;

/// Root of the mean squared difference; NaN of none.
pub fn rmse(predicted: &[f64], measured: &[f64]) -> f64 {
    let squares: f64 = predicted.iter().zip(measured).map(|(p, m)| (p - m) * (p - m)).sum();
    (squares / measured.len() as f64).sqrt()
}

/// Spearman's rank correlation, equal values sharing their mean rank; 0 where one side does not vary.
pub fn spearman(predicted: &[f64], measured: &[f64]) -> f64 {
    pearson(&ranks(predicted), &ranks(measured))
}

fn pearson(left: &[f64], right: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let left_mean = mean(left);
    let right_mean = mean(right);
    let mut both = 0.0;
    let mut lefts = 0.0;
    let mut rights = 0.0;
    for (l, r) in left.iter().zip(right) {
        let l = l - left_mean;
        let r = r - right_mean;
        both += l * r;
        lefts += l * l;
        rights += r * r;
    }
    if lefts > 0.0 && rights > 0.0 { both / (lefts * rights).sqrt() } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (group.len() - 1) as f64 / 2.0;
        group.iter().for_each(|&index| ranks[index] = mean);
        start += group.len();
    }
    ranks
}

/// Kendall's tau-b, by sorting and counting exchanges (Knight 1966): O(n log n); 0 where one side does not
/// vary.
pub fn kendall(predicted: &[f64], measured: &[f64]) -> f64 {
    let mut pairs: Vec<(f64, f64)> = predicted.iter().copied().zip(measured.iter().copied()).collect();
    pairs.sort_unstable_by(|a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let tied_left = tied(&pairs, |a, b| a.0 == b.0);
    let tied_both = tied(&pairs, |a, b| a == b);
    let mut right: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let exchanges = sort_counting(&mut right, &mut vec![0.0; measured.len()]);
    let tied_right = tied(&right, |a, b| a == b);
    let all = choose_two(measured.len());
    let difference = all - tied_left - tied_right + tied_both - 2.0 * exchanges as f64;
    let scale = ((all - tied_left) * (all - tied_right)).sqrt();
    if scale > 0.0 { difference / scale } else { 0.0 }
}

fn choose_two(n: usize) -> f64 {
    n as f64 * (n as f64 - 1.0) / 2.0
}

/// Pairs within runs of equal neighbors.
fn tied<T>(sorted: &[T], equal: impl FnMut(&T, &T) -> bool) -> f64 {
    sorted.chunk_by(equal).map(|run| choose_two(run.len())).sum()
}

/// Merge sort that counts the pairs in descending order.
fn sort_counting(values: &mut [f64], spare: &mut [f64]) -> u64 {
    let len = values.len();
    if len < 2 {
        return 0;
    }
    let half = len / 2;
    let (left, right) = values.split_at_mut(half);
    let mut count = sort_counting(left, &mut spare[..half]) + sort_counting(right, &mut spare[half..]);
    let mut from_left = 0;
    let mut from_right = half;
    for place in spare.iter_mut() {
        let take_right = from_left == half
            || (from_right < len && values[from_right].total_cmp(&values[from_left]) == Ordering::Less);
        if take_right {
            *place = values[from_right];
            from_right += 1;
            count += (half - from_left) as u64;
        } else {
            *place = values[from_left];
            from_left += 1;
        }
    }
    values.copy_from_slice(spare);
    count
}

/// `statistic` of the rows, with a percentile bootstrap interval over resampled rows (Efron 1979).
pub fn bootstrap(
    predicted: &[f64],
    measured: &[f64],
    statistic: fn(&[f64], &[f64]) -> f64,
    rng: &mut ChaCha8Rng,
) -> IntervalEstimate {
    let n = measured.len();
    let mut left = vec![0.0; n];
    let mut right = vec![0.0; n];
    let mut values = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for place in 0..n {
            let row = rng.random_range(0..n);
            (left[place], right[place]) = (predicted[row], measured[row]);
        }
        values.push(statistic(&left, &right));
    }
    values.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40; // 2.5 % at either end
    IntervalEstimate {
        value: statistic(predicted, measured),
        low: values[tail],
        high: values[RESAMPLES - 1 - tail],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// By the definition: pairs in agreement minus pairs in disagreement, over the pairs not tied.
    fn kendall_by_definition(x: &[f64], y: &[f64]) -> f64 {
        let mut difference = 0.0;
        let mut lefts = 0.0;
        let mut rights = 0.0;
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |a: f64, b: f64| f64::from(i8::from(a > b) - i8::from(a < b));
                let left = sign(x[i], x[j]);
                let right = sign(y[i], y[j]);
                difference += left * right;
                lefts += left * left;
                rights += right * right;
            }
        }
        difference / f64::sqrt(lefts * rights)
    }

    #[test]
    fn tau_b_is_its_definition_with_and_without_ties() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for (n, values) in [(2, 100), (7, 3), (50, 5), (50, 1000), (101, 20)] {
            for _ in 0..20 {
                let mut draw =
                    || (0..n).map(|_| f64::from(rng.random_range(0..values))).collect::<Vec<f64>>();
                let x = draw();
                let mut y = draw();
                if n == 2 {
                    y = x.clone();
                }
                let expected = kendall_by_definition(&x, &y);
                if expected.is_finite() {
                    assert!((kendall(&x, &y) - expected).abs() < 1e-12, "{x:?} {y:?}");
                }
            }
        }
    }

    /// scipy.stats: spearmanr([1,2,3,4,5],[5,6,7,8,7]) = 0.8207826816681233, kendalltau(...) = 0.7378647873726218
    #[test]
    fn known_values() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        let y = [5.0, 6.0, 7.0, 8.0, 7.0];
        assert!((spearman(&x, &y) - 0.820_782_681_668_123_3).abs() < 1e-12);
        assert!((kendall(&x, &y) - 0.737_864_787_372_621_8).abs() < 1e-12);
        assert_eq!((kendall(&x, &[1.0; 5]), spearman(&[1.0; 5], &x)), (0.0, 0.0));
        assert_eq!(rmse(&[1.0, 2.0], &[1.0, 4.0]), 2f64.sqrt());
    }

    #[test]
    fn intervals_hold_the_value_and_shrink_with_more_rows() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut width = |n: usize| {
            let x: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let y: Vec<f64> = x.iter().map(|x| x + rng.random_range(0.0..n as f64)).collect();
            let tau = bootstrap(&x, &y, kendall, &mut rng);
            assert!(tau.low <= tau.value && tau.value <= tau.high && tau.low > 0.0);
            tau.high - tau.low
        };
        assert!(width(400) < width(40));
    }
}
