//! Prints the predicted accuracy of each sub-network, one per line: `expected ESTIMATOR < ARCHS`.
//!
//! `tests/parity/ofa_predictor.py` compares these numbers with PyTorch's.

use std::path::Path;

use anyhow::Context;
use extract::accuracy::AccuracyEstimator;
use space::Arch;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: expected ESTIMATOR < ARCHS")?;
    let estimator = AccuracyEstimator::read(Path::new(&path))?;
    let lines = std::io::read_to_string(std::io::stdin())?;
    let archs = lines.lines().map(str::parse).collect::<Result<Vec<Arch>, _>>()?;
    for accuracy in estimator.predict(&archs)? {
        println!("{accuracy}");
    }
    Ok(())
}
