//! The optimizer's step over flat parameters.

use super::simd::{Lanes, load_up_to, store_up_to, vectorised};
use super::{Isa, SERIAL_WORK, TASK_WORK};
use rayon::prelude::*;

/// The constants of one step.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f32,
    /// Momentum, also used for Nesterov's look ahead.
    pub momentum: f32,
    /// Weight decay, added to the gradient; 0 for parameters without.
    pub weight_decay: f32,
}

/// One step of stochastic gradient descent with Nesterov momentum, as `torch.optim.SGD` defines it (no
/// dampening): g += wd * p; v = mu * v + g; p -= lr * (g + mu * v). Then the gradient is 0, ready for the next step.
///
/// # Shapes
/// All three slices have the same length.
pub fn nesterov(isa: Isa, parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) {
    assert_eq!((parameter.len(), parameter.len()), (gradient.len(), velocity.len()));
    /// Values of a task; a value is read three times and written three times.
    const CHUNK: usize = TASK_WORK / 6;
    if parameter.len() * 6 <= SERIAL_WORK {
        return update(isa, parameter, gradient, velocity, step);
    }
    let chunks = parameter.par_chunks_mut(CHUNK).zip(velocity.par_chunks_mut(CHUNK));
    let chunks = chunks.zip(gradient.par_chunks_mut(CHUNK));
    chunks.for_each(|((parameter, velocity), gradient)| update(isa, parameter, gradient, velocity, step));
}

/// AdamW's constants except learning rate and weight decay: `torch.optim.AdamW`'s `betas` and `eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConstants {
    /// Share that the first moment keeps in a step.
    pub beta1: f64,
    /// Share that the second moment keeps in a step.
    pub beta2: f64,
    /// Added to the root of the second moment, above 0.
    pub epsilon: f64,
}

/// The constants of one step of AdamW on parameters that have taken as many steps.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// The factor of a parameter at the beginning: 1 - lr * weight decay.
    pub keep: f32,
    /// 1 - beta1.
    pub first_share: f32,
    /// beta2.
    pub second_keep: f32,
    /// 1 - beta2.
    pub second_share: f32,
    /// lr / (1 - beta1^t).
    pub rate: f32,
    /// The square root of 1 - beta2^t.
    pub root: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

impl AdamWStep {
    /// Step number `count`, from 1 on. Computed in double precision, as PyTorch does.
    pub fn new(constants: AdamWConstants, lr: f32, weight_decay: f32, count: u64) -> Self {
        let AdamWConstants { beta1, beta2, epsilon } = constants;
        let [lr, weight_decay] = [lr, weight_decay].map(f64::from);
        // beyond 2^31 steps both powers have long been 0
        let left = |beta: f64| 1.0 - beta.powi(i32::try_from(count).unwrap_or(i32::MAX));
        Self {
            keep: (1.0 - lr * weight_decay) as f32,
            first_share: (1.0 - beta1) as f32,
            second_keep: beta2 as f32,
            second_share: (1.0 - beta2) as f32,
            rate: (lr / left(beta1)) as f32,
            root: left(beta2).sqrt() as f32,
            epsilon: epsilon as f32,
        }
    }
}

/// One step of AdamW (Loshchilov & Hutter 2019) as `torch.optim.AdamW` defines it: p *= 1 - lr * wd;
/// m += (1 - beta1) * (g - m); v = beta2 * v + (1 - beta2) * g^2;
/// p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps). Then the gradient is 0, ready for the next step.
///
/// # Shapes
/// All four slices have the same length; `moments` are m and v.
pub fn adamw(
    isa: Isa,
    parameter: &mut [f32],
    gradient: &mut [f32],
    moments: [&mut [f32]; 2],
    step: AdamWStep,
) {
    let [first, second] = moments;
    assert_eq!([parameter.len(); 3], [gradient.len(), first.len(), second.len()]);
    /// Values of a task; a value is read four times and written four times.
    const CHUNK: usize = TASK_WORK / 8;
    if parameter.len() * 8 <= SERIAL_WORK {
        return adapt(isa, parameter, gradient, first, second, step);
    }
    let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
    let chunks = parameter.par_chunks_mut(CHUNK).zip(gradient.par_chunks_mut(CHUNK)).zip(moments);
    chunks.for_each(|((parameter, gradient), (first, second))| {
        adapt(isa, parameter, gradient, first, second, step);
    });
}

vectorised!(
    fn adapt(
        parameter: &mut [f32],
        gradient: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        step: AdamWStep,
    ) = adapt_on
);

#[inline(always)]
fn adapt_on<T: Lanes>(
    parameter: &mut [f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    step: AdamWStep,
) {
    let AdamWStep { keep, first_share, second_keep, second_share, rate, root, epsilon } = step;
    let keep = T::splat(keep);
    let first_share = T::splat(first_share);
    let second_keep = T::splat(second_keep);
    let second_share = T::splat(second_share);
    let descent = T::splat(-rate);
    let root = T::splat(root);
    let epsilon = T::splat(epsilon);
    let moments = first.chunks_mut(T::COUNT).zip(second.chunks_mut(T::COUNT));
    let chunks = parameter.chunks_mut(T::COUNT).zip(gradient.chunks_mut(T::COUNT));
    for ((parameter, gradient), (first, second)) in chunks.zip(moments) {
        let count = parameter.len();
        let zero = T::splat(0.0);
        assert_eq!([count; 3], [gradient.len(), first.len(), second.len()]);
        // SAFETY: each of the four chunks has `count <= COUNT` values.
        unsafe {
            let g = load_up_to(gradient.as_ptr(), count, zero);
            let m = load_up_to(first.as_ptr(), count, zero);
            let m = g.sub(m).mul_add(first_share, m);
            let v = load_up_to(second.as_ptr(), count, zero).mul(second_keep);
            let v = g.mul(second_share).mul_add(g, v);
            let p = load_up_to(parameter.as_ptr(), count, zero).mul(keep);
            let direction = m.div(v.sqrt().div(root).add(epsilon));
            store_up_to(m, first.as_mut_ptr(), count);
            store_up_to(v, second.as_mut_ptr(), count);
            store_up_to(zero, gradient.as_mut_ptr(), count);
            store_up_to(direction.mul_add(descent, p), parameter.as_mut_ptr(), count);
        }
    }
}

vectorised!(
    fn update(parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) = update_on
);

#[inline(always)]
fn update_on<T: Lanes>(parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) {
    let momentum = T::splat(step.momentum);
    let decay = T::splat(step.weight_decay);
    let descent = T::splat(-step.lr);
    let chunks = parameter.chunks_mut(T::COUNT).zip(velocity.chunks_mut(T::COUNT));
    for ((parameter, velocity), gradient) in chunks.zip(gradient.chunks_mut(T::COUNT)) {
        let count = parameter.len();
        let zero = T::splat(0.0);
        assert_eq!((count, count), (velocity.len(), gradient.len()));
        // SAFETY: each of the three chunks has `count <= COUNT` values.
        unsafe {
            let p = load_up_to(parameter.as_ptr(), count, zero);
            let g = p.mul_add(decay, load_up_to(gradient.as_ptr(), count, zero));
            let v = load_up_to(velocity.as_ptr(), count, zero).mul_add(momentum, g);
            let direction = v.mul_add(momentum, g);
            store_up_to(v, velocity.as_mut_ptr(), count);
            store_up_to(zero, gradient.as_mut_ptr(), count);
            store_up_to(direction.mul_add(descent, p), parameter.as_mut_ptr(), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, on_every_isa, values};
    use super::*;
    use crate::reference::updates as reference;

    #[test]
    fn three_steps_agree_with_the_reference() {
        let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        for len in [1, 7, 16, 33, 100_003] {
            type Step<'a> = &'a dyn Fn(&mut [f32], &mut [f32], &mut [f32]);
            let run = |nesterov: Step| {
                let mut parameter = values(len, 1);
                let mut velocity = vec![0.0; len];
                for seed in 2..5 {
                    let mut gradient = values(len, seed);
                    nesterov(&mut parameter, &mut gradient, &mut velocity);
                    assert!(gradient.iter().all(|value| *value == 0.0));
                }
                [parameter, velocity].concat()
            };
            let expect = run(&|p, g, v| reference::nesterov(p, g, v, step));
            on_every_isa(
                |isa| run(&|p, g, v| nesterov(isa, p, g, v, step)),
                |isa, got| assert_close(got, &expect, &(isa, len)),
            );
        }
    }

    /// ```python
    /// p = torch.nn.Parameter(torch.tensor([1.0]))
    /// sgd = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    /// for g in (0.5, -0.25): p.grad = torch.tensor([g]); sgd.step(); print(p.item())
    /// ```
    #[test]
    fn two_steps_by_hand() {
        // g = 0.51, v = 0.51, p = 1 - 0.1 * 0.969 = 0.9031
        // g = -0.240969, v = 0.218031, p = 0.9031 - 0.1 * (-0.0447411) = 0.90757411
        let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let mut parameter = [1.0];
        let mut velocity = [0.0];
        for (gradient, expect) in [(0.5, 0.9031), (-0.25, 0.907_574_1)] {
            nesterov(Isa::detect(), &mut parameter, &mut [gradient], &mut velocity, step);
            assert!((parameter[0] - expect).abs() < 1e-6, "{parameter:?}");
        }
    }

    const ADAMW: AdamWConstants = AdamWConstants { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    #[test]
    fn adamw_agrees_with_the_reference() {
        for len in [1, 7, 16, 33, 100_003] {
            type Step<'a> = &'a dyn Fn(&mut [f32], &mut [f32], [&mut [f32]; 2], AdamWStep);
            let run = |adamw: Step| {
                let mut parameter = values(len, 1);
                let mut first = vec![0.0; len];
                let mut second = vec![0.0; len];
                for count in 1..4 {
                    let mut gradient = values(len, 1 + count as u32);
                    let step = AdamWStep::new(ADAMW, 0.1, 0.01, count);
                    adamw(&mut parameter, &mut gradient, [&mut first, &mut second], step);
                    assert!(gradient.iter().all(|value| *value == 0.0));
                }
                [parameter, first, second].concat()
            };
            let expect = run(&|p, g, moments, step| reference::adamw(p, g, moments, step));
            on_every_isa(
                |isa| run(&|p, g, moments, step| adamw(isa, p, g, moments, step)),
                |isa, got| assert_close(got, &expect, &(isa, len)),
            );
        }
    }

    /// torch 2.15.0, Python 3.11:
    ///
    /// ```python
    /// p = torch.nn.Parameter(torch.tensor([1.0, -0.5, 0.25]))
    /// adamw = torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    /// for g in ([0.5, -1.0, 0.0], [-0.25, 2.0, 1e-4], [0.125, 0.0, -3.0]):
    ///     p.grad = torch.tensor(g); adamw.step(); print([f"{x:.9g}" for x in p.tolist()])
    /// s = adamw.state[p]; print([f"{x:.9g}" for x in s["exp_avg"].tolist() + s["exp_avg_sq"].tolist()])
    /// ```
    #[test]
    fn adamw_takes_the_steps_of_pytorch() {
        let steps = [
            ([0.5, -1.0, 0.0], [0.899_000_05, -0.399_5, 0.249_75]),
            ([-0.25, 2.0, 1e-4], [0.871_467_35, -0.435_710_85, 0.175_097_1]),
            ([0.125, 0.0, -3.0], [0.836_553, -0.463_575_04, 0.238_801_45]),
        ];
        let moments = [0.030_5, 0.098_999_99, -0.299_991, 0.000_327_562_77, 0.004_994_001_2, 0.009];
        for isa in Isa::available() {
            let mut parameter = [1.0, -0.5, 0.25];
            let mut first = [0.0; 3];
            let mut second = [0.0; 3];
            for (count, (mut gradient, expect)) in (1..).zip(steps) {
                let step = AdamWStep::new(ADAMW, 0.1, 0.01, count);
                adamw(isa, &mut parameter, &mut gradient, [&mut first, &mut second], step);
                assert_near(&parameter, &expect);
            }
            assert_near(&[first, second].concat(), &moments);
        }
    }

    /// Equal but for two roundings.
    #[track_caller]
    fn assert_near(got: &[f32], expect: &[f32]) {
        for (got, expect) in got.iter().zip(expect) {
            assert!(
                (got - expect).abs() <= 2.0 * f32::EPSILON * expect.abs(),
                "got {got}, expected {expect}"
            );
        }
    }
}
