//! Asynchronous successive halving (Li et al. 2020) around another strategy: its rows are evaluated at the lowest fidelity,
//! and whenever a rung has a row among its best share that was not promoted, that row is evaluated at the next fidelity.

use std::collections::BTreeSet;

use space::Index;

use super::parameters::{Parameter, Parameters};
use super::standing::Standing;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "of",
        default: "random",
        what: "the strategy that chooses what enters the lowest rung; its own parameters are given as NAME.PARAMETER",
    },
    Parameter { name: "rungs", default: "0.1,0.3,1", what: "rising fidelities, the last 1" },
    Parameter { name: "eta", default: "3", what: "one of so many is promoted" },
    Parameter { name: "batch", default: "1", what: "rows of one rung that are promoted together" },
];

/// The rows that were evaluated at one fidelity.
struct Rung {
    fidelity: Fidelity,
    /// The best first, and whether it was promoted.
    rows: Vec<(Vec<Index>, Standing, bool)>,
    known: BTreeSet<Vec<Index>>,
    /// The place of the best row that was not promoted.
    next: usize,
}

impl Rung {
    /// Whether the best row that was not promoted is among the best share.
    fn is_promotable(&self, eta: usize) -> bool {
        self.next < self.rows.len() / eta
    }

    /// Promotes the best row that was not promoted.
    fn promote(&mut self) -> Vec<Index> {
        let (row, _, promoted) = &mut self.rows[self.next];
        *promoted = true;
        let row = row.clone();
        let rest = self.rows[self.next..].iter();
        self.next += rest.take_while(|(_, _, promoted)| *promoted).count();
        row
    }

    fn enter(&mut self, row: &[Index], standing: Standing) {
        if !self.known.insert(row.to_vec()) {
            return;
        }
        let before = |(own, of_own, _): &(Vec<Index>, Standing, bool)| {
            standing.order(of_own).then_with(|| own[..].cmp(row)).is_lt()
        };
        let place = self.rows.partition_point(before);
        self.rows.insert(place, (row.to_vec(), standing, false));
        self.next = self.next.min(place);
    }
}

/// The strategy of this module.
pub struct Halving<'a> {
    inner: Box<dyn Strategy + 'a>,
    eta: usize,
    /// Rows that are promoted together, at most.
    batch: usize,
    rungs: Vec<Rung>,
    /// The rung of the current request.
    at: usize,
}

impl<'a> Halving<'a> {
    pub(super) fn new(inner: Box<dyn Strategy + 'a>, parameters: &Parameters) -> Result<Self> {
        let text = parameters.text("rungs");
        let fidelity = |share: &str| {
            let share: f64 = share.trim().parse().ok()?;
            let fidelity = Fidelity::of_share(share);
            (fidelity.share() == share).then_some(fidelity)
        };
        let fidelities: Vec<Fidelity> =
            text.split(',').map(fidelity).collect::<Option<_>>().unwrap_or_default();
        let rising = fidelities.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || fidelities.len() < 2 || fidelities.last() != Some(&Fidelity::FULL) {
            return Err(parameters.refused(
                "rungs",
                "at least two rising shares in thousandths, the last 1",
                text,
            ));
        }
        let eta = parameters.count("eta")?;
        if eta < 2 {
            return Err(parameters.refused("eta", "at least 2", parameters.text("eta")));
        }
        let rung = |fidelity| Rung { fidelity, rows: Vec::new(), known: BTreeSet::new(), next: 0 };
        let batch = parameters.count("batch")?;
        Ok(Self { inner, eta, batch, rungs: fidelities.into_iter().map(rung).collect(), at: 0 })
    }
}

impl Strategy for Halving<'_> {
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        // from the top, so that promising rows get there soon
        for lower in (0..self.rungs.len() - 1).rev() {
            let rung = &mut self.rungs[lower];
            while rows.len() < self.batch && rung.is_promotable(self.eta) {
                rows.push(&rung.promote());
            }
            if rows.is_empty() {
                continue;
            }
            self.at = lower + 1;
            return Ok(self.rungs[self.at].fidelity);
        }
        self.at = 0;
        self.inner.ask(view, rows)?;
        Ok(self.rungs[0].fidelity)
    }

    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        for (at, row) in scored.rows.iter().enumerate() {
            self.rungs[self.at].enter(row, Standing::of(scored, at));
        }
        if self.at == 0 { self.inner.tell(view, scored) } else { Ok(()) }
    }

    fn finished(&self) -> Option<Proof> {
        // what the inner strategy proves, it proves of the lowest fidelity
        let open =
            self.rungs.iter().any(|rung| rung.fidelity != Fidelity::FULL && rung.is_promotable(self.eta));
        self.inner.finished().filter(|_| !open).map(|_| Proof::None)
    }
}
