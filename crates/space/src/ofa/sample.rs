//! Reads the dictionaries of PyTorch's `ofa` for samples and search results: kernels and expand ratios of every
//! possible block, depth of every stage, and the image size.
//!
//! A ResNet's has no kernels, but the index of each stage's width; the first depth is the stem's, where the greatest
//! means that nothing is skipped, and the others count the blocks beyond the fewest.

use base::error::{Error, Result};
use serde_json::Value;

use super::arch_of;
use crate::families::STEM_STAGES;
use crate::families::stages::{Block, Stage};
use crate::{Arch, Extent, FamilyName, Ratio, SearchSpace};

/// The dictionary in a JSON value: the value itself, under `arch`, or next to numbers in a list, as the package's
/// search returns the best with its score.
pub(crate) fn find(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(map) if ["d", "e", "ks"].iter().any(|key| map.contains_key(*key)) => Some(value),
        Value::Object(map) => map.get("arch").filter(|arch| arch.is_object()).and_then(find),
        Value::Array(items) => {
            let mut objects = items.iter().filter(|item| !item.is_number());
            objects.next().filter(|item| item.is_object() && objects.next().is_none()).and_then(find)
        }
        _ => None,
    }
}

/// The sub-network of a dictionary.
pub(crate) fn arch(space: &SearchSpace, place: &str, sample: &Value) -> Result<Arch> {
    let all = &space.ofa_stages().map_err(|error| error.in_place(place))?.stages;
    let sample = Sample { space, stages: all, place, value: sample };
    let resolution = sample.resolution()?;
    // a ResNet's stem stages have no entries in the lists of blocks
    let fixed = if space.family() == FamilyName::ResNetD { STEM_STAGES } else { 0 };
    let (depths, widths) = match space.family() {
        FamilyName::DsCnn => {
            return Err(sample.wrong("family", "one that PyTorch's ofa has", "ds-cnn"));
        }
        FamilyName::ResNetD => (sample.resnet_depths()?, sample.widths()?),
        _ => (sample.depths()?, Vec::new()),
    };
    let slots: usize = all[fixed..].iter().map(|stage| stage.choices.max_depth()).sum();
    let expands = sample.list("e", slots, |value| serde_json::from_value::<Ratio>(value.clone()).ok())?;
    let kernels = match sample.get("ks") {
        None if fixed > 0 => vec![all[fixed].choices.max_kernel(); slots],
        _ => sample.list("ks", slots, whole)?,
    };
    let mut slot = 0;
    let mut stages = Vec::new();
    for (index, (stage, &depth)) in all.iter().zip(&depths).enumerate() {
        if index < fixed {
            stages.push(vec![Block { kernel: stage.choices.max_kernel(), expand: Ratio::whole(1) }; depth]);
            continue;
        }
        let blocks = (slot..slot + depth).map(|at| Block { kernel: kernels[at], expand: expands[at] });
        stages.push(blocks.collect());
        slot += stage.choices.max_depth();
    }
    Ok(arch_of(Extent::square(resolution), stages, widths))
}

/// A whole number, which may be written as a float: other languages and numpy do so.
fn whole(value: &Value) -> Option<usize> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..1e9).contains(number));
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .or_else(|| float().map(|float| float as usize))
}

/// A dictionary, with the space of its sub-network.
struct Sample<'a> {
    space: &'a SearchSpace,
    stages: &'a [Stage],
    place: &'a str,
    value: &'a Value,
}

impl Sample<'_> {
    fn wrong(&self, field: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Error {
        Error::invalid(self.place, field, format!("{expected} (space {})", self.space.name()), got)
    }

    /// The value under a key; `None` for null too.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The list under a key, with the given number of items.
    fn list<T>(&self, key: &str, length: usize, item: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let expected = || format!("a list of {length}");
        let value = self.get(key).ok_or_else(|| self.wrong(key, expected(), "none"))?;
        let items = value.as_array().ok_or_else(|| self.wrong(key, expected(), value))?;
        if items.len() != length {
            return Err(self.wrong(key, expected(), items.len()));
        }
        items
            .iter()
            .map(|value: &Value| {
                item(value).ok_or_else(|| self.wrong(key, format!("{} numbers", expected()), value))
            })
            .collect()
    }

    /// The image size, alone or as a list of one.
    fn resolution(&self) -> Result<usize> {
        let expected = "the image size, as \"r\": 224 or \"image_size\": 224";
        let Some(value) = self.get("r").or_else(|| self.get("image_size")) else {
            return Err(self.wrong("r", expected, "none").and_then_do("add it to the file"));
        };
        let one = match value.as_array().map(Vec::as_slice) {
            Some([one]) => one,
            _ => value,
        };
        whole(one).ok_or_else(|| self.wrong("r", expected, value))
    }

    /// Depths as they are; of a stage with a single depth they are ignored, as in `ofa` itself.
    fn depths(&self) -> Result<Vec<usize>> {
        let stages = self.stages;
        let listed = self.list("d", stages.len(), whole)?;
        let mut depths = Vec::with_capacity(stages.len());
        for (stage, depth) in stages.iter().zip(listed) {
            depths.push(match stage.choices.depth.as_slice() {
                [only] => *only,
                [.., most] if depth > *most => {
                    return Err(self.wrong("d", format!("at most {most}"), depth));
                }
                _ => depth,
            });
        }
        Ok(depths)
    }

    /// A ResNet's depths: one for the stem, and each stage's number of blocks beyond its fewest.
    fn resnet_depths(&self) -> Result<Vec<usize>> {
        let stages = self.stages;
        let listed = self.list("d", stages.len() - 1, whole)?;
        let more = |stage: &Stage| stage.choices.max_depth() - stage.choices.min_depth();
        let most = stages[STEM_STAGES..].iter().map(more).max().unwrap_or(0);
        let mut depths = vec![usize::from(listed[0] >= most), 1];
        for (stage, &depth) in stages[STEM_STAGES..].iter().zip(&listed[1..]) {
            if depth > more(stage) {
                return Err(self.wrong("d", format!("at most {}", more(stage)), depth));
            }
            depths.push(stage.choices.min_depth() + depth);
        }
        Ok(depths)
    }

    /// A ResNet's widths by their index; the canonical one of equal networks.
    fn widths(&self) -> Result<Vec<Ratio>> {
        let stages = self.stages;
        let listed = self.list("w", stages.len(), whole)?;
        let mut chosen = Vec::with_capacity(stages.len());
        for (stage, index) in stages.iter().zip(listed) {
            let widths = &stage.channels_by_width;
            let (ratio, _) = widths
                .get(index)
                .ok_or_else(|| self.wrong("w", format!("indices below {}", widths.len()), index))?;
            chosen.push(stage.canonical(*ratio));
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use crate::arch_file::from_json;
    use crate::preset;

    #[test]
    fn samples_are_read_in_every_wrapping() {
        let space = preset("tiny").expect("a preset");
        let sample = r#"{"ks": [5, 7, 3, 7], "e": [4, 6, 6, 3], "d": [1, 2], "r": [12], "wid": null}"#;
        for text in [
            sample.to_string(),
            format!(r#"{{"arch": {sample}, "top1": 0.7}}"#),
            format!("[0.78, {sample}]"),
            // as EvolutionFinder returns its best: accuracy, sample, latency
            format!("[0.78, {sample}, 24.5]"),
            r#"{"ks": [5.0, 7.0, 3.0, 7.0], "e": [4.0, 6.0, 6.0, 3.0], "d": [1.0, 2.0], "r": [12.0]}"#
                .to_string(),
            r#"{"ks": [5, 7, 3, 7], "e": [4, 6, 6, 3], "d": [1, 2], "image_size": 12.0}"#.to_string(),
            format!("\u{feff}{sample}"),
        ] {
            let arch = from_json(&space, "x.json", &text).expect(&text);
            assert_eq!(arch.to_string(), "r12:k5e4/k3e6,k7e3", "{text}");
        }
    }

    #[test]
    fn what_a_sample_lacks_is_named() {
        let space = preset("tiny").expect("a preset");
        let ks = r#""ks": [5, 7, 3, 7]"#;
        let e = r#""e": [4, 6, 6, 3]"#;
        let d = r#""d": [1, 2]"#;
        let r = r#""r": 12"#;
        for (fields, part) in [
            (
                [ks, e, d, r#""x": 1"#],
                "r: expected the image size, as \"r\": 224 or \"image_size\": 224 (space tiny)",
            ),
            ([ks, e, d, r#""r": [12, 8]"#], "got [12,8]"),
            ([ks, e, d, r#""r": 12.5"#], "got 12.5"),
            ([ks, e, d, r#""r": null"#], "got none; add it to the file"),
            ([ks, e, r#""x": 1"#, r], "d: expected a list of 2 (space tiny), got none"),
            ([ks, r#""x": 1"#, d, r], "e: expected a list of 4 (space tiny), got none"),
            ([r#""x": 1"#, e, d, r], "ks: expected a list of 4 (space tiny), got none"),
            ([r#""ks": [5.5, 7, 3, 7]"#, e, d, r], "ks: expected a list of 4 numbers (space tiny), got 5.5"),
            ([r#""ks": [-5, 7, 3, 7]"#, e, d, r], "ks: expected a list of 4 numbers (space tiny), got -5"),
            ([ks, r#""e": ["x", 6, 6, 3]"#, d, r], "e: expected a list of 4 numbers (space tiny), got \"x\""),
            ([ks, e, r#""d": 2"#, r], "d: expected a list of 2 (space tiny), got 2"),
            ([ks, e, r#""d": [1, 3]"#, r], "d: expected at most 2 (space tiny), got 3"),
        ] {
            let text = format!("{{{}}}", fields.join(", "));
            let error = from_json(&space, "x.json", &text).expect_err(part).to_string();
            assert!(error.starts_with("x.json: ") && error.contains(part), "{part}: {error}");
        }
        for text in [
            "[0.78]",
            "[[1], {}]",
            "[]",
            "7",
            r#"{"arch": 7}"#,
            r#"{"arch": {"x": 1}}"#,
            r#"[{"d":1},{"d":1}]"#,
        ] {
            let error = from_json(&space, "x.json", text).expect_err(text).to_string();
            assert!(error.contains("arch: expected `best.arch`"), "{text}: {error}");
        }
        let twice = format!("{{{ks}, {e}, {d}, {r}, {r}}}");
        let error = from_json(&space, "x.json", &twice).expect_err("twice").to_string();
        assert!(error.contains("the key \"r\" stands there twice"), "{error}");
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
        let blocks = space.ofa_blocks(&arch).expect("legal");
        let depths: Vec<_> = blocks.stages.iter().map(Vec::len).collect();
        assert_eq!(depths, [0, 1, 2, 3, 6, 2], "1 is not the stem's greatest, so it is skipped");
        let widths: Vec<_> = blocks.widths.iter().map(ToString::to_string).collect();
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
        let k = ["5"; 21].join(",");
        let e = ["4"; 21].join(",");
        let text = format!(r#"{{"ks": [{k}], "e": [{e}], "d": [2,3,4,2,2,4], "r": 160}}"#);
        let arch = from_json(&proxyless, "x.json", &text).expect("a sample");
        assert_eq!(
            proxyless.ofa_blocks(&arch).expect("legal").stages[5].len(),
            1,
            "the last stage has one block whatever is written"
        );
    }
}
