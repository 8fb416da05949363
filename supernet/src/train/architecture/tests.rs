use candle_core::{Device, Tensor};
use network::checkpoint::POLICY;

use super::*;
use space::preset;

fn recipe(by: ArchitectureRule) -> ArchitectureRecipe {
    ArchitectureRecipe {
        by,
        order: 1,
        lr: 0.1,
        decays: [0.5, 0.999],
        weight_decay: 0.0,
        every_steps: 1,
        warmup_epochs: 0.0,
        temperatures: [2.0, 0.5],
        most_skips: None,
    }
}

/// Logits away from their start, so that all probabilities differ.
fn lively(by: ArchitectureRule, space: &SearchSpace) -> Logits {
    let mut logits = Logits::new(recipe(by), space, 1).expect("a space of operators");
    logits.spread(1);
    logits
}

/// Slopes of a made-up loss by the values' weights: number `place` of gene `gene` has its own.
fn gates(mixed: &Mixed, space: &SearchSpace) -> BTreeMap<GeneId, GateSlopes> {
    let mut gates = BTreeMap::new();
    for (gene, values) in mixed.values.iter().enumerate().skip(1) {
        let slope = |value: &Index| (*value, gate(gene, *value));
        let named =
            |value: &Index| space.genome().genes()[gene].values[usize::from(*value)].to_string() != "none";
        let values = values.iter().filter(|value| named(value)).map(slope).collect();
        gates.insert(gene, GateSlopes { values, ones: 0.3 * gene as f64, places: 1 });
    }
    gates
}

fn gate(gene: GeneId, value: Index) -> f64 {
    ((gene * 7 + usize::from(value) * 3) % 5) as f64 - 1.7
}

/// Slopes by central differences of a function of the logits.
fn differences(logits: &Logits, of: impl Fn(&Logits) -> f64) -> Vec<f64> {
    let moved = |at: usize, by: f64| {
        let mut logits = logits.clone();
        logits.adam.values[at] += by;
        of(&logits)
    };
    (0..logits.adam.values.len()).map(|at| (moved(at, 1e-5) - moved(at, -1e-5)) / 2e-5).collect()
}

/// The operator that adds nothing has a slope of 0 by its weight.
fn gate_or_zero(space: &SearchSpace, gene: GeneId, place: usize) -> f64 {
    let value = space.genome().allowed(gene)[place];
    let is_none = space.genome().genes()[gene].values[usize::from(value)].to_string() == "none";
    if is_none { 0.0 } else { gate(gene, value) }
}

fn assert_close(found: &[f64], expected: &[f64]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-8, "logit {at}: {found} {expected}");
    }
}

#[test]
fn slopes_of_a_mixture_come_through_the_softmax() {
    let space = preset("tiny-cell").expect("a preset");
    let logits = lively(ArchitectureRule::Darts, &space);
    let mixed = logits.all(&space);
    let found = logits.slopes(&mixed, &space, &gates(&mixed, &space));
    // a loss that is linear in the weights has these slopes
    let loss = |logits: &Logits| -> f64 {
        let of_gene = |at: usize| -> f64 {
            let gene = logits.genes[at].0;
            let shares = logits.shares(at);
            shares.iter().enumerate().map(|(place, share)| share * gate_or_zero(&space, gene, place)).sum()
        };
        (0..logits.genes.len()).map(of_gene).sum()
    };
    assert_close(&found, &differences(&logits, loss));
}

/// What was not drawn counts as a map of ones, and all slopes come through the softmax with the noise of the draw.
#[test]
fn slopes_of_a_draw_with_noise_come_through_its_softmax() {
    let space = preset("tiny-cell").expect("a preset");
    let logits = lively(ArchitectureRule::Gdas, &space);
    let mixed = logits.trial(&space, 0.5, &mut rng_for("test", 3, &[]));
    let found = logits.slopes(&mixed, &space, &gates(&mixed, &space));
    let loss = |moved: &Logits| -> f64 {
        let mut sum = 0.0;
        for (at, (gene, _)) in moved.genes.iter().enumerate() {
            let Way::Drawn { chosen, soft, temperature } = &mixed.ways[at] else { panic!("one is drawn") };
            assert_eq!(*temperature, 1.25);
            // the noise of the draw, from its softmax and the shares then
            let noisy: Vec<f64> = soft
                .iter()
                .zip(logits.shares(at))
                .zip(moved.shares(at))
                .map(|((soft, before), now)| soft.ln() + (now.ln() - before.ln()) / temperature)
                .collect();
            for (place, soft) in softmax(&noisy).into_iter().enumerate() {
                let own =
                    if place == *chosen { gate_or_zero(&space, *gene, place) } else { 0.3 * *gene as f64 };
                sum += soft * own;
            }
        }
        sum
    };
    assert_close(&found, &differences(&logits, loss));
}

#[test]
fn two_operators_compete_and_the_others_keep_their_probabilities() {
    let space = preset("tiny-cell").expect("a preset");
    let mut logits = lively(ArchitectureRule::Proxyless, &space);
    for step in 0..30 {
        let mixed = logits.trial(&space, 0.0, &mut rng_for("test", step, &[]));
        let before: Vec<Vec<f64>> = (0..logits.genes.len()).map(|at| logits.shares(at)).collect();
        let slopes = logits.slopes(&mixed, &space, &gates(&mixed, &space));
        logits.step(&mixed, &slopes);
        for (at, before) in before.iter().enumerate() {
            let Way::Pair { chosen, .. } = &mixed.ways[at] else { panic!("two compete") };
            assert_ne!(chosen[0], chosen[1]);
            let gene = logits.genes[at].0;
            let weight =
                |place: usize| logits.weight(&mixed, &space, gene, space.genome().allowed(gene)[place]);
            assert_eq!(chosen.map(weight), [1.0, 0.0]);
            let after = logits.shares(at);
            for place in (0..after.len()).filter(|place| !chosen.contains(place)) {
                assert!((after[place] - before[place]).abs() < 1e-6, "{before:?} {after:?}");
            }
            // the one with the lower slope gains
            let [first, second] = chosen.map(|place| gate_or_zero(&space, gene, place));
            let counting = space.genome().allowed(gene)[chosen[0]];
            let counts = space.genome().genes()[gene].values[usize::from(counting)].to_string() != NONE;
            if first != second && step == 0 && counts {
                let better = if first < second { chosen[0] } else { chosen[1] };
                assert!(after[better] > before[better], "{before:?} {after:?}");
            }
        }
    }
}

#[test]
fn steps_go_to_what_lowers_the_loss() {
    let space = preset("tiny-cell").expect("a preset");
    for by in [ArchitectureRule::Darts, ArchitectureRule::Gdas, ArchitectureRule::Proxyless] {
        let mut logits = Logits::new(recipe(by), &space, 1).expect("a space of operators");
        let [fresh, _] = logits.summary(&space);
        for step in 0..600 {
            let mixed = logits.trial(&space, 0.5, &mut rng_for("test", step, &[]));
            let mut gates = gates(&mixed, &space);
            // maps of ones say nothing here
            gates.values_mut().for_each(|own| own.ones = 0.0);
            let slopes = logits.slopes(&mixed, &space, &gates);
            logits.step(&mixed, &slopes);
        }
        let (arch, _) = logits.derived(&space);
        let row = space.row(&arch).expect("its own");
        for (gene, _) in &logits.genes {
            let count = space.genome().allowed(*gene).len();
            let least =
                (0..count).map(|place| gate_or_zero(&space, *gene, place)).fold(f64::INFINITY, f64::min);
            let place = space.genome().allowed(*gene).iter().position(|value| *value == row[*gene]);
            let found = gate_or_zero(&space, *gene, place.expect("allowed"));
            assert_eq!(found, least, "{by:?}, gene {gene}");
        }
        assert!(logits.summary(&space)[0] < fresh, "{by:?}");
    }
}

#[test]
fn skips_beyond_the_limit_become_the_next_best() {
    let space = preset("nas-bench-201").expect("a preset");
    let mut logits = Logits::new(recipe(ArchitectureRule::Darts), &space, 1).expect("a space of operators");
    let genome = space.genome();
    for (at, (gene, start)) in logits.genes.iter().enumerate() {
        let skip = (0..5).find(|place| logits.is_skip(&space, *gene, *place)).expect("skip_connect");
        logits.adam.values[start + skip] = 3.0 + at as f64;
        logits.adam.values[*start] = 1.0;
    }
    let skips = |arch: &Arch| arch.to_string().matches(SKIP).count();
    let (arch, found) = logits.derived(&space);
    assert_eq!((skips(&arch), found), (6, 6));
    assert!(logits.summary(&space)[1] > 0.8);
    logits.recipe.most_skips = Some(2);
    let (arch, found) = logits.derived(&space);
    assert_eq!((skips(&arch), found), (2, 2));
    let row = space.row(&arch).expect("its own");
    let of = |at: usize| {
        genome.genes()[logits.genes[at].0].values[usize::from(row[logits.genes[at].0])].to_string()
    };
    assert_eq!([4, 5].map(of), [SKIP, SKIP], "the surest stay");
    assert_eq!(of(0), genome.genes()[logits.genes[0].0].values[0].to_string());
}

#[test]
fn a_state_is_restored_and_that_of_another_is_refused() {
    let space = preset("tiny-cell").expect("a preset");
    let mut logits = Logits::new(recipe(ArchitectureRule::Darts), &space, 1).expect("a space of operators");
    let mixed = logits.all(&space);
    let slopes = logits.slopes(&mixed, &space, &gates(&mixed, &space));
    logits.step(&mixed, &slopes);
    let empty =
        || OptimizerState { kind: "nesterov".into(), tensors: BTreeMap::new(), steps: BTreeMap::new() };
    let mut state = empty();
    logits.add_to(&mut state).expect("tensors");
    let fresh =
        |space: &SearchSpace| Logits::new(recipe(ArchitectureRule::Darts), space, 2).expect("operators");
    let mut other = fresh(&space).restored(&mut state.clone()).expect("its own");
    for logits in [&mut logits, &mut other] {
        logits.step(&mixed, &slopes);
    }
    assert_eq!(logits.adam.values, other.adam.values);
    let error = fresh(&space).restored(&mut empty()).expect_err("none").to_string();
    assert!(error.contains("architecture: expected the logits of this space's choices, got none"), "{error}");
    let mut broken = state.clone();
    let counts = Tensor::from_vec(vec![3e38f32, 0.5], 2, &Device::Cpu).expect("a tensor");
    broken.tensors.get_mut(POLICY).expect("there").insert("counts".to_string(), counts);
    let error = fresh(&space).restored(&mut broken).expect_err("no counts").to_string();
    assert!(error.contains("policy.counts (steps): expected whole numbers below 1048576"), "{error}");
    let larger = preset("nas-bench-201").expect("a preset");
    let error = fresh(&larger).restored(&mut state).expect_err("another's").to_string();
    assert!(error.contains("got others (values)"), "{error}");
}

#[test]
fn a_space_with_other_choices_is_refused() {
    for name in ["tiny", "tiny-macro", "tiny-choice"] {
        let space = preset(name).expect("a preset");
        let error = Logits::new(recipe(ArchitectureRule::Darts), &space, 1).expect_err(name).to_string();
        assert!(
            error.contains("every choice is an operator of an edge") && error.contains("enas"),
            "{error}"
        );
    }
}
