//! Networks of equal cells, in which every earlier node has an edge to every later one: NAS-Bench-201 (Dong and Yang
//! 2020).
//!
//! A cell's first node is its input, its last one its output. A node is the sum of its edges, each an operator on an
//! earlier node; `none` is no edge. All cells of a network have the same operators, and each edge of each cell has its
//! own weights for each operator. Between stages stands a residual block that halves the extent.
//!
//! Layers that no other layer reads are not built: a node without a way to the output, and its edges, are left out. Published
//! parameters count them; all others agree. A node that is read but has no edge is zeros of its cell's input, and a convolution
//! of zeros is still its batch norm's shift, as in the published networks.
//!
//! A network's text is that of the benchmark: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…|`, the edges of each node
//! after the first, each with the node that it begins at.

use base::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::cell_operator::CellOperator;
use super::door::{Door, LARGEST};
use super::operator_choice::OPERATOR;
use super::space_file::SpaceFile;
use super::stages::RESOLUTION;
use super::{Ends, Family, Words};
use crate::activation::Activation;
use crate::builder::{Builder, Maybe, Port, SlotName};
use crate::genome::{Choice, Declaring, GeneId, GeneRow, Genome};
use crate::operators::Operator;
use crate::trace::{Traced, fixed, traced};
use crate::value::Extent;

/// Most nodes of a cell: with all operators its number of networks is beyond any count of tables.
const MOST_NODES: usize = 8;
/// Most combinations of operators that decide whether a layer exists, over all layers.
const MOST_COMBINATIONS: u128 = 1 << 20;
/// Most cells of a stage, and most stages.
const MOST_CELLS: usize = 64;
const MOST_STAGES: usize = 6;

/// The cells of a network, as in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CellFile {
    /// Nodes of a cell, its input included.
    pub nodes: usize,
    /// Operators of an edge, in the order of [`CellOperator::ALL`].
    pub operator: Vec<CellOperator>,
    /// Channels of each stage; the first is the stem's too.
    pub channels: Vec<usize>,
    /// Cells of a stage.
    pub cells: usize,
}

impl CellFile {
    /// Checks each field, and that the tables of layers are small.
    pub(super) fn check(&self, door: &Door) -> Result<()> {
        door.within("cell.nodes", self.nodes, 2, MOST_NODES)?;
        door.names_in_order("cell.operator", &self.operator, &CellOperator::ALL)?;
        if self.operator == [CellOperator::None] {
            return Err(Error::invalid(door.place, "cell.operator", "another operator too", "none alone"));
        }
        door.within("cell.channels (number of stages)", self.channels.len(), 1, MOST_STAGES)?;
        self.channels.iter().try_for_each(|&channels| door.within("cell.channels", channels, 1, LARGEST))?;
        door.within("cell.cells", self.cells, 1, MOST_CELLS)?;
        let combinations = self.combinations();
        if combinations > MOST_COMBINATIONS {
            let field = "cell: combinations of operators that decide whether a layer exists, over all layers";
            let error =
                Error::invalid(door.place, field, format!("at most {MOST_COMBINATIONS}"), combinations);
            return Err(error.and_then_do("list fewer nodes, operators, cells or stages"));
        }
        Ok(())
    }

    /// Combinations of the operators that decide each edge, over all operators, edges and cells: its own, and those of all
    /// edges from its end on.
    fn combinations(&self) -> u128 {
        let operators = self.operator.len() as u128;
        let has_none = self.operator.contains(&CellOperator::None);
        let of_edge = |to: usize| -> u128 {
            let later = self.nodes - to; // the nodes from its end on
            let edges = if has_none { 1 + later * (later - 1) / 2 } else { 1 };
            operators.pow(edges as u32)
        };
        let of_cell: u128 = (1..self.nodes).map(|to| to as u128 * of_edge(to)).sum();
        operators * of_cell * (self.channels.len() * self.cells) as u128
    }
}

/// A network of such cells.
#[derive(Clone, Debug)]
pub(crate) struct DenseCell {
    /// The space's name, for messages.
    space: String,
    ends: Ends,
    file: CellFile,
    /// The operator of each edge, by the node that it ends at (the second node first), then by the one that it begins at.
    edges: Vec<Vec<Choice<CellOperator>>>,
}

/// A cell's place in a network.
#[derive(Clone, Copy)]
struct Cell {
    /// Its number among all cells.
    number: usize,
    channels: usize,
}

impl DenseCell {
    /// Declares the file's resolutions, then the operator of each edge.
    pub fn declare(file: &SpaceFile, cell: CellFile) -> (Self, Genome) {
        let mut list = Declaring::new();
        let resolution = list.choice("resolution".into(), String::new(), RESOLUTION, &file.resolutions, None);
        let ends = Ends { resolution, input_channels: file.input_channels, classes: file.classes };
        let edge = |list: &mut Declaring, from: usize, to: usize| {
            let name = format!("n{to}.from{from}");
            list.choice(name, format!("edge {from} to {to}"), OPERATOR, &cell.operator, None)
        };
        let edges = (1..cell.nodes).map(|to| (0..to).map(|from| edge(&mut list, from, to)).collect());
        let edges = edges.collect();
        (Self { space: file.name.clone(), ends, file: cell, edges }, list.finish())
    }

    /// Edges of a cell.
    fn edges_of_cell(&self) -> usize {
        self.edges.iter().map(Vec::len).sum()
    }

    /// Whether an edge leads from one node to a later one.
    fn leads(&self, b: &Builder<'_>, from: usize, to: usize) -> Traced<bool> {
        b.test(self.edges[to - 1][from], |operator| operator != CellOperator::None)
    }

    /// Whether the output depends on each node.
    fn read_nodes(&self, b: &Builder<'_>) -> Vec<Traced<bool>> {
        let last = self.file.nodes - 1;
        let mut read = vec![fixed(true); self.file.nodes];
        for node in (0..last).rev() {
            let leads: Vec<(usize, Traced<bool>)> =
                (node + 1..=last).map(|to| (to, self.leads(b, node, to))).collect();
            read[node] = traced(|t| leads.iter().any(|(to, leads)| t.get(leads) && t.get(&read[*to])));
        }
        read
    }

    /// A cell's output.
    fn cell(&self, b: &mut Builder<'_>, x: &Port, cell: Cell) -> Port {
        let read = self.read_nodes(b);
        let mut nodes = vec![x.clone()];
        for (at, read) in read.iter().enumerate().skip(1) {
            let node = b.when(read, |b| self.node(b, at, &nodes, cell));
            nodes.push(node.or(x));
        }
        nodes.swap_remove(self.file.nodes - 1)
    }

    /// The sum of a node's edges.
    fn node(&self, b: &mut Builder<'_>, to: usize, nodes: &[Port], cell: Cell) -> Port {
        let first = cell.number * self.edges_of_cell() + to * (to - 1) / 2;
        let mut edges: Vec<Maybe> = Vec::with_capacity(to);
        for (from, &choice) in self.edges[to - 1].iter().enumerate() {
            let leads = self.leads(b, from, to);
            edges.push(b.when(&leads, |b| {
                let is_zero = |operator| operator == CellOperator::None;
                b.mix_of(choice, first + from, is_zero, |b, operator: CellOperator| {
                    operator.push(b, first + from, &nodes[from], cell.channels)
                })
            }));
        }
        let number = cell.number * (self.file.nodes - 1) + to - 1;
        let names = ["sum", "zero"].map(|name| SlotName::numbered(name, number));
        b.total(names, &nodes[0], &edges)
    }
}

/// The residual block before a stage: two convolutions, the first of stride 2, and a shortcut of a mean over 2x2 and a
/// 1x1 convolution.
fn reduction(b: &mut Builder<'_>, x: &Port, at: usize, channels: usize) -> Port {
    let name = |name| SlotName::numbered(name, at);
    let channels = fixed(channels);
    let half = x.through(2);
    let mut main = x.clone();
    for (part, stride) in [("reduction_a", 2), ("reduction_b", 1)] {
        main = b.push(name(part), &[&main], channels.clone(), half.clone(), |_| Operator::ReluConv {
            kernel: 3,
            stride,
        });
    }
    let pool = Operator::AveragePool { kernel: 2, stride: 2 };
    let side = b.push(name("shortcut_pool"), &[x], x.channels.clone(), half.clone(), |_| pool.clone());
    let mix = Operator::FeatureMix { activation: Activation::None };
    let side = b.push(name("shortcut"), &[&side], channels.clone(), half.clone(), |_| mix.clone());
    b.push(name("reduction_sum"), &[&side, &main], channels, half, |_| Operator::Sum { of: 2 })
}

impl Family for DenseCell {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let mut channels = self.file.channels[0];
        let stem = Operator::Stem { kernel: 3, stride: 1, activation: Activation::None };
        let extent = image.extent.clone();
        let mut x = b.push(SlotName::one("first_conv"), &[&image], fixed(channels), extent, |_| stem.clone());
        let mut number = 0;
        for (stage, &of_stage) in self.file.channels.iter().enumerate() {
            channels = of_stage;
            if stage > 0 {
                x = reduction(b, &x, stage - 1, channels);
            }
            for _ in 0..self.file.cells {
                x = self.cell(b, &x, Cell { number, channels });
                number += 1;
            }
        }
        let norm = Operator::Norm { activation: Activation::Relu };
        let extent = x.extent.clone();
        x = b.push(SlotName::one("last_norm"), &[&x], fixed(channels), extent, |_| norm.clone());
        x = b.push(SlotName::one("pool"), &[&x], fixed(channels), fixed(Extent::ONE), |_| Operator::Pool);
        b.push(SlotName::one("classifier"), &[&x], fixed(self.ends.classes), fixed(Extent::ONE), |_| {
            Operator::Classifier
        });
    }

    fn words(&self) -> &dyn Words {
        self
    }

    fn mixed(&self) -> Vec<GeneId> {
        self.edges.iter().flatten().map(|edge| edge.gene()).collect()
    }
}

impl Words for DenseCell {
    fn text(&self, genome: &Genome, row: &GeneRow) -> String {
        let node = |edges: &Vec<Choice<CellOperator>>| {
            let edges = edges.iter().enumerate();
            let edges = edges.map(|(from, edge)| format!("{}~{from}|", genome.get(row, *edge).name()));
            format!("|{}", edges.collect::<String>())
        };
        self.edges.iter().map(node).collect::<Vec<_>>().join("+")
    }

    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut GeneRow) -> Result<()> {
        let nodes: Vec<&str> = text.split('+').collect();
        if nodes.len() != self.edges.len() {
            let expected = format!("{} joined by + (space {})", self.edges.len(), self.space);
            return Err(Error::invalid(place, "nodes after the first", expected, nodes.len()));
        }
        for (to, (node, edges)) in nodes.into_iter().zip(&self.edges).enumerate() {
            let field = format!("node {}", to + 1);
            let wrong = || {
                let listed: Vec<String> = (0..edges.len()).map(|from| format!("OPERATOR~{from}")).collect();
                Error::invalid(place, &field, format!("`|{}|`", listed.join("|")), format!("`{node}`"))
            };
            let inner = node.strip_prefix('|').and_then(|node| node.strip_suffix('|')).ok_or_else(wrong)?;
            let parts: Vec<&str> = inner.split('|').collect();
            if parts.len() != edges.len() {
                return Err(wrong());
            }
            for (from, (part, &edge)) in parts.into_iter().zip(edges).enumerate() {
                let name = part.strip_suffix(&format!("~{from}")).ok_or_else(wrong)?;
                let operator = CellOperator::ALL.into_iter().find(|operator| operator.name() == name);
                let operator = operator.ok_or_else(|| genome.refuse(edge.gene(), place, name))?;
                genome.choose(row, edge, operator, place)?;
            }
        }
        Ok(())
    }

    /// The operators of the edges, in the order of the text; last the resolution.
    fn features(&self) -> Vec<GeneId> {
        let edges = self.edges.iter().flatten().map(|edge| edge.gene());
        edges.chain([self.ends.resolution.gene()]).collect()
    }

    fn describe(&self, genome: &Genome) -> Vec<String> {
        let CellFile { nodes, channels, cells, .. } = &self.file;
        let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
        let mut lines = vec![
            format!(
                "{} stages of {cells} cells, {} channels; a residual block of stride 2 between stages",
                channels.len(),
                channels.join(", ")
            ),
            format!("cell: {nodes} nodes, {} edges; a node is the sum of its edges", self.edges_of_cell()),
        ];
        let edge = self.edges[0][0].gene();
        let names: Vec<String> = genome.values_of(edge).map(|value| value.to_string()).collect();
        lines.push(format!("edge: {}", names.join(", ")));
        lines
    }
}

#[cfg(test)]
mod tests;
