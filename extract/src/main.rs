//! The binary `extract`: wiring only; see `cli`.

#![forbid(unsafe_code)]

mod cli;

/// Buffers of tensors come and go; this allocator keeps them instead of returning them to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
