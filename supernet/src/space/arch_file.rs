//! Every written form of a sub-network: words, canonical text, and the files that hold one.

mod ofa_config;

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{Arch, Block, Family, Ratio, SearchSpace, Stage, sampler};
use crate::document::check_one_of;
use crate::error::{Error, Result};
use crate::file;

pub use ofa_config::{NET_CONFIG, RUN_CONFIG, net_config, run_config};

/// Kind and known versions of `found.json` and `config.json`.
const VERSIONS: [(&str, &[u32]); 2] = [("found", &[2, 3]), ("model", &[1, 2])];

/// Reads a sub-network of `space` from what a user wrote: `largest`, `smallest`, `random:SEED`, the
/// canonical text, or the path of a `found.json`, an exported `config.json`, or what PyTorch's `ofa` writes: a sample,
/// or a `net.config`, for which a `run.config` beside it gives the resolution.
///
/// # Errors
/// If the text has none of these forms, the file cannot be read, or the sub-network is not in the space.
pub fn read(space: &SearchSpace, text: &str) -> Result<Arch> {
    let arch = match text {
        "largest" => sampler::largest(space),
        "smallest" => sampler::smallest(space),
        _ => {
            if let Some(seed) = text.strip_prefix("random:") {
                random(space, seed)?
            } else if Path::new(text).is_file() {
                from_file(space, Path::new(text))?
            } else {
                text.parse().map_err(|error: Error| {
                    error.and_then_do(
                        "or give largest, smallest, random:SEED, or the path of an existing file",
                    )
                })?
            }
        }
    };
    space.check(&arch)?;
    Ok(arch)
}

fn random(space: &SearchSpace, seed: &str) -> Result<Arch> {
    let seed = seed
        .parse()
        .map_err(|_| Error::invalid("arch", "seed", "random:NUMBER", format!("random:{seed}")))?;
    Ok(sampler::random(space, &mut ChaCha8Rng::seed_from_u64(seed)))
}

/// The files that hold a sub-network, told apart by their keys.
#[derive(Deserialize)]
#[serde(untagged)]
enum ArchFile {
    Found { best: FoundArch },
    Config { arch: Arch },
    Ofa(OfaSample),
}

#[derive(Deserialize)]
struct FoundArch {
    arch: Arch,
}

/// A sample of PyTorch's `ofa`: kernels and expand ratios of every possible block, depth of every stage.
///
/// A ResNet's has no kernels, but the index of each stage's width; the first depth is the stem's, where the greatest
/// means that nothing is skipped, and the others count the blocks beyond the fewest.
#[derive(Deserialize)]
struct OfaSample {
    ks: Option<Vec<usize>>,
    e: Vec<Ratio>,
    d: Vec<usize>,
    w: Option<Vec<usize>>,
    #[serde(alias = "image_size")]
    r: OneOrMany,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(usize),
    Many([usize; 1]),
}

fn from_file(space: &SearchSpace, path: &Path) -> Result<Arch> {
    let (place, text) = (path.display().to_string(), file::read_text(path)?);
    if !ofa_config::is_net_config(&text) {
        return from_json(space, &place, &text);
    }
    let run = path.with_file_name(RUN_CONFIG);
    let size = |run: &Path| ofa_config::image_size(&run.display().to_string(), &file::read_text(run)?);
    let resolution = run.is_file().then(|| size(&run)).transpose()?;
    ofa_config::from_text(space, &place, &text, resolution)
}

/// Reads the text of a file that holds a sub-network, which may yet lie outside the space; `place` names it in
/// messages.
///
/// # Errors
/// If the text holds none, or is a `net.config` and the space has more than one resolution.
pub fn from_json(space: &SearchSpace, place: &str, text: &str) -> Result<Arch> {
    if ofa_config::is_net_config(text) {
        return ofa_config::from_text(space, place, text, None);
    }
    let file = serde_json::from_str(text).map_err(|error| {
        let expected = "`best.arch` (found.json), `arch` (config.json), or of ofa `ks`, `e`, `d`, `r`, or `blocks` \
                        and `classifier` (net.config)";
        let cause = if error.is_data() {
            "JSON without a readable one of them".to_string()
        } else {
            error.to_string()
        };
        Error::invalid(place, "arch", expected, cause)
    })?;
    check_front(place, text)?;
    match file {
        ArchFile::Found { best } => Ok(best.arch),
        ArchFile::Config { arch } => Ok(arch),
        ArchFile::Ofa(sample) => from_ofa(space, place, &sample),
    }
}

/// Where a file says what it is, as our own do, its version must be one that is known.
fn check_front(place: &str, text: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Front {
        kind: Option<String>,
        version: Option<u32>,
    }
    let front: Front = serde_json::from_str(text)
        .map_err(|error| Error::invalid(place, "kind and version", "those of a file", error))?;
    match (front.kind, front.version) {
        (Some(kind), version) => {
            let known = VERSIONS.iter().find(|known| known.0 == kind).map_or(&[1][..], |known| known.1);
            check_one_of(place, version.unwrap_or_default(), known)
        }
        (None, _) => Ok(()),
    }
}

/// The door for a sample's lists.
struct Sample<'a> {
    space: &'a SearchSpace,
    place: &'a str,
}

impl Sample<'_> {
    fn wrong(&self, field: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
        Error::invalid(self.place, field, format!("{expected} (space {})", self.space.name()), got)
    }

    fn length(&self, field: &str, got: usize, expected: usize) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        Err(self.wrong(field, format!("a list of {expected}"), got))
    }

    /// Depths as they are; of a stage that cannot vary they do not count, as in `ofa` itself.
    fn depths(&self, listed: &[usize]) -> Result<Vec<usize>> {
        let stages = self.space.stages();
        self.length("d", listed.len(), stages.len())?;
        let depth = |(stage, &depth): (&Stage, &usize)| match stage.choices.depth.as_slice() {
            [only] => Ok(*only),
            [.., most] if depth > *most => Err(self.wrong("d", format!("at most {most}"), depth)),
            _ => Ok(depth),
        };
        stages.iter().zip(listed).map(depth).collect()
    }

    /// A ResNet's depths: one for the stem, and how many blocks each stage has beyond its fewest.
    fn resnet_depths(&self, listed: &[usize]) -> Result<Vec<usize>> {
        let stages = self.space.stages();
        self.length("d", listed.len(), stages.len() - 1)?;
        let more = |stage: &Stage| stage.choices.max_depth() - stage.choices.min_depth();
        let most = stages[2..].iter().map(more).max().unwrap_or(0);
        let mut depths = vec![usize::from(listed[0] >= most), 1];
        for (stage, &depth) in stages[2..].iter().zip(&listed[1..]) {
            if depth > more(stage) {
                return Err(self.wrong("d", format!("at most {}", more(stage)), depth));
            }
            depths.push(stage.choices.min_depth() + depth);
        }
        Ok(depths)
    }

    /// Widths by their index; of equal networks the one that is canonical.
    fn widths(&self, listed: &[usize]) -> Result<Vec<Ratio>> {
        let stages = self.space.stages();
        self.length("w", listed.len(), stages.len())?;
        let width = |(stage, &index): (&Stage, &usize)| {
            let widths = &stage.channels_by_width;
            let (ratio, _) = widths
                .get(index)
                .ok_or_else(|| self.wrong("w", format!("indices below {}", widths.len()), index))?;
            Ok(stage.canonical(*ratio))
        };
        stages.iter().zip(listed).map(width).collect()
    }
}

fn from_ofa(space: &SearchSpace, place: &str, sample: &OfaSample) -> Result<Arch> {
    let (OneOrMany::One(resolution) | OneOrMany::Many([resolution])) = sample.r;
    let door = Sample { space, place };
    // a ResNet's stem stages have no entries in the lists of blocks
    let fixed = if space.family() == Family::ResNetD { 2 } else { 0 };
    let (depths, widths) = match (&sample.w, space.family()) {
        (Some(widths), Family::ResNetD) => (door.resnet_depths(&sample.d)?, door.widths(widths)?),
        (None, Family::ResNetD) => return Err(door.wrong("w", "a list of widths", "none")),
        (_, Family::MobileNetV3 | Family::ProxylessNas) => (door.depths(&sample.d)?, Vec::new()),
    };
    let slots: usize = space.stages()[fixed..].iter().map(|stage| stage.choices.max_depth()).sum();
    door.length("e", sample.e.len(), slots)?;
    let kernels = match &sample.ks {
        Some(kernels) => kernels.clone(),
        None if fixed > 0 => vec![space.stages()[fixed].choices.max_kernel(); slots],
        None => return Err(door.wrong("ks", format!("a list of {slots}"), "none")),
    };
    door.length("ks", kernels.len(), slots)?;
    let (mut slot, mut stages) = (0, Vec::new());
    for (index, (stage, &depth)) in space.stages().iter().zip(&depths).enumerate() {
        if index < fixed {
            stages.push(vec![Block { kernel: stage.choices.max_kernel(), expand: Ratio::whole(1) }; depth]);
            continue;
        }
        let blocks = (slot..slot + depth).map(|at| Block { kernel: kernels[at], expand: sample.e[at] });
        stages.push(blocks.collect());
        slot += stage.choices.max_depth();
    }
    Ok(Arch { resolution, stages, widths })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::preset;

    fn read_file(content: &str) -> Result<Arch> {
        let space = preset("tiny").expect("a preset");
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), content).expect("writable");
        read(&space, file.path().to_str().expect("a plain path"))
    }

    #[test]
    fn every_form_is_read() {
        let space = preset("tiny").expect("a preset");
        assert_eq!(read(&space, "largest").expect("a word"), sampler::largest(&space));
        assert_eq!(read(&space, "random:3").expect("a seed"), read(&space, "random:3").expect("a seed"));
        let text = "r12:k5e4/k3e6,k7e3";
        let expected: Arch = text.parse().expect("an arch");
        for content in [
            format!(r#"{{"best": {{"arch": "{text}", "accuracy": 0.5}}}}"#),
            format!(r#"{{"arch": "{text}", "space": "tiny"}}"#),
            r#"{"ks": [5, 7, 3, 7], "e": [4, 6, 6, 3], "d": [1, 2], "r": [12]}"#.to_string(),
        ] {
            assert_eq!(read_file(&content).expect(&content), expected);
        }
    }

    #[test]
    fn a_resnet_sample_counts_widths_and_further_blocks() {
        let space = preset("ofa-resnet50").expect("a preset");
        let text = |d: &str, w: &str| {
            let e = ["0.2"; 18].join(",");
            format!(r#"{{"d": [{d}], "e": [{e}], "w": [{w}], "image_size": 160}}"#)
        };
        let read = |text: String| from_json(&space, "x.json", &text);
        let arch = read(text("1,0,1,2,0", "0,0,1,2,2,1")).expect("a sample");
        let depths: Vec<_> = arch.stages.iter().map(Vec::len).collect();
        assert_eq!(depths, [0, 1, 2, 3, 6, 2], "1 is not the stem's greatest, so it is skipped");
        let widths: Vec<_> = arch.widths.iter().map(ToString::to_string).collect();
        assert_eq!(
            widths,
            ["0.8", "0.65", "0.8", "1", "1", "0.8"],
            "0.65 and 0.8 give the stem as many channels"
        );
        space.check(&arch).expect("legal");
        for (d, w, part) in [
            ("2,0,0,0", "0,0,0,0,0,0", "d: expected a list of 5"),
            ("2,3,0,0,0", "0,0,0,0,0,0", "d: expected at most 2"),
            ("2,0,0,0,0", "0,0,0,0,0", "w: expected a list of 6"),
            ("2,0,0,0,0", "0,0,0,0,0,3", "w: expected indices below 3"),
        ] {
            let error = read(text(d, w)).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let proxyless = preset("ofa-proxyless-w1.3").expect("a preset");
        let (k, e) = (["5"; 21].join(","), ["4"; 21].join(","));
        let text = format!(r#"{{"ks": [{k}], "e": [{e}], "d": [2,3,4,2,2,4], "r": 160}}"#);
        let arch = from_json(&proxyless, "x.json", &text).expect("a sample");
        assert_eq!(arch.stages[5].len(), 1, "the last stage has one block whatever is written");
    }

    #[test]
    fn what_is_not_an_arch_of_the_space_is_refused() {
        let space = preset("tiny").expect("a preset");
        for (text, part) in [
            ("r9:k5e4/k3e6", "resolution: expected one of 8, 12, got 9"),
            ("r8:k5e4", "number of stages: expected 2"),
            ("r8:k5e4,k5e4,k5e4/k3e6", "depth of stage 1: expected one of 1, 2, got 3"),
            ("r8:k5e5/k3e6", "expand ratio of stage 1, block 1: expected one of 3, 4, 6, got 5"),
            ("random:x", "random:NUMBER"),
            ("no/such/file.json", "the path of an existing file"),
        ] {
            let error = read(&space, text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
        for (content, part) in [
            (r#"{"ks": [5], "e": [4, 6, 6, 3], "d": [1, 2], "r": 12}"#, "ks: expected a list of 4"),
            ("{}", "`best.arch` (found.json)"),
            ("[", "EOF"),
        ] {
            let error = read_file(content).expect_err(content).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
