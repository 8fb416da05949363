//! A step's work outside of layers: the loss, the dropout mask, the optimizer.

use candle_core::{Device, Tensor};

use super::host::{Host, place};
use super::{ActivationStorage, Judge, training};
use crate::Precision;
use crate::cpu::testing::values;
use crate::cpu::updates::{AdamWConstants, AdamWStep, SgdStep};
use crate::reference;

#[test]
fn losses_and_their_gradients() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("loss");
    for (images, classes) in [(1, 2), (3, 10), (4, 1000)] {
        for (with_teacher, hard) in [(false, 1.0), (true, 1.0), (true, 0.0)] {
            let scaled = |seed| values(images * classes, seed).iter().map(|value| 8.0 * value).collect();
            let (mut logits, mut teacher): (Vec<f32>, Vec<f32>) = (scaled(1), scaled(2));
            let mut labels: Vec<u32> = (0..images).map(|image| (image * 7 % classes) as u32).collect();
            let (losses, gradient) =
                by_definition(&logits, &labels, hard, with_teacher.then_some(&teacher), classes);
            let mut got = vec![f32::NAN; images];
            let mut slopes = vec![f32::NAN; images * classes];
            let unscaled = training::CrossEntropyPlaces {
                logits: place(&mut logits),
                labels: place(&mut labels),
                teacher: with_teacher.then(|| place(&mut teacher)),
                scales: None,
                losses: place(&mut got),
                gradient: place(&mut slopes),
                images,
                classes,
            };
            host.run(ActivationStorage::F32, [training::cross_entropy(&unscaled, 0.1, hard)]);
            let case = (images, classes, with_teacher, hard);
            judge.close(ActivationStorage::F32, &got, &losses, &case);
            judge.close(ActivationStorage::F32, &slopes, &gradient, &case);
            // with a scale for each image, of losses and rows alike
            let mut scales: Vec<f32> = (0..images).map(|image| 0.5 + image as f32).collect();
            let places = training::CrossEntropyPlaces { scales: Some(place(&mut scales)), ..unscaled };
            host.run(ActivationStorage::F32, [training::cross_entropy(&places, 0.1, hard)]);
            let scaled = |values: &[f32], row: usize| -> Vec<f32> {
                values.iter().enumerate().map(|(index, value)| scales[index / row] * value).collect()
            };
            judge.close(ActivationStorage::F32, &got, &scaled(&losses, 1), &case);
            judge.close(ActivationStorage::F32, &slopes, &scaled(&gradient, classes), &case);
        }
    }
}

#[test]
fn values_are_clamped() {
    let Some(host) = Host::get() else { return };
    for count in [1, 300, 5000] {
        let mut got = values(count, 3);
        let expected: Vec<f32> = got.iter().map(|value| value.clamp(-0.3, 0.3)).collect();
        got[0] = f32::NAN;
        host.run(ActivationStorage::F32, [training::clamp_values(place(&mut got), 0.3, count)]);
        assert!(got[0].is_nan(), "what is not a number is not hidden");
        assert_eq!(got[1..], expected[1..]);
    }
}

#[test]
fn values_move_toward_others() {
    let Some(host) = Host::get() else { return };
    for count in [1, 300, 5000] {
        let mut got = values(count, 3);
        let mut to = values(count, 4);
        let expected: Vec<f32> = got.iter().zip(&to).map(|(from, to)| 0.75 * from + 0.25 * to).collect();
        host.run(
            ActivationStorage::F32,
            [training::move_toward(place(&mut got), place(&mut to), 0.25, count)],
        );
        let apart = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-6);
    }
}

/// Losses and gradient with label smoothing of .1 and this weight of the labels, in f64.
fn by_definition(
    logits: &[f32],
    labels: &[u32],
    hard_weight: f32,
    teacher: Option<&Vec<f32>>,
    classes: usize,
) -> (Vec<f32>, Vec<f32>) {
    let softmax = |row: &[f32]| -> Vec<f64> {
        let powers: Vec<f64> = row.iter().map(|value| f64::from(*value).exp()).collect();
        powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect()
    };
    let mut losses = Vec::new();
    let mut gradient = Vec::new();
    for (image, row) in logits.chunks(classes).enumerate() {
        let probabilities = softmax(row);
        let soft = teacher.map(|teacher| softmax(&teacher[image * classes..][..classes]));
        let mut loss = 0.0;
        let hard_weight = f64::from(hard_weight);
        let weight = hard_weight + if teacher.is_some() { 1.0 } else { 0.0 };
        for (class, probability) in probabilities.iter().enumerate() {
            let hard = 0.1 / classes as f64 + if class == labels[image] as usize { 0.9 } else { 0.0 };
            let target = hard_weight * hard + soft.as_ref().map_or(0.0, |soft| soft[class]);
            loss -= target * probability.ln();
            gradient.push(((weight * probability - target) / labels.len() as f64) as f32);
        }
        losses.push(loss as f32);
    }
    (losses, gradient)
}

/// Masks are copied as bits and read back unchanged; other values are refused.
#[test]
fn masks_go_as_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let Some(backend) = crate::emulated_gpu(precision) else { return };
        for (rows, columns) in [(1, 1), (3, 31), (4, 8), (1280, 7)] {
            let values: Vec<f32> = (0..rows * columns)
                .map(|index: usize| if index * 7 % 10 < 3 { 0.0 } else { 1.25f32 })
                .collect();
            let mask = Tensor::from_slice(&values, (rows, columns), &Device::Cpu).expect("a tensor");
            let got = backend.mask(&mask).and_then(|mask| backend.numbers(&mask)).expect("a mask");
            assert_eq!(got.dims(), mask.dims());
            assert_eq!(got.flatten_all().and_then(|got| got.to_vec1::<f32>()).expect("f32"), values);
        }
        let other = Tensor::new(&[0.0f32, 1.25, 2.0], &Device::Cpu).expect("a tensor");
        let error = backend.mask(&other).expect_err("two numbers other than zero").to_string();
        assert!(error.contains("zeros and 1.25 alone, got 2"), "{error}");
    }
}

#[test]
fn one_step_of_all_parameters() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("optimizer");
    let lengths = [1, 5000, 0, 256, 8192];
    let step = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 3e-4 };
    let mut tensors: Vec<[Vec<f32>; 3]> =
        lengths.iter().map(|len| [1, 2, 3].map(|seed| values(*len, seed))).collect();
    let mut expected = tensors.clone();
    let mut parameters = Vec::new();
    for (index, ([value, gradient, velocity], [p, g, v])) in tensors.iter_mut().zip(&mut expected).enumerate()
    {
        let weight_decay = if index % 2 == 0 { step.weight_decay } else { 0.0 };
        reference::updates::nesterov(p, g, v, SgdStep { weight_decay, ..step });
        let length = value.len() as i64;
        let [value, gradient, velocity] = [value, gradient, velocity].map(|values| place(values));
        let parameter = training::Parameter { value, gradient, velocity, length, weight_decay };
        parameters.extend(parameter.words());
    }
    let mut chunks = training::chunks(&lengths);
    assert_eq!(chunks.len(), 6);
    let count = chunks.len();
    let launch =
        training::nesterov(place(&mut parameters), place(&mut chunks), count, step.lr, step.momentum);
    host.run(ActivationStorage::F32, [launch]);
    for (got, expected) in tensors.iter().flatten().zip(expected.iter().flatten()) {
        judge.close(ActivationStorage::F32, got, expected, &"nesterov");
    }
}

#[test]
fn one_step_of_adamw() {
    let Some(host) = Host::get() else { return };
    let mut judge = Judge::new("adamw");
    let lengths = [1, 5000, 0, 256, 8192];
    let constants = AdamWConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let mut tensors: Vec<[Vec<f32>; 4]> = Vec::new();
    for len in lengths {
        let [value, gradient, first, second] = [1, 2, 3, 4].map(|seed| values(len, seed));
        tensors.push([value, gradient, first, second.iter().map(|value| value.abs()).collect()]);
    }
    let mut expected = tensors.clone();
    let mut parameters = Vec::new();
    let mut steps = Vec::new();
    for (index, (tensors, [p, g, m, v])) in tensors.iter_mut().zip(&mut expected).enumerate() {
        let weight_decay = if index % 2 == 0 { 3e-4 } else { 0.0 };
        // parameters differ in the number of steps taken
        let step = AdamWStep::new(constants, 0.05, weight_decay, 1 + index as u64 * 7);
        reference::updates::adamw(p, g, [m, v], step);
        let length = tensors[0].len() as i64;
        let [value, gradient, first, second] = tensors.each_mut().map(|values| place(values));
        let adapted = training::Adapted { value, gradient, moments: [first, second], length, step };
        parameters.extend(adapted.words());
        steps.push(step);
    }
    let mut chunks = training::chunks(&lengths);
    let count = chunks.len();
    let launch = training::adamw(place(&mut parameters), place(&mut chunks), count, steps[0]);
    host.run(ActivationStorage::F32, [launch]);
    for (got, expected) in tensors.iter().flatten().zip(expected.iter().flatten()) {
        judge.close(ActivationStorage::F32, got, expected, &"adamw");
    }
}
