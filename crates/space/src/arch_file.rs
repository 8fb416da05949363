//! Reads sub-networks in every written form: words, canonical text, and files.

use std::path::Path;

use base::document::{check_one_of, value_of, without_mark};
use base::error::{Error, Result};
use base::file;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::ofa::{config as ofa_config, sample as ofa_sample};
use super::{Arch, SearchSpace, sampler};

pub use super::ofa::{NET_CONFIG, RUN_CONFIG, net_config, run_config};

/// Kind and known versions of `found.json` and `config.json`.
const VERSIONS: [(&str, &[u32]); 2] = [("found", &[2, 3, 4]), ("model", &[1, 2, 3, 4])];

/// Reads a sub-network of `space` from a user's text: `largest`, `smallest`, `random:SEED`, the canonical text, or the
/// path of a `found.json`, an exported `config.json`, or a file of PyTorch's `ofa`: a sample, or a `net.config`, for
/// which a `run.config` next to it gives the resolution. `found.json#front[3]` is the fourth of a search's front.
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
            } else if file::is_input(Path::new(text)) {
                from_file(space, Path::new(text))?
            } else if let (path, Some(place)) = split_place(text) {
                from_front(path, place)?
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

/// The warning about a file for which [`is_interrupted`] holds.
pub const INTERRUPTED: &str =
    "the search that wrote it was interrupted; its sub-network is the best found until then";

/// Whether a text for [`read`] is the path of a `found.json` of an interrupted search.
pub fn is_interrupted(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Mark {
        #[serde(default)]
        interrupted: bool,
    }
    let path = Path::new(split_place(text).0);
    let text = if file::is_input(path) { file::read_text(path).ok() } else { None };
    text.and_then(|text| serde_json::from_str(&text).ok()).is_some_and(|mark: Mark| mark.interrupted)
}

/// The path in a text such as `found.json#front[3]`, and the place on the front, from 0; a text without such an end is a
/// path.
pub fn split_place(text: &str) -> (&str, Option<usize>) {
    let split = || {
        let (path, place) = text.strip_suffix(']')?.rsplit_once("#front[")?;
        Some((path, place.parse().ok()?))
    };
    split().map_or((text, None), |(path, place)| (path, Some(place)))
}

/// A sub-network of the front of a `found.json`.
fn from_front(path: &str, place: usize) -> Result<Arch> {
    #[derive(Deserialize)]
    struct WithFront {
        front: Vec<FoundArch>,
    }
    let text = file::read_text(Path::new(path))?;
    let text = without_mark(&text);
    check_front(path, text)?;
    let form = "`front`, a list of sub-networks (found.json)";
    let found: WithFront =
        serde_json::from_str(text).map_err(|error| Error::invalid(path, "front", form, error))?;
    let count = found.front.len();
    let mut front = found.front.into_iter();
    front.nth(place).map(|found| found.arch).ok_or_else(|| {
        let expected = format!("a place below {count}, the length of the front");
        Error::invalid(path, "front", expected, place).and_then_do("search with --front")
    })
}

fn random(space: &SearchSpace, seed: &str) -> Result<Arch> {
    let seed = seed
        .parse()
        .map_err(|_| Error::invalid("arch", "seed", "random:NUMBER", format!("random:{seed}")))?;
    Ok(sampler::random(space, &mut ChaCha8Rng::seed_from_u64(seed)))
}

/// The toolkit's files that hold a sub-network, distinguished by their keys.
#[derive(Deserialize)]
#[serde(untagged)]
enum ArchFile {
    Found { best: FoundArch },
    Config { arch: Arch },
}

#[derive(Deserialize)]
struct FoundArch {
    arch: Arch,
}

fn from_file(space: &SearchSpace, path: &Path) -> Result<Arch> {
    let place = path.display().to_string();
    let text = file::read_text(path)?;
    if !ofa_config::is_net_config(&text) {
        return from_json(space, &place, &text);
    }
    let run = path.with_file_name(RUN_CONFIG);
    let resolution = if run.is_file() {
        Some(ofa_config::image_size(&run.display().to_string(), &file::read_text(&run)?)?)
    } else {
        None
    };
    ofa_config::from_text(space, &place, &text, resolution)
}

/// Reads a sub-network from a file's text, without checking that it lies in the space; `place` names the file in
/// messages.
///
/// # Errors
/// If the text holds none, or is a `net.config` and the space has more than one resolution.
pub fn from_json(space: &SearchSpace, place: &str, text: &str) -> Result<Arch> {
    let text = without_mark(text);
    if ofa_config::is_net_config(text) {
        return ofa_config::from_text(space, place, text, None);
    }
    let wrong = |cause: String| {
        let expected = "`best.arch` (found.json), `arch` (config.json), or of ofa `ks`, `e`, `d`, `r`, or `blocks` \
                        and `classifier` (net.config)";
        Error::invalid(place, "arch", expected, cause)
    };
    match serde_json::from_str(text) {
        Ok(file) => {
            check_front(place, text)?;
            let (ArchFile::Found { best: FoundArch { arch } } | ArchFile::Config { arch }) = file;
            Ok(arch)
        }
        Err(error) if !error.is_data() => Err(wrong(error.to_string())),
        Err(_) => {
            let value = value_of(text).map_err(|error| wrong(error.to_string()))?;
            let sample =
                ofa_sample::find(&value).ok_or_else(|| wrong("JSON without a readable one".to_string()))?;
            ofa_sample::arch(space, place, sample)
        }
    }
}

/// If a file states its kind, its version must be known. The toolkit's own files state it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

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
            format!("\u{feff}{{\"arch\": \"{text}\"}}"),
        ] {
            assert_eq!(read_file(&content).expect(&content), expected);
        }
    }

    #[test]
    fn a_place_on_the_front_is_read() {
        let space = preset("tiny").expect("a preset");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("found.json");
        let arch = |text: &str| format!(r#"{{"arch": "{text}"}}"#);
        let (one, other) = ("r12:k5e4/k3e6,k7e3", "r8:k3e3/k3e3");
        let (best, front) = (arch(one), [arch(one), arch(other)].join(", "));
        let text = format!(r#"{{"kind": "found", "version": 4, "best": {best}, "front": [{front}]}}"#);
        std::fs::write(&path, text).expect("writable");
        let place = |end: &str| read(&space, &format!("{}{end}", path.display()));
        assert_eq!(place("").expect("the best").to_string(), one);
        assert_eq!(place("#front[1]").expect("the second").to_string(), other);
        let error = place("#front[2]").expect_err("only two").to_string();
        assert!(error.contains("front: expected a place below 2") && error.ends_with("--front"), "{error}");
        let error = place("s#front[0]").expect_err("no such file").to_string();
        assert!(error.contains("cannot read"), "{error}");
        assert_eq!(split_place("a#front[x]"), ("a#front[x]", None));
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
