//! Checks of a recipe: ranges, the order of phases, and teachers.

use space::KINDS;

use super::{Phase, Recipe};
use crate::error::{Error, Result};
use crate::train::architecture::ArchitectureRule;
use crate::train::draw::{Attentive, Draw};
use crate::train::optimizer::OptimizerSettings;
use crate::train::teacher::Teacher;

/// Most sub-networks of one step.
const MOST_SUBNETWORKS: usize = 64;

pub(in crate::train) fn within(place: &str, field: &str, value: f64, [low, high]: [f64; 2]) -> Result<()> {
    if value.is_finite() && value >= low && value <= high {
        return Ok(());
    }
    Err(Error::invalid(place, field, format!("{low} to {high}"), value))
}

impl Recipe {
    /// Checks the recipe; `place` names it in messages, which name fields as files of this version do.
    pub(super) fn check(&self, place: &str, version: u32) -> Result<()> {
        within(place, "batch", self.batch as f64, [1.0, 1e6])?;
        within(place, "lr_batch", self.lr_batch as f64, [1.0, 1e6])?;
        self.optimizer.check(place)?;
        within(place, "weight_decay", f64::from(self.weight_decay), [0.0, 1.0])?;
        within(place, "label_smoothing", f64::from(self.label_smoothing), [0.0, 0.999])?;
        if let Some(most) = self.gradient_clip {
            within(place, "gradient_clip", f64::from(most), [0.001, 1e6])?;
        }
        if let Some(decay) = self.ema_decay {
            within(place, "ema_decay", f64::from(decay), [0.5, 0.999_999])?;
        }
        if self.accumulation == 0 || !self.batch.is_multiple_of(self.accumulation) {
            let expected = format!("a divisor of the batch of {}", self.batch);
            return Err(Error::invalid(place, "accumulation", expected, self.accumulation));
        }
        self.class_weights.iter().try_for_each(|weights| weights.check(place))?;
        self.validation.iter().try_for_each(|validation| validation.check(place))?;
        self.controller.iter().try_for_each(|controller| controller.check(place))?;
        self.architecture.iter().try_for_each(|architecture| architecture.check(place))?;
        self.augmentation.check(place)?;
        within(place, "number of phases", self.phases.len() as f64, [1.0, 1000.0])?;
        for (index, phase) in self.phases.iter().enumerate() {
            phase.check(place, version, |name: &str| {
                format!("phases[{}] ({}).{name}", index + 1, phase.name)
            })?;
        }
        self.check_architecture(place)?;
        self.check_controller(place)?;
        self.check_costs(place)?;
        self.check_order(place)?;
        self.check_teachers(place)
    }

    /// There is a controller where and only where one draws.
    fn check_controller(&self, place: &str) -> Result<()> {
        let draws = self.phases.iter().any(|phase| Draw::by_controller(&phase.draw));
        match (draws, self.controller.is_some()) {
            (true, false) => {
                let expected = "a table [controller], for phases that draw by one";
                Err(Error::invalid(place, "controller", expected, "none")
                    .and_then_do("add one; its fields have defaults"))
            }
            (false, true) => {
                let expected = "none, for no phase draws by one";
                Err(Error::invalid(place, "controller", expected, "one")
                    .and_then_do("add { controller = 1 } to a draw"))
            }
            _ => Ok(()),
        }
    }

    /// There are architecture parameters where and only where they draw; then they are all that draws in the phase.
    fn check_architecture(&self, place: &str) -> Result<()> {
        let draws = self.phases.iter().any(|phase| Draw::by_architecture(&phase.draw));
        let refused =
            |field: &str, expected: &str, got: &str| Err(Error::invalid(place, field, expected, got));
        let Some(architecture) = self.architecture else {
            return match draws {
                true => refused("architecture", "a table, for phases that draw by it", "none"),
                false => Ok(()),
            };
        };
        if self.controller.is_some() {
            return refused("architecture", "one of [architecture] and [controller]", "both");
        }
        if !draws {
            return refused("architecture", "none, for no phase draws by it", "a table");
        }
        if architecture.order > 1 && !matches!(self.optimizer, OptimizerSettings::Nesterov { .. }) {
            return refused("architecture.order", "1 with this optimizer, or the optimizer nesterov", "2");
        }
        let warmup = architecture.warmup_epochs;
        for phase in self.phases.iter().filter(|phase| Draw::by_architecture(&phase.draw)) {
            let epochs = phase.epochs + phase.warmup_epochs;
            if phase.draw.len() > 1 {
                let field = format!("draw of phase {}", phase.name);
                return refused(&field, "architecture alone", "others too");
            }
            if warmup >= epochs && epochs > 0.0 {
                let expected = format!("less than the {epochs} epochs of phase {}", phase.name);
                return refused("architecture.warmup_epochs", &expected, &warmup.to_string());
            }
            if architecture.by == ArchitectureRule::Darts && phase.teacher != Teacher::None {
                let field = format!("teacher of phase {}", phase.name);
                return refused(
                    &field,
                    "none, for a mixture of all operators learns from labels alone",
                    "one",
                );
            }
        }
        Ok(())
    }

    /// All attentive draws compare by one cost, which is that of the controller's reward.
    fn check_costs(&self, place: &str) -> Result<()> {
        let costs = self.phases.iter().flat_map(|phase| &phase.draw).filter_map(Draw::cost);
        let rewarded = self.controller.and_then(|controller| controller.cost).map(|cost| cost.by);
        let mut costs: Vec<_> = costs.chain(rewarded).collect();
        costs.dedup();
        match costs.len() {
            0 | 1 => Ok(()),
            _ => Err(Error::invalid(
                place,
                "draw.attentive.by and controller.cost.by",
                "the same in all",
                "several",
            )),
        }
    }

    /// Phases that train the classifier alone come first, then the largest network, alone or first in each step; no other
    /// phase may teach these. Where no phase teaches and there is no classifier to begin with, any networks may be first.
    fn check_order(&self, place: &str) -> Result<()> {
        let heads = self.phases.iter().take_while(|phase| phase.head_only).count();
        if heads == self.phases.len() || self.phases[heads..].iter().any(|phase| phase.head_only) {
            let expected = "before all others, and not alone";
            return Err(Error::invalid(place, "phases with head_only", expected, "elsewhere"));
        }
        let teaches = self.phases.iter().any(|phase| matches!(phase.teacher, Teacher::Phase(_)));
        for (index, phase) in self.phases[..=heads].iter().enumerate() {
            let field = format!("phases[{}]", index + 1);
            let alone = phase.allowed.allows_one();
            let first = !phase.head_only && phase.draw.first() == Some(&Draw::Largest);
            let taught = match phase.teacher {
                Teacher::None | Teacher::File => false,
                Teacher::First => !first,
                Teacher::Phase(_) => true,
            };
            let is_free = heads == 0 && !teaches;
            if taught || !(alone || first || is_free) {
                let expected = "the largest network, alone or first in each step, taught by no phase";
                return Err(Error::invalid(place, field, expected, format!("{phase:?}")));
            }
        }
        let full = &self.phases[heads];
        if full.epochs + full.warmup_epochs <= 0.0 {
            let advice = "this phase trains the teacher of the others; give it epochs";
            let field = format!("phases[{}].epochs", heads + 1);
            return Err(Error::invalid(place, field, "above 0", 0).and_then_do(advice));
        }
        Ok(())
    }

    /// A teaching phase must be the one whose network is kept, and a teaching first network needs others in the step.
    fn check_teachers(&self, place: &str) -> Result<()> {
        let teaching = self.teaching().unwrap_or_default();
        for (index, phase) in self.phases.iter().enumerate() {
            let field = format!("phases[{}] ({}).teacher", index + 1, phase.name);
            match &phase.teacher {
                Teacher::Phase(name) if name != teaching => {
                    let expected = format!("{teaching}, the first phase that trains the whole network");
                    return Err(Error::invalid(place, field, expected, name));
                }
                Teacher::First if Draw::count(&phase.draw) < 2 => {
                    let expected = "several sub-networks per step, so that the first can teach the others";
                    return Err(Error::invalid(place, field, expected, "one"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Phase {
    fn check(&self, place: &str, version: u32, field: impl Fn(&str) -> String) -> Result<()> {
        within(place, &field("epochs"), self.epochs, [0.0, 1e6])?;
        within(place, &field("warmup_epochs"), self.warmup_epochs, [0.0, 1e6])?;
        within(place, &field("lr"), self.lr, [0.0, 1e3])?;
        within(place, &field("lr_floor"), self.lr_floor, [0.0, 1.0])?;
        if self.teacher == Teacher::None && !self.distillation.is_default() {
            let advice = "give the phase a teacher, or leave distillation out";
            let got = self.distillation.name();
            return Err(Error::invalid(place, field("distillation"), "none without a teacher", got)
                .and_then_do(advice));
        }
        let drawn = if version == 1 { "subnetworks" } else { "draw" };
        let count = Draw::count(&self.draw);
        within(place, &field(drawn), count as f64, [1.0, MOST_SUBNETWORKS as f64])?;
        for draw in &self.draw {
            if let Draw::Attentive(Attentive { networks, candidates, bins, .. }) = draw {
                within(place, &field("draw.attentive.networks"), *networks as f64, [1.0, 64.0])?;
                within(place, &field("draw.attentive.candidates"), *candidates as f64, [2.0, 64.0])?;
                within(place, &field("draw.attentive.bins"), *bins as f64, [1.0, 1000.0])?;
            }
        }
        for (kind, most) in &self.allowed.0 {
            if !KINDS.iter().any(|known| known.key == kind) {
                let known: Vec<_> = KINDS.iter().map(|kind| kind.key).collect();
                let expected = format!("one of {}", known.join(", "));
                return Err(Error::invalid(place, field("allowed"), expected, kind));
            }
            within(place, &field("allowed"), *most as f64, [1.0, 1e3])?;
        }
        Ok(())
    }
}
