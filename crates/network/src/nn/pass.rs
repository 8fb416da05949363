//! The purpose of a forward pass, and the tensors that it saves for backward.

use candle_core::{Result, Tensor, bail};
use space::Activation;

use super::batch_norm::Statistics;
use super::codes::ActivationCodes;

/// Purpose of a forward pass.
pub enum Pass<'a> {
    /// Deployed: batch norms use their running statistics.
    Inference,
    /// Batch norms use the batch's own statistics; nothing is saved (a teacher).
    BatchStatistics,
    /// As [`Pass::BatchStatistics`], and each batch norm's statistics are collected (calibration).
    Calibration(&'a mut Statistics),
    /// As [`Pass::BatchStatistics`], and which units are above 0 is collected.
    Codes(&'a mut ActivationCodes),
    /// Batch norms use the batch's own statistics, and tensors are saved for backward.
    Training(&'a mut Tape),
}

/// The tensors that a training pass saves for backward: a stack.
#[derive(Default)]
pub struct Tape {
    saved: Vec<Tensor>,
    dropout: Option<Tensor>,
    reaches_images: bool,
}

impl Tape {
    /// A tape for a pass without dropout.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tape for a pass whose pooled features `[C, N]` are multiplied by `mask` before the classifier.
    pub fn with_dropout(mask: Tensor) -> Self {
        Self { dropout: Some(mask), ..Self::default() }
    }

    /// The tape of a pass whose backward pass gives the gradient of the images too.
    #[must_use]
    pub fn reaching_images(self) -> Self {
        Self { reaches_images: true, ..self }
    }

    /// Whether a layer on the image gives its input's gradient.
    pub(super) fn reaches_images(&self) -> bool {
        self.reaches_images
    }

    /// Saves a tensor; shares its memory.
    pub(super) fn push(&mut self, tensor: &Tensor) {
        self.saved.push(tensor.clone());
    }

    /// The tensor saved last.
    pub(super) fn pop(&mut self) -> Result<Tensor> {
        match self.saved.pop() {
            Some(tensor) => Ok(tensor),
            None => bail!("the tape is empty: backward was called twice, or without a training pass"),
        }
    }

    /// All saved tensors, oldest first.
    #[cfg(test)]
    pub(super) fn saved(&self) -> &[Tensor] {
        &self.saved
    }

    pub(super) fn dropout(&self) -> Option<&Tensor> {
        self.dropout.as_ref()
    }
}

impl Pass<'_> {
    /// Saves a tensor if the pass is for training.
    pub(super) fn save(&mut self, tensor: &Tensor) {
        if let Self::Training(tape) = self {
            tape.push(tensor);
        }
    }

    /// Collects the codes of an activation's outputs, `[C, N, …]`, if the pass does.
    pub(super) fn see(&mut self, outputs: &Tensor, activation: Activation) -> crate::error::Result<()> {
        match self {
            Self::Codes(codes) => codes.add(outputs, activation),
            _ => Ok(()),
        }
    }

    /// Whether tensors may be overwritten, since the pass saves nothing.
    pub(super) fn forgets(&self) -> bool {
        !matches!(self, Self::Training(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{tensor, values};

    #[test]
    fn a_tape_gives_the_last_first_and_then_nothing() {
        let mut tape = Tape::new();
        for value in [1.0, 2.0] {
            Pass::Training(&mut tape).save(&tensor(&[1], &[value]));
        }
        assert_eq!(values(&tape.pop().expect("two are kept")), [2.0]);
        assert_eq!(values(&tape.pop().expect("one is kept")), [1.0]);
        let error = tape.pop().expect_err("empty").to_string();
        assert!(error.contains("the tape is empty: backward was called twice"), "{error}");
    }

    #[test]
    fn training_alone_keeps_tensors() {
        let mut seen = Statistics::new();
        let mut codes = ActivationCodes::new();
        for pass in
            [Pass::Inference, Pass::BatchStatistics, Pass::Calibration(&mut seen), Pass::Codes(&mut codes)]
        {
            assert!(pass.forgets());
        }
        assert!(!Pass::Training(&mut Tape::new()).forgets());
    }

    #[test]
    fn dropout_is_the_mask_that_was_given() {
        assert!(Tape::new().dropout().is_none());
        let tape = Tape::with_dropout(tensor(&[1], &[2.0]));
        assert_eq!(values(tape.dropout().expect("a mask")), [2.0]);
    }
}
