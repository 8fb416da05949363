//! The traits of engines and timers, so that exact tests need neither a network nor a clock.

use latency::{DeviceFacts, EngineFacts};
use space::LayerSpec;

use super::clock::MonotonicStopwatch;
use super::sentinel::Sentinel;
use crate::error::Result;

/// One inference of prepared layers, ready to be called again and again.
pub type Run<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// One inference of prepared layers that calls what it is given after each of them.
pub type Stepped<'a> = Box<dyn FnMut(&mut dyn FnMut()) -> Result<()> + 'a>;

/// Something that can run layers: one by itself, or a whole network's one after the other.
pub trait Engine: Sync {
    /// The engine's facts for the table.
    fn describe(&self) -> EngineFacts;

    /// The device's facts for the table: by default this machine, named by its processor.
    fn device(&self) -> DeviceFacts {
        DeviceFacts::this_machine(None)
    }

    /// The engine's timer: by default the monotonic clock.
    fn stopwatch(&self) -> Box<dyn RunTimer> {
        Box::new(MonotonicStopwatch::new())
    }

    /// Calls `visit` with the allocator in the state of a freshly started program. Earlier allocations decide
    /// where buffers are placed, which changes latencies by a few per cent. By default, the memory is left as
    /// it is.
    fn isolated(&self, visit: &mut (dyn FnMut() + Send)) {
        visit();
    }

    /// The sentinel that shows the device's speed: by default a layer on the CPU.
    ///
    /// # Errors
    /// If that device has no room for it.
    fn sentinel(&self) -> Result<Sentinel> {
        Ok(Sentinel::new())
    }

    /// Makes weights and an input for the layers; the returned closure runs them once.
    ///
    /// # Errors
    /// If the engine cannot run such layers.
    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>>;

    /// The same for a network whose layers are to be timed in place; `None` where the engine does not tell when a layer
    /// is done, as by default.
    ///
    /// # Errors
    /// As [`Engine::prepare`].
    fn prepare_stepped(&self, layers: &[LayerSpec]) -> Result<Option<Stepped<'_>>> {
        let _ = layers;
        Ok(None)
    }
}

/// The only way in which measuring sees time.
pub trait RunTimer: Send {
    /// Calls `run` once and returns how long that took, in nanoseconds.
    ///
    /// # Errors
    /// Passes on what `run` says.
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64>;

    /// Length of one tick of the clock, in nanoseconds.
    fn tick(&self) -> u64;

    /// Nanoseconds since the stopwatch was made, as a user of the machine sees them pass.
    fn now(&mut self) -> u64;
}
