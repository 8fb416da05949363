//! What several commands take, and how it is read.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::Args;
use supernet::kernels::Kernels;

/// Flags that every command has.
#[derive(Args)]
pub struct Common {
    /// Print one JSON document on stdout, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Print no progress
    #[arg(long)]
    pub quiet: bool,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

/// The kernels that the environment asks for, else the fastest.
pub fn kernels() -> anyhow::Result<Kernels> {
    match std::env::var("ONCE_FOR_ALL_KERNELS") {
        Ok(name) => Kernels::named(&name).context("environment variable ONCE_FOR_ALL_KERNELS"),
        Err(_) => Ok(Kernels::detect()),
    }
}

/// Only the CPU computes in this build.
pub fn check_device(device: &str) -> anyhow::Result<()> {
    if device != "cpu" {
        anyhow::bail!("device {device}: this build computes on `cpu` only");
    }
    Ok(())
}

/// A flag that Ctrl-C and SIGTERM set; a second signal ends the process at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
