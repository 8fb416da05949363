//! Tables separated from whole networks that others measured: 5,000 sub-networks of OFA's MobileNetV3 on four GPUs with three
//! batch sizes (the table of HELP, Lee et al. 2021), beside a regression by position, kernel and expand ratio.

use std::path::Path;

use base::equations::solve_positive;
use latency::{DeviceFacts, EngineFacts, LatencyTable};
use space::{Arch, Extent, SearchSpace, preset};

const DEVICES: [&str; 12] = [
    "2080ti_1",
    "2080ti_32",
    "2080ti_64",
    "titan_rtx_1",
    "titan_rtx_32",
    "titan_rtx_64",
    "titan_xp_1",
    "titan_xp_32",
    "titan_xp_64",
    "v100_1",
    "v100_32",
    "v100_64",
];
/// Devices on which sums of layers predict well: the batches are large enough to hide the launches.
const ADDITIVE: [&str; 4] = ["titan_rtx_32", "titan_rtx_64", "v100_64", "titan_xp_64"];
/// Positions of blocks, and kinds of block at each.
const POSITIONS: usize = 20;
const KINDS: usize = 9;
const UNKNOWNS: usize = POSITIONS * KINDS + 2;

/// A network of the table: resolution, depths, kernels and expand ratios of its positions, and its times in milliseconds.
struct Line {
    resolution: usize,
    depths: Vec<usize>,
    kernels: Vec<usize>,
    expands: Vec<usize>,
    ms: Vec<f64>,
}

fn lines() -> Option<Vec<Line>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/benchmarks/ofa_mbv3_latency_5000.csv");
    if !path.is_file() {
        println!("skipped: the public table of latencies is not here");
        return None;
    }
    let text = std::fs::read_to_string(path).expect("readable");
    let digits =
        |text: &str| text.chars().map(|digit| digit.to_digit(10).expect("a digit") as usize).collect();
    let header: Vec<&str> = text.lines().next().expect("a header").split(',').collect();
    assert_eq!(header[4..], DEVICES);
    let line = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        Line {
            resolution: cells[0].parse().expect("a number"),
            depths: digits(cells[1]),
            kernels: digits(cells[2]),
            expands: digits(cells[3]),
            ms: cells[4..].iter().map(|cell| cell.parse().expect("a number")).collect(),
        }
    };
    Some(text.lines().skip(1).map(line).collect())
}

impl Line {
    /// Position, kernel and expand ratio of the blocks that run.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let places = (0..POSITIONS).filter(|position| position % 4 < self.depths[position / 4]);
        places.map(|position| (position, self.kernels[position], self.expands[position]))
    }

    fn arch(&self) -> Arch {
        let stage = |stage: usize| {
            let own = self.blocks().filter(move |(position, ..)| position / 4 == stage);
            own.map(|(_, kernel, expand)| format!("k{kernel}e{expand}")).collect::<Vec<_>>().join(",")
        };
        let stages: Vec<String> = (0..5).map(stage).collect();
        format!("r{}:{}", self.resolution, stages.join("/")).parse().expect("a sub-network")
    }

    /// 1 for each position, kernel and expand ratio that it has, the area of its input, and 1.
    fn features(&self) -> Vec<f64> {
        let mut features = vec![0.0; UNKNOWNS];
        for (position, kernel, expand) in self.blocks() {
            let expand = [3, 4, 6].iter().position(|own| *own == expand).expect("one of three");
            features[position * KINDS + (kernel - 3) / 2 * 3 + expand] = 1.0;
        }
        features[UNKNOWNS - 2] = (self.resolution as f64 / 224.0).powi(2);
        features[UNKNOWNS - 1] = 1.0;
        features
    }
}

/// The regression's predictions of `judged`, in milliseconds: least squares of relative errors.
fn regression(fitted: &[&Line], judged: &[&Line], device: usize) -> Vec<f64> {
    let n = UNKNOWNS;
    let (mut matrix, mut right) = (vec![0.0; n * n], vec![0.0; n]);
    for line in fitted {
        let ms = line.ms[device];
        let row: Vec<f64> = line.features().into_iter().map(|feature| feature / ms).collect();
        let own: Vec<usize> = (0..n).filter(|at| row[*at] != 0.0).collect();
        for &i in &own {
            right[i] += row[i];
            own.iter().for_each(|&j| matrix[i * n + j] += row[i] * row[j]);
        }
    }
    // positions always have a block, so that their unknowns and the constant are determined up to a shift
    (0..n).for_each(|i| matrix[i * n + i] *= 1.0 + 1e-9);
    let x = solve_positive(matrix, right, n).expect("positive definite");
    judged.iter().map(|line| line.features().iter().zip(&x).map(|(one, other)| one * other).sum()).collect()
}

fn within(predicted: &[f64], judged: &[f64], share: f64) -> f64 {
    let close =
        predicted.iter().zip(judged).filter(|(one, other)| (**one / **other - 1.0).abs() <= share).count();
    close as f64 / judged.len() as f64
}

/// OFA's space at all resolutions of the table.
fn ofa_space(lines: &[Line]) -> SearchSpace {
    let space = preset("ofa-mbv3-w1.0").expect("a preset");
    let wider =
        |space: SearchSpace, line: &Line| match space.check_resolution(Extent::square(line.resolution)) {
            Ok(()) => space,
            Err(_) => space.also_at(Extent::square(line.resolution)).expect("a resolution"),
        };
    lines.iter().fold(space, wider)
}

fn facts() -> (DeviceFacts, EngineFacts) {
    let name = |name: &str| name.to_string();
    let device = DeviceFacts { name: name("GPU"), cpu: name(""), os: name(""), arch: name(""), cores: 0 };
    let engine = EngineFacts {
        engine: name("PyTorch"),
        engine_version: name(""),
        threads: 1,
        dtype: name("f32"),
        batch: 1,
    };
    (device, engine)
}

#[test]
fn separated_layers_predict_whole_networks_of_others() {
    let Some(lines) = lines() else { return };
    let space = ofa_space(&lines);
    // every fifth judges, as in a table
    let (judged, fitted): (Vec<_>, Vec<_>) = lines.iter().enumerate().partition(|(at, _)| at % 5 == 4);
    let [judged, fitted] =
        [judged, fitted].map(|some| some.into_iter().map(|(_, line)| line).collect::<Vec<&Line>>());
    assert_eq!((fitted.len(), judged.len()), (4000, 1000));
    let archs: Vec<Arch> = lines.iter().map(Line::arch).collect();
    println!(
        "per cent         separated: within 5, within 10, mean error, Spearman | regression: within 5, within 10, mean error"
    );
    for (at, device) in DEVICES.iter().enumerate() {
        let us = lines.iter().map(|line| 1e3 * line.ms[at]);
        let measured: Vec<(Arch, f64)> = archs.iter().cloned().zip(us).collect();
        let (facts, engine) = facts();
        let table = LatencyTable::of_networks(device, facts, engine, &space, &measured).expect("enough");
        let ours = table.fit_of(&space).expect("networks").validation();
        assert_eq!(ours.n, 1000);
        let truth: Vec<f64> = judged.iter().map(|line| line.ms[at]).collect();
        let theirs = regression(&fitted, &judged, at);
        let [theirs_5, theirs_10] = [0.05, 0.1].map(|share| within(&theirs, &truth, share));
        let mape = theirs.iter().zip(&truth).map(|(one, other)| (one / other - 1.0).abs()).sum::<f64>() / 1e3;
        println!(
            "{device:<14} {:>6.1} {:>6.1} {:>6.2} {:>6.3} | {:>6.1} {:>6.1} {:>6.2}",
            100.0 * ours.within_5pct,
            100.0 * ours.within_10pct,
            100.0 * ours.mape,
            ours.spearman,
            100.0 * theirs_5,
            100.0 * theirs_10,
            100.0 * mape
        );
        if ADDITIVE.contains(device) {
            assert!(ours.within_10pct >= 0.98, "{device}: {ours:?}");
        }
        // on the V100 with single images the regression has 93.0 % within 10 % and a greater mean error
        assert!(ours.mape < mape && ours.within_5pct >= theirs_5, "{device}: {ours:?}, {mape}");
        assert!(ours.within_10pct >= theirs_10 - 0.015, "{device}: {} of {theirs_10}", ours.within_10pct);
    }
}
