//! Gradient search: a distribution over each gene's values follows the derivatives of a predictor, and of the costs past their
//! limits, from one-hot draws with Gumbel noise at a falling temperature (Jang et al. 2017; so search Wu et al. 2019, FBNet, and
//! Dong and Yang 2019, GDAS). The derivatives are straight-through: those at the drawn row, for each value of each of its genes.
//!
//! A limit has a multiplier that rises while draws break it, and falls while they keep it. Each step also evaluates the most
//! probable row, moved to where it keeps the limits.

use base::random::rng_for;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{Encoded, GeneRow, Index};

use super::parameters::{Parameter, Parameters};
use crate::error::Result;
use crate::estimator::Predictor;
use crate::metric::{Better, Fidelity};
use crate::policy::{Adam, AdamSettings, softmax};
use crate::prices::Column;
use crate::problem::{Problem, Source};
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};
use crate::start;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "steps", default: "300", what: "steps after which it ends" },
    Parameter { name: "batch", default: "8", what: "rows that are drawn for a step" },
    Parameter { name: "lr", default: "0.1", what: "Adam's learning rate of the logits" },
    Parameter { name: "hottest", default: "5", what: "temperature of the first step" },
    Parameter {
        name: "coldest",
        default: "0.5",
        what: "temperature of the last step; it falls geometrically",
    },
    Parameter {
        name: "pressure",
        default: "0.05",
        what: "rise of a limit's multiplier, as a share of the spread of gains",
    },
];

/// A drawn row with the relaxed probabilities that it was drawn by, for each allowed value of each gene.
struct Drawn {
    row: Vec<Index>,
    relaxed: Vec<Vec<f64>>,
}

/// The strategy of this module.
pub struct Gradient<'a> {
    problem: &'a Problem<'a>,
    predictor: &'a Predictor<'a>,
    /// 1 where more of the prediction is better, else -1.
    sign: f64,
    limits: Vec<(Column, f64)>,
    rng: ChaCha8Rng,
    steps: usize,
    batch: usize,
    lr: f64,
    /// Temperatures of the first and the last step.
    temperatures: [f64; 2],
    pressure: f64,
    /// For each gene one for each allowed value, one gene after the other.
    logits: Adam,
    /// The first logit of each gene, and the end.
    starts: Vec<usize>,
    /// For each limit.
    multipliers: Vec<f64>,
    drawn: Vec<Drawn>,
    taken: usize,
}

impl<'a> Gradient<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let mut rng = rng_for("gradient strategy", problem.seed, &[]);
        let (predictor, sign) = relaxed(problem, &mut rng)?;
        let genome = problem.genome();
        let mut starts = vec![0];
        for gene in 0..genome.len() {
            starts.push(starts[gene] + genome.allowed(gene).len());
        }
        let limits: Vec<_> = problem.cost_limits().collect();
        let temperatures = [parameters.positive("hottest")?, parameters.positive("coldest")?];
        if temperatures[0] < temperatures[1] {
            let expected = format!("at most {}, that of the first step", temperatures[0]);
            return Err(parameters.refused("coldest", &expected, parameters.text("coldest")));
        }
        Ok(Self {
            problem,
            predictor,
            sign,
            multipliers: vec![0.0; limits.len()],
            limits,
            rng,
            steps: parameters.count("steps")?,
            batch: parameters.count("batch")?,
            lr: parameters.positive("lr")?,
            temperatures,
            pressure: parameters.positive("pressure")?,
            logits: Adam::new(vec![0.0; starts[genome.len()]], AdamSettings::default()),
            starts,
            drawn: Vec::new(),
            taken: 0,
        })
    }

    fn temperature(&self) -> f64 {
        let [hottest, coldest] = self.temperatures;
        let done = self.taken as f64 / (self.steps.max(2) - 1) as f64;
        hottest * (coldest / hottest).powf(done.min(1.0))
    }

    /// A row by logits with noise.
    fn draw(&mut self) -> Drawn {
        let temperature = self.temperature();
        let Self { problem, logits, starts, rng, .. } = self;
        let genome = problem.genome();
        let mut row = vec![0; genome.len()];
        let mut relaxed = Vec::with_capacity(genome.len());
        for gene in 0..genome.len() {
            let logits = &logits.values[starts[gene]..starts[gene + 1]];
            if !genome.exists(&row, gene) {
                relaxed.push(Vec::new());
                continue;
            }
            let noisy: Vec<f64> = logits.iter().map(|logit| (logit + gumbel(rng)) / temperature).collect();
            row[gene] = genome.allowed(gene)[greatest(&noisy)];
            relaxed.push(softmax(&noisy));
        }
        Drawn { row, relaxed }
    }

    /// The most probable value of a gene.
    fn most_probable(&self, gene: usize) -> Index {
        let values = &self.logits.values[self.starts[gene]..self.starts[gene + 1]];
        self.problem.genome().allowed(gene)[greatest(values)]
    }

    /// A row with another value of a gene: genes that come to exist take their most probable values.
    fn with(&self, row: &GeneRow, gene: usize, value: Index) -> Vec<Index> {
        let genome = self.problem.genome();
        let mut next = row.to_vec();
        next[gene] = value;
        for later in gene + 1..genome.len() {
            match (genome.exists(row, later), genome.exists(&next, later)) {
                (_, false) => next[later] = 0,
                (true, true) => {}
                (false, true) => next[later] = self.most_probable(later),
            }
        }
        next
    }

    fn cost(&self, row: &GeneRow, column: Column) -> f64 {
        self.problem.index(column).costs_of(row).of(column.quantity)
    }

    /// The gain of each value of each gene of a drawn row, costs times their multipliers taken off.
    fn gains(&self, row: &GeneRow) -> Result<Vec<Vec<f64>>> {
        let genome = self.problem.genome();
        let mut encoded = Encoded::default();
        encoded.push(self.predictor.features().of(row));
        let slopes = self.predictor.slopes(&encoded)?.unwrap_or_default();
        let predicted = |row: &GeneRow| -> f64 {
            let features = self.predictor.features().of(row);
            features.map(|feature| f64::from(slopes[feature as usize])).sum()
        };
        let own = predicted(row);
        let costs: Vec<f64> = self.limits.iter().map(|(column, _)| self.cost(row, *column)).collect();
        let mut gains = Vec::with_capacity(genome.len());
        for gene in 0..genome.len() {
            let allowed = genome.allowed(gene);
            if !genome.exists(row, gene) || allowed.len() == 1 {
                gains.push(Vec::new());
                continue;
            }
            let of_value = |value: &Index| {
                if *value == row[gene] {
                    return 0.0;
                }
                let next = self.with(row, gene, *value);
                let mut gain = self.sign * (predicted(&next) - own);
                for ((column, most), (multiplier, cost)) in
                    self.limits.iter().zip(self.multipliers.iter().zip(&costs))
                {
                    gain -= multiplier * (self.cost(&next, *column) - cost) / most;
                }
                gain
            };
            gains.push(allowed.iter().map(of_value).collect());
        }
        Ok(gains)
    }

    /// Multipliers rise by how far draws are past a limit on average, in the unit of the gains.
    fn press(&mut self, spread: f64) {
        for (at, (column, most)) in self.limits.clone().into_iter().enumerate() {
            let past = self.drawn.iter().map(|drawn| self.cost(&drawn.row, column) / most - 1.0);
            let past = past.sum::<f64>() / self.drawn.len() as f64;
            self.multipliers[at] = (self.multipliers[at] + self.pressure * spread * past).max(0.0);
        }
    }
}

/// The predictor of the goal, and the sign of its better direction.
fn relaxed<'a>(problem: &Problem<'a>, rng: &mut ChaCha8Rng) -> Result<(&'a Predictor<'a>, f64)> {
    let refused = |got: &str| crate::Error::NotRelaxed { strategy: "gradient", got: got.to_string() };
    let Some((Source::Estimated(at), better)) = problem.source(0) else { return Err(refused("a cost")) };
    let predictor = problem.predictor(at).ok_or_else(|| refused("evaluations"))?;
    let row = problem.genome().random(rng);
    let mut encoded = Encoded::default();
    encoded.push(predictor.features().of(&row));
    if predictor.slopes(&encoded)?.is_none() {
        return Err(refused("one without"));
    }
    Ok((predictor, if better == Better::Higher { 1.0 } else { -1.0 }))
}

fn gumbel(rng: &mut ChaCha8Rng) -> f64 {
    -(-(1.0 - rng.random::<f64>()).ln()).max(f64::MIN_POSITIVE).ln()
}

/// The place of the greatest; of equals the first.
fn greatest(values: &[f64]) -> usize {
    let mut most = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[most] {
            most = at;
        }
    }
    most
}

/// The derivatives of the relaxed gain by a gene's logits, times the temperature.
fn slopes_of(relaxed: &[f64], gains: &[f64]) -> Vec<f64> {
    let mean: f64 = relaxed.iter().zip(gains).map(|(share, gain)| share * gain).sum();
    relaxed.iter().zip(gains).map(|(share, gain)| share * (gain - mean)).collect()
}

impl Strategy for Gradient<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        self.drawn = (0..self.batch).map(|_| self.draw()).collect();
        for drawn in &self.drawn {
            rows.push(&drawn.row);
        }
        let genome = self.problem.genome();
        let mut row = vec![0; genome.len()];
        for gene in 0..genome.len() {
            if genome.exists(&row, gene) {
                row[gene] = self.most_probable(gene);
            }
        }
        if !self.limits.is_empty() {
            row = start::descend(self.problem.prices(), row).1;
        }
        rows.push(&row);
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, _scored: &Scored<'_>) -> Result<()> {
        let mut sum = vec![0.0; self.logits.values.len()];
        let share = 1.0 / (self.drawn.len() as f64 * self.temperature());
        let mut spread: f64 = 0.0;
        for drawn in &self.drawn {
            let gains = self.gains(&drawn.row)?;
            for (gene, (relaxed, gains)) in drawn.relaxed.iter().zip(&gains).enumerate() {
                if gains.is_empty() {
                    continue;
                }
                spread = gains.iter().fold(spread, |most, gain| most.max(gain.abs()));
                let slopes = slopes_of(relaxed, gains);
                let own = sum[self.starts[gene]..].iter_mut();
                own.zip(slopes).for_each(|(sum, slope)| *sum += share * slope);
            }
        }
        self.press(spread);
        self.logits.step(&sum, self.lr);
        self.taken += 1;
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        (self.taken == self.steps).then_some(Proof::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn slopes_are_those_of_finite_differences() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20 {
            let mut random = || (0..4).map(|_| rng.random::<f64>() - 0.5).collect::<Vec<f64>>();
            let (logits, gains) = (random(), random());
            let value = |logits: &[f64]| -> f64 {
                softmax(logits).iter().zip(&gains).map(|(share, gain)| share * gain).sum()
            };
            let slopes = slopes_of(&softmax(&logits), &gains);
            for (at, slope) in slopes.iter().enumerate() {
                let moved = |by: f64| {
                    let mut logits = logits.clone();
                    logits[at] += by;
                    value(&logits)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-8, "{slope} {expected}");
            }
        }
    }

    #[test]
    fn noise_has_gumbels_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mean = (0..20_000).map(|_| gumbel(&mut rng)).sum::<f64>() / 20_000.0;
        // Euler's constant; the deviation of the mean is .009
        assert!((mean - 0.577_215_7).abs() < 0.04, "{mean}");
    }
}
