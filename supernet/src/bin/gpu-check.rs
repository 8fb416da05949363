//! `gpu-check [cuda:N [SPACE ...]]`: compares a GPU's results with the CPU's, and its kernels' speed with that of its
//! memory; with names of spaces, only the results of these spaces. Prints Markdown; exit code 1 if a difference is
//! above its bound.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use base::random::rng_for;
use candle_core::{DType, Device, Tensor};
use kernels::{Backend, BatchNormAffine, ChainOutputGradient, DepthwiseChain, Precision};
use space::{Activation, Arch, LayerSpec, SearchSpace, preset, sampler};
use supernet::Result;
use supernet::agreement::{Differences, diamond, of_layer, of_layers, of_network};

/// Largest accepted differences from the CPU.
struct Bounds {
    /// Outputs of single layers.
    outputs: f64,
    /// Gradients of single layers: a value that rounding moves over a corner of an activation changes them abruptly.
    gradients: f64,
    /// Values of networks, by name; values without a bound need only be numbers.
    networks: &'static [(&'static str, f64)],
}

/// TF32 and bfloat16 keep 10 and 7 bits of a product's operands. A wrong result is about 1 apart. In networks with
/// coarse rounding, values behind many batch norms over few values have no bound.
fn bounds(precision: Precision) -> Bounds {
    match precision {
        Precision::F32 => Bounds {
            outputs: 1e-5,
            gradients: 2e-2,
            networks: &[
                ("loss", 1e-5),
                ("logits", 1e-2),
                ("folded logits", 1e-2),
                ("statistics", 1e-3),
                ("gradients", 5e-2),
                ("weights", 1e-4),
            ],
        },
        Precision::Tf32 => {
            Bounds { outputs: 5e-3, gradients: 0.15, networks: &[("loss", 5e-3), ("weights", 1e-2)] }
        }
        Precision::Bf16 => {
            Bounds { outputs: 5e-2, gradients: 0.25, networks: &[("loss", 1e-2), ("weights", 5e-2)] }
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let device = arguments.next().unwrap_or_else(|| "cuda:0".to_string());
    let spaces: Vec<String> = arguments.collect();
    let mut out = std::io::stdout().lock();
    if ["-h", "--help"].contains(&device.as_str()) {
        return if out.write_all(usage().as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(unknown) = spaces.iter().find(|space| !SPACES.contains(&space.as_str())) {
        let _ = write!(std::io::stderr(), "error: no space {unknown} to check\n\n{}", usage());
        return ExitCode::from(2);
    }
    match check(&device, &spaces, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The spaces whose layers are compared.
const SPACES: [&str; 10] = [
    "tiny",
    "tiny-resnet",
    "tiny-spectrogram",
    "tiny-cell",
    "tiny-macro",
    "fashion",
    "nas-bench-201",
    "enas-macro",
    "ofa-mbv3-w1.0",
    "ofa-resnet50",
];

fn usage() -> String {
    format!(
        "usage: gpu-check [cuda:N [SPACE ...]]\n\nCompares layers and networks on a GPU with the CPU, and its kernels' \
         speed with a copy's.\nWith names of spaces ({}) only their layers and networks.\nExit code: 0 all differences \
         are within bounds; 1 one is not, or a check failed; 2 wrong usage.\n",
        SPACES.join(", ")
    )
}

/// Prints a line.
fn print(out: &mut impl Write, line: &str) -> Result<()> {
    writeln!(out, "{line}").map_err(supernet::Error::io("write", std::path::Path::new("standard output")))
}

fn check(device: &str, spaces: &[String], out: &mut impl Write) -> Result<bool> {
    let requested = |name: &str| spaces.is_empty() || spaces.iter().any(|space| space == name);
    let all = Precision::ALL.map(|precision| Backend::on_device(device, precision));
    let all: Vec<Backend> = all.into_iter().collect::<Result<_, kernels::Error>>()?;
    print(out, &format!("{}\n", all[0].gpu().unwrap_or_default()))?;
    print(out, "| value | precision | compared | worst difference | at most |\n|---|---|---|---|---|")?;
    let mut good = true;
    for backend in &all {
        let bounds = bounds(backend.precision());
        for name in SPACES.into_iter().filter(|name| requested(name)) {
            let [outputs, gradients] = compare_layers(&preset(name)?, backend)?;
            good &= row(out, &format!("layers of {name}"), backend, &outputs, bounds.outputs)?;
            good &= row(out, &format!("their gradients, {name}"), backend, &gradients, bounds.gradients)?;
        }
        let all =
            [("tiny", 12), ("tiny-resnet", 32), ("tiny-macro", 8), ("fashion", 28), ("ofa-mbv3-w1.0", 128)];
        for (name, resolution) in all.into_iter().filter(|(name, _)| requested(name)) {
            let space = preset(name)?;
            for arch in [sampler::largest(&space), sampler::smallest(&space), random(&space, 3)] {
                let arch = arch.at(resolution);
                let differences = of_network(&space, &arch, backend, &Backend::detect())?;
                for (what, apart) in differences {
                    let named = bounds.networks.iter().find(|(name, _)| *name == what);
                    // not infinity: a value that is not a number is infinitely far
                    let bound = named.map_or(f64::MAX, |(_, bound)| *bound);
                    let only = Compared { count: 1, worst: apart };
                    good &= row(out, &format!("{name} {arch}: {what}"), backend, &only, bound)?;
                }
            }
        }
    }
    for backend in all.iter().filter(|backend| spaces.is_empty() && backend.precision() != Precision::Tf32) {
        bandwidths(out, backend)?;
    }
    Ok(good)
}

/// Values that were compared.
#[derive(Clone, Copy, Default)]
struct Compared {
    /// Number of values.
    count: usize,
    /// The largest difference.
    worst: f64,
}

/// Prints a row of the table; whether the largest difference is within its bound.
fn row(out: &mut impl Write, what: &str, backend: &Backend, compared: &Compared, bound: f64) -> Result<bool> {
    let Compared { count, worst } = *compared;
    let good = worst <= bound;
    let mark = if good { "" } else { " **too far**" };
    let precision = backend.precision();
    let bound = if bound < f64::MAX { format!("{bound:.0e}") } else { "a number".to_string() };
    print(out, &format!("| {what} | {precision} | {count} | {worst:.1e}{mark} | {bound} |"))?;
    Ok(good)
}

fn random(space: &SearchSpace, seed: u64) -> Arch {
    sampler::random(space, &mut rng_for("gpu check", seed, &[]))
}

/// Compares every layer of the largest, the smallest and some other sub-networks at the lowest and the highest
/// resolution: outputs, then gradients.
fn compare_layers(space: &SearchSpace, backend: &Backend) -> Result<[Compared; 2]> {
    let mut layers: BTreeMap<String, LayerSpec> = BTreeMap::new();
    let archs = [sampler::largest(space), sampler::smallest(space), random(space, 0), random(space, 1)];
    let ends = [space.resolutions().iter().min(), space.resolutions().iter().max()];
    for arch in archs {
        for resolution in ends.into_iter().flatten() {
            layers.extend(space.lower(&arch.at(*resolution))?.into_iter().map(|layer| (layer.key(), layer)));
        }
    }
    let mut all = [Compared::default(); 2];
    for layer in layers.values() {
        note(&mut all, of_layer(layer, backend, &Backend::detect())?);
    }
    note(&mut all, of_layers(&diamond()?, backend, &Backend::detect())?);
    Ok(all)
}

/// Adds differences to those of outputs, or to those of gradients.
fn note(all: &mut [Compared; 2], differences: Differences) {
    for (what, apart) in differences {
        let compared = &mut all[usize::from(what != "output")];
        compared.count += 1;
        compared.worst = compared.worst.max(apart);
    }
}

/// Median milliseconds of a call, by the GPU's events around ten of them.
fn time(backend: &Backend, mut call: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    const CALLS: usize = 10;
    let mut times = Vec::new();
    for round in 0..12 {
        let before = backend.moment()?;
        for _ in 0..CALLS {
            call()?;
        }
        let ms = backend.moment()?.ms_since(&before)? / CALLS as f64;
        if round >= 2 {
            times.push(ms);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Some depthwise chains of `ofa-mbv3-w1.0` at 224 pixels.
const CHAINS: [ChainSize; 5] = [
    ChainSize { channels: 16, side: 112, kernel: 3, stride: 1 },
    ChainSize { channels: 96, side: 112, kernel: 7, stride: 2 },
    ChainSize { channels: 144, side: 56, kernel: 7, stride: 1 },
    ChainSize { channels: 480, side: 14, kernel: 7, stride: 1 },
    ChainSize { channels: 960, side: 7, kernel: 7, stride: 1 },
];

/// The size of a depthwise chain and its input.
struct ChainSize {
    channels: usize,
    side: usize,
    kernel: usize,
    stride: usize,
}

/// Least number of values of timed maps: more than a GPU's cache holds.
const VALUES: usize = 1 << 26;

/// Target share of a copy's speed.
const TARGET: f64 = 0.7;

/// A table of the memory rates of kernels, compared with a copy.
struct Rates<'a, W: Write> {
    out: &'a mut W,
    backend: &'a Backend,
    /// Bytes of a value.
    bytes: f64,
    /// Rate of a copy, GB/s.
    copy: f64,
}

/// Prints the memory rates of kernels, compared with a copy.
fn bandwidths(out: &mut impl Write, backend: &Backend) -> Result<()> {
    let bytes = if backend.precision() == Precision::Bf16 { 2.0 } else { 4.0 };
    let precision = backend.precision();
    print(
        out,
        &format!("\n{precision} kernels compared with a copy; the target is {TARGET} of its speed\n"),
    )?;
    print(out, "| kernel | ms | GB/s | of copy's |\n|---|---|---|---|")?;
    let to = maps(backend, 256, 56)?;
    let from = maps(backend, 256, 56)?;
    // the driver's copy: reads one, writes one
    let moved = 2.0 * bytes * from.elem_count() as f64;
    let copy = moved / time(backend, || from.copy().map(drop))? / 1e6;
    print(out, &format!("| copy | | {copy:.0} | 1.00 |"))?;
    let mut rates = Rates { out, backend, bytes, copy };
    // reads two, writes one
    rates.time("y += x, 256 x 56 x 56", 3 * from.elem_count(), || backend.add_assign(&to, &from))?;
    for size in &CHAINS {
        rates.chain(size)?;
    }
    Ok(())
}

/// Maps of at least [`VALUES`] values, which repeat some random numbers.
fn maps(backend: &Backend, channels: usize, side: usize) -> Result<Tensor> {
    let images = VALUES.div_ceil(channels * side * side).next_multiple_of(8);
    let values = Tensor::rand(-1.0f32, 1.0, 1 << 16, &Device::Cpu)?.to_vec1::<f32>()?;
    let values = values.into_iter().cycle().take(channels * images * side * side).collect();
    let values = Tensor::from_vec::<_, f32>(values, (channels, images, side, side), &Device::Cpu)?;
    Ok(backend.activations(&values)?)
}

fn norm(backend: &Backend, channels: usize) -> Result<BatchNormAffine> {
    let gamma = Tensor::ones(channels, DType::F32, &Device::Cpu)?.to_device(&backend.device())?;
    let beta = Tensor::zeros(channels, DType::F32, &backend.device())?;
    Ok(BatchNormAffine { gamma, beta, epsilon: 1e-3, activation: Activation::HSwish })
}

impl<W: Write> Rates<'_, W> {
    /// Prints the row of a call that reads and writes `values` values.
    fn time(
        &mut self,
        name: &str,
        values: usize,
        call: impl FnMut() -> candle_core::Result<()>,
    ) -> Result<()> {
        let ms = time(self.backend, call)?;
        let rate = self.bytes * values as f64 / ms / 1e6;
        let mark = if rate < TARGET * self.copy { " (below)" } else { "" };
        print(self.out, &format!("| {name} | {ms:.3} | {rate:.0} | {:.2}{mark} |", rate / self.copy))
    }

    /// Times a depthwise convolution and its batch norms, together and apart.
    fn chain(&mut self, size: &ChainSize) -> Result<()> {
        let ChainSize { channels, side, kernel, stride } = *size;
        let backend = self.backend;
        let x = maps(backend, channels, side)?;
        let with = norm(backend, channels)?;
        let weight = Tensor::ones((channels, 1, kernel, kernel), DType::F32, &Device::Cpu)?;
        let weight = (weight / (kernel * kernel) as f64)?.to_device(&backend.device())?;
        let shift = Tensor::zeros(channels, DType::F32, &backend.device())?;
        let size = format!("{channels} x {side} x {side}, k{kernel} s{stride}");
        let len = x.elem_count();
        let outputs = x.elem_count() / (stride * stride);
        // reads the input, writes the output; the in-place shift after it reads and writes that
        self.time(&format!("depthwise and shift, {size}"), len + 3 * outputs, || {
            backend.depthwise_activated(&x, &weight, stride, &shift, Activation::None).map(drop)
        })?;
        // statistics read it once, normalizing reads and writes it
        self.time(&format!("batch norm forward, {size}"), 3 * len, || {
            backend.normalize(&x, &with, None).map(drop)
        })?;
        let (_, statistics) = backend.normalize(&x, &with, None)?;
        let dy = maps(backend, channels, side)?;
        let gradient = norm(backend, channels)?;
        // two kernels read x and dy, the second writes dx
        self.time(&format!("batch norm backward, {size}"), 5 * len, || {
            backend.normalize_backward(&x, &dy, &statistics, &with, &gradient).map(drop)
        })?;
        let chain = |norm: &BatchNormAffine, weight: Tensor| DepthwiseChain {
            before: Some(norm.clone()),
            weight,
            stride,
            after: norm.clone(),
            with_means: false,
        };
        let into = chain(&gradient, weight.zeros_like()?);
        let chain = chain(&with, weight.clone());
        // statistics and convolution read x; the convolution's output is written, read twice, and written normalized
        self.time(&format!("chain forward, {size}"), 2 * len + 4 * outputs, || {
            backend.chain(&chain, &x).map(drop)
        })?;
        let (y, _, kept) = backend.chain(&chain, &x)?;
        let gradient_of_output = ChainOutputGradient { dy: &y, excite: None };
        // behind the convolution five passes over its output; then the weights' gradient reads x and dy, the input's dy,
        // and the batch norm before it makes six more over x and dx
        self.time(&format!("chain backward, {size}"), 7 * len + 7 * outputs, || {
            backend.chain_backward(&chain, &x, &kept, &gradient_of_output, &into).map(drop)
        })
    }
}
