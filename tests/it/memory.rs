//! Memory of the engines for activations, next to the computed peak. The figures are in docs/BENCHMARKS.md. A process has one
//! high-water mark, so the test runs by itself, with an allocator that returns freed memory at once (glibc's, by its
//! environment).

use std::fs;
use std::path::PathBuf;

use extract::latency::{Engine, NativeEngine, OnnxRuntimeEngine};
use kernels::Backend;
use space::{Arch, SearchSpace, cost, preset, sampler};

/// A field of this process's status, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a known line");
    let kilobytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    1024 * kilobytes
}

/// The largest growth of memory in three inferences, in bytes: without and with the memory that is retained between
/// inferences.
fn taken(engine: &dyn Engine, space: &SearchSpace, arch: &Arch) -> (u64, u64) {
    let layers = space.lower(arch).expect("legal");
    let mut run = engine.prepare(&layers).expect("layers that it can run");
    let before = status("VmRSS:");
    let mut growth = || {
        let now = status("VmRSS:");
        fs::write("/proc/self/clear_refs", "5").expect("its own mark");
        (0..3).for_each(|_| run().expect("an inference"));
        (status("VmHWM:").saturating_sub(now), status("VmHWM:").saturating_sub(before))
    };
    let (_, first) = growth();
    let (again, _) = growth();
    (again, first)
}

#[test]
#[ignore = "by itself: MALLOC_MMAP_THRESHOLD_=4096 MALLOC_MMAP_MAX_=1000000 MALLOC_TRIM_THRESHOLD_=0 MALLOC_TOP_PAD_=0 \
            cargo test --test it memory_beside_engines -- --ignored --nocapture"]
fn memory_beside_engines() {
    let native = NativeEngine::new(&Backend::detect(), 1, 1);
    let library = std::env::var_os("ONNXRUNTIME").map(PathBuf::from);
    let onnxruntime = library.map(|path| OnnxRuntimeEngine::new(&path, 1, 1).expect("the library"));
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "| sub-network | computed, MB | native: an inference, with what is kept | ONNX Runtime: the same |"
    );
    println!("|---|---|---|---|");
    let mut compared = 0;
    for (name, resolutions) in
        [("ofa-mbv3-w1.0", [128, 224]), ("ofa-resnet50", [128, 224]), ("fashion", [20, 28])]
    {
        let space = preset(name).expect("a preset");
        for (which, arch) in [("smallest", sampler::smallest(&space)), ("largest", sampler::largest(&space))]
        {
            for arch in resolutions.map(|resolution| arch.at(resolution)) {
                let computed = cost(&space.lower(&arch).expect("legal")).peak_activation_bytes;
                let text = |engine: &dyn Engine| {
                    let (again, first) = taken(engine, &space, &arch);
                    format!("{:.2}, {:.2}", mb(again), mb(first))
                };
                let theirs = onnxruntime.as_ref().map_or("not given".to_string(), |engine| text(engine));
                println!(
                    "| {name}, {which}, {} px | {:.2} | {} | {theirs} |",
                    arch.resolution,
                    mb(computed),
                    text(&native)
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 12);
}
