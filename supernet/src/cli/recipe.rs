//! `supernet recipe`: the phases of a recipe.

use std::fmt::Write;

use anyhow::Context;
use command::{Common, Ending, print_lines};
use network::data::{AugmentationSettings, RandAugment};
use serde_json::json;
use space::KINDS;
use supernet::train::{Distillation, Draw, Dropout, OptimizerSettings, Recipe, Teacher};

/// Show a training recipe: the phases of `train --recipe`
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub struct Arguments {
    /// A recipe's name or a TOML file
    #[arg(value_name = "RECIPE", required_unless_present = "list")]
    recipe: Option<String>,
    /// Print the names of the recipes
    #[arg(long)]
    list: bool,
    /// Print the recipe as TOML, the format of your own recipes
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    #[command(flatten)]
    pub common: Common,
}

fn after_help() -> String {
    let mut text = "Example:
  supernet recipe progressive
  supernet recipe progressive --toml > mine.toml     # to start your own recipe
  supernet train --space tiny --data digits --out run --recipe mine.toml

Recipes that come with the tool:"
        .to_string();
    for recipe in Recipe::built_in() {
        let _ = write!(text, "\n  {:<12} {}", recipe.name, recipe.about);
    }
    text
}

/// The accepted recipes: names in backticks, or a file.
pub fn forms(file: &str) -> String {
    let names: Vec<_> = Recipe::names().map(|name| format!("`{name}`")).collect();
    format!("{} or {file}", names.join(", "))
}

/// Opens a recipe; `argument` names where it was given.
pub fn open(argument: &str, given: &str) -> anyhow::Result<Recipe> {
    if !Recipe::names().any(|name| name == given) {
        // an unreadable file and an invalid recipe get different errors
        Recipe::text_of(given)
            .with_context(|| format!("{argument}: give {}", forms("the path of a TOML file")))?;
    }
    Ok(Recipe::open(given)?)
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let Some(given) = self.recipe.as_ref().filter(|_| !self.list) else {
            let names: Vec<_> = Recipe::names().collect();
            self.common.print(&json!({ "recipes": names }), || names.join("\n"))?;
            return Ok(Ending::Done);
        };
        let text = Recipe::text_of(given).with_context(|| {
            let names: Vec<_> = Recipe::names().collect();
            format!("{given}: expected a recipe ({}) or a TOML file", names.join(", "))
        })?;
        let recipe = Recipe::from_toml(given, &text)?;
        if self.toml {
            print_lines(&text)?;
        } else {
            self.common.print(&json!(recipe), || described(&recipe))?;
        }
        Ok(Ending::Done)
    }
}

fn described(recipe: &Recipe) -> String {
    let Recipe { name, batch, lr_batch, optimizer, .. } = recipe;
    // the usual optimizer is not mentioned
    let optimizer = match optimizer {
        OptimizerSettings::Nesterov { .. } => String::new(),
        OptimizerSettings::AdamW { .. } => format!("; optimizer {}", optimizer.kind()),
    };
    let mut text = format!(
        "{name}: {batch} images per step; rates are for {lr_batch} images per step and scale with the batch{optimizer}\n\
         {}{:<14} {:>7} {:>7} {:>7} {:>12}  {}\n",
        varied(&recipe.augmentation),
        "phase",
        "epochs",
        "warm-up",
        "lr",
        "sub-networks",
        "the largest choices of"
    );
    for phase in &recipe.phases {
        let allowed: Vec<String> =
            KINDS.iter().map(|kind| format!("{} {}", kind.key, phase.allowed.most(kind.key))).collect();
        let allowed = allowed.join(", ");
        let extras = [
            (phase.head_only, "classifier alone"),
            (matches!(phase.teacher, Teacher::Phase(_)), "taught"),
            (phase.teacher == Teacher::First, "taught by the first"),
            (phase.teacher == Teacher::File, "taught by a file"),
            (phase.distillation == Distillation::Only, "without the labels where taught"),
            (phase.distillation == Distillation::Alpha, "taught by alpha-divergence alone"),
            (phase.dropout == Dropout::Largest, "dropout of the largest alone"),
            (phase.lr_floor > 0.0, "a constant tail"),
            (phase.draw.iter().any(|draw| draw.cost().is_some()), "chosen among candidates of equal cost"),
            (phase.sort_channels, "sorted"),
            (phase.draw.iter().any(|draw| matches!(draw, Draw::Fair(_))), "each choice equally often"),
            (phase.draw.contains(&Draw::Largest), "the largest always"),
            (phase.draw.contains(&Draw::Smallest), "the smallest always"),
        ];
        let extras: String =
            extras.iter().filter(|(is, _)| *is).map(|(_, name)| format!(", {name}")).collect();
        let subnetworks = Draw::count(&phase.draw);
        let _ = writeln!(
            text,
            "{:<14} {:>7} {:>7} {:>7} {subnetworks:>12}  {allowed}{extras}",
            phase.name, phase.epochs, phase.warmup_epochs, phase.lr
        );
    }
    text
}

/// A line on the augmentation that is off by default, if some is on.
fn varied(settings: &AugmentationSettings) -> String {
    let mut parts = Vec::new();
    if let Some(RandAugment { operations, magnitude }) = settings.rand_augment {
        parts.push(format!("RandAugment of {operations} operations at magnitude {magnitude}"));
    }
    let named = [("erasing", settings.erasing), ("mixup", settings.mixup), ("cutmix", settings.cutmix)];
    for (name, value) in named {
        if let Some(value) = value.filter(|value| *value > 0.0) {
            parts.push(format!("{name} {value}"));
        }
    }
    if parts.is_empty() { String::new() } else { format!("augmentation: {}\n", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn augmentation_is_mentioned_if_it_is_on() {
        let text = Recipe::text_of("progressive").expect("a recipe");
        let described = |fields: &str| {
            let text = text.replacen("\n[[phases]]", &format!("\n{fields}\n[[phases]]"), 1);
            described(&Recipe::from_toml("r.toml", &text).expect("a recipe"))
        };
        let plain = described("");
        assert!(!plain.contains("augmentation"), "{plain}");
        assert_eq!(described("[augmentation]\nerasing = 0\nmixup = 0"), plain);
        let all = "[augmentation]\nerasing = 0.25\nmixup = 0.2\ncutmix = 1\n\
                   rand_augment = { operations = 2, magnitude = 9 }";
        let line =
            "augmentation: RandAugment of 2 operations at magnitude 9, erasing 0.25, mixup 0.2, cutmix 1";
        assert_eq!(described(all).lines().nth(1), Some(line));
    }
}
