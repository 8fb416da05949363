//! The command line `supernet`.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

/// Activations are 10 MB buffers that come and go with each layer: retained instead of returned to the system, they
/// cost no page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
