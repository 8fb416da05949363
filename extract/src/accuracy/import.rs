//! Predictors of PyTorch's `ofa` package as estimators: the same layers, the first one's columns in our encoder's order.
//!
//! Knows the two feature orders that the package has; where the tensors come from is the caller's business.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use supernet::Error;
use supernet::space::{Expand, SearchSpace, Stage};

use super::network::{Dense, Network};
use super::{AccuracyEstimator, MOST_LAYERS, Model, Origin};
use crate::encode::{Encoder, Feature};
use crate::error::Result;

/// Kernels of which each block has a one-hot choice, in the order of the columns: the package's default.
const KERNELS: [usize; 3] = [3, 5, 7];
/// Expand ratios likewise.
const EXPANDS: [Expand; 3] = [Expand::whole(3), Expand::whole(4), Expand::whole(6)];
/// Stages that the tutorial's predictor knows, and blocks of each.
const TUTORIAL_BLOCKS: [usize; 2] = [5, 4];
/// Input sizes that the tutorial's eight columns begin at; a size in between counts as the one below.
const TUTORIAL_RESOLUTIONS: [usize; 8] = [112, 128, 144, 160, 176, 192, 208, 224];

/// Which of the package's predictors a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfaPredictor {
    /// `ofa.tutorial`'s: kernels of all blocks, expand ratios, then eight input sizes.
    Tutorial,
    /// `ofa.nas.accuracy_predictor`'s: input sizes, kernels of all blocks, expand ratios.
    Library,
}

impl OfaPredictor {
    /// Tells the kind by the tensors' names; `place` names the file in messages.
    ///
    /// # Errors
    /// If they are neither kind's.
    pub fn of(place: &str, tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        if tensors.contains_key("0.weight") {
            return Ok(Self::Tutorial);
        }
        if tensors.contains_key("layers.0.0.weight") {
            return Ok(Self::Library);
        }
        let names: Vec<_> = tensors.keys().take(3).map(String::as_str).collect();
        let (expected, got) = ("0.weight or layers.0.0.weight, as predictors of ofa have", names.join(", "));
        Err(Error::invalid(place, "tensors", expected, if got.is_empty() { "none" } else { &got }).into())
    }

    /// Names of weight and bias of a layer, of `count` in all; the library's last has no bias.
    fn names(self, index: usize, count: usize) -> (String, Option<String>) {
        let part = match self {
            Self::Tutorial => format!("{}", 2 * index),
            Self::Library if index + 1 < count => format!("layers.{index}.0"),
            Self::Library => return (format!("layers.{index}.weight"), None),
        };
        (format!("{part}.weight"), Some(format!("{part}.bias")))
    }

    /// Number of layers, the last included.
    fn layers(self, tensors: &BTreeMap<String, Tensor>) -> usize {
        let hidden = |index: &usize| tensors.contains_key(&self.names(*index, usize::MAX).0);
        (0..MOST_LAYERS).take_while(hidden).count() + usize::from(self == Self::Library)
    }
}

impl fmt::Display for OfaPredictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tutorial => "tutorial",
            Self::Library => "library",
        })
    }
}

/// Where an imported estimator comes from. Nothing is known of the rows that it was fitted to, nor of its error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imported {
    /// Which predictor it is.
    pub kind: OfaPredictor,
    /// Name of the file, without its folders.
    pub file: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// What the columns for input sizes stand for, in their order.
    pub resolutions: Vec<usize>,
}

/// A predictor's tensors, and the file that they are from.
#[derive(Clone, Copy, Debug)]
pub struct PredictorFile<'a> {
    /// Names it in messages.
    pub place: &'a str,
    /// Its name, without its folders.
    pub name: &'a str,
    /// BLAKE3 of it, in hexadecimal.
    pub blake3: &'a str,
    /// Tensors by name.
    pub tensors: &'a BTreeMap<String, Tensor>,
}

impl AccuracyEstimator {
    /// An estimator for a space from a predictor of PyTorch's `ofa`, of either kind.
    ///
    /// A library's predictor does not say which input sizes it knows: they are the space's where their number is, else
    /// `resolutions` must list them in the order of its `image_size_list`. Only those of them that the space has can be
    /// asked for afterwards.
    ///
    /// # Errors
    /// If the file is no such predictor, or the space has choices that it does not know.
    pub fn import(space: &SearchSpace, file: PredictorFile<'_>, resolutions: &[usize]) -> Result<Self> {
        let kind = OfaPredictor::of(file.place, file.tensors)?;
        let mut layers = read_layers(&file, kind)?;
        let columns = Columns::new(kind, space, &layers[0], &file, resolutions)?;
        let space = match kind {
            OfaPredictor::Tutorial => space.clone(),
            OfaPredictor::Library => known_resolutions(space, &columns.resolutions)?,
        };
        let encoder = Encoder::new(&space);
        layers[0].weight = columns.permute(&encoder, &layers[0])?;
        let mean = match kind {
            OfaPredictor::Tutorial => 0.0,
            OfaPredictor::Library => read(&file, "base_acc", &[Some(1)])?.1[0],
        };
        let imported = Imported {
            kind,
            file: file.name.to_string(),
            blake3: file.blake3.to_string(),
            resolutions: columns.resolutions,
        };
        let network = Network::new(layers, mean)?;
        Ok(Self { encoder, network, model: Model::Mlp, origin: Origin::Imported(imported) })
    }
}

/// The space at those of its resolutions that a predictor knows.
fn known_resolutions(space: &SearchSpace, known: &[usize]) -> Result<SearchSpace> {
    let both: Vec<_> = space.resolutions().iter().copied().filter(|side| known.contains(side)).collect();
    if both.is_empty() {
        let (expected, got) = (format!("some of {:?}", space.resolutions()), format!("{known:?}"));
        return Err(Error::invalid("predictor", "resolutions", expected, got).into());
    }
    Ok(space.at_resolutions(&both)?)
}

fn read_layers(file: &PredictorFile<'_>, kind: OfaPredictor) -> Result<Vec<Dense>> {
    let count = kind.layers(file.tensors);
    let constants = usize::from(kind == OfaPredictor::Library);
    let tensors = 2 * count;
    if count < 2 || file.tensors.len() != tensors {
        let expected = format!(
            "those of 2 to {MOST_LAYERS} layers{}",
            [" and no more", ", base_acc and no more"][constants]
        );
        let got = file.tensors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(file.place, "tensors", expected, got).into());
    }
    let mut layers: Vec<Dense> = Vec::with_capacity(count);
    for index in 0..count {
        let (weight, bias) = kind.names(index, count);
        let inputs = layers.last().map(Dense::outputs);
        let outputs = (index + 1 == count).then_some(1);
        let (shape, weight) = read(file, &weight, &[outputs, inputs])?;
        let bias = match bias {
            Some(bias) => read(file, &bias, &[Some(shape[0])])?.1,
            None => vec![0.0; shape[0]],
        };
        layers.push(Dense { weight, bias });
    }
    Ok(layers)
}

/// A tensor of finite f32 values, its sizes those of `expected` that are known and none of them 0.
fn read(file: &PredictorFile<'_>, name: &str, expected: &[Option<usize>]) -> Result<(Vec<usize>, Vec<f32>)> {
    let sizes: Vec<_> =
        expected.iter().map(|size| size.map_or("N".to_string(), |size| size.to_string())).collect();
    let wanted = format!("F32 [{}]", sizes.join(", "));
    let wrong = |got: String| Error::invalid(file.place, name, &wanted, got);
    let tensor = file.tensors.get(name).ok_or_else(|| wrong("none".to_string()))?;
    let shape = tensor.dims();
    let fits = shape.len() == expected.len()
        && shape.iter().zip(expected).all(|(got, size)| *got > 0 && size.is_none_or(|size| *got == size));
    if !fits || tensor.dtype() != DType::F32 {
        return Err(wrong(format!("{:?} {shape:?}", tensor.dtype())).into());
    }
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::invalid(file.place, name, "finite numbers", value).into()),
        None => Ok((shape.to_vec(), values)),
    }
}

/// Where a predictor's columns are.
struct Columns {
    kind: OfaPredictor,
    /// Blocks that a stage has at most, for counting; of the last stage there may be fewer.
    stage: usize,
    /// Blocks in all.
    blocks: usize,
    resolutions: Vec<usize>,
}

impl Columns {
    fn new(
        kind: OfaPredictor,
        space: &SearchSpace,
        first: &Dense,
        file: &PredictorFile<'_>,
        resolutions: &[usize],
    ) -> Result<Self> {
        let (stage, blocks) = match kind {
            OfaPredictor::Tutorial => (TUTORIAL_BLOCKS[1], TUTORIAL_BLOCKS[0] * TUTORIAL_BLOCKS[1]),
            OfaPredictor::Library => library_blocks(space.stages())?,
        };
        let places =
            space.stages().iter().enumerate().map(|(index, it)| index * stage + it.choices.max_depth());
        let fits = space.stages().iter().all(|it| it.choices.max_depth() <= stage);
        if !fits || places.max().is_none_or(|last| last > blocks) {
            let expected =
                format!("at most {blocks} blocks, {stage} a stage, as the {kind}'s predictor knows them");
            let depths: Vec<_> = space.stages().iter().map(|it| it.choices.max_depth()).collect();
            return Err(Error::invalid(
                format!("space {}", space.name()),
                "depths",
                expected,
                format!("{depths:?}"),
            )
            .into());
        }
        let name = kind.names(0, usize::MAX).0;
        let choices = (KERNELS.len() + EXPANDS.len()) * blocks;
        let known = match kind {
            OfaPredictor::Tutorial => TUTORIAL_RESOLUTIONS.to_vec(),
            OfaPredictor::Library if resolutions.is_empty() => space.resolutions().to_vec(),
            OfaPredictor::Library => resolutions.to_vec(),
        };
        if first.inputs() != choices + known.len() {
            let expected = format!("F32 [{}, {choices} + {}]", first.outputs(), known.len());
            let got = format!("F32 [{}, {}]", first.outputs(), first.inputs());
            let error = Error::invalid(file.place, name, expected, got);
            return Err(match (kind, first.inputs().checked_sub(choices)) {
                (OfaPredictor::Library, Some(sizes @ 1..)) => error.and_then_do(format!(
                    "it knows {sizes} input sizes and does not say which: list its image_size_list in --resolutions"
                )),
                _ => error,
            }
            .into());
        }
        Ok(Self { kind, stage, blocks, resolutions: known })
    }

    /// The column of a feature; `None` where the predictor does not know the choice.
    fn of(&self, feature: Feature) -> Option<usize> {
        let (kernels, expands) = (KERNELS.len(), EXPANDS.len());
        let (first_kernel, first_expand, first_resolution) = match self.kind {
            OfaPredictor::Tutorial => (0, kernels * self.blocks, (kernels + expands) * self.blocks),
            OfaPredictor::Library => {
                let sizes = self.resolutions.len();
                (sizes, sizes + kernels * self.blocks, 0)
            }
        };
        match feature {
            Feature::Kernel { stage, position, kernel } => {
                let choice = KERNELS.iter().position(|known| *known == kernel)?;
                Some(first_kernel + (stage * self.stage + position) * kernels + choice)
            }
            Feature::Expand { stage, position, expand } => {
                let choice = EXPANDS.iter().position(|known| *known == expand)?;
                Some(first_expand + (stage * self.stage + position) * expands + choice)
            }
            Feature::Resolution(side) => Some(first_resolution + self.resolution(side)?),
        }
    }

    fn resolution(&self, side: usize) -> Option<usize> {
        match self.kind {
            OfaPredictor::Tutorial => {
                let (first, last) = (TUTORIAL_RESOLUTIONS[0], *TUTORIAL_RESOLUTIONS.last()?);
                (first..=last).contains(&side).then(|| (side - first) / 16)
            }
            OfaPredictor::Library => self.resolutions.iter().position(|known| *known == side),
        }
    }

    /// The first layer's weight with a column for each of the encoder's features.
    fn permute(&self, encoder: &Encoder, first: &Dense) -> Result<Vec<f32>> {
        let mut sources = Vec::with_capacity(encoder.len());
        for index in 0..encoder.len() {
            let feature = encoder.feature(index).expect("below the number of features");
            let column = self.of(feature).ok_or_else(|| {
                let expected = match feature {
                    Feature::Kernel { .. } => format!("{KERNELS:?}"),
                    Feature::Expand { .. } => EXPANDS.map(|expand| expand.to_string()).join(", "),
                    Feature::Resolution(_) if self.kind == OfaPredictor::Tutorial => "112 to 224".to_string(),
                    Feature::Resolution(_) => format!("{:?}", self.resolutions),
                };
                let place = format!("space {}", encoder.space().name());
                Error::invalid(place, "choice", format!("what the predictor knows ({expected})"), feature)
            })?;
            sources.push(column);
        }
        let rows = first.weight.chunks_exact(first.inputs());
        Ok(rows.flat_map(|row| sources.iter().map(|column| row[*column])).collect())
    }
}

/// Blocks that a stage has at most, and of all stages, as the library counts them: all stages alike but the last.
fn library_blocks(stages: &[Stage]) -> Result<(usize, usize)> {
    let depths: Vec<_> = stages.iter().map(|stage| stage.choices.max_depth()).collect();
    let (last, others) = depths.split_last().expect("a checked space has stages");
    let deepest = *depths.iter().max().unwrap_or(last);
    if others.iter().any(|depth| *depth != deepest) {
        let expected = "stages of one greatest depth, but for the last";
        return Err(Error::invalid("space", "depths", expected, format!("{depths:?}")).into());
    }
    Ok((deepest, others.len() * deepest + last))
}
