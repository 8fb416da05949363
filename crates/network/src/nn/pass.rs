//! What a forward pass is for, and what backward needs of it.

use candle_core::{Result, Tensor, bail};

use super::batch_norm::Statistics;

/// What a forward pass is for.
pub enum Pass<'a> {
    /// Deployed: batch norms use their running statistics.
    Inference,
    /// Batch norms use the batch's own statistics; nothing is kept (a teacher).
    BatchStatistics,
    /// As [`Pass::BatchStatistics`], and each batch norm's statistics are handed over (calibration).
    Calibration(&'a mut Statistics),
    /// Batch norms use the batch's own statistics, and what backward needs is kept.
    Training(&'a mut Tape),
}

/// What a training pass keeps for backward: a stack of tensors, popped in reverse order.
#[derive(Default)]
pub struct Tape {
    saved: Vec<Tensor>,
    dropout: Option<Tensor>,
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

    /// Keeps a tensor; shares its memory.
    pub(super) fn push(&mut self, tensor: &Tensor) {
        self.saved.push(tensor.clone());
    }

    /// The tensor kept last.
    pub(super) fn pop(&mut self) -> Result<Tensor> {
        match self.saved.pop() {
            Some(tensor) => Ok(tensor),
            None => bail!("the tape is empty: backward was called twice, or without a training pass"),
        }
    }

    /// All tensors that are kept, the last one last.
    #[cfg(test)]
    pub(super) fn saved(&self) -> &[Tensor] {
        &self.saved
    }

    pub(super) fn dropout(&self) -> Option<&Tensor> {
        self.dropout.as_ref()
    }
}

impl Pass<'_> {
    /// Keeps a tensor where the pass is for training.
    pub(super) fn save(&mut self, tensor: &Tensor) {
        if let Self::Training(tape) = self {
            tape.push(tensor);
        }
    }

    /// Whether tensors may be written over: nothing of this pass is kept.
    pub(super) fn forgets(&self) -> bool {
        !matches!(self, Self::Training(_))
    }
}
