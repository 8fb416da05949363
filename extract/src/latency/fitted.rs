//! What whole sub-networks of one space took, beside what a table says of them: one half is fitted to, the other half
//! judges.

pub(super) mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use supernet::Error;
use supernet::space::{Arch, SearchSpace};

use super::correction::{Correction, Features, Observation, fit};
use super::stats::{self, Row};
use crate::accuracy::rank;
use crate::error::Result;
use crate::file::rounded;

/// What a sub-network was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The correction was fitted to it.
    Fit,
    /// It judges the correction.
    Check,
}

/// One sub-network, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRow {
    /// The sub-network.
    pub arch: Arch,
    /// What it was used for.
    pub part: Part,
    /// Sum of its layers' medians.
    pub sum_us: f64,
    /// The sum, corrected.
    pub predicted_us: f64,
    /// Median of the whole network in the first pass.
    pub first_us: f64,
    /// The same in the second pass, some time later; absent where there was one pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_us: Option<f64>,
}

/// One sub-network that a search found for a limit, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchedRow {
    /// The limit that it was searched for.
    pub limit_us: f64,
    /// The sub-network.
    pub arch: Arch,
    /// Whether the upper end of intervals is set by it, or it judges that.
    pub part: Part,
    /// What was expected.
    pub predicted_us: f64,
    /// Median of the whole network.
    pub measured_us: f64,
}

/// What a table knows of the sub-networks of one space.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceFit {
    /// The space's name.
    pub name: String,
    /// Resolutions that the sub-networks were drawn from.
    pub resolutions: Vec<usize>,
    /// What makes the sum of its layers a network's latency.
    pub correction: Correction,
    /// Sub-networks by rising sum.
    pub networks: Vec<NetworkRow>,
    /// Sub-networks that searches found.
    pub searched: Vec<SearchedRow>,
}

/// How well predictions fit sub-networks that had no part in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// Number of sub-networks.
    pub n: usize,
    /// Share whose prediction is within 5 % of the measurement.
    pub within_5pct: f64,
    /// Share whose prediction is within 10 % of the measurement.
    pub within_10pct: f64,
    /// Share whose prediction is within 5 % or twice [`Validation::repeatability`], whichever is more.
    pub within_noise: f64,
    /// Mean absolute error relative to the measurement.
    pub mape: f64,
    /// The same of the plain sums.
    pub mape_of_sums: f64,
    /// Spearman's rank correlation of predictions and measurements.
    pub spearman: f64,
    /// Kendall's tau-b of predictions and measurements.
    pub kendall: f64,
    /// Median difference of a network's two measurements, relative to the first; absent where there was one.
    pub repeatability: Option<f64>,
    /// Measurement over prediction: the ends of the prediction interval.
    pub residual_band: [f64; 2],
    /// Level of that interval: .95, or what there are networks enough for.
    pub band_level: f64,
    /// Number of sub-networks that were searched for a limit and measured.
    pub limits: usize,
    /// Share of these that kept it; absent where there are none.
    pub limits_kept: Option<f64>,
}

/// Least number of sub-networks that are divided into a half to fit and a half to judge.
pub const LEAST_NETWORKS: usize = 8;
/// Level of the prediction interval whose upper end a limit is compared with.
const CONFIDENCE: f64 = 0.95;
/// Decimals of times in microseconds.
const DECIMALS: i32 = 6;

impl NetworkRow {
    /// What the network took, in microseconds: the mean of its passes.
    pub fn measured_us(&self) -> f64 {
        self.second_us.map_or(self.first_us, |second| 0.5 * (self.first_us + second))
    }

    /// Prediction over measurement, less one.
    pub fn relative_error(&self) -> f64 {
        self.predicted_us / self.measured_us() - 1.0
    }

    fn numbers(&self) -> [f64; 4] {
        [self.sum_us, self.predicted_us, self.first_us, self.second_us.unwrap_or(self.first_us)]
    }
}

impl SpaceFit {
    /// Fits a correction to every other one of the sub-networks, by rising sum, and predicts all; `None` if there are
    /// fewer than eight.
    ///
    /// # Errors
    /// If one is not in the space, or a layer has no row.
    pub fn new(
        space: &SearchSpace,
        rows: &BTreeMap<String, Row>,
        times: &BTreeMap<Arch, [Option<f64>; 2]>,
    ) -> Result<Option<Self>> {
        let mut networks = network_rows(space, rows, times, &Correction::NONE)?;
        if networks.len() < LEAST_NETWORKS {
            return Ok(None);
        }
        networks.iter_mut().step_by(2).for_each(|network| network.part = Part::Fit);
        let fitted = networks.iter().filter(|network| network.part == Part::Fit);
        let observe = |network: &NetworkRow| -> Result<Observation> {
            let features = features(space, rows, &network.arch)?;
            Ok(Observation { features, measured_us: network.measured_us() })
        };
        let observations = fitted.map(observe).collect::<Result<Vec<_>>>()?;
        let correction = fit(&observations, &layer_features(space, rows, &networks)?)?;
        predict(space, rows, &correction, &mut networks)?;
        let (name, resolutions) = (space.name().to_string(), space.resolutions().to_vec());
        Ok(Some(Self { name, resolutions, correction, networks, searched: Vec::new() }))
    }

    /// How well the predictions fit the half that judges.
    pub fn validation(&self) -> Validation {
        let checked: Vec<&NetworkRow> =
            self.networks.iter().filter(|network| network.part == Part::Check).collect();
        validation(&checked, &self.searched)
    }

    /// What a prediction is multiplied by for the upper end of its interval; at least 1. A search finds what is expected
    /// to take less than it does, so where searched sub-networks were measured to learn that, the interval is as wide as
    /// 95 % of them need.
    pub fn upper_factor(&self) -> f64 {
        let of_random = self.validation().residual_band[1].max(1.0);
        let mut ratios = self.searched_ratios();
        ratios.sort_by(f64::total_cmp);
        // split conformal, one-sided: rank (n + 1) .95
        let rank = (CONFIDENCE * (ratios.len() + 1) as f64).ceil() as usize;
        let of_searched = ratios.get(rank.min(ratios.len()).wrapping_sub(1)).copied().unwrap_or(1.0);
        of_random.max(of_searched)
    }

    /// Measurement over prediction of the searched sub-networks to learn from.
    fn searched_ratios(&self) -> Vec<f64> {
        let learnt = self.searched.iter().filter(|row| row.part == Part::Fit);
        learnt.map(|row| row.measured_us / row.predicted_us).collect()
    }

    /// How likely a network that a search found with this prediction keeps a limit: the share of the searched
    /// sub-networks to learn from that would, were their measurements as far from their predictions; of the judging ones,
    /// where none were searched for. One more that does not is counted among them.
    pub fn kept(&self, predicted_us: f64, limit_us: f64) -> f64 {
        let mut ratios = self.searched_ratios();
        if ratios.is_empty() {
            let checked = self.networks.iter().filter(|network| network.part == Part::Check);
            ratios = checked.map(|network| network.measured_us() / network.predicted_us).collect();
        }
        let kept = ratios.iter().filter(|ratio| predicted_us * **ratio <= limit_us).count();
        kept as f64 / (ratios.len() + 1) as f64
    }

    /// Whether all numbers can be; `place` names the file in messages.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let wrong = |field: String, got: String| {
            Err(Error::invalid(place, field, "finite numbers above 0", got).into())
        };
        if !self.correction.is_sound() {
            return wrong(format!("correction of space {}", self.name), format!("{:?}", self.correction));
        }
        let sound = |value: &f64| value.is_finite() && *value > 0.0;
        if let Some(network) = self.networks.iter().find(|network| !network.numbers().iter().all(sound)) {
            return wrong(format!("network {}", network.arch), format!("{:?}", network.numbers()));
        }
        for SearchedRow { limit_us, arch, predicted_us, measured_us, .. } in &self.searched {
            let numbers = [*limit_us, *predicted_us, *measured_us];
            if !numbers.iter().all(sound) {
                return wrong(format!("searched {arch}"), format!("{numbers:?}"));
            }
        }
        Ok(())
    }
}

/// Sums of single layers and measurements, by rising sum, all of them to check; predicted by `correction`.
///
/// # Errors
/// If one is not in the space, or a layer has no row.
pub fn network_rows(
    space: &SearchSpace,
    rows: &BTreeMap<String, Row>,
    times: &BTreeMap<Arch, [Option<f64>; 2]>,
    correction: &Correction,
) -> Result<Vec<NetworkRow>> {
    let mut networks = Vec::new();
    for (arch, passes) in times {
        let Some(first) = passes[0].or(passes[1]) else { continue };
        let second = passes[1].filter(|_| passes[0].is_some());
        let (first_us, second_us) =
            (rounded(first, DECIMALS), second.map(|second| rounded(second, DECIMALS)));
        let part = Part::Check;
        networks.push(NetworkRow {
            arch: arch.clone(),
            part,
            sum_us: 0.0,
            predicted_us: 0.0,
            first_us,
            second_us,
        });
    }
    predict(space, rows, correction, &mut networks)?;
    networks.sort_by(|a, b| a.sum_us.total_cmp(&b.sum_us).then_with(|| a.arch.cmp(&b.arch)));
    Ok(networks)
}

fn features(space: &SearchSpace, rows: &BTreeMap<String, Row>, arch: &Arch) -> Result<Features> {
    space.check(arch)?;
    let layers = space.lower(arch)?;
    let mut timed = Vec::with_capacity(layers.len());
    for layer in &layers {
        let key = layer.key();
        let row = rows.get(&key).ok_or_else(|| {
            let expected = format!("a latency of \"{key}\"");
            Error::invalid("rows", format!("layers of {arch}"), expected, "none")
                .and_then_do("measure the layers of the space too")
        })?;
        timed.push((layer, row.median_us));
    }
    Ok(Features::sum(timed))
}

/// Those of each layer of the networks.
fn layer_features(
    space: &SearchSpace,
    rows: &BTreeMap<String, Row>,
    networks: &[NetworkRow],
) -> Result<Vec<Features>> {
    let mut layers = BTreeMap::new();
    for network in networks {
        for layer in space.lower(&network.arch)? {
            let median_us = rows[&layer.key()].median_us;
            layers.entry(layer.key()).or_insert_with(|| Features::of(&layer, median_us));
        }
    }
    Ok(layers.into_values().collect())
}

fn predict(
    space: &SearchSpace,
    rows: &BTreeMap<String, Row>,
    correction: &Correction,
    networks: &mut [NetworkRow],
) -> Result<()> {
    for network in networks {
        // the row of every layer is there: `features` has asked for it
        features(space, rows, &network.arch)?;
        let (mut sum, mut predicted) = (0.0, correction.constant_us);
        for layer in space.lower(&network.arch)? {
            let median_us = rows[&layer.key()].median_us;
            sum += median_us;
            predicted += correction.layer(&layer, median_us);
        }
        (network.sum_us, network.predicted_us) = (rounded(sum, DECIMALS), rounded(predicted, DECIMALS));
    }
    Ok(())
}

/// Of the sub-networks that judge, and of searched ones.
pub fn validation(networks: &[&NetworkRow], searched: &[SearchedRow]) -> Validation {
    let n = networks.len();
    let errors: Vec<f64> = networks.iter().map(|network| network.relative_error().abs()).collect();
    let of_sums = networks.iter().map(|network| (network.sum_us / network.measured_us() - 1.0).abs());
    let mean = |sum: f64| rounded(sum / n.max(1) as f64, DECIMALS);
    let share = |bound: f64| mean(errors.iter().filter(|error| **error <= bound).count() as f64);
    let predicted: Vec<f64> = networks.iter().map(|network| network.predicted_us).collect();
    let measured: Vec<f64> = networks.iter().map(|network| network.measured_us()).collect();
    let twice: Vec<f64> = networks
        .iter()
        .filter_map(|network| Some((network.second_us? / network.first_us - 1.0).abs()))
        .collect();
    let repeatability = (!twice.is_empty()).then(|| rounded(stats::median(&twice), DECIMALS));
    let ratios = predicted.iter().zip(&measured).map(|(predicted, measured)| measured / predicted).collect();
    let judging: Vec<&SearchedRow> = searched.iter().filter(|row| row.part == Part::Check).collect();
    let kept = judging.iter().filter(|row| row.measured_us <= row.limit_us).count();
    Validation {
        n,
        within_5pct: share(0.05),
        within_10pct: share(0.1),
        within_noise: share(2.0 * repeatability.unwrap_or(0.0).max(0.025)),
        mape: mean(errors.iter().sum()),
        mape_of_sums: mean(of_sums.sum()),
        spearman: rounded(rank::spearman(&predicted, &measured), DECIMALS),
        kendall: rounded(rank::kendall(&predicted, &measured), DECIMALS),
        repeatability,
        residual_band: band(ratios),
        band_level: rounded(CONFIDENCE.min((n as f64 - 1.0).max(0.0) / (n as f64 + 1.0)), DECIMALS),
        limits: judging.len(),
        limits_kept: (!judging.is_empty()).then(|| rounded(kept as f64 / judging.len() as f64, DECIMALS)),
    }
}

/// The prediction interval of exchangeable ratios (split conformal: Vovk et al. 2005, section 2.2): order statistics
/// of rank `(n + 1) (1 +- level) / 2`; of too few the least and the greatest.
fn band(mut ratios: Vec<f64>) -> [f64; 2] {
    ratios.sort_by(f64::total_cmp);
    let Some(last) = ratios.len().checked_sub(1) else { return [1.0, 1.0] };
    let tail = (1.0 - CONFIDENCE) / 2.0 * (ratios.len() + 1) as f64;
    let outside = (tail.floor() as usize).saturating_sub(1).min(last / 2);
    [ratios[outside], ratios[last - outside]].map(|ratio| rounded(ratio, DECIMALS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::table::tests::made_up;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use supernet::space::{preset, sampler};

    /// Networks that take what `truth` makes of their sums.
    fn fitted(n: usize, truth: impl Fn(f64, &mut ChaCha8Rng) -> f64) -> Option<SpaceFit> {
        let space = preset("fashion").expect("a preset");
        let table = made_up(&space);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut times = BTreeMap::new();
        while times.len() < n {
            let arch = sampler::random(&space, &mut rng);
            let layers = space.lower(&arch).expect("legal");
            let sum: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].median_us).sum();
            let measured = truth(sum, &mut rng);
            times.insert(arch, [Some(measured), Some(1.01 * measured)]);
        }
        SpaceFit::new(&space, table.rows(), &times).expect("covered")
    }

    #[test]
    fn a_miss_that_all_networks_have_is_made_good() {
        let fit = fitted(120, |sum, rng| (1.1 * sum + 9.0) * rng.random_range(0.98..1.02)).expect("enough");
        let validation = fit.validation();
        assert_eq!((validation.n, validation.within_5pct, validation.within_10pct), (60, 1.0, 1.0));
        assert!(validation.mape < 0.015 && validation.mape_of_sums > 0.08, "{validation:?}");
        assert!(validation.spearman > 0.98 && validation.repeatability == Some(0.01));
        let [low, high] = validation.residual_band;
        assert!((0.97..0.99).contains(&low) && (1.01..1.03).contains(&high), "{low} {high}");
        assert_eq!((fit.upper_factor(), validation.band_level), (high, 0.95));
        let kept: Vec<f64> =
            [90.0, 99.0, 100.0, 101.0, 110.0].iter().map(|limit| fit.kept(100.0, *limit)).collect();
        assert!(kept.is_sorted() && kept[0] == 0.0 && kept[4] == 60.0 / 61.0, "{kept:?}");
        assert!((0.2..0.8).contains(&kept[2]), "{kept:?}");
        fit.check("x").expect("sound");
        // searches found networks that take 4 % more than expected, and two of forty even more
        let mut fit = fit;
        let searched = |index: usize| SearchedRow {
            limit_us: 100.0,
            arch: fit.networks[index].arch.clone(),
            part: Part::Fit,
            predicted_us: 100.0,
            measured_us: if index < 2 { 120.0 + index as f64 } else { 104.0 },
        };
        fit.searched = (0..40).map(searched).collect();
        assert_eq!((fit.upper_factor(), fit.validation().limits), (1.2, 0), "rank 39 of 40");
        fit.searched.remove(0);
        assert_eq!(fit.upper_factor(), 1.04, "rank 38 of 39");
        assert_eq!((fit.kept(100.0, 103.0), fit.kept(100.0, 104.0)), (0.0, 38.0 / 40.0));
        assert!(fitted(LEAST_NETWORKS - 1, |sum, _| sum).is_none());
    }

    #[test]
    fn intervals_are_order_statistics() {
        let ratios = |n: usize| (1..=n).map(|i| i as f64).collect::<Vec<_>>();
        // (n + 1) / 40 from either end: the ends themselves up to 79, the next from 80 ratios less one on
        for (n, expected) in
            [(1, [1.0, 1.0]), (60, [1.0, 60.0]), (78, [1.0, 78.0]), (79, [2.0, 78.0]), (399, [10.0, 390.0])]
        {
            assert_eq!(band(ratios(n)), expected, "{n}");
        }
        assert_eq!(band(Vec::new()), [1.0, 1.0]);
    }

    #[test]
    fn shares_are_counted_by_hand() {
        let network = |predicted_us: f64, first_us: f64, second_us: f64| NetworkRow {
            arch: "r8:k3e3".parse().expect("an arch"),
            part: Part::Check,
            sum_us: 0.9 * predicted_us,
            predicted_us,
            first_us,
            second_us: Some(second_us),
        };
        let networks =
            [network(104.0, 100.0, 100.0), network(184.0, 190.0, 210.0), network(360.0, 300.0, 300.0)];
        let searched = |measured_us| SearchedRow {
            limit_us: 100.0,
            arch: "r8:k3e3".parse().expect("an arch"),
            part: Part::Check,
            predicted_us: 99.0,
            measured_us,
        };
        let validation =
            validation(&networks.iter().collect::<Vec<_>>(), &[searched(100.0), searched(101.0)]);
        let third = |count: f64| rounded(count / 3.0, DECIMALS);
        assert_eq!((validation.within_5pct, validation.within_10pct), (third(1.0), third(2.0)));
        assert_eq!(validation.mape, rounded((0.04 + 0.08 + 0.2) / 3.0, DECIMALS));
        assert_eq!((validation.spearman, validation.kendall), (1.0, 1.0));
        assert_eq!((validation.repeatability, validation.within_noise), (Some(0.0), third(1.0)));
        assert_eq!((validation.limits, validation.limits_kept), (2, Some(0.5)));
        assert_eq!(
            validation.band_level, 0.5,
            "of three, one more is between the least and the greatest half of the time"
        );
    }
}
