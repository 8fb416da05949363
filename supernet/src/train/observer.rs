//! Observers of a run.

use network::eval::Accuracy;
use space::Arch;

use super::conflict::ConflictRecord;
use super::plan::PlannedPhase;
use super::record::{
    ArchitectureRecord, ControllerRecord, DerivedRecord, EarlyEnd, LogLine, StepRecord, ValidationRecord,
};

/// Receives the events of a run; by default ignores them.
pub trait Observer {
    /// A phase begins, or is resumed at `step`.
    fn phase(&mut self, _phase: &PlannedPhase, _step: u64) {}
    /// A step was taken.
    fn step(&mut self, _record: &StepRecord) {}
    /// A sub-network was evaluated at the end of a phase.
    fn evaluated(&mut self, _arch: &Arch, _accuracy: Accuracy) {}
    /// A phase was validated, within it or at its end.
    fn validated(&mut self, _record: &ValidationRecord) {}
    /// A report on conflicts between sub-networks was made.
    fn conflict(&mut self, _record: &ConflictRecord) {}
    /// The controller had a lesson.
    fn taught(&mut self, _record: &ControllerRecord) {}
    /// An epoch with architecture parameters ended.
    fn searched(&mut self, _record: &ArchitectureRecord) {}
    /// A sub-network was derived.
    fn derived(&mut self, _record: &DerivedRecord) {}
    /// A phase ended early, because validation no longer improved.
    fn ended_early(&mut self, _end: &EarlyEnd) {}
}

/// Ignores all events.
impl Observer for () {}

/// Calls a function when a phase begins, and does nothing else.
pub struct OnPhase<F: FnMut(&PlannedPhase)>(pub F);

impl<F: FnMut(&PlannedPhase)> Observer for OnPhase<F> {
    fn phase(&mut self, phase: &PlannedPhase, _: u64) {
        self.0(phase);
    }
}

/// Passes a log line from within a phase to an observer.
pub(super) fn notify(observer: &mut dyn Observer, line: &LogLine) {
    match line {
        LogLine::Step(record) => observer.step(record),
        LogLine::Validation(record) => observer.validated(record),
        LogLine::EndedEarly(end) => observer.ended_early(end),
        LogLine::Conflict(record) => observer.conflict(record),
        LogLine::Controller(record) => observer.taught(record),
        LogLine::Architecture(record) => observer.searched(record),
        LogLine::Derived(record) => observer.derived(record),
        _ => {}
    }
}
