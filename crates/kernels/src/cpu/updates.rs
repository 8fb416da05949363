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

vectorised!(
    fn update(parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) = update_on
);

#[inline(always)]
fn update_on<T: Lanes>(parameter: &mut [f32], gradient: &mut [f32], velocity: &mut [f32], step: SgdStep) {
    let (momentum, decay, descent) =
        (T::splat(step.momentum), T::splat(step.weight_decay), T::splat(-step.lr));
    let chunks = parameter.chunks_mut(T::COUNT).zip(velocity.chunks_mut(T::COUNT));
    for ((parameter, velocity), gradient) in chunks.zip(gradient.chunks_mut(T::COUNT)) {
        let (count, zero) = (parameter.len(), T::splat(0.0));
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
                let (mut parameter, mut velocity) = (values(len, 1), vec![0.0; len]);
                for seed in 2..5 {
                    let mut gradient = values(len, seed);
                    nesterov(&mut parameter, &mut gradient, &mut velocity);
                    assert!(gradient.iter().all(|value| *value == 0.0));
                }
                [parameter, velocity].concat()
            };
            let expect = run(&|p, g, v| reference::nesterov(p, g, v, step));
            let kernel = |isa| run(&|p, g, v| nesterov(isa, p, g, v, step));
            on_every_isa(kernel, |isa, got| assert_close(got, &expect, &(isa, len)));
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
        let (mut parameter, mut velocity) = ([1.0], [0.0]);
        for (gradient, expect) in [(0.5, 0.9031), (-0.25, 0.907_574_1)] {
            nesterov(Isa::detect(), &mut parameter, &mut [gradient], &mut velocity, step);
            assert!((parameter[0] - expect).abs() < 1e-6, "{parameter:?}");
        }
    }
}
