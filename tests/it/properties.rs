//! Random values of every file format are the same after writing and reading.

use std::collections::BTreeMap;

use extract::latency::{DeviceFacts, EngineFacts, LatencyTable, Row};
use extract::ofa::table::{OfaRow, OfaTable};
use network::accuracy_file::{self, AccuracyHeader, AccuracyRow, Writer};
use network::data::{Split, idx_from_bytes};
use network::eval::Calibration;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use space::{Arch, Ratio, SearchSpace, arch_file, preset, preset_names, sampler};

use crate::testing::files::scratch;

fn expand() -> impl Strategy<Value = Ratio> {
    (1u32..=10_000).prop_map(Ratio::hundredths)
}

fn arch() -> impl Strategy<Value = Arch> {
    let block = (1usize..12, expand()).prop_map(|(kernel, expand)| format!("k{kernel}e{expand}"));
    let stage = prop::collection::vec(block, 1..6).prop_map(|blocks| blocks.join(","));
    let stages = prop::collection::vec(stage, 1..7).prop_map(|stages| stages.join("/"));
    (1usize..5000, stages).prop_map(|(side, stages)| format!("r{side}:{stages}").parse().expect("an arch"))
}

fn choices<T: Ord + Clone + std::fmt::Debug>(
    all: impl Strategy<Value = T>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::btree_set(all, 1..=most).prop_map(|set| set.into_iter().collect())
}

/// Any space of small sizes.
fn space() -> impl Strategy<Value = SearchSpace> {
    let kernels = choices(prop::sample::select(vec![3usize, 5, 7]), 3);
    let expands =
        choices((1u32..=800).prop_map(|hundredths| f64::from(hundredths) / 100.0).prop_map(ordered), 4);
    let depths = choices(1usize..5, 4);
    let sides = choices(4usize..64, 4);
    let stage = (1usize..40, 1usize..3, any::<bool>());
    let stages = prop::collection::vec(stage, 1..5);
    let sizes = (2usize..20, 1usize..5, 1u32..30, 1usize..3);
    (kernels, expands, depths, sides, stages, sizes).prop_map(|(kernel, expand, depth, sides, stages, sizes)| {
        let (classes, channels, width, stride) = sizes;
        let expand: Vec<f64> = expand.into_iter().map(|hundredths| f64::from(hundredths) / 100.0).collect();
        let mut text = format!(
            "version = 1\nname = \"any\"\nfamily = \"mobilenet-v3\"\nclasses = {classes}\ninput_channels = {channels}\n\
             resolutions = {sides:?}\nwidth_multiplier = {:?}\nkernel = {kernel:?}\nexpand = {expand:?}\ndepth = {depth:?}\n\
             [stem]\nchannels = 9\nstride = {stride}\nactivation = \"relu\"\n\
             [first_block]\nchannels = 7\nactivation = \"relu6\"\n",
            f64::from(width) / 10.0
        );
        for (channels, stride, squeeze) in stages {
            text += &format!(
                "[[stages]]\nchannels = {channels}\nstride = {stride}\nactivation = \"h_swish\"\nsqueeze_excite = {squeeze}\n"
            );
        }
        text += "[head]\nexpand_channels = 11\nfeature_channels = 13\nactivation = \"h_swish\"\n";
        SearchSpace::from_toml("any space", &text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    })
}

/// Hundredths, which have an order.
fn ordered(ratio: f64) -> u32 {
    (ratio * 100.0).round() as u32
}

fn row() -> impl Strategy<Value = Row> {
    let time = 1e-6f64..1e9;
    (time, 0.0f64..0.5, 0.0f64..0.5, 1usize..1000, any::<bool>()).prop_map(
        |(us, below, above, samples, accepted)| Row {
            us,
            interval_us: accepted.then_some([us * (1.0 - below), us * (1.0 + above)]),
            typical_us: us * (1.0 + above),
            mad_us: us * below,
            samples,
            visits: 1 + samples / 5,
            confirmed: 0,
            undisturbed: false,
            accepted,
            converged: accepted,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn archs_round_trip(arch in arch()) {
        let text = arch.to_string();
        prop_assert_eq!(&text.parse::<Arch>().expect("own text"), &arch);
        let json = serde_json::to_string(&arch).expect("text");
        prop_assert_eq!(serde_json::from_str::<Arch>(&json).expect("own JSON"), arch);
    }

    #[test]
    fn spaces_round_trip_and_keep_their_promises(space in space(), seed in any::<u64>()) {
        let again = SearchSpace::from_toml("again", &space.to_toml()).expect("own text");
        prop_assert_eq!(&again, &space);
        prop_assert_eq!(again.fingerprint(), space.fingerprint());
        let json = serde_json::to_string(&space).expect("plain data");
        prop_assert_eq!(&serde_json::from_str::<SearchSpace>(&json).expect("own JSON"), &space);
        let arch = sampler::random(&space, &mut ChaCha8Rng::seed_from_u64(seed));
        prop_assert_eq!(arch_file::read(&space, &arch.to_string()).expect("of the space"), arch.clone());
        let layers = space.lower(&arch).expect("of the space");
        prop_assert!(layers.iter().all(|layer| layer.output.height > 0));
    }

    #[test]
    fn tables_round_trip(rows in prop::collection::btree_map("[a-z0-9 @x-]{1,30}[a-z]", row(), 0..20)) {
        let text = "x".to_string();
        let device =
            DeviceFacts { name: text.clone(), cpu: text.clone(), os: text.clone(), arch: text.clone(), cores: 2 };
        let engine =
            EngineFacts { engine: text.clone(), engine_version: text.clone(), threads: 1, dtype: text, batch: 1 };
        let rows: BTreeMap<String, Row> = rows;
        let Ok(table) = LatencyTable::new("t", device, engine, "p", rows) else {
            // rounding to a picosecond may leave a row no time at all
            return Ok(());
        };
        let written = table.to_json();
        let again = LatencyTable::from_json("t", &written).expect("own text");
        prop_assert_eq!((again.to_json(), again.hash()), (written, table.hash()));
    }

    #[test]
    fn ofa_tables_round_trip(
        sizes in prop::collection::btree_set((1usize..=4096, 1usize..=512, 1usize..=9999), 1..20),
        count in 1u64..,
        mean_ms in prop::num::f64::POSITIVE,
        std_ms in prop::num::f64::POSITIVE | prop::num::f64::ZERO,
    ) {
        let row = OfaRow { count, mean_ms, std_ms: std_ms.abs() };
        let mut rows = BTreeMap::new();
        for (height, width, channels) in sizes {
            rows.insert(format!("AvgPool2D-input:{height}x{width}x{channels}-output:1x1x{channels}"), row);
        }
        // a map of more values than a layer may have is refused
        let Ok(table) = OfaTable::new("t", rows) else { return Ok(()) };
        prop_assert_eq!(OfaTable::from_yaml("t", &table.to_yaml()).expect("own text"), table);
    }

    #[test]
    fn accuracy_rows_round_trip(seeds in prop::collection::btree_set(any::<u64>(), 1..20), top1 in 0.0f64..=1.0) {
        let folder = scratch();
        let path = folder.path().join("rows.jsonl");
        let space = preset("fashion").expect("a preset");
        let header = AccuracyHeader {
            space: space.clone(),
            supernet: "abc".to_string(),
            data: "d".to_string(),
            calibration: Calibration { images: 1, batch: 2, seed: 3 },
        };
        let (mut writer, _) = Writer::resume(&path, &header).expect("a new file");
        let mut rows = Vec::new();
        for seed in seeds {
            let arch = sampler::random(&space, &mut ChaCha8Rng::seed_from_u64(seed));
            rows.push(AccuracyRow { arch, top1, split: Split::Val, n: 7 });
            writer.append(&rows[rows.len() - 1]).expect("a new row");
        }
        prop_assert_eq!(accuracy_file::read(&path).expect("own file").rows, rows);
    }

    #[test]
    fn idx_files_round_trip(sizes in (1usize..5, 1usize..9, 1usize..9), fill in any::<u8>(), cut in 0usize..50) {
        let (count, height, width) = sizes;
        let mut bytes = 0x803u32.to_be_bytes().to_vec();
        [count, height, width].iter().for_each(|size| bytes.extend((*size as u32).to_be_bytes()));
        bytes.extend(std::iter::repeat_n(fill, count * height * width));
        let (found, values) = idx_from_bytes::<3>("x", &bytes).expect("a whole file");
        prop_assert_eq!(found, [count, height, width]);
        prop_assert!(values.iter().all(|value| *value == fill));
        let torn = &bytes[..bytes.len() - 1 - cut.min(bytes.len() - 1)];
        prop_assert!(idx_from_bytes::<3>("x", torn).is_err());
    }
}

#[test]
fn presets_are_among_what_round_trips() {
    for name in preset_names() {
        let space = preset(name).expect("a preset");
        assert_eq!(SearchSpace::from_toml(name, &space.to_toml()).expect("own text"), space);
    }
}
