//! Networks of layers that choose an operator and which earlier outputs are added to theirs: ENAS's macro space (Pham et
//! al. 2018), connected as in its authors' code.
//!
//! An operator reads the output of the layer before. To what it makes the chosen outputs before that one are added one
//! after the other, the stem's among them, and a batch norm follows; the first layer has neither. After some layers the
//! extent halves: then every output that a later layer reads goes through a factorized reduction of its own, which stands
//! only where one does.
//!
//! One meaning for the searched network and the one that is trained alone (the authors' code has two): separable
//! convolutions are separable, pools pool, skips are added. A separable convolution has a batch norm after its depthwise
//! convolution too.
//!
//! A network's text has a part for each layer: its operator and, after it, the outputs that are added: 0 is the stem's, 1
//! that of the first layer. So `conv_3x3/max_pool_3x3+0/sep_conv_5x5+0+1` is three layers.

use base::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::door::{Door, LARGEST};
use super::operator_choice::{CONNECTION, OPERATOR};
use super::space_file::SpaceFile;
use super::stages::RESOLUTION;
use super::{Ends, Family, Words};
use crate::activation::Activation;
use crate::builder::{Builder, Port, SlotName};
use crate::genome::{Choice, Declaring, GeneId, GeneRow, Genome, NodeRole};
use crate::operators::{Operator, Separable};
use crate::trace::{fixed, traced};
use crate::value::{Extent, Readable, Value};

/// Most layers.
const MOST_LAYERS: usize = 24;
/// Most layers after a reduction: each of its slots depends on a choice of each of them.
const MOST_AFTER_REDUCTION: usize = 12;

/// The operators of a layer, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
pub(crate) enum LayerOperator {
    /// 1x1 and 5x5 convolution, batch norm and ReLU after each.
    #[serde(rename = "conv_5x5")]
    Conv5,
    /// 1x1 and 3x3 convolution.
    #[serde(rename = "conv_3x3")]
    Conv3,
    /// 1x1 and separable 5x5 convolution.
    #[serde(rename = "sep_conv_5x5")]
    Separable5,
    /// 1x1 and separable 3x3 convolution.
    #[serde(rename = "sep_conv_3x3")]
    Separable3,
    /// 1x1 convolution, mean over 3x3.
    #[serde(rename = "avg_pool_3x3")]
    AveragePool,
    /// 1x1 convolution, maximum over 3x3.
    #[serde(rename = "max_pool_3x3")]
    MaxPool,
}

impl LayerOperator {
    /// All operators.
    const ALL: [Self; 6] =
        [Self::Conv5, Self::Conv3, Self::Separable5, Self::Separable3, Self::AveragePool, Self::MaxPool];

    /// The name in files, in texts, and of its layer; and that of the 1x1 convolution before it.
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Conv5 => ["conv_5x5", "conv_5x5_in"],
            Self::Conv3 => ["conv_3x3", "conv_3x3_in"],
            Self::Separable5 => ["sep_conv_5x5", "sep_conv_5x5_in"],
            Self::Separable3 => ["sep_conv_3x3", "sep_conv_3x3_in"],
            Self::AveragePool => ["avg_pool_3x3", "avg_pool_3x3_in"],
            Self::MaxPool => ["max_pool_3x3", "max_pool_3x3_in"],
        }
    }

    fn layer(self) -> Operator {
        let activation = Activation::Relu;
        let conv = |kernel| Operator::Conv { kernel, stride: 1, activation, residual: false };
        let separable = |kernel| Operator::Separable(Separable { kernel, stride: 1, activation });
        match self {
            Self::Conv5 => conv(5),
            Self::Conv3 => conv(3),
            Self::Separable5 => separable(5),
            Self::Separable3 => separable(3),
            Self::AveragePool => Operator::AveragePool { kernel: 3, stride: 1 },
            Self::MaxPool => Operator::MaxPool { stride: 1 },
        }
    }
}

impl Readable for LayerOperator {
    fn read(value: Value) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.value() == value)
    }

    fn value(self) -> Value {
        Value::Name(self.names()[0])
    }
}

/// The layers of a network, as in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayersFile {
    /// Number of layers.
    pub count: usize,
    /// Channels of every layer, and of the stem.
    pub channels: usize,
    /// Operators of a layer, in the order of [`LayerOperator::ALL`].
    pub operator: Vec<LayerOperator>,
    /// Whether an output is added: 0, 1 or either.
    pub connection: Vec<usize>,
    /// Numbers of layers after which the extent halves, rising.
    pub reductions: Vec<usize>,
}

impl LayersFile {
    /// Checks each field, and that the tables of layers are small.
    pub(super) fn check(&self, door: &Door) -> Result<()> {
        door.within("layers.count", self.count, 1, MOST_LAYERS)?;
        door.within("layers.channels", self.channels, 2, LARGEST)?;
        door.names_in_order("layers.operator", &self.operator, &LayerOperator::ALL)?;
        door.rising("layers.connection", &self.connection)?;
        self.connection.iter().try_for_each(|&choice| door.within("layers.connection", choice, 0, 1))?;
        if self.reductions.is_empty() {
            return Ok(());
        }
        door.rising("layers.reductions", &self.reductions)?;
        let last = self.count - 1;
        if last == 0 {
            let got = format!("{:?}", self.reductions);
            return Err(Error::invalid(
                door.place,
                "layers.reductions",
                "none in a network of one layer",
                got,
            ));
        }
        self.reductions.iter().try_for_each(|&after| door.within("layers.reductions", after, 1, last))?;
        let after = self.count - self.reductions[0];
        if self.connection.len() > 1 && after > MOST_AFTER_REDUCTION {
            let expected = format!("at most {MOST_AFTER_REDUCTION} layers after the first one");
            let error = Error::invalid(door.place, "layers.reductions", expected, after);
            return Err(error.and_then_do("list fewer layers, or a later reduction"));
        }
        Ok(())
    }
}

/// The genes of one layer.
#[derive(Clone, Debug)]
struct LayerGenes {
    operator: Choice<LayerOperator>,
    /// Whether the stem's output is added, and those of the layers but the one before.
    connections: Vec<Choice<usize>>,
}

/// A network of such layers.
#[derive(Clone, Debug)]
pub(crate) struct SkipLayers {
    /// The space's name, for messages.
    space: String,
    ends: Ends,
    file: LayersFile,
    genes: Vec<LayerGenes>,
}

impl SkipLayers {
    /// Declares the file's resolutions, then for each layer its operator and its connections.
    pub fn declare(file: &SpaceFile, layers: LayersFile) -> (Self, Genome) {
        let mut list = Declaring::new();
        let resolution = list.choice("resolution".into(), String::new(), RESOLUTION, &file.resolutions, None);
        let ends = Ends { resolution, input_channels: file.input_channels, classes: file.classes };
        let mut genes = Vec::with_capacity(layers.count);
        for at in 0..layers.count {
            let place = format!("layer {at}");
            let operator = list.choice(format!("l{at}.operator"), place, OPERATOR, &layers.operator, None);
            // node 0 is the stem's output
            list.at_node(operator, at + 1, NodeRole::Property);
            let mut connections = Vec::with_capacity(at);
            for from in 0..at {
                let name = format!("l{at}.from{from}");
                let place = format!("output {from} to layer {at}");
                let connection = list.choice(name, place, CONNECTION, &layers.connection, None);
                connections.push(list.at_node(connection, at + 1, NodeRole::Link { from }));
            }
            genes.push(LayerGenes { operator, connections });
        }
        (Self { space: file.name.clone(), ends, file: layers, genes }, list.finish())
    }

    /// One layer: its operator on the output before it, the chosen outputs added, a batch norm. The stem's is the first output.
    fn layer(&self, b: &mut Builder<'_>, at: usize, outputs: &[Port]) -> Port {
        let before = &outputs[at];
        let channels = || fixed(self.file.channels);
        let mut sum = b.one_of(self.genes[at].operator, |b, operator: LayerOperator| {
            let [name, input] = operator.names().map(|name| SlotName::numbered(name, at));
            let projection = Operator::HeadConv { activation: Activation::Relu };
            let x = b.push(input, &[before], channels(), before.extent.clone(), |_| projection.clone());
            b.push(name, &[&x], channels(), before.extent.clone(), |_| operator.layer())
        });
        if at == 0 {
            return sum;
        }
        for (from, &connection) in self.genes[at].connections.iter().enumerate() {
            let chosen = b.test(connection, |connection| connection > 0);
            // pairs of layer and output are numbered row by row
            let name = SlotName::numbered("sum", at * (at - 1) / 2 + from);
            let added = b.when(&chosen, |b| {
                let inputs = [&sum, &outputs[from]];
                b.push(name, &inputs, channels(), before.extent.clone(), |_| Operator::Sum { of: 2 })
            });
            sum = added.or(&sum);
        }
        let norm = Operator::Norm { activation: Activation::None };
        b.push(SlotName::numbered("layer_norm", at), &[&sum], channels(), before.extent.clone(), |_| {
            norm.clone()
        })
    }

    /// Halves the outputs so far, those that a later layer reads; the last is read in any case.
    fn reduce(&self, b: &mut Builder<'_>, reduction: usize, outputs: &mut [Port]) {
        let last = outputs.len() - 1;
        for (from, output) in outputs.iter_mut().enumerate() {
            let later = self.genes[last..].iter().filter_map(|genes| genes.connections.get(from));
            let reads: Vec<_> =
                later.map(|&connection| b.test(connection, |connection| connection > 0)).collect();
            let is_read = traced(|t| from == last || reads.iter().any(|reads| t.get(reads)));
            let name = SlotName::numbered("reduction", reduction * (self.file.count + 1) + from);
            let half = output.through(2);
            let reduced = b.when(&is_read, |b| {
                let operator = |_: &mut crate::trace::Trace| Operator::FactorizedReduction;
                b.push(name, &[output], fixed(self.file.channels), half.clone(), operator)
            });
            *output = reduced.or(&output.unread(half));
        }
    }
}

impl Family for SkipLayers {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let channels = self.file.channels;
        let stem = Operator::Stem { kernel: 3, stride: 1, activation: Activation::None };
        let extent = image.extent.clone();
        let mut x = b.push(SlotName::one("first_conv"), &[&image], fixed(channels), extent, |_| stem.clone());
        let mut outputs = vec![x];
        for at in 0..self.file.count {
            if let Some(reduction) = self.file.reductions.iter().position(|after| *after == at) {
                self.reduce(b, reduction, &mut outputs);
            }
            outputs.push(self.layer(b, at, &outputs));
        }
        x = outputs.swap_remove(self.file.count);
        x = b.push(SlotName::one("pool"), &[&x], fixed(channels), fixed(Extent::ONE), |_| Operator::Pool);
        b.push(SlotName::one("classifier"), &[&x], fixed(self.ends.classes), fixed(Extent::ONE), |_| {
            Operator::Classifier
        });
    }

    fn words(&self) -> &dyn Words {
        self
    }
}

impl Words for SkipLayers {
    fn text(&self, genome: &Genome, row: &GeneRow) -> String {
        let layer = |genes: &LayerGenes| {
            let mut text = genome.get(row, genes.operator).names()[0].to_string();
            for (from, &connection) in genes.connections.iter().enumerate() {
                if genome.get(row, connection) > 0 {
                    text += &format!("+{from}");
                }
            }
            text
        };
        self.genes.iter().map(layer).collect::<Vec<_>>().join("/")
    }

    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut GeneRow) -> Result<()> {
        let layers: Vec<&str> = text.split('/').collect();
        if layers.len() != self.genes.len() {
            let expected = format!("{} (space {})", self.genes.len(), self.space);
            return Err(Error::invalid(place, "number of layers", expected, layers.len()));
        }
        for (at, (text, genes)) in layers.into_iter().zip(&self.genes).enumerate() {
            let mut words = text.split('+');
            let name = words.next().unwrap_or_default();
            let operator = LayerOperator::ALL.into_iter().find(|operator| operator.names()[0] == name);
            let operator = operator.ok_or_else(|| genome.refuse(genes.operator.gene(), place, name))?;
            genome.choose(row, genes.operator, operator, place)?;
            let mut added = vec![0; at];
            for word in words {
                let from = word.parse().ok().filter(|from: &usize| *from < at).ok_or_else(|| {
                    let field = format!("layer {at}: outputs after +");
                    let expected = if at == 0 { "none".to_string() } else { format!("numbers below {at}") };
                    Error::invalid(place, field, expected, format!("`{word}`"))
                })?;
                added[from] = 1;
            }
            for (&connection, added) in genes.connections.iter().zip(added) {
                genome.choose(row, connection, added, place)?;
            }
        }
        Ok(())
    }

    /// Layer by layer its operator, then its connections; last the resolution.
    fn features(&self) -> Vec<GeneId> {
        let mut order = Vec::new();
        for LayerGenes { operator, connections } in &self.genes {
            order.push(operator.gene());
            order.extend(connections.iter().map(|connection| connection.gene()));
        }
        order.push(self.ends.resolution.gene());
        order
    }

    fn describe(&self, genome: &Genome) -> Vec<String> {
        let LayersFile { count, channels, reductions, .. } = &self.file;
        let list = |gene: GeneId| {
            genome.values_of(gene).map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
        };
        let after: Vec<String> = reductions.iter().map(ToString::to_string).collect();
        let halved = if after.is_empty() {
            String::new()
        } else {
            format!("; the extent halves after {} of them", after.join(", "))
        };
        let mut lines = vec![
            format!("{count} layers of {channels} channels{halved}"),
            format!("operator: {}", list(self.genes[0].operator.gene())),
        ];
        if let Some(connection) = self.genes.get(1).and_then(|genes| genes.connections.first()) {
            lines.push(format!("connection from each output before the last: {}", list(connection.gene())));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
