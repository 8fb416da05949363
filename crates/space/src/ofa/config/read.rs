//! Reads the choices of a sub-network from a `net.config`.
//!
//! Blocks are assigned to stages by stride and channels; all other fields are left to the comparison afterwards. Of two
//! stages with equal stride and channels the first is filled first.

use std::collections::BTreeSet;

use base::error::{Error, Result};
use serde_json::Value;

use super::compare::shown;
use crate::families::STEM_STAGES;
use crate::families::stages::{Block, Stage, Stages};
use crate::layer::inner_channels;
use crate::ofa::arch_of;
use crate::{Arch, Extent, FamilyName, Ratio, SearchSpace};

/// Most blocks in a stage of any space.
const MOST_BLOCKS: usize = 64;

/// The sub-network of a config in normal form, not yet checked.
pub(super) fn arch(space: &SearchSpace, place: &str, config: &Value, resolution: Extent) -> Result<Arch> {
    let config = Field { place, path: String::new(), value: config };
    let blocks = config.list("blocks")?;
    let Stages { stages: all, input, .. } = space.ofa_stages()?;
    if space.family() != FamilyName::ResNetD {
        let blocks: Vec<_> = blocks.iter().map(|block| block.of("conv")).collect();
        let found = assign(all, *input, blocks.get(1..).unwrap_or_default(), Expands::Input)?;
        let stages = found.into_iter().map(|stage| stage.blocks).collect();
        return Ok(arch_of(resolution, stages, Vec::new()));
    }
    let (mut stages, mut channels) = stem(all, &config)?;
    for stage in assign(&all[STEM_STAGES..], channels[1], &blocks, Expands::Output)? {
        stages.push(stage.blocks);
        channels.push(stage.channels);
    }
    Ok(arch_of(resolution, stages, widths(all, &channels)))
}

/// A value in the config, with its path.
struct Field<'a> {
    place: &'a str,
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn of(&self, key: &str) -> Field<'a> {
        let path = if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) };
        Field { place: self.place, path, value: self.value.get(key).unwrap_or(&Value::Null) }
    }

    fn wrong(&self, expected: impl std::fmt::Display) -> Error {
        Error::invalid(self.place, &self.path, expected, shown(self.value))
    }

    fn list(&self, key: &str) -> Result<Vec<Field<'a>>> {
        let list = self.of(key);
        let items = list.value.as_array().ok_or_else(|| list.wrong("a list"))?;
        let mut fields = Vec::with_capacity(items.len());
        for (index, value) in items.iter().enumerate() {
            fields.push(Field { place: self.place, path: format!("{key}.{index}"), value });
        }
        Ok(fields)
    }

    fn number(&self, key: &str) -> Result<usize> {
        let field = self.of(key);
        let number = field.value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| field.wrong("a whole number"))
    }

    /// Output channels, which must be some that the stage can have.
    fn channels_of(&self, stage: &Stage) -> Result<usize> {
        let channels = self.number("out_channels")?;
        let possible = possible_channels(stage);
        if possible.contains(&channels) {
            return Ok(channels);
        }
        let listed: Vec<_> = possible.iter().map(ToString::to_string).collect();
        Err(self.of("out_channels").wrong(listed.join(" or ")))
    }
}

/// Output channels that a stage can have.
fn possible_channels(stage: &Stage) -> BTreeSet<usize> {
    stage.channels_by_width.iter().map(|(_, channels)| *channels).chain([stage.channels]).collect()
}

/// A stage of the config.
struct Found {
    channels: usize,
    blocks: Vec<Block>,
}

/// The channels that a block's expand ratio multiplies.
#[derive(Clone, Copy)]
enum Expands {
    Input,
    Output,
}

/// Assigns the blocks to the stages in turn. Surplus blocks stay in the last stage, where their depth is refused.
fn assign(stages: &[Stage], input: usize, blocks: &[Field], expands: Expands) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for block in blocks {
        let stride = block.number("stride")?;
        let next = stages.get(found.len());
        let goes_on = match (found.last(), next) {
            (Some(last), Some(next)) => {
                let twin = next.stride == 1 && possible_channels(next).contains(&last.channels);
                let full = last.blocks.len() >= stages[found.len() - 1].choices.max_depth();
                stride == 1 && block.number("out_channels")? == last.channels && !(twin && full)
            }
            (last, _) => last.is_some(),
        };
        let input = found.last().map_or(input, |last| last.channels);
        let stage = if goes_on { &stages[found.len() - 1] } else { &stages[found.len()] };
        let channels = block.channels_of(stage)?;
        let of = match expands {
            Expands::Input => input,
            Expands::Output => channels,
        };
        let chosen = Block { kernel: block.number("kernel_size")?, expand: expand(stage, block, of)? };
        match found.last_mut().filter(|_| goes_on) {
            Some(last) if last.blocks.len() < MOST_BLOCKS => last.blocks.push(chosen),
            Some(_) => return Err(block.wrong(format!("at most {MOST_BLOCKS} blocks in a stage"))),
            None => found.push(Found { channels, blocks: vec![chosen] }),
        }
    }
    let rest = stages.get(found.len()..).unwrap_or_default();
    found.extend(rest.iter().map(|stage| Found { channels: stage.channels, blocks: Vec::new() }));
    Ok(found)
}

/// The expand ratio that gives these inner channels; the named one if several do.
fn expand(stage: &Stage, block: &Field, of: usize) -> Result<Ratio> {
    let mid = block.number("mid_channels")?;
    let choices = &stage.choices.expand;
    let fits = |ratio: &&Ratio| inner_channels(**ratio, of) == mid;
    let named = block.value.get("expand_ratio").and_then(Value::as_f64);
    let named = choices.iter().filter(fits).find(|ratio| Some(ratio.ratio()) == named);
    let chosen = named.or_else(|| choices.iter().rev().find(fits));
    chosen.copied().ok_or_else(|| {
        let listed: Vec<_> = choices.iter().map(|ratio| inner_channels(*ratio, of).to_string()).collect();
        block.of("mid_channels").wrong(format!("one of {}", listed.join(", ")))
    })
}

/// The blocks and channels of a ResNet's stem, which may have one more convolution between its first and its last.
fn stem(stages: &[Stage], config: &Field) -> Result<(Vec<Vec<Block>>, Vec<usize>)> {
    let stem = config.list("input_stem")?;
    let [first, between @ .., last] = stem.as_slice() else {
        return Err(config.of("input_stem").wrong("a list of 2 or 3"));
    };
    let [inner, outer] = [&stages[0], &stages[1]];
    let channels = vec![first.channels_of(inner)?, last.channels_of(outer)?];
    let blocks = |stage: &Stage, depth: usize| {
        let block = Block { kernel: stage.choices.max_kernel(), expand: Ratio::whole(1) };
        vec![block; depth.min(MOST_BLOCKS)]
    };
    Ok((vec![blocks(inner, between.len()), blocks(outer, 1)], channels))
}

/// The width of each stage; the canonical one of equal networks.
fn widths(stages: &[Stage], channels: &[usize]) -> Vec<Ratio> {
    let mut widths = Vec::new();
    for (stage, channels) in stages.iter().zip(channels) {
        let listed = stage.channels_by_width.iter().find(|(_, other)| other == channels);
        widths.extend(listed.map(|(ratio, _)| stage.canonical(*ratio)));
    }
    widths
}
