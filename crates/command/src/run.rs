//! Running a command: threads, signals, and the backend by the environment.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::anyhow;
use kernels::Backend;

use crate::exit::INTERRUPTED;

/// How a command ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is done.
    Done,
    /// Some parts failed, and their errors are reported; the rest is done.
    Partly,
    /// Stopped by a signal, with the state saved.
    Interrupted,
}

/// Runs a command on the global thread pool, with `threads` threads or as many as there are cores.
///
/// # Errors
/// The command's own errors, and one if threads cannot be started.
pub fn on_pool(
    threads: Option<u16>,
    command: impl FnOnce() -> anyhow::Result<Ending> + Send,
) -> anyhow::Result<Ending> {
    let mut builder = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = threads {
        builder = builder.num_threads(usize::from(threads));
    }
    builder.build_global()?;
    let mut ending = Ok(Ending::Done);
    // on one of the pool's own threads: handing each small kernel to the pool from outside costs more
    rayon::scope(|_| ending = command());
    ending
}

/// A flag that Ctrl-C, SIGTERM and the loss of the terminal set; a second signal ends the process at once, except a
/// hangup, which shell and system may both send. Under `nohup` there are no hangups.
///
/// # Errors
/// If a signal cannot be caught.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    #[cfg(unix)]
    if !base::machine::ignores_hangups() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, stop.clone())?;
    }
    Ok(stop)
}

/// This backend, or on a CPU the one that the environment names.
///
/// # Errors
/// If the environment names an unknown backend.
pub fn with_environment(backend: Backend) -> anyhow::Result<Backend> {
    match std::env::var("ONCE_FOR_ALL_KERNELS") {
        Ok(name) if backend.gpu().is_none() => Backend::named(&name)
            .map_err(|error| anyhow!("environment variable ONCE_FOR_ALL_KERNELS: {error}")),
        _ => Ok(backend),
    }
}
