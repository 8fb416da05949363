//! Every written form of a sub-network: words, canonical text, and the files that hold one.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{Arch, Block, Expand, SearchSpace, sampler};
use crate::document::check_version;
use crate::error::{Error, Result};
use crate::file;

/// Kind and version of `found.json` and `config.json`.
const VERSIONS: [(&str, u32); 2] = [("found", 2), ("model", 1)];

/// Reads a sub-network of `space` from what a user wrote: `largest`, `smallest`, `random:SEED`, the
/// canonical text, or the path of a `found.json`, an exported `config.json` or a sample of PyTorch's `ofa`.
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
#[derive(Deserialize)]
struct OfaSample {
    ks: Vec<usize>,
    e: Vec<Expand>,
    d: Vec<usize>,
    r: OneOrMany,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(usize),
    Many([usize; 1]),
}

fn from_file(space: &SearchSpace, path: &Path) -> Result<Arch> {
    let text = file::read_text(path)?;
    from_json(space, &path.display().to_string(), &text)
}

/// Reads the text of a file that holds a sub-network, which may yet lie outside the space; `place` names it in
/// messages.
///
/// # Errors
/// If the text holds none.
pub fn from_json(space: &SearchSpace, place: &str, text: &str) -> Result<Arch> {
    let file = serde_json::from_str(text).map_err(|error| {
        let expected = "`best.arch` (found.json), `arch` (config.json), or `ks`, `e`, `d`, `r` (ofa)";
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
            let known = VERSIONS.iter().find(|known| known.0 == kind).map_or(1, |known| known.1);
            check_version(place, version.unwrap_or_default(), known)
        }
        (None, _) => Ok(()),
    }
}

fn from_ofa(space: &SearchSpace, place: &str, sample: &OfaSample) -> Result<Arch> {
    let slots: usize = space.stages().iter().map(|stage| stage.choices.max_depth()).sum();
    let lengths = [
        ("ks", sample.ks.len(), slots),
        ("e", sample.e.len(), slots),
        ("d", sample.d.len(), space.stages().len()),
    ];
    for (field, got, expected) in lengths {
        if got != expected {
            return Err(Error::invalid(
                place,
                field,
                format!("a list of {expected} (space {})", space.name()),
                got,
            ));
        }
    }
    let (OneOrMany::One(resolution) | OneOrMany::Many([resolution])) = sample.r;
    let mut slot = 0;
    let mut stages = Vec::new();
    for (stage, &depth) in space.stages().iter().zip(&sample.d) {
        let most = stage.choices.max_depth();
        if depth > most {
            return Err(Error::invalid(
                place,
                "d",
                format!("at most {most} (space {})", space.name()),
                depth,
            ));
        }
        let blocks = (slot..slot + depth).map(|at| Block { kernel: sample.ks[at], expand: sample.e[at] });
        stages.push(blocks.collect());
        slot += most;
    }
    Ok(Arch { resolution, stages })
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
