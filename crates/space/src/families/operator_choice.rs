//! Networks whose blocks choose their operator, in stages that may have a connection from their input to their output.
//!
//! A block is an inverted residual of some kernel and expand ratio, a plain 3x3 convolution, or skipped, which is no
//! layer at all. The first block of a stage sets its channels and its stride, so it is never skipped. Each operator of
//! a block has its own weights: `mbconv.4` and `conv.4` both belong to the fifth block of the largest network. A
//! connection adds a stage's input to its output; where the stage changes the shape, the input goes through a 1x1
//! convolution of the stage's stride and a batch norm, `project.1`, which exists only with the connection.
//!
//! A network's text names the operators: `i3e4` is an inverted residual of kernel 3 and expand ratio 4, `c` a
//! convolution, `s` a skipped block; a stage with a connection begins with `+:`. So `i3e4,s/+:c,i5e6` is two stages of
//! two blocks, the second with a connection. Networks that skip different blocks are different even if their shapes are
//! equal, for their weights differ.

use base::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::door::Door;
use super::space_file::SpaceFile;
use super::stages::{EXPAND, KERNEL, RESOLUTION, Stage, Stem};
use super::{Ends, Family, Words};
use crate::activation::Activation;
use crate::builder::{Builder, Port, SlotName};
use crate::genome::{Choice, Declaring, Dimension, GeneId, GeneRow, Genome};
use crate::layer::{LayerSpec, inner_channels};
use crate::operators::{MbConv, Operator};
use crate::trace::fixed;
use crate::value::{Extent, Ratio, Readable, Value};

pub(super) const OPERATOR: Dimension = Dimension::named("operator");
pub(super) const CONNECTION: Dimension = Dimension::named("connection");

/// Kernel of the plain convolution.
const CONV_KERNEL: usize = 3;

/// The operators of a block, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlockOperator {
    /// An inverted residual.
    MbConv,
    /// A plain 3x3 convolution, batch norm, activation.
    Conv,
    /// No layer.
    Skip,
}

impl BlockOperator {
    /// All operators.
    pub const ALL: [Self; 3] = [Self::MbConv, Self::Conv, Self::Skip];

    /// The name in files.
    fn name(self) -> &'static str {
        match self {
            Self::MbConv => "mbconv",
            Self::Conv => "conv",
            Self::Skip => "skip",
        }
    }
}

impl Readable for BlockOperator {
    fn read(value: Value) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.value() == value)
    }

    fn value(self) -> Value {
        Value::Name(self.name())
    }
}

/// A stage and its choices.
#[derive(Clone, Debug)]
pub(crate) struct ChoiceStage {
    /// Kernels and expand ratios of inverted residuals; its one depth is the number of blocks.
    pub stage: Stage,
    /// The operators of its blocks, in the order of [`BlockOperator::ALL`]; the first block is never skipped.
    pub operators: Vec<BlockOperator>,
    /// Numbers of connections: 0, 1, or either.
    pub connections: Vec<usize>,
}

impl ChoiceStage {
    /// The stage, if its choices make sense.
    pub(super) fn checked(self, door: &Door<'_>, place: &str) -> Result<Self> {
        door.within(&format!("{place}.depth (number of choices)"), self.stage.choices.depth.len(), 1, 1)?;
        door.rising(&format!("{place}.operator"), &self.operators)?;
        if self.operators == [BlockOperator::Skip] {
            let expected = "mbconv or conv too: a first block is never skipped";
            return Err(Error::invalid(door.place, format!("{place}.operator"), expected, "skip alone"));
        }
        door.rising(&format!("{place}.connection"), &self.connections)?;
        self.connections
            .iter()
            .try_for_each(|&connections| door.within(&format!("{place}.connection"), connections, 0, 1))?;
        Ok(self)
    }
}

/// The genes of one block.
#[derive(Clone, Copy, Debug)]
struct BlockGenes {
    operator: Choice<BlockOperator>,
    /// Kernel and expand ratio, where it can be an inverted residual.
    shape: Option<(Choice<usize>, Choice<Ratio>)>,
}

/// The genes of one stage.
#[derive(Clone, Debug)]
struct StageGenes {
    blocks: Vec<BlockGenes>,
    connection: Choice<usize>,
}

/// A network of such stages.
#[derive(Clone, Debug)]
pub(crate) struct OperatorChoice {
    /// The space's name, for messages.
    space: String,
    ends: Ends,
    stem: Stem,
    stages: Vec<ChoiceStage>,
    genes: Vec<StageGenes>,
}

impl OperatorChoice {
    /// Declares the file's resolutions, then for each stage the choices of its blocks and its connection.
    pub fn declare(file: &SpaceFile, stem: Stem, stages: Vec<ChoiceStage>) -> (Self, Genome) {
        let mut list = Declaring::new();
        let resolution = list.choice("resolution".into(), String::new(), RESOLUTION, &file.resolutions, None);
        let ends = Ends { resolution, input_channels: file.input_channels, classes: file.classes };
        let genes =
            stages.iter().enumerate().map(|(at, stage)| declare_stage(&mut list, at, stage)).collect();
        (Self { space: file.name.clone(), ends, stem, stages, genes }, list.finish())
    }

    fn pairs(&self) -> impl Iterator<Item = (&ChoiceStage, &StageGenes)> {
        self.stages.iter().zip(&self.genes)
    }
}

fn declare_stage(list: &mut Declaring, at: usize, choice: &ChoiceStage) -> StageGenes {
    let ChoiceStage { stage, operators, connections } = choice;
    let name = format!("s{}", at + 1);
    let place = format!("stage {}", at + 1);
    let mut blocks = Vec::with_capacity(stage.choices.max_depth());
    for position in 0..stage.choices.max_depth() {
        let named = |what: &str| format!("{name}.b{}.{what}", position + 1);
        let place = format!("{place}, block {}", position + 1);
        let operators: Vec<BlockOperator> = operators
            .iter()
            .copied()
            .filter(|operator: &BlockOperator| position > 0 || *operator != BlockOperator::Skip)
            .collect();
        let operator = list.choice(named("operator"), place.clone(), OPERATOR, &operators, None);
        let shape = operators.contains(&BlockOperator::MbConv).then(|| {
            let only = list.only(operator, |operator| operator == BlockOperator::MbConv);
            let kernels = &stage.choices.kernel;
            let expands = &stage.choices.expand;
            let kernel = list.choice(named("kernel"), place.clone(), KERNEL, kernels, Some(&only));
            (kernel, list.choice(named("expand"), place.clone(), EXPAND, expands, Some(&only)))
        });
        blocks.push(BlockGenes { operator, shape });
    }
    let connection = list.choice(format!("{name}.connection"), place, CONNECTION, connections, None);
    StageGenes { blocks, connection }
}

impl Family for OperatorChoice {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let Stem { channels, stride, activation } = self.stem;
        let stem = SlotName::one("first_conv");
        let mut x = b.push(stem, &[&image], fixed(channels), image.through(stride), |_| Operator::Stem {
            kernel: 3,
            stride,
            activation,
        });
        let mut number = 0;
        let mut channels = channels;
        for (at, (ChoiceStage { stage, .. }, genes)) in self.pairs().enumerate() {
            let input = x.clone();
            for (position, genes) in genes.blocks.iter().enumerate() {
                let stride = if position == 0 { stage.stride } else { 1 };
                x = Place { stage, genes, stride, number, channels }.block(b, &x);
                (number, channels) = (number + 1, stage.channels);
            }
            x = self.connection(b, at, &input, &x);
        }
        let features = fixed(channels);
        x = b.push(SlotName::one("pool"), &[&x], features, fixed(Extent::ONE), |_| Operator::Pool);
        b.push(SlotName::one("classifier"), &[&x], fixed(self.ends.classes), fixed(Extent::ONE), |_| {
            Operator::Classifier
        });
    }

    fn words(&self) -> &dyn Words {
        self
    }
}

impl OperatorChoice {
    /// A stage's output with its input added, where there is a connection.
    fn connection(&self, b: &mut Builder<'_>, at: usize, input: &Port, x: &Port) -> Port {
        let before = at.checked_sub(1).map_or(self.stem.channels, |at| self.stages[at].stage.channels);
        let Stage { channels, stride, .. } = self.stages[at].stage;
        let there = b.test(self.genes[at].connection, |connections| connections > 0);
        let sum = b.when(&there, |b| {
            let side = if (before, 1) == (channels, stride) {
                input.clone()
            } else {
                let name = SlotName::numbered("project", at);
                b.push(name, &[input], fixed(channels), input.through(stride), |_| Operator::Conv {
                    kernel: 1,
                    stride,
                    activation: Activation::None,
                    residual: false,
                })
            };
            let name = SlotName::numbered("sum", at);
            b.push(name, &[x, &side], fixed(channels), x.extent.clone(), |_| Operator::Sum { of: 2 })
        });
        sum.or(x)
    }
}

/// One block's place in a network.
struct Place<'a> {
    stage: &'a Stage,
    genes: &'a BlockGenes,
    stride: usize,
    /// Its number in the largest network.
    number: usize,
    /// Input channels.
    channels: usize,
}

impl Place<'_> {
    /// The block, whichever operator it is.
    fn block(&self, b: &mut Builder<'_>, x: &Port) -> Port {
        let Self { stage, genes, stride, number, .. } = *self;
        b.one_of(genes.operator, |b, operator| match (operator, genes.shape) {
            (BlockOperator::MbConv, Some((kernel, expand))) => self.inverted_residual(b, x, kernel, expand),
            (BlockOperator::Conv, _) => {
                let name = SlotName::numbered("conv", number);
                b.push(name, &[x], fixed(stage.channels), x.through(stride), |_| Operator::Conv {
                    kernel: CONV_KERNEL,
                    stride,
                    activation: stage.activation,
                    residual: false,
                })
            }
            _ => x.clone(),
        })
    }

    fn inverted_residual(
        &self,
        b: &mut Builder<'_>,
        x: &Port,
        kernel: Choice<usize>,
        expand: Choice<Ratio>,
    ) -> Port {
        let Self { stage, stride, number, channels, .. } = *self;
        let kernel = b.of(kernel);
        let expand = b.of(expand);
        let name = SlotName::numbered("mbconv", number);
        b.push(name, &[x], fixed(stage.channels), x.through(stride), |t| {
            let mid = inner_channels(t.get(&expand), channels);
            Operator::MbConv(MbConv {
                kernel: t.get(&kernel),
                stride,
                mid,
                expansion: true,
                activation: stage.activation,
                squeeze: stage.squeeze_excite.then(|| LayerSpec::squeeze_of(mid)),
                residual: stride == 1 && channels == stage.channels,
            })
        })
    }
}

impl Words for OperatorChoice {
    fn text(&self, genome: &Genome, row: &GeneRow) -> String {
        let mut stages = Vec::with_capacity(self.genes.len());
        for genes in &self.genes {
            let connected = if genome.get(row, genes.connection) > 0 { "+:" } else { "" };
            let blocks: Vec<String> =
                genes.blocks.iter().map(|genes| block_text(genome, row, genes)).collect();
            stages.push(format!("{connected}{}", blocks.join(",")));
        }
        stages.join("/")
    }

    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut GeneRow) -> Result<()> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() != self.stages.len() {
            let expected = format!("{} (space {})", self.stages.len(), self.space);
            return Err(Error::invalid(place, "number of stages", expected, parts.len()));
        }
        for (at, (part, genes)) in parts.into_iter().zip(&self.genes).enumerate() {
            let (connections, list) = part.strip_prefix("+:").map_or((0, part), |list| (1, list));
            genome.choose(row, genes.connection, connections, place)?;
            let blocks: Vec<&str> = list.split(',').collect();
            if blocks.len() != genes.blocks.len() {
                let field = format!("number of blocks of stage {}", at + 1);
                let expected = genes.blocks.len();
                return Err(Error::invalid(place, field, expected, blocks.len()));
            }
            for (text, genes) in blocks.into_iter().zip(&genes.blocks) {
                parse_block(genome, text, place, genes, row)?;
            }
        }
        Ok(())
    }

    /// Genes by stage: its connection, then operator, kernel and expand ratio of each block; last the resolution.
    fn features(&self) -> Vec<GeneId> {
        let mut order = Vec::new();
        for stage in &self.genes {
            order.push(stage.connection.gene());
            for BlockGenes { operator, shape } in &stage.blocks {
                order.push(operator.gene());
                order.extend(shape.iter().flat_map(|(kernel, expand)| [kernel.gene(), expand.gene()]));
            }
        }
        order.push(self.ends.resolution.gene());
        order
    }

    fn describe(&self, genome: &Genome) -> Vec<String> {
        let list = |gene: GeneId| {
            genome.values_of(gene).map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut lines = Vec::with_capacity(self.stages.len());
        for (at, (ChoiceStage { stage, .. }, genes)) in self.pairs().enumerate() {
            let blocks = genes.blocks.len();
            let squeeze = if stage.squeeze_excite { ", squeeze-and-excite" } else { "" };
            let mut line = format!(
                "stage {}: {blocks} blocks, {} channels, stride {}, {}{squeeze}; connection {}",
                at + 1,
                stage.channels,
                stage.stride,
                stage.activation,
                list(genes.connection.gene())
            );
            for (position, block) in genes.blocks.iter().enumerate().filter(|(position, _)| *position < 2) {
                let which = ["first block", "the others"][position];
                line += &format!("; {which}: {}", list(block.operator.gene()));
            }
            if let Some((kernel, expand)) = genes.blocks.first().and_then(|block| block.shape) {
                line += &format!("; mbconv: kernel {}, expand {}", list(kernel.gene()), list(expand.gene()));
            }
            lines.push(line);
        }
        lines
    }
}

/// A block's text: `i3e4` (inverted residual, kernel 3, expand ratio 4), `c` (convolution) or `s` (skipped).
fn block_text(genome: &Genome, row: &GeneRow, genes: &BlockGenes) -> String {
    match (genome.get(row, genes.operator), genes.shape) {
        (BlockOperator::MbConv, Some((kernel, expand))) => {
            format!("i{}e{}", genome.get(row, kernel), genome.get(row, expand))
        }
        (BlockOperator::Conv, _) => "c".to_string(),
        _ => "s".to_string(),
    }
}

/// Reads a block's text into its genes.
fn parse_block(
    genome: &Genome,
    text: &str,
    place: &str,
    genes: &BlockGenes,
    row: &mut GeneRow,
) -> Result<()> {
    let wrong = || {
        let expected = "`i3e4` (kernel 3, expand ratio 4), `c` (convolution) or `s` (skipped)";
        Error::invalid(place, "block", expected, format!("`{text}`"))
    };
    let (operator, shape) = match text {
        "c" => (BlockOperator::Conv, None),
        "s" => (BlockOperator::Skip, None),
        _ => {
            let shape = text.strip_prefix('i').and_then(|rest| rest.split_once('e')).ok_or_else(wrong)?;
            (BlockOperator::MbConv, Some(shape))
        }
    };
    genome.choose(row, genes.operator, operator, place)?;
    let (Some((kernel, expand)), Some(genes)) = (shape, genes.shape) else { return Ok(()) };
    genome.choose(row, genes.0, kernel.parse().map_err(|_| wrong())?, place)?;
    genome.choose(row, genes.1, expand.parse().map_err(|_| wrong())?, place)
}

#[cfg(test)]
mod tests {
    use crate::{Arch, LayerSpec, SearchSpace, cost, preset, sampler};

    fn space() -> SearchSpace {
        preset("tiny-choice").expect("a preset")
    }

    fn layers(text: &str) -> Vec<LayerSpec> {
        space().lower(&text.parse::<Arch>().expect("an arch")).expect("legal")
    }

    fn check(text: &str, expected: &[(&str, &str, &[Option<usize>])]) {
        let layers = layers(text);
        let got: Vec<(String, String, &[Option<usize>])> =
            layers.iter().map(|layer| (layer.shared_name(), layer.key(), layer.inputs.as_slice())).collect();
        let got: Vec<_> =
            got.iter().map(|(name, key, inputs)| (name.as_str(), key.as_str(), *inputs)).collect();
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn a_skipped_block_is_no_layer_and_a_convolution_has_weights_of_its_own() {
        check(
            "r8:c,s/i3e6,c",
            &[
                ("first_conv", "stem k3 s1 1-16 relu @8x8", &[None]),
                ("conv.0", "conv k3 16-16 relu @8x8", &[Some(0)]),
                ("mbconv.2", "mbconv k3 s2 16-96-32 h_swish se24 @8x8", &[Some(1)]),
                ("conv.3", "conv k3 32-32 h_swish @4x4", &[Some(2)]),
                ("pool", "pool 32 @4x4", &[Some(3)]),
                ("classifier", "linear 32-10 @1x1", &[Some(4)]),
            ],
        );
    }

    #[test]
    fn a_connection_is_a_sum_and_projects_where_the_shape_changes() {
        check(
            "r8:+:i5e3,s/+:c,s",
            &[
                ("first_conv", "stem k3 s1 1-16 relu @8x8", &[None]),
                ("mbconv.0", "mbconv k5 s1 16-48-16 relu skip @8x8", &[Some(0)]),
                ("sum.0", "sum2 16 @8x8", &[Some(1), Some(0)]),
                ("conv.2", "conv k3 s2 16-32 h_swish @8x8", &[Some(2)]),
                ("project.1", "conv k1 s2 16-32 none @8x8", &[Some(2)]),
                ("sum.1", "sum2 32 @4x4", &[Some(3), Some(4)]),
                ("pool", "pool 32 @4x4", &[Some(5)]),
                ("classifier", "linear 32-10 @1x1", &[Some(6)]),
            ],
        );
    }

    #[test]
    fn layers_are_numbered_as_they_stand() {
        let names: Vec<String> = layers("r8:i3e3,c/+:i3e3,c").into_iter().map(|layer| layer.name).collect();
        let expected = [
            "first_conv",
            "mbconv.0",
            "conv.0",
            "mbconv.1",
            "conv.1",
            "project.0",
            "sum.0",
            "pool",
            "classifier",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_ends_are_large_and_small() {
        let largest = sampler::largest(&space());
        let smallest = sampler::smallest(&space());
        assert_eq!(largest.to_string(), "r12:+:i5e6,i5e6/+:i5e6,i5e6");
        assert_eq!(smallest.to_string(), "r8:c,s/c,s");
        let params = |arch: &Arch| cost(&space().lower(arch).expect("legal")).params;
        assert!(params(&smallest) < params(&largest));
    }

    #[test]
    fn equal_networks_are_equal_rows() {
        let rows = space().genome().all();
        let rows = rows.iter().filter(|row| row[crate::RESOLUTION] == 0);
        let mut seen = std::collections::HashMap::new();
        for row in rows {
            let layers = space().lower_row(row).into_iter().map(|layer| (layer.shared_name(), layer));
            let before = seen.insert(layers.collect::<Vec<_>>(), row);
            assert_eq!(before, None, "{}", space().arch(row));
        }
        assert_eq!(seen.len(), 3_600);
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, part) in [
            ("r8:i3e3,s", "number of stages: expected 2 (space tiny-choice), got 1"),
            ("r8:i3e3/i3e3,s", "number of blocks of stage 1: expected 2, got 1"),
            ("r8:i3e3,s/s,c", "operator of stage 2, block 1: expected one of mbconv, conv, got skip"),
            ("r8:i7e3,s/c,c", "kernel of stage 1, block 1: expected one of 3, 5, got 7"),
            ("r8:i3e4,s/c,c", "expand ratio of stage 1, block 1: expected one of 3, 6, got 4"),
            ("r8:k3e3,s/c,c", "block: expected `i3e4` (kernel 3, expand ratio 4)"),
            ("r8:i3,s/c,c", "block: expected `i3e4`"),
            ("r8:i3ex,s/c,c", "block: expected `i3e4`"),
            ("r8:i3e3,/c,c", "block: expected `i3e4`"),
            ("r8:-:i3e3,s/c,c", "block: expected `i3e4`"),
            ("r8:+:+:i3e3,s/c,c", "block: expected `i3e4`"),
            ("r8:i+3e3,s/c,c", "choices: expected `i3e3,s/c,c`, got `i+3e3,s/c,c`"),
            ("r8:i3e3e0,s/c,c", "choices: expected `i3e3,s/c,c`, got `i3e3e0,s/c,c`"),
            ("r9:i3e3,s/c,c", "resolution: expected one of 8, 12, got 9"),
        ] {
            let error = space().row(&text.parse().expect("an arch")).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn broken_spaces_are_refused_with_the_field() {
        let good = include_str!("../presets/tiny-choice.toml");
        for (from, to, field) in [
            ("depth = [2]", "depth = [1, 2]", "stages[1].depth (number of choices): expected 1 to 1, got 2"),
            ("operator = [\"mbconv\", \"conv\", \"skip\"]", "", "operator: expected one in family"),
            ("connection = [0, 1]", "", "connection: expected one in family \"operator-choice\", got none"),
            ("connection = [0, 1]", "connection = [0, 2]", "stages[1].connection: expected 0 to 1, got 2"),
            (
                "[\"mbconv\", \"conv\", \"skip\"]",
                "[\"conv\", \"mbconv\"]",
                "stages[1].operator: expected a rising",
            ),
            (
                "[\"mbconv\", \"conv\", \"skip\"]",
                "[\"skip\"]",
                "stages[1].operator: expected mbconv or conv too",
            ),
            ("[\"mbconv\", \"conv\", \"skip\"]", "[\"pool\"]", "unknown variant `pool`"),
            ("operator-choice", "mobilenet-v3", "first_block: expected one in family"),
            ("dropout = 0.0", "dropout = 0.0\nwidth = [1]", "width: expected none in family"),
        ] {
            assert!(good.contains(from), "{from}");
            let error =
                SearchSpace::from_toml("x.toml", &good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with("x.toml: ") && error.contains(field), "{to}: {error}");
        }
        // the largest network is one of narrow inverted residuals; convolutions as wide as their stages are shared too
        let vast = good.replace("[3, 6]", "[0.01]").replace("channels = 16\n", "channels = 16384\n");
        let error = SearchSpace::from_toml("x.toml", &vast).expect_err("too large").to_string();
        assert!(error.contains("shared parameters of all operators: expected at most"), "{error}");
        let tiny = preset("tiny").expect("a preset").to_toml();
        let error =
            SearchSpace::from_toml("x.toml", &format!("connection = [0]\n{tiny}")).expect_err("of another");
        assert!(error.to_string().contains("connection: expected none in family \"mobilenet-v3\", got one"));
    }

    #[test]
    fn a_space_may_lack_operators_and_connections() {
        let good = include_str!("../presets/tiny-choice.toml");
        for (operators, connections, networks) in
            [("\"conv\"", "0", 1u32), ("\"conv\", \"skip\"", "1", 4), ("\"mbconv\"", "0, 1", 4 * 256)]
        {
            let text = good.replace("\"mbconv\", \"conv\", \"skip\"", operators);
            let text = text.replace("connection = [0, 1]", &format!("connection = [{connections}]"));
            let space = SearchSpace::from_toml("x.toml", &text).expect("a space");
            assert_eq!(space.subnetworks(), networks.into());
            let index = space.index();
            for row in space.genome().all() {
                let arch = space.arch(&row);
                assert_eq!(space.row(&arch.to_string().parse().expect("its text")).expect("legal"), row);
                let there = index.slots().iter().filter(|slot| index.at(slot, &row).is_some()).count();
                assert_eq!(there, space.lower_row(&row).len(), "{arch}");
            }
        }
    }
}
