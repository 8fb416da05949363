//! Cross-entropy with smoothed labels and soft targets, or the divergence from a teacher, and the gradient in closed form.

mod divergence;

use candle_core::{Device, Tensor};
use kernels::{Backend, CrossEntropy, HardLabels};
use network::data::Partners;

use self::divergence::adaptive;
use super::class_weights::scales;
use super::teacher::Distillation;
use crate::error::{Error, Result};

/// The target of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The class of each image.
    pub labels: &'a [u32],
    /// The images that are mixed into them; `None` for images that are no mixtures.
    pub partners: Option<&'a Partners>,
    /// Share of the probability that label smoothing spreads over all classes.
    pub smoothing: f32,
    /// A teacher's logits `[N, classes]`, at temperature 1.
    pub teacher: Option<&'a Tensor>,
    /// Weight of each class, by label; `None` for equal weights.
    pub class_weights: Option<&'a [f64]>,
    /// How the teacher's logits and the labels count.
    pub distillation: Distillation,
    /// Share of these images in a step: the factor of the gradient, not of the loss that is read.
    pub share: f32,
}

/// No label, no teacher, equal weights, the whole of a step.
impl Default for Target<'_> {
    fn default() -> Self {
        Self {
            labels: &[],
            partners: None,
            smoothing: 0.0,
            teacher: None,
            class_weights: None,
            distillation: Distillation::default(),
            share: 1.0,
        }
    }
}

/// A mean loss over a batch, which a GPU may still be computing.
#[derive(Clone, Debug)]
pub struct Loss {
    value: Computed,
    /// Share of the images in a step, which the value is multiplied by.
    share: f32,
}

#[derive(Clone, Debug)]
enum Computed {
    Known(f32),
    /// The loss of each image, on a GPU.
    Pending(Tensor),
}

impl Loss {
    /// The loss; waits for a GPU that is still computing it.
    ///
    /// # Errors
    /// If the computation failed.
    pub fn read(&self) -> Result<f32> {
        Ok(self.value.read()? / self.share)
    }
}

impl Computed {
    fn read(&self) -> Result<f32> {
        match self {
            Self::Known(loss) => Ok(*loss),
            Self::Pending(losses) => {
                let losses = losses.to_vec1::<f32>()?;
                let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
                Ok((sum / losses.len() as f64) as f32)
            }
        }
    }

    /// The sum of two losses of the same images.
    fn plus(self, other: Self, backend: &Backend) -> Result<Self> {
        match (&self, &other) {
            (Self::Pending(losses), Self::Pending(added)) => {
                backend.add_assign(losses, added)?;
                Ok(self)
            }
            _ => Ok(Self::Known(self.read()? + other.read()?)),
        }
    }
}

/// Mean loss over the batch and its gradient `[N, classes]` at the logits `[N, classes]`: cross-entropies or, with
/// [`Distillation::Alpha`] and a teacher, the adaptive alpha-divergence from it.
///
/// Cross-entropy with a target distribution t is `-sum t log softmax(z)`; its gradient is `softmax(z) - t`. With weights of
/// classes the mean is `sum w l / sum w`, as that of PyTorch's `cross_entropy(weight=w)`, where l is an image's whole loss and w
/// the weight of its label. With label smoothing that is not PyTorch's, which weights the term of each class by that class.
///
/// For mixtures of two images it is share * loss(label) + (1 - share) * loss(partner's label), each a loss as above (Zhang et
/// al. 2018): the teacher's part is in both, so it counts once.
///
/// # Errors
/// If the sizes do not fit or a label is not a class.
pub fn loss(logits: &Tensor, target: &Target, backend: &Backend) -> Result<(Loss, Tensor)> {
    let backend = &backend.for_layer("loss");
    check(logits, target.labels, target)?;
    let of_step = f64::from(target.share);
    let (value, gradient) = match target.partners {
        None => loss_of_labels(logits, target, scales_of(target, of_step), backend)?,
        Some(Partners { classes, share }) => {
            check(logits, classes, target)?;
            let own_share = of_step * f64::from(*share);
            let (own, gradient) = loss_of_labels(logits, target, scales_of(target, own_share), backend)?;
            let target = &Target { labels: classes, ..*target };
            let scales = scales_of(target, of_step - own_share);
            let (partners, added) = loss_of_labels(logits, target, scales, backend)?;
            backend.add_assign(&gradient, &added)?;
            (own.plus(partners, backend)?, gradient)
        }
    };
    Ok((Loss { value, share: target.share }, gradient))
}

/// Checks that a target fits the logits.
fn check(logits: &Tensor, labels: &[u32], target: &Target) -> Result<()> {
    let (images, classes) = logits.dims2()?;
    let sizes = [labels.len(), target.teacher.map_or(images, |teacher| teacher.dims()[0])];
    if sizes != [images, images] {
        return Err(Error::invalid(
            "loss",
            "batch",
            format!("{images} labels and teacher rows"),
            format!("{sizes:?}"),
        ));
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        return Err(Error::invalid("loss", "label", format!("below {classes}"), label));
    }
    if let Some(weights) = target.class_weights.filter(|weights| weights.len() != classes) {
        return Err(Error::invalid("loss", "class weights", classes, weights.len()));
    }
    Ok(())
}

/// Factor of each image's loss, for a share of the whole loss; `None` if all are 1.
fn scales_of(target: &Target, share: f64) -> Option<Vec<f64>> {
    let by_class = target.class_weights.map(|weights| scales(target.labels, weights));
    if share == 1.0 {
        return by_class;
    }
    let scales = by_class.unwrap_or_else(|| vec![1.0; target.labels.len()]);
    Some(scales.iter().map(|scale| share * scale).collect())
}

/// The loss of images that have one label each, times their scales.
fn loss_of_labels(
    logits: &Tensor,
    target: &Target,
    scales: Option<Vec<f64>>,
    backend: &Backend,
) -> Result<(Computed, Tensor)> {
    let Target { labels, smoothing, teacher, distillation, .. } = *target;
    // without a teacher there is nothing but the labels to learn from
    let hard_weight = match distillation {
        Distillation::Only if teacher.is_some() => 0.0,
        _ => 1.0,
    };
    if let (Distillation::Alpha, Some(teacher)) = (distillation, teacher) {
        return divergence_loss(logits, teacher, scales.as_deref());
    }
    let rounded: Option<Vec<f32>> =
        scales.as_ref().map(|scales| scales.iter().map(|scale| *scale as f32).collect());
    let hard = HardLabels { classes: labels, smoothing, weight: hard_weight as f32 };
    if let Some(CrossEntropy { losses, gradient }) =
        backend.cross_entropy(logits, hard, teacher, rounded.as_deref())?
    {
        return Ok((Computed::Pending(losses), gradient));
    }
    let (images, classes) = logits.dims2()?;
    let teacher = teacher.map(Tensor::to_vec2::<f32>).transpose()?;
    let mut gradient = Vec::with_capacity(images * classes);
    let mut total = 0.0;
    for (image, row) in logits.to_vec2::<f32>()?.iter().enumerate() {
        let label = labels[image] as usize;
        let log_probabilities = log_softmax(row);
        let soft = teacher.as_ref().map(|rows| log_softmax(&rows[image]));
        let smoothing = f64::from(smoothing);
        let scale = scales.as_ref().map_or(1.0, |scales| scales[image]);
        for (class, log_probability) in log_probabilities.iter().enumerate() {
            let hard = smoothing / classes as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
            let (probability, weight) = match &soft {
                Some(soft) => (hard_weight * hard + soft[class].exp(), hard_weight + 1.0),
                None => (hard, 1.0),
            };
            total -= scale * probability * log_probability;
            gradient.push((scale * (weight * log_probability.exp() - probability) / images as f64) as f32);
        }
    }
    let gradient = Tensor::from_vec(gradient, (images, classes), &Device::Cpu)?;
    Ok((Computed::Known((total / images as f64) as f32), gradient))
}

/// The mean divergence from the teacher, and its gradient. A GPU is waited for: its logits are read.
fn divergence_loss(logits: &Tensor, teacher: &Tensor, scales: Option<&[f64]>) -> Result<(Computed, Tensor)> {
    let (images, classes) = logits.dims2()?;
    let teacher = teacher.to_vec2::<f32>()?;
    let mut gradient = Vec::with_capacity(images * classes);
    let mut total = 0.0;
    for (image, row) in logits.to_vec2::<f32>()?.iter().enumerate() {
        let scale = scales.map_or(1.0, |scales| scales[image]);
        let (divergence, slopes) = adaptive(&log_softmax(row), &log_softmax(&teacher[image]));
        total += scale * divergence;
        gradient.extend(slopes.iter().map(|slope| (scale * slope / images as f64) as f32));
    }
    let gradient = Tensor::from_vec(gradient, (images, classes), &Device::Cpu)?.to_device(logits.device())?;
    Ok((Computed::Known((total / images as f64) as f32), gradient))
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
        let weights = [0.5, 1.0, 4.0];
        let near = Tensor::new(&[[0.1f32, -1.0, 1.5], [0.5, 0.0, 0.0]], &Device::Cpu).expect("a tensor");
        let partners = Partners { classes: vec![1, 0], share: 0.7 };
        let mixed = Some(&partners);
        let added = Distillation::Added;
        for (teacher, class_weights, distillation, partners) in [
            (None, None, added, None),
            (None, None, Distillation::Only, None),
            (Some(&teacher), None, added, None),
            (Some(&teacher), None, Distillation::Only, None),
            (None, Some(&weights[..]), added, None),
            (Some(&teacher), Some(&weights[..]), added, None),
            (Some(&teacher), Some(&weights[..]), Distillation::Only, None),
            (Some(&near), None, Distillation::Alpha, None),
            (Some(&near), Some(&weights[..]), Distillation::Alpha, None),
            (None, None, added, mixed),
            (Some(&teacher), None, added, mixed),
            (Some(&teacher), None, Distillation::Only, mixed),
            (None, Some(&weights[..]), added, mixed),
            (Some(&teacher), Some(&weights[..]), added, mixed),
            (Some(&near), None, Distillation::Alpha, mixed),
            (Some(&near), Some(&weights[..]), Distillation::Alpha, mixed),
        ] {
            let labels = &[2, 0];
            let target =
                Target { labels, partners, smoothing: 0.1, teacher, class_weights, distillation, share: 1.0 };
            let value = |logits: &[f32]| {
                let logits = Tensor::from_slice(logits, (2, 3), &Device::Cpu).expect("a tensor");
                let (loss, gradient) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
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

    /// Without the labels the loss is the teacher's alone: least where the logits are equal, whatever the labels are.
    #[test]
    fn a_teacher_alone_is_followed_whatever_the_labels_say() {
        let logits = Tensor::new(&[[0.5f32, -1.0, 2.0]], &Device::Cpu).expect("a tensor");
        for label in 0..3 {
            let target = Target {
                labels: &[label],
                smoothing: 0.1,
                teacher: Some(&logits),
                distillation: Distillation::Only,
                ..Target::default()
            };
            let (_, gradient) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
            let gradient = gradient.to_vec2::<f32>().expect("f32");
            assert!(gradient[0].iter().all(|slope| slope.abs() < 1e-7), "{gradient:?}");
        }
    }

    /// The cross-entropy with the distribution share * label + (1 - share) * partner's label, smoothed, by its definition.
    #[test]
    fn a_mixture_has_both_labels() {
        let rows = [[0.3f64, -1.2, 2.0], [0.1, 0.0, -0.5]];
        let truth = [[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]];
        let loss_of = |row: [f64; 3], truth: [f64; 3]| {
            let log_sum = row.map(f64::exp).iter().sum::<f64>().ln();
            (0..3).map(|class| (0.9 * truth[class] + 0.1 / 3.0) * (log_sum - row[class])).sum::<f64>()
        };
        let expected = (loss_of(rows[0], truth[0]) + loss_of(rows[1], truth[1])) / 2.0;
        let logits = Tensor::new(&rows.map(|row| row.map(|value| value as f32)), &Device::Cpu);
        let logits = logits.expect("a tensor");
        let partners = Partners { classes: vec![1, 0], share: 0.75 };
        let target =
            Target { labels: &[2, 0], smoothing: 0.1, partners: Some(&partners), ..Default::default() };
        let (got, gradient) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
        assert!((f64::from(got.read().expect("known")) - expected).abs() < 1e-6);
        let gradient = gradient.to_vec2::<f32>().expect("f32");
        for (image, row) in rows.iter().enumerate() {
            let sum: f64 = row.iter().map(|value| value.exp()).sum();
            for class in 0..3 {
                let slope = (row[class].exp() / sum - 0.9 * truth[image][class] - 0.1 / 3.0) / 2.0;
                assert!((f64::from(gradient[image][class]) - slope).abs() < 1e-6, "{image} {class}");
            }
        }
        for classes in [vec![1], vec![1, 3]] {
            let partners = Partners { classes, share: 0.75 };
            let target = Target { partners: Some(&partners), ..target };
            assert!(loss(&logits, &target, &Backend::detect()).is_err());
        }
    }

    #[test]
    fn weights_of_classes_are_those_of_pytorch() {
        // logits = torch.tensor([[0.3, -1.2, 2.0], [0.1, 0.0, -0.5]]); weight = torch.tensor([0.5, 1.0, 4.0])
        // torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]), weight=weight), by its definition:
        let rows = [[0.3f64, -1.2, 2.0], [0.1, 0.0, -0.5]];
        let loss_of = |row: [f64; 3], label: usize| row.map(f64::exp).iter().sum::<f64>().ln() - row[label];
        let expected = (4.0 * loss_of(rows[0], 2) + 0.5 * loss_of(rows[1], 0)) / 4.5;
        let logits = Tensor::new(&rows.map(|row| row.map(|value| value as f32)), &Device::Cpu);
        let logits = logits.expect("a tensor");
        let weights = [0.5, 1.0, 4.0];
        let target = Target { labels: &[2, 0], class_weights: Some(&weights), ..Default::default() };
        let (got, _) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
        assert!((f64::from(got.read().expect("known")) - expected).abs() < 1e-6);
        let short = Target { class_weights: Some(&weights[..2]), ..target };
        assert!(loss(&logits, &short, &Backend::detect()).is_err());
    }

    #[test]
    fn a_huge_gap_stays_finite() {
        let logits = Tensor::new(&[[500.0f32, -500.0]], &Device::Cpu).expect("a tensor");
        let target = Target { labels: &[1], ..Default::default() };
        let (loss, _) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
        assert_eq!(loss.read().expect("known"), 1000.0);
    }

    #[test]
    fn wrong_labels_are_refused() {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).expect("a tensor");
        for labels in [&[0u32][..], &[0, 3]] {
            let target = Target { labels, ..Default::default() };
            assert!(loss(&logits, &target, &Backend::detect()).is_err());
        }
    }
}
