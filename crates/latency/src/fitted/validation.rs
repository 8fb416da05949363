//! Compares a table's predictions with sub-networks that had no part in them.

use std::collections::BTreeSet;

use base::document::rounded;
use base::rank;
use base::statistics as stats;
use serde::{Deserialize, Serialize};

use super::{CONFIDENCE, NetworkRow, Part, SearchedRow, SpaceFit};
use crate::row::DECIMALS;

/// The source of the differences between measurements of the same sub-network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Between {
    /// Sessions.
    #[serde(rename = "sessions")]
    Sessions,
    /// Predictions and measurements of one session: nothing is known about another one.
    #[serde(rename = "one session")]
    OneSession,
}

/// The fit of predictions of the undisturbed latency to sub-networks that had no part in them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyValidation {
    /// Number of sub-networks.
    pub n: usize,
    /// Number of sub-networks that do not count, because too few visits confirm their latency.
    pub unaccepted: usize,
    /// Number of sessions in which they were measured.
    pub sessions: usize,
    /// Share whose prediction is within 5 % of the measurement.
    pub within_5pct: f64,
    /// Share whose prediction is within 10 % of the measurement.
    pub within_10pct: f64,
    /// Share whose prediction is within 5 % or twice [`LatencyValidation::repeatability`], whichever is more.
    pub within_noise: f64,
    /// Mean absolute error relative to the measurement.
    pub mape: f64,
    /// Mean absolute error of the plain sums, relative to the measurement.
    pub mape_of_sums: f64,
    /// Spearman's rank correlation of predictions and measurements.
    pub spearman: f64,
    /// Kendall's tau-b of predictions and measurements.
    pub kendall: f64,
    /// Median difference of a network's measurements in different sessions, relative to their mean; absent where each was
    /// measured in one.
    pub repeatability: Option<f64>,
    /// The kind of the interval below: predictions from other sessions than the measurement's, or from the same.
    pub between: Between,
    /// Measurement over prediction: the ends of the prediction interval.
    pub residual_band: [f64; 2],
    /// Level of that interval: .95, or the highest for which there are enough networks.
    pub band_level: f64,
    /// Level of the upper end that is compared with limits: .95, or the highest for which there are enough networks.
    pub upper_level: f64,
    /// Number of distinct sub-networks that were searched with a limit, measured, and had no other part.
    pub limits: usize,
    /// Share of these that kept it; absent if there are none.
    pub limits_kept: Option<f64>,
    /// Wilson's 95 % interval of that share.
    pub limits_kept_interval: Option<[f64; 2]>,
}

/// The fit of predictions of the typical latency: it has no target, for it depends on the neighbors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationTypical {
    /// Number of sub-networks.
    pub n: usize,
    /// The factor on the undisturbed latency.
    pub factor: f64,
    /// Share whose prediction is within 5 % of the measurement.
    pub within_5pct: f64,
    /// Share whose prediction is within 10 % of the measurement.
    pub within_10pct: f64,
    /// Mean absolute error relative to the measurement.
    pub mape: f64,
    /// Measurement over prediction: the ends of the prediction interval.
    pub residual_band: [f64; 2],
    /// Level of that interval.
    pub band_level: f64,
    /// Share of the searched sub-networks whose typical latency kept the limit on the undisturbed one.
    pub limits_kept: Option<f64>,
}

impl SpaceFit {
    /// Judging sub-networks whose measurement counts.
    fn judges(&self) -> Vec<&NetworkRow> {
        let judges: Vec<&NetworkRow> =
            self.networks.iter().filter(|network| network.part == Part::Check).collect();
        let accepted: Vec<&NetworkRow> =
            judges.iter().filter(|network| network.took.accepted).copied().collect();
        // a table that never met the fast state uses what it has
        if accepted.is_empty() { judges } else { accepted }
    }

    /// Searched sub-networks that judge the margin: distinct, without those that fitted or set it.
    pub fn searched_judges(&self) -> Vec<&SearchedRow> {
        let spent = self.spent();
        let mut seen = BTreeSet::new();
        let judges: Vec<&SearchedRow> = self
            .searched
            .iter()
            .filter(|row: &&SearchedRow| {
                row.part == Part::Check && !spent.contains(&row.arch) && seen.insert(row.arch.clone())
            })
            .collect();
        let accepted: Vec<&SearchedRow> = judges.iter().filter(|row| row.took.accepted).copied().collect();
        if accepted.is_empty() { judges } else { accepted }
    }

    /// The fit of the predictions to the judging half.
    pub fn validation(&self) -> LatencyValidation {
        let judges = self.judges();
        let unaccepted = self.networks.iter().filter(|network| !network.took.accepted).count();
        let (between, ratios) = self.residuals(&judges);
        let searched = self.searched_judges();
        let kept = searched.iter().filter(|row| row.took.us <= row.limit_us).count();
        let some = !searched.is_empty();
        let share = rounded(kept as f64 / searched.len().max(1) as f64, DECIMALS);
        let wilson = stats::wilson(kept, searched.len()).map(|end| rounded(end, DECIMALS));
        let n = ratios.len();
        LatencyValidation {
            unaccepted,
            between,
            residual_band: band(ratios),
            band_level: band_level(n),
            upper_level: self.upper_level(n),
            limits: searched.len(),
            limits_kept: some.then_some(share),
            limits_kept_interval: some.then_some(wilson),
            ..of(&judges)
        }
    }

    /// Measurement over prediction of the judging networks: by sessions that had no part in the prediction, if there
    /// are some.
    fn residuals(&self, judges: &[&NetworkRow]) -> (Between, Vec<f64>) {
        let mut left_out = Vec::new();
        for network in judges {
            for prediction in &network.left_out {
                let own = network.sessions.iter().find(|one| one.session == prediction.session);
                left_out.extend(own.map(|one| one.us / prediction.predicted_us));
            }
        }
        if left_out.is_empty() {
            let ratios = judges.iter().map(|network| network.took.us / network.predicted_us).collect();
            return (Between::OneSession, ratios);
        }
        (Between::Sessions, left_out)
    }

    /// Level of the upper end: of the searched sub-networks that set it, else of the judging ones.
    fn upper_level(&self, judges: usize) -> f64 {
        let learned = self.searched_ratios().len();
        let n = if learned > 0 { learned } else { judges } as f64;
        rounded(CONFIDENCE.min(n / (n + 1.0)), DECIMALS)
    }

    /// Measurement over prediction of the distinct searched sub-networks to learn from.
    pub(super) fn searched_ratios(&self) -> Vec<f64> {
        let mut seen = BTreeSet::new();
        let learned =
            self.searched.iter().filter(|row| row.part == Part::Fit && seen.insert(row.arch.clone()));
        learned.map(|row| row.took.us / row.predicted_us).collect()
    }

    /// The factor on a prediction for the upper end of its interval; at least 1. Searches favor networks whose
    /// predictions are too low, so if searched sub-networks were measured to learn this, the interval is as wide as
    /// 95 % of them need.
    pub fn upper_factor(&self) -> f64 {
        let of_random = self.validation().residual_band[1].max(1.0);
        of_random.max(quantile(self.searched_ratios()).unwrap_or(1.0))
    }

    /// The probability that a network from a search with this prediction keeps a limit: the share of the searched
    /// sub-networks to learn from that would, were their measurements as far from their predictions; of the judging
    /// ones, if there are no searched ones. One more that does not is counted among them.
    pub fn kept(&self, predicted_us: f64, limit_us: f64) -> f64 {
        let mut ratios = self.searched_ratios();
        if ratios.is_empty() {
            ratios = self.residuals(&self.judges()).1;
        }
        let kept = ratios.iter().filter(|ratio| predicted_us * **ratio <= limit_us).count();
        kept as f64 / (ratios.len() + 1) as f64
    }

    /// The factor from undisturbed to typical latency: the median ratio over the sub-networks to fit to.
    pub fn typical_factor(&self) -> f64 {
        let fitted = self.networks.iter().filter(|network| network.part == Part::Fit);
        let ratios: Vec<f64> = fitted.map(|network| network.took.typical_us / network.predicted_us).collect();
        if ratios.is_empty() { 1.0 } else { rounded(stats::median(&ratios), DECIMALS) }
    }

    /// The fit of that factor to the judging half.
    pub fn validation_typical(&self) -> ValidationTypical {
        let judges = self.judges();
        let factor = self.typical_factor();
        let ratios: Vec<f64> =
            judges.iter().map(|network| network.took.typical_us / (factor * network.predicted_us)).collect();
        let errors: Vec<f64> = ratios.iter().map(|ratio| (1.0 / ratio - 1.0).abs()).collect();
        let searched = self.searched_judges();
        let kept = searched.iter().filter(|row| row.took.typical_us <= row.limit_us).count();
        ValidationTypical {
            n: judges.len(),
            factor,
            within_5pct: share(&errors, 0.05),
            within_10pct: share(&errors, 0.1),
            mape: mean(&errors),
            band_level: band_level(ratios.len()),
            residual_band: band(ratios),
            limits_kept: (!searched.is_empty())
                .then(|| rounded(kept as f64 / searched.len() as f64, DECIMALS)),
        }
    }

    /// The upper end for typical latencies, over the undisturbed prediction.
    pub fn typical_upper_factor(&self) -> f64 {
        let typical = self.validation_typical();
        typical.factor * typical.residual_band[1].max(1.0)
    }
}

fn mean(values: &[f64]) -> f64 {
    rounded(values.iter().sum::<f64>() / values.len().max(1) as f64, DECIMALS)
}

fn share(errors: &[f64], bound: f64) -> f64 {
    let within = errors.iter().filter(|error| **error <= bound).count();
    rounded(within as f64 / errors.len().max(1) as f64, DECIMALS)
}

/// The validation by judging sub-networks, without searched ones, and with the interval of one session.
pub fn of(networks: &[&NetworkRow]) -> LatencyValidation {
    let errors: Vec<f64> = networks.iter().map(|network| network.relative_error().abs()).collect();
    let of_sums: Vec<f64> =
        networks.iter().map(|network| (network.sum_us / network.took.us - 1.0).abs()).collect();
    let predicted: Vec<f64> = networks.iter().map(|network| network.predicted_us).collect();
    let measured: Vec<f64> = networks.iter().map(|network| network.took.us).collect();
    let sessions: BTreeSet<&str> =
        networks.iter().flat_map(|network| &network.sessions).map(|one| one.session.as_str()).collect();
    let twice: Vec<f64> = networks.iter().filter_map(|network| difference(network)).collect();
    let repeatability = (!twice.is_empty()).then(|| rounded(stats::median(&twice), DECIMALS));
    let ratios: Vec<f64> =
        predicted.iter().zip(&measured).map(|(predicted, measured)| measured / predicted).collect();
    LatencyValidation {
        n: networks.len(),
        unaccepted: networks.iter().filter(|network| !network.took.accepted).count(),
        sessions: sessions.len(),
        within_5pct: share(&errors, 0.05),
        within_10pct: share(&errors, 0.1),
        within_noise: share(&errors, 2.0 * repeatability.unwrap_or(0.0).max(0.025)),
        mape: mean(&errors),
        mape_of_sums: mean(&of_sums),
        spearman: rounded(rank::spearman(&predicted, &measured), DECIMALS),
        kendall: rounded(rank::kendall(&predicted, &measured), DECIMALS),
        repeatability,
        between: Between::OneSession,
        band_level: band_level(ratios.len()),
        upper_level: rounded(CONFIDENCE.min(ratios.len() as f64 / (ratios.len() as f64 + 1.0)), DECIMALS),
        residual_band: band(ratios),
        limits: 0,
        limits_kept: None,
        limits_kept_interval: None,
    }
}

/// The greatest difference between sessions' measurements of a network, relative to their mean; only measurements that
/// some visit confirms.
fn difference(network: &NetworkRow) -> Option<f64> {
    let confirmed = network.sessions.iter().filter(|one| one.confirmed > 0);
    let times: Vec<f64> = confirmed.map(|one| one.us).collect();
    let low = times.iter().copied().fold(f64::INFINITY, f64::min);
    let high = times.iter().copied().fold(0.0, f64::max);
    (times.len() > 1).then(|| (high - low) / (0.5 * (high + low)))
}

/// Level of the interval between order statistics of this many.
fn band_level(n: usize) -> f64 {
    rounded(CONFIDENCE.min((n as f64 - 1.0).max(0.0) / (n as f64 + 1.0)), DECIMALS)
}

/// The prediction interval of exchangeable ratios (split conformal: Vovk et al. 2005, section 2.2): order statistics of
/// rank `(n + 1) (1 +- level) / 2`; for too few the least and the greatest.
fn band(mut ratios: Vec<f64>) -> [f64; 2] {
    ratios.sort_by(f64::total_cmp);
    let Some(last) = ratios.len().checked_sub(1) else { return [1.0, 1.0] };
    let tail = (1.0 - CONFIDENCE) / 2.0 * (ratios.len() + 1) as f64;
    let outside = (tail.floor() as usize).saturating_sub(1).min(last / 2);
    [ratios[outside], ratios[last - outside]].map(|ratio| rounded(ratio, DECIMALS))
}

/// The upper end that 95 % of exchangeable ratios keep (split conformal, one-sided: rank `(n + 1) .95`); the greatest
/// if there are too few, `None` if there are none.
fn quantile(mut ratios: Vec<f64>) -> Option<f64> {
    ratios.sort_by(f64::total_cmp);
    let rank = (CONFIDENCE * (ratios.len() + 1) as f64).ceil() as usize;
    ratios.get(rank.min(ratios.len()).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (n, expected) in [(0, None), (1, Some(1.0)), (18, Some(18.0)), (19, Some(19.0)), (39, Some(38.0))]
        {
            assert_eq!(quantile(ratios(n)), expected, "{n}");
        }
        assert_eq!([band_level(3), band_level(38), band_level(39)], [0.5, 0.948_718, 0.95]);
    }
}
