//! Runs a plan: layers and whole sub-networks in the same rounds.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use latency::{Conditions, DeviceFacts, RowsLog, Setting, Subject};

use super::engine::{Engine, RunTimer};
use super::measure::{Instruments, MeasureTask, Measured, Progress, measure};
use super::plan_file::MeasurePlan;
use crate::error::Result;

/// The engine, the timer and the source of the machine's conditions.
pub struct MeasureContext<'a> {
    /// Runs layers.
    pub engine: &'a dyn Engine,
    /// Times them.
    pub stopwatch: &'a mut dyn RunTimer,
    /// Reads the operating system's figures of the machine.
    pub conditions: fn() -> Conditions,
}

/// The result of running a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Campaign {
    /// Layers that were not visited yet.
    pub unmeasured_layers: usize,
    /// Sub-networks that were not visited yet.
    pub unmeasured_networks: usize,
    /// Layers and sub-networks without a valid latency, because too few visits confirm it.
    pub unaccepted: usize,
    /// Layers and sub-networks that needed further visits when the measurement ended.
    pub unfinished: usize,
    /// Duration of the measurement.
    pub spent: Duration,
    /// Whether `stop` ended the measurement.
    pub interrupted: bool,
}

impl MeasurePlan {
    /// The header of this plan's rows.
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
    /// Returns the errors of the engine and the log.
    pub fn measure(
        &mut self,
        task: MeasureTask<'_>,
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
        measure(task, instruments, log, progress, stop)
    }
}

/// Measures what a plan lists and the log does not hold well enough yet.
///
/// # Errors
/// Returns the errors of the engine and the log.
pub fn run_plan(
    plan: &MeasurePlan,
    bench: &mut MeasureContext<'_>,
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Campaign> {
    let subjects = plan.subjects()?;
    let task = MeasureTask { subjects: &subjects, space: Some(&plan.fingerprint), config: &plan.config() };
    let measured = bench.measure(task, log, progress, stop)?;
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
