//! Converts predictors of PyTorch's `ofa` package to estimators: the first layer's columns get our encoder's order.
//!
//! Knows the two feature orders that the package has; where the tensors come from is the caller's business.

use std::collections::BTreeMap;

use base::Error;
use candle_core::{DType, Tensor};
use space::{Encoder, FamilyName, Gene, Ratio, Readable, SearchSpace, Value};

use crate::accuracy::{AccuracyEstimator, Dense, ImportedPredictor, MOST_LAYERS, OfaPredictor, in_shares};
use crate::error::Result;

/// Kernels of which each block has a one-hot choice, in the order of the columns: the package's default.
const KERNELS: [usize; 3] = [3, 5, 7];
/// Expand ratios likewise.
const EXPANDS: [Ratio; 3] = [Ratio::whole(3), Ratio::whole(4), Ratio::whole(6)];
/// Expand ratios of a ResNet's blocks, and its width multipliers.
const RESNET_EXPANDS: [Ratio; 3] = [Ratio::hundredths(20), Ratio::hundredths(25), Ratio::hundredths(35)];
const RESNET_WIDTHS: [Ratio; 3] = [Ratio::hundredths(65), Ratio::hundredths(80), Ratio::whole(1)];
/// Stages of ours that a ResNet's stem is; they have no blocks in the predictor's features.
const RESNET_STEM: usize = 2;
/// Stages that the tutorial's predictor knows, and blocks of each.
const TUTORIAL_BLOCKS: [usize; 2] = [5, 4];
/// Input sizes that the tutorial's eight columns begin at; a size in between counts as the one below.
const TUTORIAL_RESOLUTIONS: [usize; 8] = [112, 128, 144, 160, 176, 192, 208, 224];

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
        let expected = "0.weight or layers.0.0.weight, as predictors of ofa have";
        let got = names.join(", ");
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
        (0..MOST_LAYERS)
            .take_while(|index: &usize| tensors.contains_key(&self.names(*index, usize::MAX).0))
            .count()
            + usize::from(self == Self::Library)
    }
}

/// A predictor's tensors, and the file that they are from.
#[derive(Clone, Copy, Debug)]
pub struct PredictorFile<'a> {
    /// Names it in messages.
    pub place: &'a str,
    /// The file's name, without its folders.
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
    /// requested afterwards.
    ///
    /// One that predicts per cent, as its predictions of random sub-networks show, is made to predict shares.
    ///
    /// # Errors
    /// If the file is no such predictor, predicts neither shares nor per cent, or the space has choices that it does not
    /// know.
    pub fn import(space: &SearchSpace, file: PredictorFile<'_>, resolutions: &[usize]) -> Result<Self> {
        let kind = OfaPredictor::of(file.place, file.tensors)?;
        let mut layers = read_layers(&file, kind)?;
        let in_file = |error: Error| error.in_place(file.place);
        let blocks = block_places(kind, space).map_err(in_file)?;
        let columns = Columns::new(kind, blocks, space, resolutions);
        columns.check_first_layer(file.place, &layers[0])?;
        let space = match kind {
            OfaPredictor::Tutorial => space.clone(),
            OfaPredictor::Library => known_resolutions(space, &columns.resolutions).map_err(in_file)?,
        };
        let encoder = Encoder::new(&space);
        layers[0] = columns.permute(&encoder, &layers[0]).map_err(in_file)?;
        let mean = match kind {
            OfaPredictor::Tutorial => 0.0,
            OfaPredictor::Library => read(&file, "base_acc", &[Some(1)])?.1[0],
        };
        let (network, per_cent) = in_shares(layers, mean, &encoder, file.place)?;
        let imported = ImportedPredictor {
            kind,
            file: file.name.to_string(),
            blake3: file.blake3.to_string(),
            resolutions: columns.resolutions,
            per_cent,
        };
        Ok(Self::imported(encoder, network, imported))
    }
}

/// Sides of the square inputs that a space lists; the predictors know no others.
fn sides_of(space: &SearchSpace) -> Vec<usize> {
    let square = space.resolutions().iter().filter(|resolution| resolution.height == resolution.width);
    square.map(|resolution| resolution.height).collect()
}

/// The space at those of its resolutions that a predictor knows.
fn known_resolutions(space: &SearchSpace, known: &[usize]) -> base::Result<SearchSpace> {
    let sides = sides_of(space);
    let both: Vec<usize> = sides.iter().copied().filter(|side| known.contains(side)).collect();
    if both.is_empty() {
        let expected = format!("some of {sides:?}");
        let got = format!("{known:?}");
        return Err(Error::invalid("predictor", "resolutions", expected, got));
    }
    space.at_resolutions(&both)
}

fn read_layers(file: &PredictorFile<'_>, kind: OfaPredictor) -> Result<Vec<Dense>> {
    let count = kind.layers(file.tensors);
    let constants = usize::from(kind == OfaPredictor::Library);
    let tensors = 2 * count;
    if !(2..=MOST_LAYERS).contains(&count) || file.tensors.len() != tensors {
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
    let form = format!("F32 [{}]", sizes.join(", "));
    let wrong = |got: String| Error::invalid(file.place, name, &form, got);
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
    family: FamilyName,
    /// Place of each stage's first block among all that can exist, and how many there are.
    first_blocks: Vec<usize>,
    blocks: usize,
    resolutions: Vec<usize>,
}

/// The predictor's columns that make up one of our features.
enum Source {
    /// The predictor ignores the feature.
    Nothing,
    Column(usize),
    /// One column where it is 1, the other where it is 0.
    Either(usize, usize),
}

impl Columns {
    fn new(kind: OfaPredictor, places: BlockPlaces, space: &SearchSpace, resolutions: &[usize]) -> Self {
        let known = match kind {
            OfaPredictor::Tutorial => TUTORIAL_RESOLUTIONS.to_vec(),
            OfaPredictor::Library if resolutions.is_empty() => sides_of(space),
            OfaPredictor::Library => resolutions.to_vec(),
        };
        let BlockPlaces { first_blocks, blocks } = places;
        Self { kind, family: space.family(), first_blocks, blocks, resolutions: known }
    }

    /// Checks that the first layer has as many columns; `place` names the file.
    fn check_first_layer(&self, place: &str, first: &Dense) -> Result<()> {
        let choices = self.choices();
        let sizes = self.resolutions.len();
        if first.inputs() == choices + sizes {
            return Ok(());
        }
        let name = self.kind.names(0, usize::MAX).0;
        let expected = format!("F32 [{}, {}], {sizes} of them input sizes", first.outputs(), choices + sizes);
        let got = format!("F32 [{}, {}]", first.outputs(), first.inputs());
        let error = Error::invalid(place, name, expected, got);
        Err(match (self.kind, first.inputs().checked_sub(choices)) {
            (OfaPredictor::Library, Some(sizes @ 1..)) => error.and_then_do(format!(
                "it knows {sizes} input sizes and does not say which: list its image_size_list in --resolutions"
            )),
            _ => error,
        }
        .into())
    }

    fn is_resnet(&self) -> bool {
        self.family == FamilyName::ResNetD
    }

    /// Columns of everything but input sizes.
    fn choices(&self) -> usize {
        match self.is_resnet() {
            true => 2 + RESNET_WIDTHS.len() * self.first_blocks.len() + RESNET_EXPANDS.len() * self.blocks,
            false => (KERNELS.len() + EXPANDS.len()) * self.blocks,
        }
    }

    /// The columns of a feature; `None` where the predictor does not know the choice.
    fn of(&self, feature: Feature) -> Option<Source> {
        let sizes = self.resolutions.len();
        let (first_choice, first_resolution) = match self.kind {
            OfaPredictor::Tutorial => (0, self.choices()),
            OfaPredictor::Library => (sizes, 0),
        };
        let block = |stage: usize, position: usize| self.first_blocks[stage] + position;
        let column = match feature {
            Feature::Resolution(side) => first_resolution + self.resolution(side)?,
            _ if self.is_resnet() => return self.of_resnet(feature, first_choice),
            Feature::Kernel { stage, position, kernel } => {
                first_choice + block(stage, position) * KERNELS.len() + place_of(&KERNELS, &kernel)?
            }
            Feature::Expand { stage, position, expand } => {
                let first = first_choice + KERNELS.len() * self.blocks;
                first + block(stage, position) * EXPANDS.len() + place_of(&EXPANDS, &expand)?
            }
            Feature::Width { .. } => return None,
        };
        Some(Source::Column(column))
    }

    /// Behind the input sizes: whether the stem's second convolution is skipped or not, the widths of the stem's stages
    /// and of the others, the expand ratios of all blocks.
    fn of_resnet(&self, feature: Feature, first: usize) -> Option<Source> {
        let widths = first + 2;
        let stages = self.first_blocks.len();
        Some(match feature {
            Feature::Kernel { stage: 0, .. } => Source::Either(first + 1, first),
            Feature::Width { stage, width } => {
                Source::Column(widths + stage * RESNET_WIDTHS.len() + place_of(&RESNET_WIDTHS, &width)?)
            }
            Feature::Expand { stage: RESNET_STEM.., expand, .. } => {
                let Feature::Expand { stage, position, .. } = feature else { return None };
                let first = widths + stages * RESNET_WIDTHS.len();
                let block = self.first_blocks[stage] + position;
                Source::Column(first + block * RESNET_EXPANDS.len() + place_of(&RESNET_EXPANDS, &expand)?)
            }
            _ => Source::Nothing,
        })
    }

    fn resolution(&self, side: usize) -> Option<usize> {
        match self.kind {
            OfaPredictor::Tutorial => {
                let first = TUTORIAL_RESOLUTIONS[0];
                let last = *TUTORIAL_RESOLUTIONS.last()?;
                (first..=last).contains(&side).then(|| (side - first) / 16)
            }
            OfaPredictor::Library => place_of(&self.resolutions, &side),
        }
    }

    /// The first layer with a column for each of the encoder's features.
    fn permute(&self, encoder: &Encoder, first: &Dense) -> base::Result<Dense> {
        let mut sources = Vec::with_capacity(encoder.len());
        for index in 0..encoder.len() {
            let source = feature_of(encoder, index).and_then(|feature| self.of(feature));
            sources.push(source.ok_or_else(|| self.unknown(encoder, index))?);
        }
        let rows = first.weight.chunks_exact(first.inputs());
        let value = |row: &[f32], source: &Source| match *source {
            Source::Nothing => 0.0,
            Source::Column(column) => row[column],
            Source::Either(one, zero) => row[one] - row[zero],
        };
        let weight =
            rows.clone().flat_map(|row| sources.iter().map(move |source| value(row, source))).collect();
        let mut bias = Vec::with_capacity(first.bias.len());
        for (row, own) in rows.zip(&first.bias) {
            let zeros = sources.iter().map(|source| match source {
                Source::Either(_, zero) => row[*zero],
                _ => 0.0,
            });
            bias.push(own + zeros.sum::<f32>());
        }
        let layer: Dense = Dense { weight, bias };
        match layer.weight.iter().chain(&layer.bias).find(|value| !value.is_finite()) {
            Some(value) => Err(Error::invalid("first layer", "sums of columns", "finite numbers", value)),
            None => Ok(layer),
        }
    }

    fn unknown(&self, encoder: &Encoder, feature: usize) -> Error {
        let list = |ratios: &[Ratio]| ratios.iter().map(Ratio::to_string).collect::<Vec<_>>().join(", ");
        let known = match (feature_of(encoder, feature), self.is_resnet()) {
            (Some(Feature::Kernel { .. }), _) => "3, 5, 7".to_string(),
            (Some(Feature::Expand { .. }), false) => list(&EXPANDS),
            (Some(Feature::Expand { .. }), true) => list(&RESNET_EXPANDS),
            (Some(Feature::Width { .. }), _) => list(&RESNET_WIDTHS),
            (Some(Feature::Resolution(_)), _) if self.kind == OfaPredictor::Tutorial => {
                "112 to 224".to_string()
            }
            (Some(Feature::Resolution(_)) | None, _) => format!("{:?}", self.resolutions),
        };
        let expected = format!("one that the predictor knows ({known})");
        let got = encoder.describe(feature).unwrap_or_default();
        Error::invalid(format!("space {}", encoder.space().name()), "choices", expected, got)
    }
}

/// The meaning of a feature; stages and blocks are counted from 0.
#[derive(Clone, Copy, Debug)]
enum Feature {
    Kernel {
        stage: usize,
        position: usize,
        kernel: usize,
    },
    Expand {
        stage: usize,
        position: usize,
        expand: Ratio,
    },
    Width {
        stage: usize,
        width: Ratio,
    },
    /// Side of the input image.
    Resolution(usize),
}

/// The meaning of an encoder's feature; `None` for features that these predictors do not have.
fn feature_of(encoder: &Encoder, index: usize) -> Option<Feature> {
    let (gene, value) = encoder.choice(index)?;
    let gene = &encoder.space().genome().genes()[gene];
    // named s1.b2.kernel, s1.width
    let mut words = gene.name.split('.');
    let mut number = |prefix: char| words.next()?.strip_prefix(prefix)?.parse::<usize>().ok()?.checked_sub(1);
    Some(match (gene.dimension.key, gene.values[usize::from(value)]) {
        ("kernel", Value::Count(kernel)) => {
            Feature::Kernel { stage: number('s')?, position: number('b')?, kernel }
        }
        ("expand", Value::Ratio(expand)) => {
            Feature::Expand { stage: number('s')?, position: number('b')?, expand }
        }
        ("width", Value::Ratio(width)) => Feature::Width { stage: number('s')?, width },
        (_, Value::Extent(extent)) if extent.height == extent.width => Feature::Resolution(extent.height),
        _ => return None,
    })
}

/// Where a choice stands in its list.
fn place_of<T: PartialEq>(choices: &[T], choice: &T) -> Option<usize> {
    choices.iter().position(|listed| listed == choice)
}

/// The blocks that a predictor counts.
struct BlockPlaces {
    /// Place of each stage's first block.
    first_blocks: Vec<usize>,
    /// The number of blocks.
    blocks: usize,
}

fn block_places(kind: OfaPredictor, space: &SearchSpace) -> base::Result<BlockPlaces> {
    let genes = space.genome().genes().iter().filter(|gene| gene.dimension.key == "depth");
    let deepest = |gene: &Gene| gene.values.last().and_then(|value| usize::read(*value)).unwrap_or(0);
    let depths: Vec<usize> = genes.map(deepest).collect();
    let deepest = depths.iter().copied().max().unwrap_or(0);
    let even = |depth: usize| (0..depths.len()).map(|stage| stage * depth).collect();
    let wrong = |field: &str, expected: String, got: String| {
        Err(Error::invalid(format!("space {}", space.name()), field, expected, got))
    };
    match (kind, space.family()) {
        (OfaPredictor::Tutorial, FamilyName::MobileNetV3) => {
            let [stages, blocks] = TUTORIAL_BLOCKS;
            if depths.len() != stages || deepest > blocks {
                return wrong(
                    "depths",
                    format!("{stages} stages of at most {blocks}"),
                    format!("{depths:?}"),
                );
            }
            Ok(BlockPlaces { first_blocks: even(blocks), blocks: stages * blocks })
        }
        (OfaPredictor::Tutorial, family) => wrong(
            "family",
            "mobilenet-v3, for which the tutorial's predictor is".to_string(),
            format!("{family:?}"),
        ),
        (OfaPredictor::Library, FamilyName::MobileNetV3) => {
            Ok(BlockPlaces { first_blocks: even(deepest), blocks: depths.len() * deepest })
        }
        (OfaPredictor::Library, FamilyName::ProxylessNas) if depths.last() != Some(&1) => {
            wrong("depths", "a last stage of one block".to_string(), format!("{depths:?}"))
        }
        (OfaPredictor::Library, FamilyName::ProxylessNas) => {
            let blocks = (depths.len() - 1) * deepest + 1;
            Ok(BlockPlaces { first_blocks: even(deepest), blocks })
        }
        (OfaPredictor::Library, family) if family != FamilyName::ResNetD => {
            wrong("family", "one that PyTorch's ofa has".to_string(), format!("\"{family}\""))
        }
        (OfaPredictor::Library, _) => {
            let mut first_blocks = vec![0; RESNET_STEM];
            let mut blocks = 0;
            for depth in &depths[RESNET_STEM..] {
                first_blocks.push(blocks);
                blocks += depth;
            }
            Ok(BlockPlaces { first_blocks, blocks })
        }
    }
}
