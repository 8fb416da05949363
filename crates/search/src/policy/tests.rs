use super::*;
use rand::SeedableRng;
use space::preset;

/// The log-probability of a row, and the entropy of its genes.
fn value(policy: &Independent, genome: &Genome, row: &[Index], advantage: f64, entropy: f64) -> f64 {
    let there = (0..genome.len()).filter(|gene| genome.exists(row, *gene));
    there
        .map(|gene| {
            let probabilities = policy.probabilities(gene);
            let at = genome.allowed(gene).iter().position(|value| *value == row[gene]);
            let own: f64 = probabilities.iter().map(|p| -p * p.ln()).sum();
            advantage * probabilities[at.expect("allowed")].ln() + entropy * own
        })
        .sum()
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let space = preset("tiny").expect("a preset");
    let genome = space.genome();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut policy = Independent::new(genome, &mut rng);
    policy.logits.values.iter_mut().for_each(|logit| *logit = normal(&mut rng));
    for _ in 0..10 {
        let row = policy.draw(genome, &mut rng);
        let (advantage, entropy) = (normal(&mut rng), 0.3);
        let gradient = policy.gradient(genome, &row, advantage, entropy);
        for (at, slope) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut policy = policy.clone();
                policy.logits.values[at] += by;
                value(&policy, genome, &row, advantage, entropy)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-8, "logit {at}: {slope} {expected}");
        }
    }
}

#[test]
fn the_policy_draws_by_its_probabilities() {
    let space = preset("tiny").expect("a preset");
    let genome = space.genome();
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut policy = Independent::new(genome, &mut rng);
    let kernel = genome.find("s1.b1.kernel").expect("a gene");
    let first: usize = (0..kernel).map(|gene| genome.allowed(gene).len()).sum();
    policy.logits.values[first] = 2.0;
    let drawn = (0..4000).filter(|_| policy.draw(genome, &mut rng)[kernel] == 0).count();
    let expected = policy.probabilities(kernel)[0];
    assert!(expected > 0.7 && (drawn as f64 / 4000.0 - expected).abs() < 0.03, "{drawn} {expected}");
}

fn settings(policy: PolicyKind) -> ControllerSettings {
    let lstm = LstmSettings { hidden: 6, temperature: 1.0, range: 2.5, link_share: 0.4, link_weight: 0.1 };
    ControllerSettings { policy, lr: 0.05, momentum: 0.9, entropy: 1e-3, lstm }
}

/// Rewards rows by the share of genes that have their first value.
fn taught(controller: &mut Controller, genome: &Genome, rng: &mut ChaCha8Rng) -> f64 {
    let rows: Vec<Vec<Index>> = (0..4).map(|_| controller.draw(genome, rng)).collect();
    let reward = |row: &Vec<Index>| row.iter().filter(|value| **value == 0).count() as f64 / row.len() as f64;
    let rewards: Vec<f64> = rows.iter().map(reward).collect();
    controller.learn(genome, rows.iter().map(Vec::as_slice).zip(rewards.iter().copied()));
    rewards.iter().sum::<f64>() / 4.0
}

#[test]
fn a_controller_finds_what_is_rewarded_and_grows_sure_of_it() {
    let space = preset("tiny-macro").expect("a preset");
    let genome = space.genome();
    for kind in [PolicyKind::Independent, PolicyKind::Lstm] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut controller = Controller::new(genome, settings(kind), &mut rng);
        let before = controller.odds(genome, &controller.draw(genome, &mut rng));
        let rewards: Vec<f64> = (0..300).map(|_| taught(&mut controller, genome, &mut rng)).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let [first, last] = [mean(&rewards[..10]), mean(&rewards[200..])];
        assert!(last > first + 0.2, "{kind:?}: {first} {last}");
        let after = controller.odds(genome, &controller.draw(genome, &mut rng));
        assert!(after.entropy < before.entropy / 2.0, "{kind:?}: {before:?} {after:?}");
        let baseline = controller.baseline().expect("rewarded");
        assert!((baseline - mean(&rewards[280..])).abs() < 0.1, "{kind:?}: {baseline}");
    }
}

#[test]
fn a_restored_controller_goes_on_as_the_first() {
    let space = preset("tiny-macro").expect("a preset");
    let genome = space.genome();
    for kind in [PolicyKind::Independent, PolicyKind::Lstm] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut first = Controller::new(genome, settings(kind), &mut rng);
        taught(&mut first, genome, &mut rng);
        let fresh = || Controller::new(genome, settings(kind), &mut ChaCha8Rng::seed_from_u64(99));
        let mut second = fresh().restored(first.state(), "x").expect("its own state");
        assert_eq!(first.state(), second.state());
        let mut rngs = [ChaCha8Rng::seed_from_u64(4), ChaCha8Rng::seed_from_u64(4)];
        for _ in 0..3 {
            taught(&mut first, genome, &mut rngs[0]);
            taught(&mut second, genome, &mut rngs[1]);
        }
        assert_eq!(first.state(), second.state());
        let state = first.state();
        let cases = [
            (ControllerState { values: vec![0.0], ..state.clone() }, "x: controller.values: expected "),
            (ControllerState { means: vec![f32::NAN; state.means.len()], ..state.clone() }, "finite numbers"),
            (
                ControllerState { squares: vec![-1.0; state.means.len()], ..state.clone() },
                "at least 0, got -1",
            ),
            (ControllerState { baseline: [0.0, 2.0], ..state.clone() }, "a weight of 0 to 1, got 0, 2"),
        ];
        for (state, part) in cases {
            let error = fresh().restored(state, "x").expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
