//! Times of layers, separated from the times of whole sub-networks: for devices that run whole networks only.
//!
//! A layer's time is modeled as a time per call and a time per place of its output, for each kind of layer: all that a key
//! says but the size of its maps. Both are never negative, and are drawn towards what a model of all layers says (a time per
//! layer, per multiply-accumulate, per byte of weights and of maps), the more the fewer networks have the kind. Squared relative
//! errors are minimized, and networks with large errors count less (Huber 1964). How strongly kinds are drawn is chosen by
//! cross-validation.

use std::collections::BTreeMap;

use base::statistics as stats;
use base::{Error, Result};
use space::{Arch, LayerSpec, SearchSpace, cost};

use super::facts::{DeviceFacts, EngineFacts};
use super::fitted::{Part, SpaceFit};
use super::row::{GIVEN, Measurement, Row};
use super::table::LatencyTable;

/// Least number of sub-networks that layers are separated from.
pub const LEAST_SEPARATED: usize = 16;
/// Least time of a layer in a table, in microseconds.
const LEAST_US: f64 = 1e-3;
/// Of so many sub-networks one judges and the others are fitted to.
const ONE_JUDGES_OF: usize = 5;
const PROTOCOL: &str = "separated from the times of whole sub-networks, of which a fifth judges: a time per call and per place of the output for each kind of layer";

/// Strengths with which kinds are drawn towards the model of all layers: squared relative errors for a deviation as large as the
/// mean time of a layer.
const STRENGTHS: [f64; 5] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0];
const FOLDS: usize = 5;
/// Rounds of reweighting.
const ROUNDS: usize = 5;
/// Residuals beyond this many deviations count less (Holland & Welsch 1977).
const HUBER: f64 = 1.345;
/// Least deviation of relative errors.
const LEAST_DEVIATION: f64 = 1e-4;
/// Passes over all unknowns, and the change at which they have settled, in relative errors of a network.
const MOST_SWEEPS: usize = 3000;
const SETTLED: f64 = 1e-7;

/// A linear model of a network's time: unknowns times these features.
type Sparse = Vec<(usize, f64)>;

/// Unknowns that are not negative, and what they are drawn towards.
struct Least<'a> {
    rows: &'a [Sparse],
    us: &'a [f64],
    /// The values drawn towards, and the strength for each.
    prior: &'a [f64],
    strengths: Vec<f64>,
}

/// The kind of a layer: its key without the size of its maps.
fn kind_of(layer: &LayerSpec) -> String {
    let key = layer.key();
    key.split(" @").next().unwrap_or_default().to_string()
}

/// The features of a layer for the model of all layers: 1, megaweights, mega-MACs and the millions of values in its maps. The first two
/// are of a call, the others of its places.
fn general(layer: &LayerSpec) -> [f64; 4] {
    let weights: usize = layer.weights().iter().map(|weight| weight.shape.iter().product::<usize>()).sum();
    let macs = cost(std::slice::from_ref(layer)).macs as f64;
    [1.0, weights as f64 / 1e6, macs / 1e6, (layer.input.len() + layer.output.len()) as f64 / 1e6]
}

fn places_of(layer: &LayerSpec) -> f64 {
    layer.output.plane() as f64
}

impl Least<'_> {
    /// Minimizes the weighted squares by passes over the unknowns, each set to its best value from 0 on.
    fn solve(&self, weights: &[f64], start: &[f64]) -> Vec<f64> {
        let n = self.prior.len();
        let mut matrix = vec![0.0; n * n];
        let mut right = vec![0.0; n];
        for ((row, us), weight) in self.rows.iter().zip(self.us).zip(weights) {
            let scale = weight / (us * us);
            for &(i, one) in row {
                right[i] += scale * one * us;
                row.iter().for_each(|&(j, other)| matrix[i * n + j] += scale * one * other);
            }
        }
        for i in 0..n {
            // an unknown that no network has stays at the value it is drawn towards
            let strength = self.strengths[i].max(f64::MIN_POSITIVE.sqrt());
            matrix[i * n + i] += strength;
            right[i] += strength * self.prior[i];
        }
        let mut x = start.to_vec();
        for _ in 0..MOST_SWEEPS {
            let mut moved = 0.0f64;
            for i in 0..n {
                let row = &matrix[i * n..(i + 1) * n];
                let sum: f64 = row.iter().zip(&x).map(|(one, other)| one * other).sum();
                let next = (x[i] + (right[i] - sum) / row[i]).max(0.0);
                // in units of what it adds to the sum of squares
                moved = moved.max((next - x[i]).abs() * row[i].sqrt());
                x[i] = next;
            }
            if moved < SETTLED * (self.us.len() as f64).sqrt() {
                break;
            }
        }
        x
    }

    /// The values with networks of large errors counting less.
    fn robust(&self) -> Vec<f64> {
        let mut weights = vec![1.0; self.us.len()];
        let mut x = self.solve(&weights, self.prior);
        for _ in 1..ROUNDS {
            let errors: Vec<f64> =
                self.rows.iter().zip(self.us).map(|(row, us)| (of(row, &x) / us - 1.0).abs()).collect();
            let bound = HUBER * (stats::median(&errors) / stats::NORMAL_QUARTILE).max(LEAST_DEVIATION);
            weights = errors.iter().map(|error| (bound / error.max(bound)).min(1.0)).collect();
            x = self.solve(&weights, &x);
        }
        x
    }
}

fn of(row: &[(usize, f64)], x: &[f64]) -> f64 {
    row.iter().map(|(at, feature)| feature * x[*at]).sum()
}

/// Kinds with their unknowns: two for each, in this order.
struct Kinds<'s> {
    space: &'s SearchSpace,
    places: BTreeMap<String, usize>,
    /// The kind's layer that was met first, and the mean number of places of its output.
    layers: Vec<(LayerSpec, f64)>,
}

impl<'s> Kinds<'s> {
    fn of(space: &'s SearchSpace) -> Self {
        let mut kinds = Self { space, places: BTreeMap::new(), layers: Vec::new() };
        let mut counts: Vec<usize> = Vec::new();
        for layer in space.layers().into_values() {
            let next = kinds.layers.len();
            let at = *kinds.places.entry(kind_of(&layer)).or_insert(next);
            if at == next {
                kinds.layers.push((layer, 0.0));
                counts.push(0);
                kinds.layers[at].1 = places_of(&kinds.layers[at].0);
                counts[at] = 1;
            } else {
                kinds.layers[at].1 += places_of(&layer);
                counts[at] += 1;
            }
        }
        for ((_, places), count) in kinds.layers.iter_mut().zip(counts) {
            *places /= count as f64;
        }
        kinds
    }

    fn unknowns(&self) -> usize {
        2 * self.layers.len()
    }

    fn of_layer(&self, layer: &LayerSpec) -> [(usize, f64); 2] {
        let kind = self.places[&kind_of(layer)];
        // places relative to the kind's mean, so that both unknowns are times
        [(2 * kind, 1.0), (2 * kind + 1, places_of(layer) / self.layers[kind].1)]
    }

    fn row(&self, arch: &Arch) -> Result<Sparse> {
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        for layer in self.space.lower(arch)? {
            for (unknown, feature) in self.of_layer(&layer) {
                *sums.entry(unknown).or_insert(0.0) += feature;
            }
        }
        Ok(sums.into_iter().collect())
    }

    /// What the model of all layers says of each unknown.
    fn prior(&self, archs: &[&Arch], us: &[f64]) -> Result<Vec<f64>> {
        let mut rows: Vec<Sparse> = Vec::with_capacity(archs.len());
        for arch in archs {
            let mut sums = [0.0; 4];
            for layer in self.space.lower(arch)? {
                sums.iter_mut().zip(general(&layer)).for_each(|(sum, feature)| *sum += feature);
            }
            rows.push(sums.into_iter().enumerate().collect());
        }
        let nothing = [0.0; 4];
        let least = Least { rows: &rows, us, prior: &nothing, strengths: vec![0.0; 4] };
        let x = least.robust();
        let of_kind = |(layer, places): &(LayerSpec, f64)| {
            let [call, weights, macs, maps] = general(layer);
            let scale = places / places_of(layer);
            [x[0] * call + x[1] * weights, scale * (x[2] * macs + x[3] * maps)]
        };
        Ok(self.layers.iter().flat_map(of_kind).collect())
    }
}

/// The time of each layer of a space, by its key, in microseconds, and the number of sub-networks that have one of its kind.
///
/// # Errors
/// If there are fewer sub-networks than [`LEAST_SEPARATED`], one is not in the space, or a time is not above 0.
pub fn separate(space: &SearchSpace, measured: &[(Arch, f64)]) -> Result<BTreeMap<String, (f64, usize)>> {
    check(space, measured)?;
    let kinds = Kinds::of(space);
    let archs: Vec<&Arch> = measured.iter().map(|(arch, _)| arch).collect();
    let us: Vec<f64> = measured.iter().map(|(_, us)| *us).collect();
    let rows: Vec<Sparse> = archs.iter().map(|arch| kinds.row(arch)).collect::<Result<_>>()?;
    let prior = kinds.prior(&archs, &us)?;
    let layers: f64 =
        rows.iter().flatten().filter(|(unknown, _)| unknown % 2 == 0).map(|(_, count)| count).sum();
    let mean = us.iter().sum::<f64>() / layers;
    let strengths = |strength: f64| vec![strength / (mean * mean); kinds.unknowns()];
    let mut errors = Vec::with_capacity(STRENGTHS.len());
    for strength in STRENGTHS {
        errors.push(cross_validate(&rows, &us, &prior, &strengths(strength)));
    }
    let best = (0..STRENGTHS.len()).min_by(|a, b| errors[*a].total_cmp(&errors[*b])).unwrap_or_default();
    let least = Least { rows: &rows, us: &us, prior: &prior, strengths: strengths(STRENGTHS[best]) };
    let x = least.robust();
    let mut seen = vec![0usize; kinds.layers.len()];
    rows.iter()
        .flatten()
        .filter(|(unknown, _)| unknown % 2 == 0)
        .for_each(|(unknown, _)| seen[unknown / 2] += 1);
    let time = |(key, layer): (String, LayerSpec)| {
        let own = kinds.of_layer(&layer);
        (key, (of(&own, &x).max(LEAST_US), seen[own[0].0 / 2]))
    };
    Ok(space.layers().into_iter().map(time).collect())
}

/// Mean of the relative errors on parts that were left out.
fn cross_validate(rows: &[Sparse], us: &[f64], prior: &[f64], strengths: &[f64]) -> f64 {
    let mut sum = 0.0;
    for fold in 0..FOLDS {
        let is_out = |at: &usize| at % FOLDS == fold;
        let kept: Vec<usize> = (0..us.len()).filter(|at| !is_out(at)).collect();
        let of_kept: Vec<Sparse> = kept.iter().map(|at| rows[*at].clone()).collect();
        let us_kept: Vec<f64> = kept.iter().map(|at| us[*at]).collect();
        let least = Least { rows: &of_kept, us: &us_kept, prior, strengths: strengths.to_vec() };
        let x = least.solve(&vec![1.0; us_kept.len()], prior);
        sum += (0..us.len()).filter(is_out).map(|at| (of(&rows[at], &x) / us[at] - 1.0).abs()).sum::<f64>();
    }
    sum / us.len() as f64
}

fn check(space: &SearchSpace, measured: &[(Arch, f64)]) -> Result<()> {
    if measured.len() < LEAST_SEPARATED {
        let expected = format!("at least {LEAST_SEPARATED}");
        return Err(Error::invalid("networks", "sub-networks", expected, measured.len())
            .and_then_do("measure more of them, drawn at random"));
    }
    for (arch, us) in measured {
        space.check(arch)?;
        if !(us.is_finite() && *us > 0.0) {
            return Err(Error::invalid(format!("networks: {arch}"), "latency", "a time above 0", us));
        }
    }
    Ok(())
}

impl LatencyTable {
    /// A table of the layers of a space, separated from whole sub-networks that another program measured, in microseconds. Every
    /// fifth of them is not fitted to, and judges.
    ///
    /// # Errors
    /// As [`separate`], or if one stands twice.
    pub fn of_networks(
        place: &str,
        device: DeviceFacts,
        engine: EngineFacts,
        space: &SearchSpace,
        measured: &[(Arch, f64)],
    ) -> Result<Self> {
        check(space, measured).map_err(|error| error.in_place(place))?;
        let mut known = std::collections::BTreeSet::new();
        if let Some((twice, _)) = measured.iter().find(|(arch, _)| !known.insert(arch)) {
            return Err(Error::invalid(place, "sub-networks", "each once", format!("{twice} twice")));
        }
        let judges = |at: usize| at % ONE_JUDGES_OF == ONE_JUDGES_OF - 1;
        let fitted: Vec<(Arch, f64)> =
            measured.iter().enumerate().filter(|(at, _)| !judges(*at)).map(|(_, one)| one.clone()).collect();
        let rows = separate(space, &fitted).map_err(|error| error.in_place(place))?;
        let row = |(key, (us, networks)): (String, (f64, usize))| {
            let row = Row {
                us,
                interval_us: None,
                typical_us: us,
                mad_us: 0.0,
                samples: networks.max(1),
                visits: 1,
                confirmed: 0,
                undisturbed: false,
                accepted: networks > 0,
                converged: networks > 0,
            };
            (key, row)
        };
        let mut table = Self::new(place, device, engine, PROTOCOL, rows.into_iter().map(row).collect())?;
        let mut fit = SpaceFit::empty(space);
        for (arch, us) in measured {
            fit.add(arch, measurement(*us));
        }
        for (at, network) in fit.networks.iter_mut().enumerate() {
            network.part = if judges(at) { Part::Check } else { Part::Fit };
        }
        let comparable = table.comparable();
        fit.refit(space, &table.evidence(&comparable), &Default::default())?;
        table.set_fit(space, fit);
        Ok(table)
    }
}

/// A network's time from another program.
fn measurement(us: f64) -> Measurement {
    Measurement {
        session: GIVEN.to_string(),
        us,
        interval_us: None,
        typical_us: us,
        mad_us: 0.0,
        spread: 0.0,
        samples: 1,
        visits: 1,
        confirmed: 0,
        watched: false,
        in_place: false,
        narrow: true,
    }
    .rounded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;
    use rand::Rng;
    use space::{preset, sampler};

    fn time(layer: &LayerSpec) -> f64 {
        let macs = cost(std::slice::from_ref(layer)).macs as f64;
        2.0 + macs / 3e3 + 0.01 * places_of(layer)
    }

    fn measured(space: &SearchSpace, count: usize, noise: f64) -> Vec<(Arch, f64)> {
        let mut rng = rng_for("networks", 5, &[]);
        let mut all = BTreeMap::new();
        while all.len() < count {
            let arch = sampler::random(space, &mut rng);
            let layers = space.lower(&arch).expect("legal");
            let us: f64 = layers.iter().map(time).sum();
            all.insert(arch, us * (1.0 + noise * rng.random_range(-1.0..1.0)));
        }
        all.into_iter().collect()
    }

    fn table(space: &SearchSpace, measured: &[(Arch, f64)]) -> Result<LatencyTable> {
        let setting = crate::testing::setting();
        LatencyTable::of_networks("x.json", setting.device, setting.engine, space, measured)
    }

    #[test]
    fn sums_of_separated_layers_are_the_networks() {
        let space = preset("fashion").expect("a preset");
        let table = table(&space, &measured(&space, 400, 0.02)).expect("enough");
        let fit = table.fit_of(&space).expect("networks");
        let validation = fit.validation();
        assert_eq!(validation.n, 80);
        assert!(validation.mape < 0.015 && validation.within_5pct == 1.0, "{validation:?}");
        assert!(table.coverage(&space).expect("lowered").missing.is_empty());
        let again = LatencyTable::from_json("x.json", &table.to_json()).expect("its own");
        assert_eq!(again.hash(), table.hash());
    }

    /// With few networks the model of all layers is most of it.
    #[test]
    fn few_networks_are_enough_for_a_rough_table() {
        let space = preset("fashion").expect("a preset");
        let validation = table(&space, &measured(&space, 40, 0.02)).expect("enough");
        let validation = validation.fit_of(&space).expect("networks").validation();
        assert!(validation.n == 8 && validation.mape < 0.06, "{validation:?}");
    }

    #[test]
    fn what_cannot_be_separated_is_refused() {
        let space = preset("tiny").expect("a preset");
        let good = measured(&space, 30, 0.0);
        let with = |at: usize, one: (Arch, f64)| {
            let mut bad = good.clone();
            bad[at] = one;
            bad
        };
        let other = sampler::largest(&preset("fashion").expect("a preset"));
        for (bad, part) in [
            (good[..10].to_vec(), "sub-networks: expected at least 16, got 10"),
            (with(3, (good[3].0.clone(), 0.0)), "latency: expected a time above 0, got 0"),
            (with(3, good[4].clone()), "each once"),
            (with(3, (other, 1.0)), "arch"),
        ] {
            let error = table(&space, &bad).expect_err(part).to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
