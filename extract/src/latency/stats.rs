//! The statistics of measuring, as functions of numbers: each choice is small and named. Knows no clock.

use serde::{Deserialize, Serialize};

/// What a table keeps of one layer's samples, in microseconds a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Median of the samples.
    pub median_us: f64,
    /// Lower end of the median's 95 % interval.
    pub low_us: f64,
    /// Upper end of the median's 95 % interval.
    pub high_us: f64,
    /// Median absolute deviation of the samples from the median.
    pub mad_us: f64,
    /// Standard deviation of the samples, outliers included.
    pub std_us: f64,
    /// Number of samples, outliers included.
    pub samples: usize,
    /// How many samples [`outliers`] counts.
    pub outliers: usize,
    /// Visits that the samples are from.
    pub visits: usize,
    /// Samples that do not count, because the machine was disturbed.
    pub discarded: usize,
    /// Whether the interval is as narrow as was asked for, and of samples that count.
    pub converged: bool,
}

/// Level of every interval in a table.
pub const CONFIDENCE: f64 = 0.95;

/// Modified z-score beyond which a sample is an outlier (Iglewicz & Hoaglin 1993, "How to Detect and Handle
/// Outliers"; the identifier is Hampel's 1974).
const OUTLIER_SCORE: f64 = 3.5;
/// The normal distribution's quartile: what makes the MAD comparable with a standard deviation.
pub(super) const NORMAL_QUARTILE: f64 = 0.674_489_750_196_081_7;

/// Sorts by value.
fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median_of_sorted(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[half],
        _ => 0.5 * (sorted[half - 1] + sorted[half]),
    }
}

/// The middle sample, or the mean of the two in the middle; NaN of none.
pub fn median(samples: &[f64]) -> f64 {
    median_of_sorted(&sorted(samples))
}

/// Median absolute deviation from the median, unscaled; NaN of none.
pub fn mad(samples: &[f64]) -> f64 {
    let middle = median(samples);
    median(&samples.iter().map(|sample| (sample - middle).abs()).collect::<Vec<_>>())
}

/// How many samples have a modified z-score beyond 3.5 (Iglewicz & Hoaglin 1993). Where more than half of the
/// samples are equal, none counts.
pub fn outliers(samples: &[f64]) -> usize {
    let (middle, mad) = (median(samples), mad(samples));
    let far = |sample: &&f64| mad > 0.0 && NORMAL_QUARTILE * (*sample - middle).abs() / mad > OUTLIER_SCORE;
    samples.iter().filter(far).count()
}

/// The median's interval from order statistics: sample k from either end, with the largest k for which the
/// interval holds the true median with probability `confidence` at least, whatever the distribution is
/// (David & Nagaraja 2003, section 7.1). `None` where even all samples are too few.
pub fn median_interval(samples: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let sorted = sorted(samples);
    let rank = interval_rank(sorted.len(), confidence)?;
    Some((sorted[rank - 1], sorted[sorted.len() - rank]))
}

/// The largest k with P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2.
fn interval_rank(n: usize, confidence: f64) -> Option<usize> {
    let tail = (1.0 - confidence) / 2.0;
    let (mut log_probability, mut below, mut rank) = (-(n as f64) * std::f64::consts::LN_2, 0.0, 0);
    while rank < n / 2 {
        below += log_probability.exp();
        if below > tail {
            break;
        }
        log_probability += ((n - rank) as f64).ln() - ((rank + 1) as f64).ln();
        rank += 1;
    }
    (rank > 0).then_some(rank)
}

/// Whether samples in the order in which they were taken still fall: Mann & Kendall's test for a downward
/// trend at 5 % (Mann 1945), with the normal approximation.
pub fn falling(samples: &[f64]) -> bool {
    let n = samples.len() as f64;
    if samples.len() < 4 {
        return true;
    }
    let mut score = 0.0;
    for (index, earlier) in samples.iter().enumerate() {
        for later in &samples[index + 1..] {
            score += f64::from(i8::from(later > earlier) - i8::from(later < earlier));
        }
    }
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    (score + 1.0) / deviation < -1.645
}

/// Standard deviation, with n - 1; 0 of one sample.
pub fn deviation(samples: &[f64]) -> f64 {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 }
}

/// What independent observations there are: samples of one visit share its buffers' places in memory and its moment,
/// so each visit counts once, by its median; of one visit alone, as other tools may give, every sample does.
fn observations(visits: &[Vec<f64>]) -> Vec<f64> {
    if visits.len() == 1 { visits.concat() } else { visits.iter().map(|visit| median(visit)).collect() }
}

/// Whether the median is known to within `half_width` of itself: half of the interval's length is at most that.
pub fn converged(visits: &[Vec<f64>], half_width: f64) -> bool {
    let observations = observations(visits);
    median_interval(&observations, CONFIDENCE)
        .is_some_and(|(low, high)| 0.5 * (high - low) <= half_width * median(&observations))
}

/// All of the above for the visits of one layer; samples in microseconds, at least one. With too few observations for
/// an interval its ends are the least and the greatest.
pub fn summarize(visits: &[Vec<f64>], discarded: usize, half_width: f64) -> Row {
    let (samples, observations) = (visits.concat(), sorted(&observations(visits)));
    let ends =
        (observations.first().copied().unwrap_or(f64::NAN), observations.last().copied().unwrap_or(f64::NAN));
    let (low_us, high_us) = median_interval(&observations, CONFIDENCE).unwrap_or(ends);
    Row {
        median_us: median_of_sorted(&observations),
        low_us,
        high_us,
        mad_us: mad(&samples),
        std_us: deviation(&samples),
        samples: samples.len(),
        outliers: outliers(&samples),
        visits: visits.len(),
        discarded,
        converged: converged(visits, half_width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_deviations() {
        let table: [(&[f64], f64, f64); 4] = [
            (&[3.0], 3.0, 0.0),
            (&[4.0, 1.0, 2.0, 3.0], 2.5, 1.0),
            (&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0], 2.0, 1.0),
            (&[5.0, 5.0, 5.0, 100.0], 5.0, 0.0),
        ];
        for (samples, middle, deviation) in table {
            assert_eq!((median(samples), mad(samples)), (middle, deviation), "{samples:?}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn outliers_are_what_lies_beyond_the_score() {
        // 1..=9 and one more have median 5.5 and MAD 2.5: out is what lies beyond 5.5 + 3.5 / 0.6745 * 2.5 = 18.5
        let base: Vec<f64> = (1..=9).map(f64::from).collect();
        for (extra, expected) in [(18.0, 0), (19.0, 1), (1000.0, 1)] {
            assert_eq!(outliers(&[&base[..], &[extra]].concat()), expected, "{extra}");
        }
        assert_eq!(outliers(&[1.0, 1.0, 1.0, 9.0]), 0);
    }

    /// From tables of the binomial distribution: at 95 % the ranks of n = 6, 10, 20, 50 are 1, 2, 6, 18.
    #[test]
    fn intervals_have_the_ranks_of_the_binomial() {
        for (n, rank) in [
            (5, None),
            (6, Some(1)),
            (8, Some(1)),
            (9, Some(2)),
            (10, Some(2)),
            (20, Some(6)),
            (50, Some(18)),
        ] {
            assert_eq!(interval_rank(n, 0.95), rank, "{n}");
        }
        assert_eq!(interval_rank(10_000, 0.95), Some(4902));
        let samples: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(median_interval(&samples, 0.95), Some((6.0, 15.0)));
    }

    #[test]
    fn a_falling_run_is_told_from_a_flat_one() {
        let warm: Vec<f64> = (0..10).map(|i| 100.0 - f64::from(i)).collect();
        let flat = [5.0, 5.2, 4.9, 5.1, 5.0, 5.1, 4.9, 5.2, 5.0, 5.1];
        assert!(falling(&warm));
        assert!(!falling(&flat) && !falling(&[1.0; 10]));
        assert!(falling(&warm[..3]), "too few to tell");
        assert!(!falling(&warm.iter().rev().copied().collect::<Vec<_>>()), "rising is not falling");
    }

    #[test]
    fn a_summary_holds_the_lot() {
        let samples: Vec<f64> = (0..40).map(|i| 100.0 + f64::from(i % 5)).chain([900.0]).collect();
        let row = summarize(std::slice::from_ref(&samples), 2, 0.03);
        assert_eq!((row.median_us, row.mad_us, row.samples, row.outliers), (102.0, 1.0, 41, 1));
        assert!(row.converged && row.low_us <= 102.0 && row.high_us >= 102.0);
        assert_eq!((row.visits, row.discarded), (1, 2));
        let few = summarize(&[samples[..3].to_vec()], 0, 0.5);
        assert_eq!((few.low_us, few.high_us, few.std_us, few.converged), (100.0, 102.0, 1.0, false));
        assert!(!converged(&[samples[..40].to_vec()], 0.001));
    }

    #[test]
    fn a_visit_counts_once_where_there_are_enough() {
        // each visit has found another place in memory: its samples agree, but visits do not
        let visits: Vec<Vec<f64>> = (0..6).map(|i| vec![100.0 + 10.0 * f64::from(i); 50]).collect();
        let row = summarize(&visits, 0, 0.03);
        assert_eq!((row.low_us, row.median_us, row.high_us, row.converged), (100.0, 125.0, 150.0, false));
        assert_eq!((row.visits, row.samples), (6, 300));
        let few = summarize(&visits[..2], 0, 0.06);
        assert_eq!((few.median_us, few.low_us, few.high_us, few.converged), (105.0, 100.0, 110.0, false));
    }
}
