use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use space::{preset, sampler};

use super::*;
use crate::table::LatencyTable;
use crate::testing::made_up;

/// A session's measurement.
pub(crate) fn measured(session: &str, us: f64) -> Measurement {
    Measurement {
        session: session.to_string(),
        us,
        interval_us: Some([0.98 * us, 1.02 * us]),
        typical_us: 1.5 * us,
        mad_us: 0.1,
        spread: 0.01,
        samples: 500,
        visits: 25,
        confirmed: 8,
        watched: true,
        in_place: false,
        narrow: false,
    }
}

/// A fit of networks whose latency is `truth` of their sum.
struct Made {
    space: SearchSpace,
    table: LatencyTable,
    fit: SpaceFit,
    rng: ChaCha8Rng,
}

impl Made {
    fn new(n: usize, truth: impl Fn(f64, &mut ChaCha8Rng) -> f64) -> Self {
        let space = preset("fashion").expect("a preset");
        let table = made_up(&space);
        let fit = SpaceFit::empty(&space);
        let mut made = Self { space, table, fit, rng: ChaCha8Rng::seed_from_u64(1) };
        let new = made.add(n, "one", &truth);
        made.refit(&new);
        made
    }

    fn add(
        &mut self,
        n: usize,
        session: &str,
        truth: &impl Fn(f64, &mut ChaCha8Rng) -> f64,
    ) -> BTreeSet<Arch> {
        let mut new = BTreeSet::new();
        while new.len() < n {
            let arch = sampler::random(&self.space, &mut self.rng);
            let layers = self.space.lower(&arch).expect("legal");
            let sum: f64 = layers.iter().map(|layer| self.table.rows()[&layer.key()].us).sum();
            let us = truth(sum, &mut self.rng);
            self.fit.add(&arch, measured(session, us));
            new.insert(arch);
        }
        new
    }

    fn refit(&mut self, new: &BTreeSet<Arch>) {
        let comparable = ["given", "one", "two", "three"].map(str::to_string).into();
        let evidence = self.table.evidence(&comparable);
        self.fit.refit(&self.space, &evidence, new).expect("covered");
    }

    fn searched(&self, index: usize, part: Part, ratio: f64) -> SearchedRow {
        let took = Row { us: 100.0 * ratio, ..self.fit.networks[index].took };
        let arch = sampler::random(&self.space, &mut ChaCha8Rng::seed_from_u64(9000 + index as u64));
        let sessions = vec![measured("one", 100.0 * ratio)];
        SearchedRow { limit_us: 110.0, arch, part, predicted_us: 100.0, took, sessions }
    }
}

#[test]
fn a_miss_that_all_networks_have_is_made_good() {
    let made = Made::new(120, |sum, rng| (1.1 * sum + 9.0) * rng.random_range(0.98..1.02));
    let fit = &made.fit;
    let validation = made.fit.validation();
    assert_eq!((validation.n, validation.within_5pct, validation.within_10pct), (60, 1.0, 1.0));
    assert!(validation.mape < 0.015 && validation.mape_of_sums > 0.08, "{validation:?}");
    assert_eq!(
        (validation.repeatability, validation.between, validation.sessions),
        (None, Between::OneSession, 1)
    );
    let [low, high] = validation.residual_band;
    assert!((0.97..0.99).contains(&low) && (1.01..1.03).contains(&high), "{low} {high}");
    assert_eq!((fit.upper_factor(), validation.band_level, validation.upper_level), (high, 0.95, 0.95));
    let kept: Vec<f64> =
        [90.0, 99.0, 100.0, 101.0, 110.0].iter().map(|limit| fit.kept(100.0, *limit)).collect();
    assert!(kept.is_sorted() && kept[0] == 0.0 && kept[4] == 60.0 / 61.0, "{kept:?}");
    assert!((0.2..0.8).contains(&kept[2]), "{kept:?}");
    fit.check("x").expect("sound");
    let typical = fit.validation_typical();
    assert!((typical.factor - 1.5).abs() < 0.01 && typical.within_5pct == 1.0, "{typical:?}");
    assert!((fit.typical_upper_factor() / 1.5 - 1.01).abs() < 0.02);
    assert!(!Made::new(LEAST_NETWORKS - 1, |sum, _| sum).fit.is_enough());
}

#[test]
fn searched_networks_set_the_margin_and_others_judge_it() {
    let mut made = Made::new(120, |sum, rng| (1.1 * sum + 9.0) * rng.random_range(0.98..1.02));
    // searches found networks that take 4 % more than predicted, and two of forty even more
    for index in 0..40 {
        let ratio = if index < 2 { 1.2 + 0.01 * index as f64 } else { 1.04 };
        let searched = made.searched(index, Part::Fit, ratio);
        made.fit.searched.push(searched);
    }
    assert_eq!((made.fit.upper_factor(), made.fit.validation().limits), (1.2, 0), "rank 39 of 40");
    made.fit.searched.remove(0);
    assert_eq!(made.fit.upper_factor(), 1.04, "rank 38 of 39");
    assert_eq!((made.fit.kept(100.0, 103.0), made.fit.kept(100.0, 104.0)), (0.0, 38.0 / 40.0));
    assert_eq!(made.fit.validation().upper_level, 0.95);
    made.fit.searched.truncate(9);
    assert_eq!(made.fit.validation().upper_level, 0.9, "nine tell of nine in ten");
}

#[test]
fn no_judge_had_a_part_in_anything() {
    let mut made = Made::new(40, |sum, _| 1.1 * sum);
    let learned = made.searched(0, Part::Fit, 1.0);
    let judge = SearchedRow { part: Part::Check, ..learned.clone() };
    let mut fitted_to = made.searched(3, Part::Check, 1.0);
    fitted_to.arch = made.fit.networks[3].arch.clone();
    let kept = made.searched(1, Part::Check, 1.0);
    let broken = made.searched(2, Part::Check, 1.2);
    made.fit.searched = vec![learned, judge, kept.clone(), kept, broken, fitted_to];
    let validation = made.fit.validation();
    assert_eq!(
        (validation.limits, validation.limits_kept),
        (2, Some(0.5)),
        "one twice, one learned from, one fitted to"
    );
    let [low, high] = validation.limits_kept_interval.expect("two");
    assert!(low > 0.09 && low < 0.1 && high > 0.9, "{low} {high}");
    // an unconfirmed value is no measurement
    made.fit.searched[4].took.accepted = false;
    assert_eq!(made.fit.validation().limits_kept, Some(1.0));
}

#[test]
fn the_band_is_that_of_sessions_that_had_no_part() {
    // another session's networks all take 3 % more
    let truth =
        |factor: f64| move |sum: f64, rng: &mut ChaCha8Rng| factor * sum * rng.random_range(0.995..1.005);
    let mut made = Made::new(60, truth(1.1));
    made.add(30, "two", &truth(1.1 * 1.03));
    let again: Vec<(Arch, f64)> = made
        .fit
        .networks
        .iter()
        .filter(|network| network.part == Part::Check)
        .take(10)
        .map(|network| (network.arch.clone(), network.took.us))
        .collect();
    for (arch, us) in again {
        made.fit.add(&arch, measured("two", 1.03 * us));
    }
    made.refit(&BTreeSet::new());
    let validation = made.fit.validation();
    assert_eq!((validation.between, validation.sessions), (Between::Sessions, 2));
    assert!(
        made.fit.networks.iter().filter(|network| network.part == Part::Fit).count() == 30,
        "judges only judge"
    );
    let [_, high] = validation.residual_band;
    assert!((1.03..1.045).contains(&high), "{validation:?}");
    let twice = validation.repeatability.expect("ten were measured twice");
    assert!((0.02..0.04).contains(&twice), "{twice}");
}

#[test]
fn what_is_not_confirmed_has_no_part() {
    let mut made = Made::new(60, |sum, _| 1.1 * sum);
    // a third network was only measured in the slow state
    for network in made.fit.networks.iter_mut().step_by(3) {
        let one = &mut network.sessions[0];
        (one.us, one.confirmed) = (1.4 * one.us, 0);
    }
    made.refit(&BTreeSet::new());
    let validation = made.fit.validation();
    assert_eq!(validation.unaccepted, 20);
    assert!(validation.mape < 1e-4 && validation.n < 30, "{validation:?}");
}
