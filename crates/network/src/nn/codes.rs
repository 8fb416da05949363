//! The activation codes of a batch: which units are above 0 for each image.

use candle_core::{DType, Device, Tensor};
use space::Activation;

use crate::error::Result;

/// For each pair of images the number of units that are above 0 for both or for neither (Mellor et al. 2021). Units are the
/// outputs of activations that are 0 or less where their input is: all but the hard sigmoid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivationCodes {
    images: usize,
    /// Row by row.
    agreeing: Vec<u64>,
    units: u64,
}

impl ActivationCodes {
    /// No units yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Number of units of each image.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// For each pair of images the number of units on which they agree, row by row.
    pub fn agreeing(&self) -> &[u64] {
        &self.agreeing
    }

    /// Adds the outputs of an activation, `[C, N, …]`.
    pub(super) fn add(&mut self, outputs: &Tensor, activation: Activation) -> Result<()> {
        if matches!(activation, Activation::None | Activation::HSigmoid) {
            return Ok(());
        }
        let outputs = outputs.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (channels, images) = (outputs.dim(0)?, outputs.dim(1)?);
        let values = outputs.flatten_all()?.to_vec1::<f32>()?;
        let units = values.len() / images;
        let plane = units / channels;
        let words = units.div_ceil(WORD);
        let mut codes = vec![0u64; images * words];
        for (at, value) in values.iter().enumerate() {
            let (map, place) = (at / plane, at % plane);
            let (channel, image) = (map / images, map % images);
            let unit = channel * plane + place;
            codes[image * words + unit / WORD] |= u64::from(*value > 0.0) << (unit % WORD);
        }
        self.images = images;
        self.agreeing.resize(images * images, 0);
        self.units += units as u64;
        for row in 0..images {
            for column in 0..=row {
                let of = |image: usize| &codes[image * words..][..words];
                let differing = of(row).iter().zip(of(column)).map(|(one, other)| (one ^ other).count_ones());
                let agreeing = units as u64 - u64::from(differing.sum::<u32>());
                self.agreeing[row * images + column] += agreeing;
                if row != column {
                    self.agreeing[column * images + row] += agreeing;
                }
            }
        }
        Ok(())
    }
}

/// Bits of a word.
const WORD: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{chain, noise, tensor, weights};
    use crate::nn::{MapSource, Network, Pass, Source, Tape};
    use kernels::Backend;

    #[test]
    fn units_agree_where_both_are_above_0_or_neither_is() {
        let mut codes = ActivationCodes::new();
        // two channels of two images with two places each: codes 1001 and 1100
        let outputs = tensor(&[2, 2, 1, 2], &[1.0, 0.0, 2.0, 3.0, -0.1, 4.0, 0.0, 0.0]);
        codes.add(&outputs, Activation::HSwish).expect("maps");
        assert_eq!((codes.images(), codes.units(), codes.agreeing()), (2, 4, &[4, 2, 2, 4][..]));
        codes.add(&outputs, Activation::None).expect("maps");
        codes.add(&outputs, Activation::HSigmoid).expect("maps");
        assert_eq!(codes.units(), 4);
        codes.add(&tensor(&[1, 2], &[1.0, 2.0]), Activation::Relu).expect("features");
        assert_eq!((codes.units(), codes.agreeing()), (5, &[5, 3, 3, 5][..]));
    }

    /// Each activation of a network counts: those inside blocks too, once each.
    #[test]
    fn all_activations_of_a_network_are_read() {
        let keys = [
            "stem k3 s1 3-4 relu @4x3",
            "mbconv k3 s1 4-6-4 h_swish se2 skip @4x3",
            "conv k3 4-4 relu skip @4x3",
            "pool 4 @4x3",
            "mix 4-8 h_swish @1x1",
            "linear 8-3 @1x1",
        ];
        let layers = chain(&keys);
        let source = Source::new(MapSource::builder(weights(&layers)), &Backend::detect(), 1e-5);
        let network = Network::new(&layers, &source).expect("all weights");
        let images = noise("images", &[3, 3, 4, 3], 1.0, 0.0);
        let mut codes = ActivationCodes::new();
        let logits = network.forward(&images, Pass::Codes(&mut codes)).expect("fitting shapes");
        // stem, expansion, depthwise, the hidden features of squeeze-and-excite, convolution, mix
        assert_eq!(codes.units(), 4 * 12 + 2 * 6 * 12 + 2 + 4 * 12 + 8);
        assert!((0..3).all(|image| codes.agreeing()[image * 4] == codes.units()));
        let expected = network.forward(&images, Pass::Training(&mut Tape::new())).expect("fitting shapes");
        let difference =
            (logits - expected).and_then(|difference| difference.abs()?.max_all()?.to_scalar::<f32>());
        assert!(difference.expect("numbers") < 1e-5);
    }
}
