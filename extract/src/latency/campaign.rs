//! A plan carried out: layers and whole sub-networks in the same rounds.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use latency::{Conditions, DeviceFacts, RowsLog, Setting, Subject};

use super::engine::{Engine, RunTimer};
use super::measure::{Instruments, Measured, Progress, Subjects, measure};
use super::plan_file::MeasurePlan;
use crate::error::Result;

/// What measures, and what is looked at beside.
pub struct MeasureContext<'a> {
    /// Runs layers.
    pub engine: &'a dyn Engine,
    /// Times them.
    pub stopwatch: &'a mut dyn RunTimer,
    /// What the operating system tells of the machine.
    pub conditions: fn() -> Conditions,
}

/// How far a plan was carried out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Campaign {
    /// Layers that were not visited yet.
    pub unmeasured_layers: usize,
    /// Sub-networks that were not visited yet.
    pub unmeasured_networks: usize,
    /// Layers and sub-networks that do not count: too few visits confirm what they took.
    pub unaccepted: usize,
    /// Layers and sub-networks that would have been visited again, had there been time.
    pub unfinished: usize,
    /// Time that it took.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

impl MeasurePlan {
    /// What the rows of this plan say at their beginning.
    pub fn setting(&self, device: &DeviceFacts, engine: &dyn Engine) -> Setting {
        let device = device.clone();
        let engine = engine.describe();
        let sentinel = self.sentinel.clone();
        Setting { device, engine, protocol: self.config().describe(), sentinel, plan: self.id() }
    }
}

impl MeasureContext<'_> {
    /// Measures subjects with the engine's own sentinel; otherwise as [`measure`].
    ///
    /// # Errors
    /// Passes on what the engine and the log say.
    pub fn measure(
        &mut self,
        (subjects, space): (&Subjects, Option<&str>),
        config: &super::MeasureConfig,
        log: &mut RowsLog,
        progress: &mut dyn FnMut(Progress<'_>),
        stop: &AtomicBool,
    ) -> Result<Measured> {
        let mut sentinel = self.engine.sentinel()?;
        let instruments = Instruments {
            engine: self.engine,
            stopwatch: &mut *self.stopwatch,
            sentinel: &mut || sentinel.run(),
            conditions: self.conditions,
        };
        measure((subjects, space), instruments, config, log, progress, stop)
    }
}

/// Measures what a plan lists and the log does not hold well enough yet.
///
/// # Errors
/// Passes on what the engine and the log say.
pub fn run_plan(
    plan: &MeasurePlan,
    bench: &mut MeasureContext<'_>,
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Campaign> {
    let subjects = plan.subjects()?;
    let measured =
        bench.measure((&subjects, Some(&plan.fingerprint)), &plan.config(), log, progress, stop)?;
    let layers = measured.unmeasured.iter().filter(|subject| matches!(subject, Subject::Layer(_))).count();
    Ok(Campaign {
        unmeasured_layers: layers,
        unmeasured_networks: measured.unmeasured.len() - layers,
        unaccepted: measured.unaccepted,
        unfinished: measured.unfinished,
        spent: measured.spent,
        interrupted: measured.interrupted,
    })
}
