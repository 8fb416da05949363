use candle_core::Tensor;
use rand::Rng;

use super::*;
use base::random::rng_for;
use space::preset;

const NESTEROV: OptimizerSettings = OptimizerSettings::Nesterov { momentum: 0.9 };
const ADAMW: OptimizerSettings = OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

fn weights() -> SharedWeights {
    let space = preset("tiny").expect("a preset");
    SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights")
}

/// Gradients of all weights, equal on every call.
fn gradients(weights: &SharedWeights, step: u64) -> Arena {
    let mut rng = rng_for("gradients", 1, &[step]);
    let mut of = |tensor: &Tensor| {
        let values: Vec<f32> = (0..tensor.elem_count()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_vec(values, tensor.dims(), &Device::Cpu).expect("sizes agree")
    };
    let tensors = weights.tensors().iter().map(|(name, tensor)| (name.clone(), of(tensor))).collect();
    Arena::of(weights.arena().layout().clone(), tensors, "gradients").expect("the same names")
}

fn bits(arena: &Arena) -> Vec<u32> {
    let values = arena.values().to_vec1::<f32>().expect("f32 on the CPU");
    values.iter().map(|value| value.to_bits()).collect()
}

/// Names of weights that move at a step: all weights at even steps, those of stem and classifier at odd ones.
fn moving(arena: &Arena, step: u64) -> Vec<&str> {
    let mut names: Vec<&str> = arena.layout().names().collect();
    if !step.is_multiple_of(2) {
        names.retain(|name| name.starts_with("first_conv") || name.starts_with("classifier"));
    }
    names
}

/// Weights after some steps, the last of them by an optimizer that was saved and restored after `restored_after`.
fn trained(settings: OptimizerSettings, restored_after: Option<u64>) -> (Vec<u32>, OptimizerState) {
    let weights = weights();
    let backend = Backend::detect();
    let at_rest = || settings.at_rest(weights.arena(), 0.01, &backend).expect("room");
    let mut optimizer = at_rest();
    for step in 0..6 {
        let gradients = gradients(&weights, step);
        let names = moving(weights.arena(), step);
        optimizer.move_weights(weights.arena(), &gradients, &names, 0.01).expect("its own");
        assert!(
            names.iter().all(|name: &&str| {
                let values =
                    gradients.get(name).expect("a gradient").flatten_all().and_then(|g| g.to_vec1::<f32>());
                values.expect("f32").iter().all(|value| *value == 0.0)
            }),
            "{step}"
        );
        if restored_after == Some(step) {
            let state = optimizer.state().expect("on the CPU");
            optimizer = at_rest();
            optimizer.restore(state).expect("its own");
        }
    }
    assert_eq!(optimizer.unsound().expect("readable"), None);
    (bits(weights.arena()), optimizer.state().expect("on the CPU"))
}

#[test]
fn a_restored_optimizer_goes_on_as_if_it_had_never_stopped() {
    for settings in [NESTEROV, ADAMW] {
        let (weights, state) = trained(settings, None);
        assert_eq!(state.tensors.len() as u64, settings.values_per_weight());
        for after in [0, 1, 4] {
            let (again, restored) = trained(settings, Some(after));
            assert!(again == weights && restored.steps == state.steps, "{settings:?} after {after}");
        }
    }
}

/// As PyTorch's parameters whose gradient is sometimes `None`, torch 2.15.0, Python 3.11:
///
/// ```python
/// a, b = (torch.nn.Parameter(torch.tensor([1.0])) for _ in range(2))
/// adamw = torch.optim.AdamW([a, b], lr=0.1, weight_decay=0.01)
/// for ga, gb in [(0.5, None), (-0.25, None), (0.125, 0.5), (1.0, -0.25)]:
///     a.grad, b.grad = (None if g is None else torch.tensor([g]) for g in (ga, gb))
///     adamw.step(); print(f"{a.item():.9g} {b.item():.9g}", [adamw.state[x].get("step") for x in (a, b)])
/// ```
#[test]
fn a_weight_that_rests_keeps_its_own_count() {
    let weights = weights();
    let names = ["classifier.linear.weight", "first_conv.conv.weight"];
    let full = |value: f32| {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in weights.tensors() {
            let full = Tensor::full(value, tensor.dims(), &Device::Cpu).expect("a tensor");
            tensors.insert(name.clone(), full);
        }
        tensors
    };
    let arena = |tensors| Arena::of(weights.arena().layout().clone(), tensors, "x").expect("the same names");
    let ones = arena(full(1.0));
    let mut adamw = ADAMW.at_rest(&ones, 0.01, &Backend::detect()).expect("room");
    let steps = [
        ([Some(0.5), None], [0.899_000_05, 1.0], [1, 0]),
        ([Some(-0.25), None], [0.871_467_35, 1.0], [2, 0]),
        ([Some(0.125), Some(0.5)], [0.836_553, 0.899_000_05], [3, 1]),
        ([Some(1.0), Some(-0.25)], [0.771_427_2, 0.871_467_35], [4, 2]),
    ];
    for (slopes, expected, counts) in steps {
        let mut tensors = full(0.0);
        for (name, slope) in names.iter().zip::<[Option<f32>; 2]>(slopes) {
            let tensor = tensors.get_mut(*name).expect("a weight");
            *tensor = Tensor::full(slope.unwrap_or(0.0), tensor.dims(), &Device::Cpu).expect("a tensor");
        }
        let mut moving = Vec::new();
        for (name, slope) in names.into_iter().zip(slopes) {
            moving.extend(slope.map(|_| name));
        }
        adamw.move_weights(&ones, &arena(tensors), &moving, 0.1).expect("its own");
        for ((name, expected), count) in names.iter().zip(expected).zip(counts) {
            let values = ones.get(name).and_then(|tensor| tensor.flatten_all().ok()?.to_vec1::<f32>().ok());
            for value in values.expect("f32") {
                assert!((value - expected).abs() <= 2e-7, "{name}: {value}, expected {expected}");
            }
            assert_eq!(adamw.steps()[*name], count, "{name}");
        }
        let rest = ones.get("classifier.linear.bias").expect("a weight").to_vec1::<f32>().expect("f32");
        assert_eq!(rest, [1.0; 10], "a weight that no step names stays");
    }
}

#[test]
fn the_head_moves_alone() {
    for settings in [NESTEROV, ADAMW] {
        let weights = weights();
        let backend = Backend::detect();
        let gradients = Gradients::new(&weights).expect("zeros");
        let before: BTreeMap<String, Vec<f32>> =
            weights.tensors().iter().map(|(n, t)| (n.clone(), flat(t))).collect();
        let names = ["classifier.linear.bias", "first_conv.bn.weight"];
        for name in names {
            let gradient = gradients.touch(name).expect("a weight");
            backend.add_assign(gradient, &gradient.ones_like().expect("ones")).expect("one shape");
        }
        let mut optimizer = settings.at_rest(weights.arena(), 0.01, &backend).expect("room");
        optimizer.step_head(&weights, &gradients, 0.1).expect("its own");
        for (name, tensor) in weights.tensors() {
            let moved = flat(tensor) != before[name];
            assert_eq!(moved, name == names[0], "{settings:?}: {name}");
        }
        let left = flat(gradients.arena().values());
        assert!(left.iter().all(|value| *value == 0.0), "{settings:?}");
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32")
}

#[test]
fn the_state_of_another_optimizer_is_refused() {
    let weights = weights();
    let backend = Backend::detect();
    let [mut nesterov, mut adamw] =
        [NESTEROV, ADAMW].map(|settings| settings.at_rest(weights.arena(), 0.0, &backend).expect("room"));
    let states = [&nesterov, &adamw].map(|optimizer| optimizer.state().expect("on the CPU"));
    let error = adamw.restore(states[0].clone()).expect_err("another's").to_string();
    assert!(
        error.contains("expected tensors called first_moment, got the state of nesterov; resume"),
        "{error}"
    );
    let error = nesterov.restore(states[1].clone()).expect_err("another's").to_string();
    assert!(error.contains("expected tensors called velocity, got the state of adamw; resume"), "{error}");
    let mut uncounted = states[1].clone();
    uncounted.steps.clear();
    assert!(adamw.restore(uncounted).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_found_in_every_arena() {
    let weights = weights();
    let backend = Backend::detect();
    for (settings, sort) in [(NESTEROV, "velocity"), (ADAMW, "first_moment"), (ADAMW, "second_moment")] {
        let mut optimizer = settings.at_rest(weights.arena(), 0.0, &backend).expect("room");
        let mut state = optimizer.state().expect("on the CPU");
        let tensors = state.tensors.get_mut(sort).expect("a sort");
        let bias = Tensor::full(f32::INFINITY, 10, &Device::Cpu).expect("a tensor");
        tensors.insert("classifier.linear.bias".to_string(), bias);
        optimizer.restore(state).expect("its own");
        assert_eq!(optimizer.unsound().expect("readable"), Some("classifier.linear.bias"), "{sort}");
    }
}
