//! Statistics of measurements, as small functions of numbers. Knows no clock.

/// Level of every interval in a table.
pub const CONFIDENCE: f64 = 0.95;

/// The normal distribution's quartile, which makes the MAD comparable with a standard deviation.
pub const NORMAL_QUARTILE: f64 = 0.674_489_750_196_081_7;

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

/// The median's interval from order statistics: sample k from either end, with the largest k for which the
/// interval holds the true median with probability `confidence` at least, whatever the distribution is
/// (David & Nagaraja 2003, section 7.1). `None` if even all samples are too few.
pub fn median_interval(samples: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let sorted = sorted(samples);
    let rank = interval_rank(sorted.len(), confidence)?;
    Some((sorted[rank - 1], sorted[sorted.len() - rank]))
}

/// The largest k with P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2.
fn interval_rank(n: usize, confidence: f64) -> Option<usize> {
    let tail = (1.0 - confidence) / 2.0;
    let mut log_probability = -(n as f64) * std::f64::consts::LN_2;
    let mut below = 0.0;
    let mut rank = 0;
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

/// Standard deviation, with n - 1; 0 of one sample.
pub fn deviation(samples: &[f64]) -> f64 {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 }
}

/// The independent observations: samples of one visit share its buffers' places in memory and its time, so each visit
/// counts once, by its median; if there is only one visit, as from other tools, every sample counts.
fn observations(visits: &[Vec<f64>]) -> Vec<f64> {
    if visits.len() == 1 { visits.concat() } else { visits.iter().map(|visit| median(visit)).collect() }
}

/// The median over visits, and its 95 % interval, which is `None` if there are too few.
pub fn median_of_visits(visits: &[Vec<f64>]) -> (f64, Option<[f64; 2]>) {
    let observations = observations(visits);
    let interval = median_interval(&observations, CONFIDENCE).map(|(low, high)| [low, high]);
    (median(&observations), interval)
}

/// Wilson's 95 % interval of a proportion of which `kept` of `n` were seen (Wilson 1927).
pub fn wilson(kept: usize, n: usize) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    if n == 0 {
        return [0.0, 1.0];
    }
    let share = kept as f64 / n as f64;
    let n = n as f64;
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
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
    fn a_visit_counts_once_where_there_are_several() {
        // each visit has found another place in memory: its samples agree, but visits do not
        let visits: Vec<Vec<f64>> = (0..6).map(|i| vec![100.0 + 10.0 * f64::from(i); 50]).collect();
        assert_eq!(median_of_visits(&visits), (125.0, Some([100.0, 150.0])));
        assert_eq!(median_of_visits(&visits[..2]), (105.0, None), "two are no interval");
        assert_eq!(
            median_of_visits(&visits[..1]),
            (100.0, Some([100.0, 100.0])),
            "of one visit each sample counts"
        );
        assert_eq!(median_of_visits(&[vec![7.0]]), (7.0, None), "one sample is no interval");
    }

    /// From Wilson (1927) as tabulated: 36 of 40, 40 of 40, 0 of 10.
    #[test]
    fn shares_have_wilson_s_interval() {
        for (kept, n, expected) in
            [(36, 40, [0.7695, 0.9604]), (40, 40, [0.9124, 1.0]), (0, 10, [0.0, 0.2775])]
        {
            let got = wilson(kept, n);
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{kept} of {n}: {got:?}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }
}
