//! A controller that learns while the weights do: lessons, the derived sub-network, costs, refusals.

use std::path::Path;

use serde_json::Value;

use crate::testing::commands::{fails, json, run, stdout, succeeds};
use crate::testing::controllers::quick_controller;
use crate::testing::files::{read_text, scratch};

/// The log's lines of one event.
fn lines(log: &str, event: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole lines"));
    lines.filter(|line| line["event"] == event).collect()
}

#[test]
fn a_controller_has_lessons_and_derives_a_network_that_other_commands_read() {
    let folder = scratch();
    let at = folder.path();
    std::fs::write(at.join("quick.toml"), quick_controller()).expect("written");
    let line = "train --space tiny-macro --data digits --recipe quick.toml --scale 0.004 --out run";
    let printed = json("supernet", at, line);
    let log = read_text(at.join("run/log.jsonl"));
    let lessons = lines(&log, "controller");
    let steps: Vec<u64> = lessons.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [4, 8, 12, 16], "four lessons in the sixteen steps of an epoch");
    for lesson in &lessons {
        assert_eq!(lesson["updates"], 3);
        let shares = ["reward", "top1", "baseline", "links"].map(|name| lesson[name].as_f64().expect(name));
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{lesson}");
        // four operators of four layers, and six links: at most 4 ln 6 + 6 ln 2 nats
        let entropy = lesson["entropy"].as_f64().expect("a number");
        assert!(entropy > 1.0 && entropy <= 4.0 * 6f64.ln() + 6.0 * 2f64.ln(), "{entropy}");
    }
    let derived: Value = serde_json::from_str(&read_text(at.join("run/derived.json"))).expect("JSON");
    assert_eq!(printed["derived"]["arch"], derived["arch"]);
    assert_eq!(lines(&log, "derived")[0]["arch"], derived["arch"]);
    assert!((1..=6).contains(&derived["candidates"].as_u64().expect("a count")), "{derived}");
    let evaluated = json(
        "supernet",
        at,
        "eval --supernet run/supernet.safetensors --data digits --split val --arch run/derived.json",
    );
    assert_eq!(evaluated["results"][0]["top1"], derived["val"]["top1"]);
    let alone = "train --space tiny-macro --arch run/derived.json --data digits --recipe uniform --scale 0.002 --out alone";
    json("supernet", at, alone);
    let exported =
        "export --supernet run/supernet.safetensors --arch run/derived.json --data digits --out model";
    json("extract", at, exported);
}

/// With a reward that falls steeply with the cost, the controller turns to cheap sub-networks.
#[test]
fn a_cost_in_the_reward_makes_sub_networks_cheaper() {
    let folder = scratch();
    let at = folder.path();
    let text =
        quick_controller().replacen("lr = 0.02", "lr = 0.1", 1).replacen("updates = 3", "updates = 10", 1);
    std::fs::write(at.join("free.toml"), &text).expect("written");
    let cost = "images = 100\ncost = { by = \"macs\", limit = 30000, exponent = -4 }";
    std::fs::write(at.join("cheap.toml"), text.replacen("images = 100", cost, 1)).expect("written");
    let [free, cheap] = ["free", "cheap"].map(|name| {
        let line =
            format!("train --space tiny-macro --data digits --recipe {name}.toml --scale 0.008 --out {name}");
        json("supernet", at, &line);
        let spaces = json("supernet", at, &format!("space tiny-macro --arch {name}/derived.json"));
        spaces["archs"][0]["macs"].as_u64().expect("a count")
    });
    assert!(cheap < free, "{cheap} {free}");
}

#[test]
fn a_controller_that_does_not_fit_is_refused() {
    let folder = scratch();
    let at = folder.path();
    let recipe = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("written");
    let quick = quick_controller();
    let (front, rest) = quick.split_once("[controller]").expect("a table");
    let without = format!("{front}{}", &rest[rest.find("[[phases]]").expect("phases")..]);
    recipe("without.toml", &without);
    recipe("unused.toml", &quick.replace("{ controller = 1 }", "{ random = 1 }"));
    recipe("some.toml", &quick.replace("operator = 9", "operator = 2"));
    recipe("range.toml", &quick.replace("link_share = 0.4", "link_share = 1"));
    recipe(
        "cost.toml",
        &quick.replace(
            "images = 100",
            "images = 100\ncost = { by = \"latency\", limit = 5, exponent = -0.07 }",
        ),
    );
    for (name, parts) in [
        ("without.toml", ["controller: expected a table [controller]", "got none"]),
        ("unused.toml", ["controller: expected none, for no phase draws by one", "got one"]),
        (
            "some.toml",
            [
                "enas.allowed: expected all choices of space tiny-macro, among which it draws",
                "got some of them",
            ],
        ),
        ("range.toml", ["controller.link_share: expected 0.001 to 0.999", "got 1"]),
        ("cost.toml", ["latency table: expected one", "--latency-table"]),
    ] {
        let line =
            format!("train --space tiny-macro --data digits --recipe {name} --scale 0.004 --out {name}.run");
        let message = fails("supernet", at, &line, 1);
        assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
}

/// A recipe with architecture parameters that move fast.
fn quick_architecture(name: &str) -> String {
    let text = supernet::train::Recipe::text_of(name).expect("built in");
    let text = text.replace("lr = 3e-4", "lr = 0.05").replace("lr = 1e-3", "lr = 0.05");
    text.replace("every_steps = 5", "every_steps = 1").replace("warmup_epochs = 40", "warmup_epochs = 2")
}

#[test]
fn architecture_parameters_move_and_derive_a_network() {
    let folder = scratch();
    let at = folder.path();
    for (name, scale) in [("darts", 0.06), ("gdas", 0.012), ("proxyless", 0.01875)] {
        std::fs::write(at.join("recipe.toml"), quick_architecture(name)).expect("written");
        let line = format!(
            "train --space tiny-cell --data digits --recipe recipe.toml --scale {scale} --seed 3 --out {name}"
        );
        let printed = json("supernet", at, &line);
        let log = read_text(at.join(name).join("log.jsonl"));
        let epochs = lines(&log, "architecture");
        assert_eq!(epochs.len(), 3, "{name}: one line for each epoch");
        let entropies: Vec<f64> = epochs.iter().map(|line| line["entropy"].as_f64().expect("nats")).collect();
        assert!(
            entropies.iter().all(|entropy| *entropy > 0.0 && *entropy < 5f64.ln()),
            "{name}: {entropies:?}"
        );
        assert!(entropies[2] < entropies[0], "{name}: {entropies:?}");
        let last = &epochs[2];
        let derived: Value =
            serde_json::from_str(&read_text(at.join(name).join("derived.json"))).expect("JSON");
        assert_eq!((&derived["arch"], &printed["derived"]["arch"]), (&last["arch"], &last["arch"]), "{name}");
        let skips = derived["arch"].as_str().expect("a text").matches("skip_connect").count();
        assert_eq!(last["derived_skips"], skips, "{name}");
        let eval = format!(
            "eval --supernet {name}/supernet.safetensors --data digits --split val --arch {name}/derived.json"
        );
        assert_eq!(json("supernet", at, &eval)["results"][0]["top1"], derived["val"]["top1"], "{name}");
    }
}

#[test]
fn architecture_parameters_that_do_not_fit_are_refused() {
    let folder = scratch();
    let at = folder.path();
    let text = quick_architecture("darts");
    let other = text.replace("draw = [\"architecture\"]", "draw = [\"architecture\", \"smallest\"]");
    std::fs::write(at.join("others.toml"), other).expect("written");
    std::fs::write(at.join("unused.toml"), text.replace("[\"architecture\"]", "[{ random = 1 }]"))
        .expect("written");
    std::fs::write(at.join("decay.toml"), text.replace("[0.5, 0.999]", "[0.5, 1]")).expect("written");
    std::fs::write(at.join("warm.toml"), text.replace("lr = 0.05", "lr = 0.05\nwarmup_epochs = 50"))
        .expect("written");
    let taught = text.replace("epochs = 50", "epochs = 50\nteacher = \"file\"");
    std::fs::write(at.join("taught.toml"), taught).expect("written");
    for (space, recipe, part) in [
        (
            "tiny-cell",
            "warm.toml",
            "architecture.warmup_epochs: expected less than the 50 epochs of phase darts, got 50",
        ),
        ("tiny-cell", "taught.toml", "teacher of phase darts: expected none"),
        ("tiny-macro", "darts", "every choice is an operator of an edge, such as nas-bench-201"),
        ("tiny", "gdas", "take recipe enas or uniform"),
        ("tiny-cell", "others.toml", "draw of phase darts: expected architecture alone"),
        ("tiny-cell", "unused.toml", "architecture: expected none, for no phase draws by it"),
        ("tiny-cell", "decay.toml", "architecture.decays: expected 0 to 0.999999, got 1"),
    ] {
        let line =
            format!("train --space {space} --data digits --recipe {recipe} --scale 0.004 --out refused");
        let message = fails("supernet", at, &line, 1);
        assert!(message.contains(part), "{space} {recipe}: {message}");
    }
}

/// Where the logits have hardly moved, any cell may be derived, some without a path from input to output: there is a warning.
#[test]
fn a_derived_network_that_sees_no_image_is_told() {
    let folder = scratch();
    let at = folder.path();
    let line = |seed: u32| {
        format!(
            "train --space tiny-cell --data digits --recipe gdas --scale 0.001 --batch 500 --seed {seed} --out run{seed}"
        )
    };
    let mut found = [0, 0];
    for seed in 0..12 {
        let message = succeeds("supernet", at, &line(seed));
        let derived: Value =
            serde_json::from_str(&read_text(at.join(format!("run{seed}/derived.json")))).expect("JSON");
        let arch = derived["arch"].as_str().expect("a text");
        let edges: Vec<bool> =
            arch.split('|').filter(|part| part.contains('~')).map(|edge| !edge.starts_with("none")).collect();
        let is_joined = edges[1] || edges[0] && edges[2];
        assert_eq!(message.contains("it sees no image"), !is_joined, "{arch}: {message}");
        found[usize::from(is_joined)] += 1;
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}

/// Images of four classes, each by the row of its bright stripe, 80 of each class in both splits.
fn write_stripes(at: &Path) {
    for split in ["train", "val"] {
        for class in 0..4u8 {
            let folder = at.join(split).join(class.to_string());
            std::fs::create_dir_all(&folder).expect("a folder");
            for number in 0..80u32 {
                let mut bytes = b"P5 8 8 255\n".to_vec();
                let noise = |place: u32| ((number * 64 + place).wrapping_mul(2_654_435_761) >> 24) as u8 / 4;
                bytes.extend((0..64).map(|place| {
                    if place / 16 == u32::from(class) { 255 - noise(place) } else { noise(place) }
                }));
                std::fs::write(folder.join(format!("{number:02}.pgm")), bytes).expect("written");
            }
        }
    }
}

/// Images of a folder lie class by class. Candidates are scored by the statistics of their minibatches, which are of all classes:
/// the reward is about the accuracy with statistics of training images.
#[test]
fn candidates_are_scored_on_images_of_all_classes_at_once() {
    let folder = scratch();
    let at = folder.path();
    write_stripes(&at.join("stripes"));
    std::fs::write(at.join("quick.toml"), quick_controller().replace("images = 100", "images = 320"))
        .expect("written");
    let space = stdout(&run("supernet", at, "space tiny-macro --toml"));
    std::fs::write(at.join("four.toml"), space.replace("classes = 10", "classes = 4")).expect("written");
    let line = "train --space four.toml --data folder:stripes --recipe quick.toml --scale 0.12 --out run";
    json("supernet", at, line);
    let derived: Value = serde_json::from_str(&read_text(at.join("run/derived.json"))).expect("JSON");
    let [reward, top1] =
        [&derived["reward"], &derived["val"]["top1"]].map(|share| share.as_f64().expect("a share"));
    assert!(top1 > 0.8 && (reward - top1).abs() < 0.15, "{derived}");
}
