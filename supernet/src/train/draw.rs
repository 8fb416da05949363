//! The sub-networks of a step, or the candidates for them: a function of seed and step alone, and where a controller draws of
//! its state.

use base::random::rng_for;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, SearchSpace, sampler};

use super::architecture::Logits;
use super::controller::Pupil;
use super::cost_axis::{CostAxis, CostKind};
use crate::error::{Error, Result};

/// Attempts to draw a further candidate of one bin. A bin at the ends of the space may hold few networks.
const TRIES: usize = 100;

/// One way to choose sub-networks for a step, among those that a phase allows. A phase holds a list of these: the sandwich
/// rule (Yu and Huang 2019) is `["largest", "smallest", { random = 2 }]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// The largest one.
    Largest,
    /// The smallest one.
    Smallest,
    /// This many, drawn anew in each step.
    Random(usize),
    /// This many, in which each value of a choice occurs equally often (Chu et al. 2021, FairNAS).
    Fair(usize),
    /// The best or worst of several of about the same cost.
    Attentive(Attentive),
    /// This many, drawn by the recipe's controller.
    Controller(usize),
    /// By the recipe's architecture parameters: one by their probabilities, or a mixture of all.
    Architecture,
}

/// Attentive sampling (Wang et al. 2021, AttentiveNAS): for each network of a step, candidates whose costs lie in one bin, of which
/// the one with the least (best-up) or greatest loss (worst-up) on the step's images is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attentive {
    /// Networks per step.
    pub networks: usize,
    /// Candidates for each.
    pub candidates: usize,
    /// Which candidate is trained.
    pub keep: Keep,
    /// Number of bins of equal width from the smallest to the largest network's cost.
    pub bins: usize,
    /// The cost.
    #[serde(default)]
    pub by: CostKind,
}

/// Which of several candidates is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// That with the least loss: effort goes to the front of accuracy and cost.
    Best,
    /// That with the greatest loss: effort goes to what has learned least.
    Worst,
}

/// The candidates for one network of a step; a single one is trained in any case.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// At least one, in the order of the draws.
    pub archs: Vec<Arch>,
    /// Which of several is trained.
    pub keep: Keep,
}

impl Candidates {
    /// A network that is trained in any case.
    fn single(arch: Arch) -> Self {
        Self { archs: vec![arch], keep: Keep::Best }
    }
}

/// What is drawn from: the space that a phase allows, the step's resolution, and the cost by which bins are made.
pub(super) struct DrawnFrom<'a> {
    pub allowed: &'a SearchSpace,
    pub resolution: Extent,
    pub by: DrawnBy<'a>,
}

/// What decides beside chance: the cost by which bins are made, and the run's controller, if it has one.
#[derive(Clone, Copy)]
pub(super) struct DrawnBy<'a> {
    pub cost: &'a CostAxis,
    pub pupil: Option<&'a Pupil>,
    pub logits: Option<&'a Logits>,
}

impl Draw {
    /// Whether a controller draws some of the sub-networks.
    pub fn by_controller(draws: &[Self]) -> bool {
        draws.iter().any(|draw| matches!(draw, Self::Controller(_)))
    }

    /// Whether architecture parameters draw.
    pub fn by_architecture(draws: &[Self]) -> bool {
        draws.contains(&Self::Architecture)
    }

    /// Number of sub-networks that these draws give.
    pub fn count(draws: &[Self]) -> usize {
        let each = draws.iter().map(|draw| match draw {
            Self::Largest | Self::Smallest | Self::Architecture => 1,
            Self::Random(count) | Self::Fair(count) | Self::Controller(count) => *count,
            Self::Attentive(attentive) => attentive.networks,
        });
        each.fold(0, usize::saturating_add)
    }

    /// The cost that it compares by, if any.
    pub fn cost(&self) -> Option<CostKind> {
        match self {
            Self::Attentive(attentive) => Some(attentive.by),
            Self::Largest | Self::Smallest | Self::Architecture => None,
            Self::Random(_) | Self::Fair(_) | Self::Controller(_) => None,
        }
    }

    /// The candidates for each sub-network of a step, in the order of the draws, at the step's resolution.
    ///
    /// # Errors
    /// If a cost is needed and unknown.
    pub(super) fn candidates(
        draws: &[Self],
        from: &DrawnFrom,
        seed: u64,
        step: u64,
    ) -> Result<Vec<Candidates>> {
        let mut rng = rng_for("sub-networks", seed, &[step]);
        let mut drawn = Vec::with_capacity(Self::count(draws));
        for draw in draws {
            match draw {
                Self::Largest => drawn.push(Candidates::single(sampler::largest(from.allowed))),
                Self::Smallest => drawn.push(Candidates::single(sampler::smallest(from.allowed))),
                Self::Random(count) => drawn
                    .extend((0..*count).map(|_| Candidates::single(sampler::random(from.allowed, &mut rng)))),
                Self::Fair(count) => {
                    let archs = sampler::fair(from.allowed, *count, &mut rng);
                    drawn.extend(archs.into_iter().map(Candidates::single));
                }
                Self::Controller(count) => {
                    let pupil = from.by.pupil.ok_or_else(|| {
                        Error::invalid("recipe", "controller", "settings of one that draws", "none")
                    })?;
                    let draw = |_| Candidates::single(pupil.draw(from.allowed, &mut rng));
                    drawn.extend((0..*count).map(draw));
                }
                Self::Architecture => {
                    let logits = from.by.logits.ok_or_else(|| {
                        Error::invalid("recipe", "architecture", "settings of its parameters", "none")
                    })?;
                    drawn.push(Candidates::single(logits.draw(from.allowed, &mut rng)));
                }
                Self::Attentive(attentive) => {
                    let bins = Bins::of(from, attentive.bins)?;
                    for _ in 0..attentive.networks {
                        let archs = bins.candidates(attentive.candidates, &mut rng)?;
                        drawn.push(Candidates { archs, keep: attentive.keep });
                    }
                }
            }
        }
        for arch in drawn.iter_mut().flat_map(|candidates| &mut candidates.archs) {
            *arch = arch.at(from.resolution);
        }
        Ok(drawn)
    }
}

/// Bins of equal width between the costs of a space's smallest and largest network at one resolution.
struct Bins<'a> {
    from: &'a DrawnFrom<'a>,
    least: f64,
    width: f64,
    count: usize,
}

impl<'a> Bins<'a> {
    fn of(from: &'a DrawnFrom<'a>, count: usize) -> Result<Self> {
        let cost_of = |arch: Arch| from.by.cost.of(from.allowed, &arch.at(from.resolution));
        let least = cost_of(sampler::smallest(from.allowed))?;
        let most = cost_of(sampler::largest(from.allowed))?;
        Ok(Self { from, least, width: (most - least) / count as f64, count })
    }

    /// The bin of a network; a cost outside of the ends, as latencies can have it, is in the bin of that end.
    fn bin(&self, arch: &Arch) -> Result<usize> {
        let DrawnFrom { allowed, resolution, by } = self.from;
        let cost = by.cost.of(allowed, &arch.at(*resolution))?;
        // of a width of 0, or one that is not a number, all are in the first bin
        Ok((((cost - self.least) / self.width) as usize).min(self.count - 1))
    }

    /// A random network, and different ones of its bin: as many as are found.
    fn candidates(&self, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Arch>> {
        let first = sampler::random(self.from.allowed, rng);
        let bin = self.bin(&first)?;
        let mut archs = vec![first];
        for _ in 1..count {
            for _ in 0..TRIES {
                let arch = sampler::random(self.from.allowed, rng);
                if !archs.contains(&arch) && self.bin(&arch)? == bin {
                    archs.push(arch);
                    break;
                }
            }
        }
        Ok(archs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::preset;

    fn drawn(draws: &[Draw], allowed: &SearchSpace, seed: u64, step: u64) -> Vec<Candidates> {
        let by = DrawnBy { cost: &CostAxis::Macs, pupil: None, logits: None };
        let from = DrawnFrom { allowed, resolution: allowed.greatest_resolution(), by };
        Draw::candidates(draws, &from, seed, step).expect("costs are known")
    }

    fn archs(draws: &[Draw], allowed: &SearchSpace, seed: u64, step: u64) -> Vec<Arch> {
        drawn(draws, allowed, seed, step).into_iter().flat_map(|candidates| candidates.archs).collect()
    }

    #[test]
    fn a_sandwich_has_both_ends_and_what_is_between() {
        let space = preset("fashion").expect("a preset");
        let sandwich = [Draw::Largest, Draw::Random(2), Draw::Smallest];
        let high = space.greatest_resolution();
        let step = archs(&sandwich, &space, 1, 7);
        assert_eq!((step.len(), Draw::count(&sandwich)), (4, 4));
        assert_eq!((&step[0], &step[3]), (&sampler::largest(&space), &sampler::smallest(&space).at(high)));
        assert_ne!(step[1], step[2]);
        // what is between does not depend on what stands around it
        assert_eq!(step[1..3], archs(&[Draw::Random(2)], &space, 1, 7));
        assert_eq!(step, archs(&sandwich, &space, 1, 7));
        assert_ne!(step, archs(&sandwich, &space, 1, 8));
        assert_ne!(step, archs(&sandwich, &space, 2, 7));
    }

    /// The bins by their definition: twenty equal parts between the ends.
    #[test]
    fn candidates_share_a_bin_of_cost() {
        let space = preset("fashion").expect("a preset");
        let attentive =
            Attentive { networks: 2, candidates: 3, keep: Keep::Worst, bins: 20, by: CostKind::Macs };
        let macs = |arch: &Arch| space::cost(&space.lower(arch).expect("in the space")).macs as f64;
        let [least, most] =
            [sampler::smallest(&space), sampler::largest(&space)].map(|arch| macs(&arch.at(28)));
        let bin = |arch: &Arch| (20.0 * (macs(arch) - least) / (most - least)).floor().min(19.0);
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..40 {
            let drawn = drawn(&[Draw::Attentive(attentive)], &space, 5, step);
            assert_eq!(drawn.len(), 2);
            for Candidates { archs, keep } in drawn {
                assert_eq!(keep, Keep::Worst);
                assert!((1..=3).contains(&archs.len()));
                assert!(archs.iter().all(|arch| bin(arch) == bin(&archs[0])), "{archs:?}");
                seen.insert(bin(&archs[0]) as usize);
            }
        }
        assert!(seen.len() > 4, "{seen:?}");
    }

    #[test]
    fn a_fair_draw_has_each_operator_of_each_edge_equally_often() {
        let space = preset("nas-bench-201").expect("a preset");
        for (count, often) in [(5, 1..=1), (10, 2..=2), (7, 1..=2)] {
            let step = archs(&[Draw::Fair(count)], &space, 3, 11);
            assert_eq!((step.len(), Draw::count(&[Draw::Fair(count)])), (count, count));
            assert_ne!(step, archs(&[Draw::Fair(count)], &space, 3, 12));
            let rows: Vec<_> = step.iter().map(|arch| space.row(arch).expect("in the space")).collect();
            for gene in 1..space.genome().len() {
                for value in 0..5 {
                    let times = rows.iter().filter(|row| row[gene] == value).count();
                    assert!(often.contains(&times), "gene {gene}, value {value}: {times} of {count}");
                }
            }
        }
    }

    #[test]
    fn a_space_of_one_network_has_one_candidate() {
        let space = preset("fashion").expect("a preset");
        let only = space.only(&sampler::largest(&space)).expect("in the space");
        let attentive =
            Attentive { networks: 1, candidates: 2, keep: Keep::Best, bins: 5, by: CostKind::Macs };
        let drawn = drawn(&[Draw::Attentive(attentive)], &only, 1, 1);
        assert_eq!(drawn[0].archs, [sampler::largest(&only)]);
    }
}
