use space::preset;

use super::*;

/// `progressive` of builds older than version 2, without the phases of later families, and a recipe of version 2.
const VERSION_1: &str = include_str!("golden/version-1.toml");
const VERSION_2: &str = include_str!("golden/version-2.toml");

const PROGRESSIVE: &str = include_str!("../../../recipes/progressive.toml");

#[test]
fn progressive_is_checked_and_round_trips() {
    let recipe = Recipe::progressive();
    let text = toml::to_string(&recipe).expect("plain data");
    assert_eq!(Recipe::from_toml("text", &text).expect("own text"), recipe);
    assert_eq!(recipe.phases.len(), 11);
}

#[test]
fn files_of_version_1_mean_what_they_meant() {
    let recipe = Recipe::from_toml("r.toml", VERSION_1).expect("a recipe");
    let mut progressive = Recipe::progressive();
    progressive.phases.truncate(recipe.phases.len());
    assert_eq!(recipe, progressive);
    let full = &recipe.phases[0];
    let kernel = &recipe.phases[1];
    let widest = &recipe.phases[7];
    assert_eq!((&full.draw[..], &full.teacher), (&[Draw::Random(1)][..], &Teacher::None));
    assert_eq!((kernel.teacher.clone(), kernel.warmup_epochs), (Teacher::Phase("full".to_string()), 5.0));
    assert_eq!((&widest.draw[..], widest.sort_channels), (&[Draw::Random(4)][..], false));
    assert_eq!((kernel.allowed.most("kernel"), kernel.allowed.most("width")), (9, 1));
}

#[test]
fn files_of_version_2_say_draws_and_teachers() {
    let recipe = Recipe::from_toml("r.toml", VERSION_2).expect("a recipe");
    let said: Vec<_> =
        recipe.phases.iter().map(|phase| (&phase.draw[..], &phase.teacher, phase.sort_channels)).collect();
    let full = Teacher::Phase("full".to_string());
    let expected = [
        (&[Draw::Largest][..], &Teacher::None, false),
        (&[Draw::Random(2)][..], &full, false),
        (&[Draw::Largest, Draw::Random(2), Draw::Smallest][..], &Teacher::First, true),
    ];
    assert_eq!(said, expected);
    assert_eq!(
        [0, 1, 2].map(|phase: usize| ["kernel", "depth"].map(|kind| recipe.phases[phase].allowed.most(kind))),
        [[1, 1], [9, 1], [9, 9]]
    );
    let text = toml::to_string(&recipe).expect("plain data");
    assert_eq!(Recipe::from_toml("text", &text).expect("own text"), recipe);
}

/// The sub-networks of the first phase of [`VERSION_2`].
const LARGEST: &str = "draw = [\"largest\"]";

#[test]
fn built_in_recipes_round_trip() {
    for name in Recipe::names() {
        let recipe = Recipe::open(name).expect("built in");
        let text = toml::to_string(&recipe).expect("plain data");
        assert_eq!(Recipe::from_toml("text", &text).expect("own text"), recipe);
    }
}

#[test]
fn each_version_has_its_own_fields() {
    for (text, from, to, part) in [
        (VERSION_1, "subnetworks = 4", "draw = [{ random = 4 }]", "unknown field `draw`"),
        (VERSION_1, "sort_channels = true\n", "", "missing field `sort_channels`"),
        (VERSION_2, "draw = [\"largest\"]", "subnetworks = 1", "unknown field `subnetworks`"),
        (VERSION_2, "draw = [\"largest\"]", "draw = []", "phases[1] (full).draw: expected 1 to 64, got 0"),
        (VERSION_2, "\"smallest\"", "{ random = 62 }", "phases[3] (sandwich).draw: expected 1 to 64, got 65"),
        (VERSION_2, "\"smallest\"", "\"middle\"", "unknown variant `middle`"),
        (VERSION_2, "teacher = \"first\"", "teacher = \"last\"", "unknown variant `last`"),
        (VERSION_2, "phase = \"full\"", "phase = \"sandwich\"", "(taught).teacher: expected full, the first"),
        (VERSION_2, "\"largest\", { random = 2 }, ", "", "(sandwich).teacher: expected several sub-networks"),
        (VERSION_2, "kernel = 9 }", "kernels = 9 }", "(taught).allowed: expected one of "),
        (
            VERSION_2,
            "name = \"",
            "gradient_clip = 0.0\nname = \"",
            "gradient_clip: expected 0.001 to 1000000, got 0",
        ),
        (
            VERSION_2,
            LARGEST,
            "draw = [\"largest\"]\nlr_floor = 2.0",
            "(full).lr_floor: expected 0 to 1, got 2",
        ),
        (
            VERSION_2,
            LARGEST,
            "draw = [\"largest\"]\ndistillation = \"only\"",
            "expected none without a teacher, got only",
        ),
        (VERSION_1, "name = \"full\"", "name = \"full\"\nlr_floor = 0.1", "unknown field `lr_floor`"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Recipe::from_toml("r.toml", &text.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Bounds of the fields that change how a step is computed.
#[test]
fn fields_of_a_step_have_bounds() {
    for (from, to, part) in [
        ("name = \"", "ema_decay = 1.0\nname = \"", "ema_decay: expected 0.5 to 0.999999, got 1"),
        ("name = \"", "accumulation = 0\nname = \"", "accumulation: expected a divisor of the batch of "),
        ("name = \"", "accumulation = 3\nname = \"", "accumulation: expected a divisor of the batch of "),
        (
            "\"smallest\"",
            "{ attentive = { networks = 1, candidates = 1, keep = \"best\", bins = 2 } }",
            "draw.attentive.candidates: expected 2 to 64, got 1",
        ),
        (
            "\"smallest\"",
            "{ attentive = { networks = 1, candidates = 2, keep = \"all\", bins = 2 } }",
            "unknown variant `all`",
        ),
    ] {
        assert!(VERSION_2.contains(from), "{from}");
        let error = Recipe::from_toml("r.toml", &VERSION_2.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn batch_and_rate_can_be_chosen() {
    let recipe = Recipe::progressive();
    let phases = |recipe: &Recipe| {
        let plan = crate::train::TrainingPlan::new(recipe, 10, 1);
        plan.phases.iter().map(|phase| phase.scaled_lr).collect::<Vec<_>>()
    };
    let close =
        |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 1e-12, "{got} not {expected}");
    let halved = phases(&recipe.with_batch(32));
    phases(&recipe).iter().zip(halved).for_each(|(whole, half)| close(half, whole / 2.0));
    let chosen = recipe.with_batch(32).with_lr(0.01).expect("in range");
    let rates = phases(&chosen);
    close(rates[0], 0.01);
    close(rates[1], 0.01 * 0.96 / 2.6);
    // weights to start from: the given rate is not lowered, and the head's follows
    let starting = recipe.starting(true).with_lr(0.01).expect("in range").starting(true);
    close(phases(&starting)[1], 0.01);
    close(phases(&starting)[0], 0.01 * 2.6 / 0.24);
    let error = recipe.with_lr(1e6).expect_err("too much").to_string();
    assert!(error.contains("with a rate of 1000000: phases[1] (full).lr: expected 0 to 1000"), "{error}");
}

#[test]
fn attentive_draws_compare_by_one_cost() {
    let text = Recipe::text_of("attentive").expect("built in");
    let second =
        text[text.find("[[phases]]").expect("a phase")..].replace("bins = 20", "bins = 20, by = \"latency\"");
    let second = second.replace("name = \"attentive\"", "name = \"second\"");
    let error = Recipe::from_toml("r.toml", &format!("{text}\n{second}")).expect_err("two costs").to_string();
    assert!(
        error.contains("draw.attentive.by and controller.cost.by: expected the same in all, got several"),
        "{error}"
    );
}

#[test]
fn recipes_are_opened_by_name_or_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml").display().to_string();
    for name in Recipe::names() {
        let text = Recipe::text_of(name).expect("a recipe");
        std::fs::write(&path, text).expect("written");
        assert_eq!(Recipe::open(&path).expect("read back"), Recipe::open(name).expect("a recipe"));
    }
    assert!(Recipe::open("nothing").is_err());
}

#[test]
fn phases_of_what_a_space_lacks_are_left_out() {
    for (space, names, epochs) in [
        ("ofa-mbv3-w1.0", "full, kernel, depth 1, depth 2, width 1, width 2", 605.0),
        ("tiny", "full, kernel, depth 1, depth 2, width 1, width 2", 605.0),
        ("ofa-resnet50", "full, depth 1, depth 2, width 1, width 2, stage width 1, stage width 2", 630.0),
        ("tiny-choice", "full, kernel, width 1, width 2, operator 1, operator 2, connection", 830.0),
    ] {
        let recipe = Recipe::progressive().suited_to(&preset(space).expect("a preset"));
        let phases: Vec<_> = recipe.phases.iter().map(|phase| phase.name.as_str()).collect();
        let sum: f64 = recipe.phases.iter().map(|phase| phase.epochs + phase.warmup_epochs).sum();
        assert_eq!((phases.join(", ").as_str(), sum), (names, epochs), "{space}");
    }
}

#[test]
fn phases_allow_the_largest_choices() {
    let space = preset("fashion").expect("a preset");
    let allowed = Allowed::new(&[("depth", 2), ("expand", 3)]).of(&space);
    let genome = allowed.genome();
    let of_first = ["s1.b1.kernel", "s1.depth", "s1.b1.expand"].map(|name: &str| {
        let gene = genome.find(name).expect("a gene");
        genome.values_of(gene).map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(of_first, ["7", "3 4", "3 4 6"].map(String::from));
    assert_eq!(genome.allowed(space::RESOLUTION), space.genome().allowed(space::RESOLUTION));
}

#[test]
fn operators_and_connections_are_opened_last() {
    let space = preset("tiny-choice").expect("a preset");
    let counts: Vec<String> = Recipe::progressive()
        .suited_to(&space)
        .phases
        .iter()
        .map(|phase| phase.allowed.of(&space).subnetworks().to_string())
        .collect();
    // largest; 2 kernels in each of 4 blocks; 2 ratios too; a convolution too; skipped blocks too; connections or none
    let all =
        [1, 16, 256, 256, 5 * 5 * 5 * 5, 5 * 6 * 5 * 6, 4 * 5 * 6 * 5 * 6].map(|count| count.to_string());
    assert_eq!(counts, all);
}

#[test]
fn classes_are_balanced_and_phases_validated_where_it_is_said() {
    let with = |fields: &str| {
        Recipe::from_toml("r.toml", &PROGRESSIVE.replacen("batch = 64", &format!("batch = 64\n{fields}"), 1))
    };
    for fields in [
        "sampling = \"balanced\"",
        "class_weights = \"balanced\"",
        "class_weights = { cat = 2.0, dog = 1.0 }",
        "validation = { every_epochs = 0.5, images = 1000, patience = 3 }",
    ] {
        let recipe = with(fields).expect(fields);
        assert_ne!(recipe, Recipe::progressive());
        let text = toml::to_string(&recipe).expect("plain data");
        assert_eq!(Recipe::from_toml("text", &text).expect("own text"), recipe);
    }
    assert_eq!(with("sampling = \"shuffled\"").expect("as ever"), Recipe::progressive());
    for (fields, part) in [
        ("sampling = \"uniform\"", "`shuffled` or `balanced`"),
        ("class_weights = 3", "\"balanced\", or a table of weights"),
        ("class_weights = { cat = 0.0 }", "class_weights.cat: expected above 0"),
        ("validation = { every_epochs = 0 }", "validation.every_epochs: expected above 0"),
        ("validation = { every_epochs = 1, patience = 0 }", "validation.patience: expected 1 or more"),
        ("validation = { every_epochs = 1, often = true }", "unknown field `often`"),
        ("validation = { images = 10 }", "missing field `every_epochs`"),
    ] {
        let error = with(fields).expect_err(fields).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_optimizer_is_a_momentum_or_a_table() {
    let with = |version: &str, table: &str, momentum: &str| {
        let text = version.replacen("momentum = 0.9\n", momentum, 1);
        Recipe::from_toml("r.toml", &text.replacen("[[phases]]", &format!("{table}\n[[phases]]"), 1))
    };
    let adamw = |beta1, epsilon| OptimizerSettings::AdamW { beta1, beta2: 0.999, epsilon };
    for (table, expected) in [
        ("[optimizer]\nkind = \"adamw\"", adamw(0.9, 1e-8)),
        ("[optimizer]\nkind = \"adamw\"\nbeta1 = 0.8\nepsilon = 1e-6", adamw(0.8, 1e-6)),
        ("[optimizer]\nkind = \"nesterov\"", OptimizerSettings::Nesterov { momentum: 0.9 }),
        ("[optimizer]\nkind = \"nesterov\"\nmomentum = 0.5", OptimizerSettings::Nesterov { momentum: 0.5 }),
    ] {
        let recipe = with(VERSION_2, table, "").expect(table);
        assert_eq!(recipe.optimizer, expected);
        let text = toml::to_string(&recipe).expect("plain data");
        assert_eq!(Recipe::from_toml("text", &text).expect("own text"), recipe);
        assert_eq!(text.contains("[optimizer]"), expected.kind() == "adamw", "{text}");
    }
    // a plan keeps the field momentum, and names another optimizer
    let plan = |recipe: &Recipe| serde_json::json!(crate::train::TrainingPlan::new(recipe, 10, 1));
    let old = plan(&Recipe::from_toml("r.toml", VERSION_2).expect("a recipe"));
    assert_eq!((&old["momentum"], old.get("optimizer")), (&serde_json::json!(0.9f32), None));
    let new = plan(&with(VERSION_2, "[optimizer]\nkind = \"adamw\"", "").expect("a recipe"));
    let expected = serde_json::json!({ "kind": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8 });
    assert_eq!((new.get("momentum"), &new["optimizer"]), (None, &expected));
    for (version, table, momentum, part) in [
        (VERSION_2, "", "", "momentum: expected a number, or a table [optimizer], got neither"),
        (VERSION_1, "", "", "momentum: expected a number"),
        (VERSION_2, "[optimizer]\nkind = \"adamw\"", "momentum = 0.9\n", "got both; leave momentum out"),
        (VERSION_1, "[optimizer]\nkind = \"adamw\"", "", "optimizer: expected none in version 1"),
        (VERSION_2, "[optimizer]\nkind = \"lion\"", "", "unknown variant `lion`"),
        (VERSION_2, "[optimizer]\nkind = \"adamw\"\nbeta3 = 1", "", "unknown field `beta3`"),
        (VERSION_2, "[optimizer]\nkind = \"adamw\"\nmomentum = 0.9", "", "unknown field `momentum`"),
        (
            VERSION_2,
            "[optimizer]\nkind = \"adamw\"\nbeta2 = 1",
            "",
            "optimizer.beta2: expected 0 to 0.999999, got 1",
        ),
        (VERSION_2, "[optimizer]\nkind = \"adamw\"\nepsilon = 0", "", "optimizer.epsilon: expected "),
        (
            VERSION_2,
            "[optimizer]\nkind = \"nesterov\"\nmomentum = 1",
            "",
            "momentum: expected 0 to 0.9999, got 1",
        ),
    ] {
        let error = with(version, table, momentum).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_may_teach_every_phase() {
    let text = VERSION_2.replacen("draw = [\"largest\"]", "draw = [\"largest\"]\nteacher = \"file\"", 1);
    let recipe = Recipe::from_toml("r.toml", &text).expect("a recipe");
    assert_eq!(recipe.phases[0].teacher, Teacher::File);
    let plan = serde_json::json!(crate::train::TrainingPlan::new(&recipe, 10, 1));
    let phase = &plan["phases"][0];
    assert_eq!((&phase["distill"], &phase["teacher"]), (&true.into(), &"file".into()));
    assert_eq!(
        Recipe::from_toml("text", &toml::to_string(&recipe).expect("plain data")).expect("own"),
        recipe
    );
    let taught =
        VERSION_2.replacen("draw = [\"largest\"]", "draw = [\"largest\"]\nteacher = { phase = \"full\" }", 1);
    let error = Recipe::from_toml("r.toml", &taught).expect_err("itself").to_string();
    assert!(
        error.contains("the largest network, alone or first in each step, taught by no phase"),
        "{error}"
    );
}

#[test]
fn broken_recipes_are_refused() {
    let good = VERSION_1;
    for (from, to, field) in [
        ("batch = 64", "batch = 0", "batch"),
        ("momentum = 0.9", "momentum = nan", "momentum"),
        ("distill = false", "distill = true", "phases[1]"),
        ("subnetworks = 4", "subnetworks = 0", "subnetworks"),
        ("version = 1", "version = 9", "version"),
        ("epochs = 180", "epochs = -1", "epochs"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Recipe::from_toml("r.toml", &good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.starts_with("r.toml: ") && error.contains(field), "{error}");
    }
}

/// A phase for a fresh classifier trains the largest network alone, whatever the phase after it draws.
#[test]
fn recipes_of_one_phase_begin_with_the_classifier_of_the_largest() {
    for name in ["sandwich", "alphanet", "attentive"] {
        let recipe = Recipe::open(name).expect("built in");
        let starting = recipe.starting(true).with_lr(0.01).expect("sound");
        let [head, whole] = &starting.phases[..] else { panic!("two phases: {starting:?}") };
        assert!(head.head_only && head.allowed.allows_one());
        assert_eq!((&head.draw[..], &head.teacher), (&[Draw::Largest][..], &Teacher::None));
        assert_eq!((&whole.draw, &whole.teacher), (&recipe.phases[0].draw, &Teacher::First));
        assert_eq!(recipe.starting(false).phases.len(), 1);
    }
}

#[test]
fn spaces_of_operators_have_a_default_of_their_own() {
    for (name, recipe) in [
        ("tiny", "progressive"),
        ("tiny-choice", "progressive"),
        ("tiny-cell", "uniform"),
        ("nas-bench-201", "uniform"),
        ("tiny-macro", "uniform"),
    ] {
        assert_eq!(Recipe::default_for(&preset(name).expect("a preset")).name, recipe, "{name}");
    }
}
