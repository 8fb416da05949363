use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{SearchSpace, preset, preset_names, sampler};

fn on_every_preset(mut test: impl FnMut(&SearchSpace, &[Vec<Index>], &mut ChaCha8Rng)) {
    for name in preset_names() {
        let space = preset(name).expect("a preset");
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let rows: Vec<_> = (0..60).map(|_| space.genome().random(&mut rng)).collect();
        test(&space, &rows, &mut rng);
    }
}

#[test]
fn a_row_is_a_name_and_a_name_is_a_row() {
    on_every_preset(|space, rows, _| {
        let ends = [End::Smallest, End::Largest].map(|end| space.genome().corner(|_| end));
        for row in rows.iter().chain(&ends) {
            let arch = space.arch(row);
            assert!(space.genome().holds(row) && space.check(&arch).is_ok());
            assert_eq!(&space.row(&arch.to_string().parse().expect("its own text")).expect("legal"), row);
        }
    });
}

#[test]
fn counts_are_those_of_an_enumeration() {
    for (name, of_one_resolution) in [("tiny", 8_100u32), ("tiny-resnet", 0), ("tiny-choice", 3_600)] {
        let space = preset(name).expect("a preset");
        let all = space.genome().all();
        assert_eq!(space.genome().count(), BigUint::from(all.len()));
        assert_eq!(space.subnetworks() * BigUint::from(space.resolutions().len()), BigUint::from(all.len()));
        let distinct: BTreeSet<_> = all.iter().map(|row| space.arch(row)).collect();
        assert_eq!(distinct.len(), all.len());
        if of_one_resolution > 0 {
            assert_eq!(space.subnetworks(), BigUint::from(of_one_resolution));
        }
    }
}

#[test]
fn one_mutation_changes_one_gene_and_what_exists_by_it() {
    on_every_preset(|space, rows, rng| {
        let genome = space.genome();
        for row in rows {
            let mut mutated = row.clone();
            genome.mutate_one(&mut mutated, rng);
            assert!(genome.holds(&mutated), "{mutated:?}");
            let both = |gene: &usize| genome.exists(row, *gene) && genome.exists(&mutated, *gene);
            let changed = (0..genome.len()).filter(|gene| row[*gene] != mutated[*gene]).filter(both).count();
            assert_eq!(changed, 1, "{row:?} {mutated:?}");
        }
    });
    let only = preset("tiny").expect("a preset");
    let row = only.genome().corner(|_| End::Largest);
    let mut same = row.clone();
    only.genome().with_only(&row).mutate_one(&mut same, &mut ChaCha8Rng::seed_from_u64(0));
    assert_eq!(same, row, "nothing to choose");
}

#[test]
fn restricted_rows_are_rows_of_the_whole() {
    on_every_preset(|space, _, rng| {
        let keys = space.genome().dimensions().into_iter().map(|dimension| dimension.key);
        let elastic = keys.filter(|key| *key != "resolution");
        let most =
            elastic.map(|key| (key.to_string(), if ["kernel", "width"].contains(&key) { 2 } else { 1 }));
        let narrowed = space.restricted(&most.collect());
        assert!(narrowed.subnetworks() < space.subnetworks());
        assert_eq!(sampler::largest(&narrowed), sampler::largest(space));
        for _ in 0..50 {
            let row = narrowed.genome().random(rng);
            assert!(space.genome().holds(&row));
            assert_eq!(narrowed.arch(&row), space.arch(&row));
        }
        let smallest = space.genome().corner(|_| End::Smallest);
        assert!(!narrowed.genome().holds(&smallest) && narrowed.check(&space.arch(&smallest)).is_err());
    });
}

#[test]
fn steps_are_all_there_and_fit_together() {
    let space = preset("tiny").expect("a preset");
    let row = space.row(&"r8:k3e3/k5e4,k7e6".parse().expect("an arch")).expect("legal");
    let mut steps = Steps::default();
    space.genome().steps(&row, |_| true, &mut steps);
    // 8 for each of 3 blocks, 9 ways to grow, 1 to shrink, another resolution
    assert_eq!(steps.steps.len(), 24 + 9 + 1 + 1);
    on_every_preset(|space, rows, _| {
        for row in rows.iter().take(4) {
            let genome = space.genome();
            let mut steps = Steps::default();
            let mut seen = BTreeSet::new();
            genome.steps(row, |group| group.first != 0, &mut steps);
            for (index, step) in steps.steps.iter().enumerate() {
                let mut one = row.clone();
                steps.apply(genome, *step, &mut one);
                assert!(genome.holds(&one) && one != *row && seen.insert(one.clone()));
                for change in steps.changes(*step) {
                    let group = genome.group(change.group);
                    assert_eq!(change.from == ABSENT, !genome.exists(row, group.first));
                    assert_eq!(change.to == ABSENT, !genome.exists(&one, group.first));
                    assert!([group.read(row), ABSENT].contains(&change.from));
                    assert!([group.read(&one), ABSENT].contains(&change.to));
                }
                for other in steps.steps[..index].iter().filter(|other| other.is_apart(*step)) {
                    let mut two = one.clone();
                    let mut turned = row.clone();
                    steps.apply(genome, *other, &mut two);
                    steps.apply(genome, *other, &mut turned);
                    steps.apply(genome, *step, &mut turned);
                    assert!(two == turned && genome.holds(&two));
                }
            }
        }
    });
}

#[test]
fn children_are_legal_and_the_way_ends_at_the_anchor() {
    on_every_preset(|space, rows, rng| {
        let genome = space.genome();
        for pair in rows.windows(2) {
            let mut mutant = pair[0].clone();
            let mut child = pair[0].clone();
            genome.mutate(&mut mutant, 0.3, rng);
            genome.cross(&mut child, &pair[1], rng);
            assert!(genome.holds(&mutant) && genome.holds(&child));
            let mut mixed = pair[0].clone();
            genome.mix(&mut mixed, &pair[1], rng);
            for child in [&child, &mixed] {
                assert!(genome.holds(child));
                for gene in (0..genome.len()).filter(|gene| genome.exists(child, *gene)) {
                    assert!([pair[0][gene], pair[1][gene]].contains(&child[gene]), "from one or the other");
                }
            }
            let mut still = mutant.clone();
            let mut way = mutant.clone();
            genome.toward(&mut still, &pair[1], rng, |_| true);
            genome.toward(&mut way, &pair[1], rng, |row| {
                assert!(genome.holds(row));
                false
            });
            let before = child.clone();
            genome.mutate(&mut child, 0.0, rng);
            assert_eq!((&still, &way, &child), (&mutant, &pair[1], &before));
        }
    });
}

#[test]
fn what_may_not_be_chosen_is_named() {
    let space = preset("tiny").expect("a preset");
    for (text, part) in [
        ("r9:k3e3/k3e3", "space tiny: resolution: expected one of 8, 12, got 9"),
        ("r8:k4e3/k3e3", "kernel of stage 1, block 1: expected one of 3, 5, 7, got 4"),
        ("r8:k3e3/k3e3,k3e5", "expand ratio of stage 2, block 2: expected one of 3, 4, 6, got 5"),
        ("r8:k3e3/k3e3,k3e3,k3e3", "depth of stage 2: expected one of 1, 2, got 3"),
        ("r8:k3e3", "number of stages: expected 2 (space tiny), got 1"),
        ("r8:w1:k3e3/w1:k3e3", "number of widths: expected 0 (space tiny), got 2"),
        ("r8:k3/k3e3", "block: expected text like"),
    ] {
        let error = space.row(&text.parse().expect("an arch")).expect_err(text).to_string();
        assert!(error.contains(part), "{error}");
    }
    let gene = space.genome().find("s2.b1.expand").expect("a gene");
    let gene = &space.genome().genes()[gene];
    assert_eq!(gene.describe(2), "stage 2, block 1, expand 6");
    assert_eq!(space.genome().genes()[0].describe(1), "resolution 12");
    let keys: Vec<_> = space.genome().dimensions().iter().map(|dimension| dimension.key).collect();
    assert_eq!(keys, ["resolution", "depth", "kernel", "expand"]);
}

#[test]
fn of_names_the_first_is_the_largest() {
    let mut list = Declaring::new();
    let names = ["wide", "narrow", "none"];
    let dimension = Dimension::named("operator");
    let operator = list.choice("operator".into(), String::new(), dimension, &names, None);
    let genome = list.finish();
    for (most, expected) in [(0, &names[..1]), (1, &names[..1]), (2, &names[..2]), (9, &names[..])] {
        let narrowed = genome.restricted(&[("operator".to_string(), most)].into());
        let rows = narrowed.all();
        let left: Vec<&str> = rows.iter().map(|row| narrowed.get(row, operator)).collect();
        assert_eq!(left, expected);
        assert_eq!(narrowed.corner(|_| End::Largest), rows[0]);
        assert_eq!(narrowed.corner(|_| End::Smallest), rows[rows.len() - 1]);
    }
    let mut row = genome.corner(|_| End::Largest);
    genome.choose(&mut row, operator, "narrow", "x").expect("listed");
    assert_eq!(row, [1]);
    let error = genome.choose(&mut row, operator, "flat", "arch x").expect_err("not listed").to_string();
    assert!(error.starts_with("arch x: operator: expected one of wide, narrow, none, got flat"), "{error}");
}
