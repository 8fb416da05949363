//! Cross-entropy with smoothed labels and soft targets, and its gradient in closed form.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::{CrossEntropy, Kernels};

/// What logits are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The class of each image.
    pub labels: &'a [u32],
    /// Share of the probability that label smoothing spreads over all classes.
    pub smoothing: f32,
    /// A teacher's logits `[N, classes]`; its soft cross-entropy is added with weight 1 (temperature 1).
    pub teacher: Option<&'a Tensor>,
}

/// A mean loss over a batch, which a GPU may still be computing.
#[derive(Clone, Debug)]
pub struct Loss(Value);

#[derive(Clone, Debug)]
enum Value {
    Known(f32),
    /// Each image's, on a GPU.
    Pending(Tensor),
}

impl Loss {
    /// The loss; waits for a GPU that is still computing it.
    ///
    /// # Errors
    /// If what it is computed from failed.
    pub fn read(&self) -> Result<f32> {
        match &self.0 {
            Value::Known(loss) => Ok(*loss),
            Value::Pending(losses) => {
                let losses = losses.to_vec1::<f32>()?;
                let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
                Ok((sum / losses.len() as f64) as f32)
            }
        }
    }
}

/// Mean loss over the batch and its gradient `[N, classes]` at the logits `[N, classes]`.
///
/// Cross-entropy with a target distribution t is `-sum t log softmax(z)`; its gradient is `softmax(z) - t`.
///
/// # Errors
/// If the sizes do not fit or a label is not a class.
pub fn loss(logits: &Tensor, target: &Target, kernels: Kernels) -> Result<(Loss, Tensor)> {
    let (images, classes) = logits.dims2()?;
    let sizes = [target.labels.len(), target.teacher.map_or(images, |teacher| teacher.dims()[0])];
    if sizes != [images, images] {
        return Err(Error::invalid(
            "loss",
            "batch",
            format!("{images} labels and teacher rows"),
            format!("{sizes:?}"),
        ));
    }
    if let Some(label) = target.labels.iter().find(|label| **label as usize >= classes) {
        return Err(Error::invalid("loss", "label", format!("below {classes}"), label));
    }
    let Target { labels, smoothing, teacher } = *target;
    if let Some(CrossEntropy { losses, gradient }) =
        kernels.cross_entropy(logits, labels, teacher, smoothing)?
    {
        return Ok((Loss(Value::Pending(losses)), gradient));
    }
    let teacher = teacher.map(Tensor::to_vec2::<f32>).transpose()?;
    let mut gradient = Vec::with_capacity(images * classes);
    let mut total = 0.0;
    for (image, row) in logits.to_vec2::<f32>()?.iter().enumerate() {
        let label = labels[image] as usize;
        let log_probabilities = log_softmax(row);
        let soft = teacher.as_ref().map(|rows| log_softmax(&rows[image]));
        let smoothing = f64::from(smoothing);
        for (class, log_probability) in log_probabilities.iter().enumerate() {
            let hard = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
            let (wanted, weight) = match &soft {
                Some(soft) => (hard + soft[class].exp(), 2.0),
                None => (hard, 1.0),
            };
            total -= wanted * log_probability;
            gradient.push(((weight * log_probability.exp() - wanted) / images as f64) as f32);
        }
    }
    let gradient = Tensor::from_vec(gradient, (images, classes), &Device::Cpu)?;
    Ok((Loss(Value::Known((total / images as f64) as f32)), gradient))
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = |value: &f32| f64::from(value - largest);
    let log_sum = row.iter().map(|value| shifted(value).exp()).sum::<f64>().ln();
    row.iter().map(|value| shifted(value) - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradient_is_the_slope() {
        let logits = vec![0.3f32, -1.2, 2.0, 0.1, 0.0, -0.5];
        let teacher = Tensor::new(&[[1.0f32, 0.0, -1.0], [0.5, 2.0, 0.0]], &Device::Cpu).expect("a tensor");
        for teacher in [None, Some(&teacher)] {
            let target = Target { labels: &[2, 0], smoothing: 0.1, teacher };
            let value = |logits: &[f32]| {
                let logits = Tensor::from_slice(logits, (2, 3), &Device::Cpu).expect("a tensor");
                let (loss, gradient) = loss(&logits, &target, Kernels::detect()).expect("sizes fit");
                (loss.read().expect("known"), gradient)
            };
            let gradient = value(&logits).1.flatten_all().and_then(|g| g.to_vec1::<f32>()).expect("f32");
            for index in 0..6 {
                let at = |step: f32| {
                    let mut moved = logits.clone();
                    moved[index] += step;
                    value(&moved).0
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((slope - gradient[index]).abs() < 1e-3, "{index}: {slope} {}", gradient[index]);
            }
        }
    }

    #[test]
    fn a_huge_gap_stays_finite() {
        let logits = Tensor::new(&[[500.0f32, -500.0]], &Device::Cpu).expect("a tensor");
        let target = Target { labels: &[1], smoothing: 0.0, teacher: None };
        let (loss, _) = loss(&logits, &target, Kernels::detect()).expect("sizes fit");
        assert_eq!(loss.read().expect("known"), 1000.0);
    }

    #[test]
    fn wrong_labels_are_refused() {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("a tensor");
        for labels in [&[0u32][..], &[0, 3]] {
            let target = Target { labels, smoothing: 0.0, teacher: None };
            assert!(loss(&logits, &target, Kernels::detect()).is_err());
        }
    }
}
