//! Corrects the sum of single layers to a whole network's latency, fitted to whole sub-networks.
//!
//! A layer that is repeated alone finds its weights in the nearest cache and pays for one call each time; in a network
//! it does not. A correction is additive over layers, so that it costs a search nothing.
//!
//! Cost indices and their exact minima stay as they are. A correction gives no layer of the space a negative time. Its
//! form is chosen by cross-validation on the half to which it is fitted; the interval comes from the other half, each
//! network predicted without the session that measured it, and assumes no distribution.

use serde::{Deserialize, Serialize};
use space::{LayerSpec, Operator};

use base::Result;
use base::document::rounded;
use base::equations::solve_positive;
use base::statistics as stats;

/// Number of features: time of blocks, of blocks with squeeze-and-excite and of other layers, number of layers, bytes
/// of weights, bytes of maps, and 1.
const FEATURES: usize = 7;
/// The features that are times, whose factors are not negative.
const TIMES: usize = 3;
const BYTES_PER_MB: f64 = 1e6;

/// The terms of a correction, from few to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// None: the sum of the layers.
    Sum,
    /// One factor.
    Scale,
    /// One factor and a constant.
    Affine,
    /// One factor, a time per layer, and a constant.
    PerLayer,
    /// A factor for each kind of layer, and a constant.
    Kinds,
    /// One factor, a time per layer, per byte of weights and of maps, and a constant.
    Traffic,
    /// All of these terms.
    Full,
}

impl Form {
    const ALL: [Self; 7] =
        [Self::Sum, Self::Scale, Self::Affine, Self::PerLayer, Self::Kinds, Self::Traffic, Self::Full];

    /// The features that each unknown multiplies.
    fn columns(self) -> Vec<&'static [usize]> {
        match self {
            Self::Sum => vec![],
            Self::Scale => vec![&[0, 1, 2]],
            Self::Affine => vec![&[0, 1, 2], &[6]],
            Self::PerLayer => vec![&[0, 1, 2], &[3], &[6]],
            Self::Kinds => vec![&[0], &[1], &[2], &[6]],
            Self::Traffic => vec![&[0, 1, 2], &[3], &[4], &[5], &[6]],
            Self::Full => vec![&[0], &[1], &[2], &[3], &[4], &[5], &[6]],
        }
    }
}

/// Factors and summands for the sum of single layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The form that was fitted.
    pub form: Form,
    /// Factor on blocks without squeeze-and-excite.
    pub block: f64,
    /// Factor on blocks with squeeze-and-excite.
    pub squeeze_block: f64,
    /// Factor on all other layers.
    pub other: f64,
    /// Microseconds per layer.
    pub layer_us: f64,
    /// Microseconds per megabyte of weights in f32.
    pub weight_us_per_mb: f64,
    /// Microseconds per megabyte of a layer's input and output maps in f32.
    pub map_us_per_mb: f64,
    /// Microseconds for the whole network.
    pub constant_us: f64,
}

/// The features of a network of which a correction is a linear function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features([f64; FEATURES]);

impl Features {
    /// The features of one layer; the constant is the network's.
    pub fn of(layer: &LayerSpec, median_us: f64) -> Self {
        let kind = match &layer.operator {
            Operator::MbConv(block) if block.squeeze.is_none() => 0,
            Operator::MbConv(_) => 1,
            Operator::Bottleneck(_) => 0,
            Operator::Separable(_) => 0,
            _ => 2,
        };
        let weights: usize =
            layer.weights().iter().map(|weight| weight.shape.iter().product::<usize>()).sum();
        let megabytes = |values: usize| 4.0 * values as f64 / BYTES_PER_MB;
        let mut features = [0.0; FEATURES];
        features[kind] = median_us;
        features[TIMES..6].copy_from_slice(&[
            1.0,
            megabytes(weights),
            megabytes(layer.input.len() + layer.output.len()),
        ]);
        Self(features)
    }

    /// The features of a network, from its layers and their medians.
    pub fn sum<'a>(layers: impl IntoIterator<Item = (&'a LayerSpec, f64)>) -> Self {
        let mut sum = Self::default();
        for (layer, median_us) in layers {
            sum.0.iter_mut().zip(Self::of(layer, median_us).0).for_each(|(sum, feature)| *sum += feature);
        }
        sum.0[6] = 1.0;
        sum
    }
}

impl Correction {
    /// The plain sum.
    pub const NONE: Self = Self {
        form: Form::Sum,
        block: 1.0,
        squeeze_block: 1.0,
        other: 1.0,
        layer_us: 0.0,
        weight_us_per_mb: 0.0,
        map_us_per_mb: 0.0,
        constant_us: 0.0,
    };

    fn new(form: Form, c: [f64; FEATURES]) -> Self {
        let [block, squeeze_block, other, layer_us, weight_us_per_mb, map_us_per_mb, constant_us] =
            c.map(|coefficient| rounded(coefficient, 6));
        Self { form, block, squeeze_block, other, layer_us, weight_us_per_mb, map_us_per_mb, constant_us }
    }

    fn coefficients(&self) -> [f64; FEATURES] {
        let Self {
            block, squeeze_block, other, layer_us, weight_us_per_mb, map_us_per_mb, constant_us, ..
        } = *self;
        [block, squeeze_block, other, layer_us, weight_us_per_mb, map_us_per_mb, constant_us]
    }

    /// Whether all terms are numbers, and factors not negative.
    pub fn is_sound(&self) -> bool {
        let all = self.coefficients();
        all.iter().all(|term| term.is_finite()) && all[..TIMES].iter().all(|factor| *factor >= 0.0)
    }

    /// A layer's contribution to a network's time, in microseconds; never negative for layers of the fit.
    pub fn layer(&self, layer: &LayerSpec, us: f64) -> f64 {
        self.of(&Features::of(layer, us))
    }

    fn of(&self, features: &Features) -> f64 {
        self.coefficients().iter().zip(features.0).map(|(coefficient, feature)| coefficient * feature).sum()
    }
}

/// One measured network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Its features.
    pub features: Features,
    /// Its measured latency, in microseconds.
    pub measured_us: f64,
}

impl Observation {
    fn error_of(&self, correction: &Correction) -> f64 {
        (correction.of(&self.features) / self.measured_us - 1.0).abs()
    }

    /// The sum of a column's features, relative to the measurement.
    fn share(&self, column: &[usize]) -> f64 {
        column.iter().map(|&feature| self.features.0[feature]).sum::<f64>() / self.measured_us
    }
}

/// Parts for cross-validation: 10 (Kohavi 1995).
const FOLDS: usize = 10;
/// Least number of observations per unknown.
const PER_UNKNOWN: usize = 4;

/// The correction with the fewest terms whose cross-validated mean relative error is within one standard error of the
/// least one (Breiman et al. 1984, section 3.4.3). Minimizes squared relative errors; factors on times are not
/// negative, and neither is the time of any of `layers` or of the observed networks.
///
/// # Errors
/// None for finite numbers.
pub fn fit(observations: &[Observation], layers: &[Features]) -> Result<Correction> {
    let mut scored = Vec::new();
    for form in Form::ALL {
        if form.columns().len() * PER_UNKNOWN > observations.len() {
            break;
        }
        let correction = fit_form(form, observations)?;
        let networks = observations.iter().map(|observation| &observation.features);
        if layers.iter().all(|features: &Features| correction.of(features) >= 0.0)
            && networks.into_iter().all(|network| correction.of(network) > 0.0)
        {
            scored.push((correction, cross_validate(form, observations)?));
        }
    }
    let least = scored.iter().map(|(_, (mean, _))| *mean).fold(f64::INFINITY, f64::min);
    let bound =
        scored.iter().find(|(_, (mean, _))| *mean <= least).map_or(least, |(_, (mean, error))| mean + error);
    Ok(scored
        .iter()
        .find(|(_, (mean, _))| *mean <= bound)
        .map_or(Correction::NONE, |(correction, _)| *correction))
}

/// Mean of the relative errors on parts that were left out, and its standard error.
fn cross_validate(form: Form, observations: &[Observation]) -> Result<(f64, f64)> {
    let folds = FOLDS.min(observations.len()).max(1);
    let mut errors = Vec::with_capacity(observations.len());
    for fold in 0..folds {
        let mut rest = Vec::new();
        let mut out = Vec::new();
        for (index, observation) in observations.iter().enumerate() {
            if index % folds == fold { out.push(*observation) } else { rest.push(*observation) }
        }
        let correction = fit_form(form, &rest)?;
        errors.extend(out.iter().map(|observation| observation.error_of(&correction)));
    }
    let n = errors.len().max(1) as f64;
    Ok((errors.iter().sum::<f64>() / n, stats::deviation(&errors) / n.sqrt()))
}

/// Rounds of reweighting; weights hardly change after five.
const ROUNDS: usize = 6;
/// Residuals beyond this many deviations count less: 95 % efficient for normal errors (Holland & Welsch 1977).
const HUBER: f64 = 1.345;
/// Least deviation of relative errors, so that perfect fits have one.
const LEAST_DEVIATION: f64 = 1e-4;

/// Least squares of the relative error, in which networks with large errors count less (Huber 1964).
fn fit_form(form: Form, observations: &[Observation]) -> Result<Correction> {
    let mut weights = vec![1.0; observations.len()];
    let mut correction = fit_weighted(form, observations, &weights)?;
    for _ in 1..ROUNDS {
        let errors: Vec<f64> =
            observations.iter().map(|observation| observation.error_of(&correction)).collect();
        let bound = HUBER * (stats::median(&errors) / stats::NORMAL_QUARTILE).max(LEAST_DEVIATION);
        weights = errors.iter().map(|error| (bound / error.max(bound)).min(1.0)).collect();
        correction = fit_weighted(form, observations, &weights)?;
    }
    Ok(correction)
}

/// Tries all possibilities, at most eight, of which time factors are 0 in the best correction without negative ones.
fn fit_weighted(form: Form, observations: &[Observation], weights: &[f64]) -> Result<Correction> {
    let columns = form.columns();
    let bounded: Vec<usize> = (0..columns.len()).filter(|&column| columns[column][0] < TIMES).collect();
    let mut best: Option<(f64, Correction)> = None;
    for zeros in 0..1usize << bounded.len() {
        let kept = (0..columns.len()).filter(|column| {
            let bit = bounded.iter().position(|bounded| bounded == column);
            bit.is_none_or(|bit| zeros >> bit & 1 == 0)
        });
        let kept: Vec<usize> = kept.collect();
        let unknowns: Vec<_> = kept.iter().map(|&column| columns[column]).collect();
        let solved = least_squares(&unknowns, observations, weights)?;
        let mut terms = Correction::NONE.coefficients();
        columns.iter().copied().flatten().for_each(|&feature| terms[feature] = 0.0);
        for (column, value) in kept.iter().zip(solved) {
            columns[*column].iter().for_each(|&feature| terms[feature] = value);
        }
        let correction = Correction::new(form, terms);
        let weighted = observations.iter().zip(weights);
        let squares: f64 =
            weighted.map(|(observation, weight)| weight * observation.error_of(&correction).powi(2)).sum();
        if correction.is_sound() && best.as_ref().is_none_or(|(least, _)| squares < *least) {
            best = Some((squares, correction));
        }
    }
    Ok(best.map_or(Correction::NONE, |(_, correction)| correction))
}

/// Strength with which terms are drawn towards the plain sum, over their column's square: so weak that only terms that
/// the networks do not determine stay near it.
const RIDGE: f64 = 1e-5;

fn least_squares(columns: &[&[usize]], observations: &[Observation], weights: &[f64]) -> Result<Vec<f64>> {
    let n = columns.len();
    let mut matrix = vec![0.0; n * n];
    let mut right = vec![0.0; n];
    for (observation, weight) in observations.iter().zip(weights) {
        let row: Vec<f64> = columns.iter().map(|column| observation.share(column)).collect();
        for i in 0..n {
            right[i] += weight * row[i];
            (0..n).for_each(|j| matrix[i * n + j] += weight * row[i] * row[j]);
        }
    }
    for i in 0..n {
        // a column that is 0 everywhere, such as that of a kind that no network has, leaves its term at the sum's
        let strength = (RIDGE * matrix[i * n + i]).max(f64::MIN_POSITIVE.sqrt());
        matrix[i * n + i] += strength;
        right[i] += strength * f64::from(u8::from(columns[i][0] < TIMES));
    }
    solve_positive(matrix, right, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use space::{preset, sampler};

    /// Networks of `fashion` whose layers' times follow from their MACs; `truth` gives the time of a network.
    fn observations(
        n: usize,
        seed: u64,
        truth: impl Fn(&Features, &mut ChaCha8Rng) -> f64,
    ) -> Vec<Observation> {
        let space = preset("fashion").expect("a preset");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut observations = Vec::with_capacity(n);
        for _ in 0..n {
            let layers = space.lower(&sampler::random(&space, &mut rng)).expect("legal");
            let timed = layers.iter().map(|layer| {
                let macs = space::cost(std::slice::from_ref(layer)).macs as f64;
                (layer, 1.0 + macs / 2e4)
            });
            let features = Features::sum(timed);
            observations.push(Observation { features, measured_us: truth(&features, &mut rng) });
        }
        observations
    }

    fn apply(terms: [f64; FEATURES], features: &Features) -> f64 {
        terms.iter().zip(features.0).map(|(term, feature)| term * feature).sum()
    }

    #[test]
    fn terms_that_there_are_come_back() {
        for (form, terms) in [
            (Form::Sum, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
            (Form::Scale, [1.1, 1.1, 1.1, 0.0, 0.0, 0.0, 0.0]),
            (Form::Affine, [1.1, 1.1, 1.1, 0.0, 0.0, 0.0, 12.0]),
            (Form::PerLayer, [1.1, 1.1, 1.1, -0.4, 0.0, 0.0, 12.0]),
            (Form::Kinds, [0.9, 1.2, 1.0, 0.0, 0.0, 0.0, 5.0]),
            (Form::Full, [0.9, 1.2, 1.0, -0.5, 9.0, -30.0, 5.0]),
        ] {
            let exact = observations(60, 1, |features, _| apply(terms, features));
            let fitted = fit_form(form, &exact).expect("finite");
            for unseen in observations(60, 2, |features, _| apply(terms, features)) {
                assert!(unseen.error_of(&fitted) < 4e-3, "{form:?}: {fitted:?}");
            }
            let noisy =
                observations(60, 1, |features, rng| apply(terms, features) * rng.random_range(0.99..1.01));
            let chosen = fit(&noisy, &[]).expect("finite");
            assert!(chosen.form <= form || form == Form::Kinds, "{form:?}: {chosen:?}");
            let unseen = observations(60, 2, |features, _| apply(terms, features));
            let mean = unseen.iter().map(|unseen| unseen.error_of(&chosen)).sum::<f64>() / 60.0;
            assert!(mean < 0.006, "{form:?}: {mean} with {chosen:?}");
        }
    }

    /// No factor is below 0: the result is the best without such, as a search over a grid confirms.
    #[test]
    fn factors_are_not_negative_and_still_the_best() {
        let truth =
            |features: &Features, _: &mut ChaCha8Rng| apply([1.0, -0.2, 1.0, 0.0, 0.0, 0.0, 60.0], features);
        let made = observations(40, 3, truth);
        let fitted = fit_form(Form::Kinds, &made).expect("finite");
        assert!(fitted.is_sound(), "{fitted:?}");
        let squares =
            |c: &Correction| made.iter().map(|observation| observation.error_of(c).powi(2)).sum::<f64>();
        let least = squares(&fitted);
        for step in [-0.02, 0.02] {
            for term in 0..FEATURES {
                let mut terms = fitted.coefficients();
                terms[term] = if term < TIMES { (terms[term] + step).max(0.0) } else { terms[term] };
                terms[6] += if term == 6 { 10.0 * step } else { 0.0 };
                let other = Correction { form: Form::Kinds, ..Correction::new(Form::Kinds, terms) };
                assert!(squares(&other) >= least * 0.98, "{other:?}");
            }
        }
    }

    #[test]
    fn networks_that_were_measured_badly_count_less() {
        let fitted = fit(
            &observations(60, 1, |features: &Features, rng: &mut ChaCha8Rng| {
                let disturbed = if rng.random_bool(0.1) { 1.5 } else { 1.0 };
                disturbed * apply([1.1, 1.1, 1.1, 0.0, 0.0, 0.0, 12.0], features)
            }),
            &[],
        )
        .expect("finite");
        let exact =
            |features: &Features, _: &mut ChaCha8Rng| apply([1.1, 1.1, 1.1, 0.0, 0.0, 0.0, 12.0], features);
        for unseen in observations(60, 2, exact) {
            assert!(unseen.error_of(&fitted) < 0.02, "{fitted:?}");
        }
    }

    #[test]
    fn few_networks_allow_few_terms() {
        let truth =
            |features: &Features, _: &mut ChaCha8Rng| apply([2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0], features);
        assert_eq!(fit(&observations(3, 1, truth), &[]).expect("finite"), Correction::NONE);
        assert_eq!(fit(&observations(5, 1, truth), &[]).expect("finite").form, Form::Scale);
        let layers = preset("tiny").and_then(|space| space.lower(&sampler::largest(&space))).expect("legal");
        assert_eq!(Correction::NONE.layer(&layers[0], 5.0), 5.0);
    }

    /// A form that would give a layer a negative time is not chosen.
    #[test]
    fn no_layer_of_the_space_takes_less_than_nothing() {
        let truth =
            |features: &Features, _: &mut ChaCha8Rng| apply([1.1, 1.1, 1.1, -2.0, 0.0, 0.0, 60.0], features);
        let made = observations(60, 1, truth);
        assert!(fit(&made, &[]).expect("finite").layer_us < -1.9);
        let space = preset("fashion").expect("a preset");
        let layers = space.lower(&sampler::smallest(&space)).expect("legal");
        let short: Vec<Features> = layers.iter().map(|layer| Features::of(layer, 1.0)).collect();
        let fitted = fit(&made, &short).expect("finite");
        for layer in &layers {
            assert!(fitted.layer(layer, 1.0) >= 0.0, "{fitted:?}");
        }
    }
}
