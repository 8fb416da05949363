//! Plans, written and read.

use super::*;
use latency::testing::{made_up, setting};
use space::preset;

fn plan(networks: usize) -> MeasurePlan {
    let space = preset("fashion").expect("a preset").at_resolutions(&[20, 28]).expect("listed");
    MeasurePlan::new(&space, &setting().engine, &MeasureConfig::default(), networks, None).expect("a plan")
}

#[test]
fn plans_round_trip_and_say_what_is_where() {
    let plan = plan(4);
    let again = MeasurePlan::from_jsonl("x", &plan.to_jsonl()).expect("own text");
    assert_eq!(again.to_jsonl(), plan.to_jsonl());
    assert_eq!((again.layers.len(), again.networks.len()), (plan.layers.len(), 4));
    assert_eq!(again.config(), plan.config());
    let stem = &plan.layers["stem k3 s2 1-16 h_swish @20x20"];
    assert_eq!((&stem.resolutions, stem.known), (&vec![20.into()], false));
    let linear = plan.layers.iter().find(|(key, _)| key.starts_with("linear")).expect("a classifier").1;
    assert_eq!(linear.resolutions, [20, 28]);
    let mut keys = plan.networks.values().flatten().map(|layer| &layer.key);
    assert!(keys.all(|key| plan.layers.contains_key(key)));
    let subjects = plan.subjects().expect("whole networks");
    assert_eq!(subjects.len(), plan.layers.len() + 4);
}

#[test]
fn what_a_table_has_is_not_measured_again_but_for_anchors() {
    let space = preset("tiny").expect("a preset");
    let table = made_up(&space);
    let new =
        |known| MeasurePlan::new(&space, &table.engine, &MeasureConfig::default(), 2, known).expect("a plan");
    let plan = new(Some(&table));
    let again: Vec<&String> =
        plan.layers.iter().filter(|(_, layer)| !layer.known).map(|(key, _)| key).collect();
    assert_eq!(again.len(), ANCHORS);
    assert_eq!(plan.kept_us, table.kept_us(&plan.sentinel));
    assert_eq!(MeasurePlan::from_jsonl("x", &plan.to_jsonl()).expect("own text").to_jsonl(), plan.to_jsonl());
    assert_eq!(plan.id(), new(None).id(), "what was measured meanwhile makes no other plan");
    // into a table of another space: its anchors come along
    let other = preset("fashion").expect("a preset");
    let plan =
        MeasurePlan::new(&other, &table.engine, &MeasureConfig::default(), 2, Some(&table)).expect("a plan");
    assert_eq!(plan.layers.values().filter(|layer| layer.resolutions.is_empty()).count(), ANCHORS);
}

/// The plan with a network in which a block's output is added to its input.
fn with_a_graph() -> MeasurePlan {
    let mut plan = plan(1);
    let keys = ["stem k3 s1 1-4 relu @8x8", "conv k3 4-4 relu @8x8", "sum2 4 @8x8"];
    for key in keys {
        let spec: LayerSpec = key.parse().expect("a key");
        let layer = PlannedLayer { spec, resolutions: vec![8.into()], known: false };
        plan.layers.insert(key.to_string(), layer);
    }
    let inputs = [vec![None], vec![Some(0)], vec![Some(0), Some(1)]];
    let layers = keys.into_iter().zip(inputs);
    let layers = layers.map(|(key, inputs)| NetworkLayer { key: key.to_string(), inputs }).collect();
    plan.networks = BTreeMap::from([("r8:k3e3".parse().expect("an arch"), layers)]);
    plan
}

#[test]
fn a_graph_is_planned_as_it_is() {
    let plan = with_a_graph();
    let text = plan.to_jsonl();
    assert!(text.contains("\"version\":3") && text.contains("\"inputs\":[[null],[0],[0,1]]"), "{text}");
    let again = MeasurePlan::from_jsonl("x", &text).expect("own text");
    assert_eq!(again.to_jsonl(), text);
    let subjects = again.subjects().expect("a graph");
    let (_, network) =
        subjects.iter().find(|(subject, _)| matches!(subject, Subject::Network(_))).expect("one");
    assert_eq!(network[2].inputs, [Some(0), Some(1)]);
    for (from, to, part) in [
        ("[[null],[0],[0,1]]", "[[null],[0]]", "inputs: expected a list for each of 3 layers, got 2"),
        (
            "[[null],[0],[0,1]]",
            "[[null],[0],[0,2]]",
            "network: layer 3: expected inputs from layers before it",
        ),
        ("[[null],[0],[0,1]]", "[[null],[0],[0]]", "to have 2 inputs, got 1"),
        ("[[null],[0],[0,1]]", "[[null],[0],[0,-1]]", "network: expected {"),
    ] {
        let error = MeasurePlan::from_jsonl("x", &text.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(part), "{to}: {error}");
    }
}

#[test]
fn malformed_plans_are_refused_with_the_line() {
    let good = plan(1).to_jsonl();
    let lines = good.lines().count();
    let last = good.lines().last().expect("a network").to_string();
    for (from, to, part) in [
        (KIND, "x", "kind: expected latency-plan"),
        ("\"version\":2", "\"version\":1", "version: expected 3, got 1"),
        ("\"threads\":1", "\"threads\":0", "threads and batch"),
        ("\"half_width\":0.05", "\"half_width\":0", "half_width"),
        (crate::latency::SENTINEL, "sum 64", "sentinel: expected product"),
        ("\"engine\":\"fake\"", "\"engine\":\"native-cuda\"", "sentinel: expected chain of"),
        ("\"budget_seconds\":120.0", "\"budget_seconds\":-1", "budget_seconds"),
        ("{\"layer\":\"conv1x1", "{\"layer\":\"conv9x9", "layer \"conv9x9"),
        (last.as_str(), "", &format!("{} lines", lines - 2)),
        (last.as_str(), "{}", &format!("line {lines}: network")),
        ("\"layers\":[", "\"layers\":[99999,", "places below"),
        ("\"layers\":[", "\"layers\":[0,", "network: layer 2: expected the output"),
    ] {
        let text = good.replacen(from, to, 1);
        let error = MeasurePlan::from_jsonl("x", text.trim_end()).expect_err(to).to_string();
        assert!(error.contains(part), "{to}: {error}");
    }
    let twice = good.replacen("\"networks\":1", "\"networks\":2", 1) + &last;
    let error = MeasurePlan::from_jsonl("x", &twice).expect_err("the same twice").to_string();
    assert!(error.contains("network: expected each sub-network once"), "{error}");
}
