//! A controller that learns while the weights do: lessons, the derived sub-network, costs, refusals.

use serde_json::Value;

use crate::testing::commands::{fails, json};
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
    assert_eq!(derived["images"], 100);
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
        ("some.toml", ["enas.allowed: expected all choices of space tiny-macro", "got some of them"]),
        ("range.toml", ["controller.link_share: expected 0.001 to 0.999", "got 1"]),
        ("cost.toml", ["latency table: expected one", "--latency-table"]),
    ] {
        let line =
            format!("train --space tiny-macro --data digits --recipe {name} --scale 0.004 --out {name}.run");
        let message = fails("supernet", at, &line, 1);
        assert!(parts.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
}
