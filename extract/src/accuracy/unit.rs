//! Finds out whether another program's predictor gives accuracies as shares or in percent.

use base::Error;
use base::random::rng_for;
use space::{Encoded, Encoder, sampler};

use super::perceptron::{Dense, Network};
use crate::error::Result;

/// Random sub-networks to predict.
const ASKED: usize = 256;
/// Medians of all predictions that are taken for shares. A predictor can be wrong, so they extend beyond 0
/// and 1.
const SHARES: std::ops::RangeInclusive<f32> = -0.5..=1.5;
/// Medians that are not shares and are taken for percent.
const PER_CENT: std::ops::RangeInclusive<f32> = 1.5..=100.0;

/// The network of these layers and of the constant that is added to their output, made to predict shares, and whether it
/// had predicted per cent.
///
/// # Errors
/// If its predictions are neither.
pub(crate) fn in_shares(
    mut layers: Vec<Dense>,
    constant: f32,
    encoder: &Encoder,
    place: &str,
) -> Result<(Network, bool)> {
    let network = Network::new(layers.clone(), constant)?;
    let median = median(&network, encoder)?;
    if SHARES.contains(&median) {
        return Ok((network, false));
    }
    if !PER_CENT.contains(&median) {
        let expected = "accuracies from 0 to 1, or from 0 to 100 %";
        let got = format!("{median} as the median of {ASKED} random sub-networks");
        return Err(Error::invalid(place, "predictions", expected, got).into());
    }
    if let Some(last) = layers.last_mut() {
        last.weight.iter_mut().chain(&mut last.bias).for_each(|value| *value /= 100.0);
    }
    Ok((Network::new(layers, constant / 100.0)?, true))
}

fn median(network: &Network, encoder: &Encoder) -> Result<f32> {
    let mut rng = rng_for("unit of predictions", 0, &[]);
    let mut encoded = Encoded::default();
    for _ in 0..ASKED {
        encoder.append(&sampler::random(encoder.space(), &mut rng), &mut encoded)?;
    }
    let mut predicted = network.predict(&encoded)?;
    predicted.sort_by(f32::total_cmp);
    Ok(predicted[ASKED / 2])
}
