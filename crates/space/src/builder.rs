//! Builds the layers of a family, and records which choices each depends on.
//!
//! Five rules keep dependence true and small. Traced values are opaque, and opened in a closure only. Each slot is
//! visited in every network, for absence depends on choices as well. Two sides of equal size are joined without the
//! condition that chooses between them: a block does not depend on the depths before it. A condition that holds for all
//! values folds away: the first block of a stage always exists. Channels and extent are traced separately.

use crate::feature_map::FeatureMap;
use crate::genome::{Choice, GeneId, GeneRow, Genome, Index};
use crate::layer::LayerSpec;
use crate::operators::{Maps, Operator};
use crate::trace::{Trace, Traced, fixed, traced};
use crate::value::{Extent, Readable};
use crate::weight::WeightSpec;

/// The name of a layer's slot, and of its shared weights: `classifier`, or `blocks.5` of a numbered list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName {
    /// The name of the layer or of its list.
    pub name: &'static str,
    /// The layer's number in the list.
    pub number: Option<usize>,
}

impl SlotName {
    /// A layer by itself.
    pub const fn one(name: &'static str) -> Self {
        Self { name, number: None }
    }

    /// A layer of a list.
    pub const fn numbered(name: &'static str, number: usize) -> Self {
        Self { name, number: Some(number) }
    }

    /// Whether `text` is this name.
    pub fn is(self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(self.name) else { return false };
        match self.number {
            None => rest.is_empty(),
            Some(number) => rest.strip_prefix('.').and_then(|rest| rest.parse().ok()) == Some(number),
        }
    }
}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        self.number.map_or(Ok(()), |number| write!(f, ".{number}"))
    }
}

/// The output of a layer, or the input of the network.
#[derive(Clone, Debug)]
pub struct Port {
    /// The node that makes it in this network; `None`: the input. It is not traced, so families cannot see it; no key
    /// has it.
    node: Option<usize>,
    /// Number of channels.
    pub channels: Traced<usize>,
    /// Height and width.
    pub extent: Traced<Extent>,
}

impl Port {
    /// A port of another extent in its place, for one that no layer reads.
    #[must_use]
    pub fn unread(&self, extent: Traced<Extent>) -> Self {
        Self { extent, ..self.clone() }
    }

    /// The port's extent after a stride.
    pub fn through(&self, stride: usize) -> Traced<Extent> {
        traced(|t| t.get(&self.extent).through(stride))
    }
}

/// A port that may not exist.
#[derive(Clone, Debug)]
pub struct Maybe {
    exists: Traced<bool>,
    port: Port,
}

impl Maybe {
    /// The port, or `other` where it does not exist. If both have one size, that size does not depend on the condition.
    pub fn or(self, other: &Port) -> Port {
        fn select<T: Copy + PartialEq>(
            exists: &Traced<bool>,
            own: &Traced<T>,
            other: &Traced<T>,
        ) -> Traced<T> {
            if own.value == other.value {
                return traced(|t| {
                    t.get(other);
                    t.get(own)
                });
            }
            traced(|t| if t.get(exists) { t.get(own) } else { t.get(other) })
        }
        Port {
            node: if self.exists.value { self.port.node } else { other.node },
            channels: select(&self.exists, &self.port.channels, &other.channels),
            extent: select(&self.exists, &self.port.extent, &other.extent),
        }
    }
}

/// The layer in a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// Operator.
    pub operator: Operator,
    /// First input.
    pub input: FeatureMap,
    /// Output.
    pub output: FeatureMap,
}

impl Layer {
    /// The layer's trainable weights, in forward order, by the part of their names below the layer's, such as
    /// `conv.point_linear.bn.weight`.
    pub fn weights(&self) -> Vec<WeightSpec> {
        self.operator.weights(Maps { input: self.input, output: self.output })
    }
}

/// A slot in one network.
#[derive(Clone, Debug)]
pub struct Node {
    /// The slot's name.
    pub slot: SlotName,
    /// The operator, and channels of its first input and its output; `None` where it does not exist. It is equal in any
    /// two networks with equal values of the choices that it depends on.
    pub(crate) what: Traced<Option<(Operator, [usize; 2])>>,
    /// The extents of its first input and its output, whether it exists or not.
    pub(crate) extents: Traced<[Extent; 2]>,
    /// The nodes that it reads; `None` is the input of the network.
    inputs: Vec<Option<usize>>,
}

impl Node {
    /// The layer in the slot.
    fn layer(&self) -> Option<Layer> {
        let (operator, [from, to]) = self.what.value.clone()?;
        let [input, output] = self.extents.value;
        Some(Layer { operator, input: FeatureMap::of(from, input), output: FeatureMap::of(to, output) })
    }
}

/// Builds one network.
#[derive(Debug)]
pub struct Builder<'a> {
    genome: &'a Genome,
    row: &'a GeneRow,
    /// Replaces the row's resolution.
    resolution: Option<Extent>,
    guard: Traced<bool>,
    nodes: Vec<Node>,
    /// In place of one network, a mixture: the values of each choice that it holds at once.
    mixture: Option<&'a [Vec<Index>]>,
    mixes: Vec<Mix>,
}

/// A place of a mixture where the outputs of several values of a choice are added, each with a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The number of the layer's slot.
    pub number: usize,
    /// The choice.
    pub gene: GeneId,
    /// The values, in the order of the layer's inputs; one whose output is zero is left out.
    pub values: Vec<Index>,
}

/// The list of a mixture's weighted sums.
pub const MIXES: &str = "mix";

impl<'a> Builder<'a> {
    /// Builds the network of a row; `resolution`, if given, replaces the row's.
    pub(crate) fn new(genome: &'a Genome, row: &'a GeneRow, resolution: Option<Extent>) -> Self {
        Self {
            genome,
            row,
            resolution,
            guard: fixed(true),
            nodes: Vec::new(),
            mixture: None,
            mixes: Vec::new(),
        }
    }

    /// Builds a mixture: the layers of all these values of each choice, where the family mixes them, and for other choices those
    /// of the row.
    pub(crate) fn of_mixture(self, values: &'a [Vec<Index>]) -> Self {
        Self { mixture: Some(values), ..self }
    }

    /// The slots, and the places where a mixture adds.
    pub(crate) fn finish_mixture(self) -> (Vec<Node>, Vec<Mix>) {
        (self.nodes, self.mixes)
    }

    /// The slots, in the order in which they were pushed.
    pub(crate) fn finish(self) -> Vec<Node> {
        self.nodes
    }

    /// The value of a choice.
    pub fn of<T: Readable>(&self, choice: Choice<T>) -> Traced<T> {
        let depends = self.genome.upward(choice.gene()).clone();
        Traced { value: self.genome.get(self.row, choice), depends }
    }

    /// Whether a choice's value passes the test. A test that all values pass does not depend on the choice.
    pub fn test<T: Readable>(&self, choice: Choice<T>, holds: impl Fn(T) -> bool) -> Traced<bool> {
        if let Some(mixture) = self.mixture {
            let values = mixture[choice.gene()].iter().filter_map(|value| self.read(choice, *value));
            return fixed(values.into_iter().any(holds));
        }
        let values = self.genome.genes()[choice.gene()].values.iter();
        let mut all = values.map(|value| T::read(*value).is_some_and(&holds));
        let first = all.next().unwrap_or(false);
        if all.all(|other| other == first) {
            return fixed(first);
        }
        let own = self.of(choice);
        Traced { value: holds(own.value), depends: own.depends }
    }

    /// The input of the network.
    pub fn input(&self, channels: usize, resolution: Choice<Extent>) -> Port {
        let mut extent = self.of(resolution);
        if let Some(other) = self.resolution {
            extent.value = other;
        }
        Port { node: None, channels: fixed(channels), extent }
    }

    /// Runs `body`; its layers exist where `exists` holds. It runs in any case, so that each slot is visited in each
    /// network.
    pub fn when(&mut self, exists: &Traced<bool>, body: impl FnOnce(&mut Self) -> Port) -> Maybe {
        let inside = traced(|t| t.get(&self.guard) && t.get(exists));
        let outside = std::mem::replace(&mut self.guard, inside);
        let port = body(self);
        self.guard = outside;
        Maybe { exists: exists.clone(), port }
    }

    /// Runs `body` for each value of a choice; its layers exist where that value is chosen. Returns the port of the
    /// chosen value. Ports of one size do not depend on the choice.
    pub fn one_of<T: Readable>(
        &mut self,
        choice: Choice<T>,
        mut body: impl FnMut(&mut Self, T) -> Port,
    ) -> Port {
        let values: Vec<T> =
            self.genome.genes()[choice.gene()].values.iter().filter_map(|value| T::read(*value)).collect();
        let mut alternatives = Vec::with_capacity(values.len());
        for value in values {
            let exists = self.test(choice, |other| other == value);
            alternatives.push(self.when(&exists, |b| body(b, value)));
        }
        // the last value needs no condition: it is chosen where no other is
        let last = alternatives.pop().map(|last| last.port);
        let chosen = alternatives.into_iter().rev().fold(last, |rest, one| rest.map(|rest| one.or(&rest)));
        chosen.expect("a choice has a value")
    }

    fn read<T: Readable>(&self, choice: Choice<T>, value: Index) -> Option<T> {
        T::read(self.genome.genes()[choice.gene()].values[usize::from(value)])
    }

    /// [`Builder::one_of`], and in a mixture the weighted sum of those values' ports; `is_zero` are those that add nothing,
    /// at least one is not. `number` is the place's among all of the network.
    pub fn mix_of<T: Readable>(
        &mut self,
        choice: Choice<T>,
        number: usize,
        is_zero: impl Fn(T) -> bool,
        mut body: impl FnMut(&mut Self, T) -> Port,
    ) -> Port {
        let Some(mixture) = self.mixture else { return self.one_of(choice, body) };
        let there: Vec<(Index, T)> = mixture[choice.gene()]
            .iter()
            .filter_map(|index| Some((*index, self.read(choice, *index)?)))
            .filter(|(_, value)| !is_zero(*value))
            .collect();
        let mut ports = Vec::with_capacity(there.len());
        for (_, value) in &there {
            ports.push(body(self, *value));
        }
        let Some(first) = ports.first() else {
            // nothing adds here, so that nothing reads the port
            let value = self.of(choice).value;
            return body(self, value);
        };
        let of = ports.len();
        if self.guard.value {
            let values = there.iter().map(|(index, _)| *index).collect();
            self.mixes.push(Mix { number, gene: choice.gene(), values });
        }
        let channels = first.channels.clone();
        let extent = first.extent.clone();
        let read: Vec<&Port> = ports.iter().collect();
        let slot = SlotName::numbered(MIXES, number);
        self.push(slot, &read, channels, extent, |_| Operator::WeightedSum { of })
    }

    /// The sum of those ports that exist, all of the size of `like`: a layer where there are several, the port itself
    /// where there is one, and a layer of zeros, which reads `like` for its size, where there is none.
    pub fn total(&mut self, [sum, zero]: [SlotName; 2], like: &Port, terms: &[Maybe]) -> Port {
        let count = traced(|t| terms.iter().filter(|term| t.get(&term.exists)).count());
        let there: Vec<&Port> =
            terms.iter().filter(|term| term.exists.value).map(|term| &term.port).collect();
        let several = traced(|t| t.get(&count) > 1);
        let none = traced(|t| t.get(&count) == 0);
        let of = traced(|t| t.get(&count).max(2));
        let read: &[&Port] = if there.len() > 1 { &there } else { &[like] };
        let summed = self.when(&several, |b| {
            b.push(sum, read, like.channels.clone(), like.extent.clone(), |t| Operator::Sum {
                of: t.get(&of),
            })
        });
        let zeros = self.when(&none, |b| {
            b.push(zero, &[like], like.channels.clone(), like.extent.clone(), |_| Operator::Zero)
        });
        summed.or(&zeros.or(there.first().copied().unwrap_or(like)))
    }

    /// Adds a layer with the given inputs, channels and extent. It depends on the sizes of its inputs and output, and
    /// on all values that `operator` opens.
    pub fn push(
        &mut self,
        slot: SlotName,
        inputs: &[&Port],
        channels: Traced<usize>,
        extent: Traced<Extent>,
        operator: impl Fn(&mut Trace) -> Operator,
    ) -> Port {
        let made = Port { node: Some(self.nodes.len()), channels, extent };
        let what = traced(|t| {
            let there = t.get(&self.guard);
            there.then(|| {
                let operator = operator(t);
                let read: Vec<usize> = inputs.iter().map(|port| t.get(&port.channels)).collect();
                (operator, [read[0], t.get(&made.channels)])
            })
        });
        let extents = traced(|t| {
            let read: Vec<Extent> = inputs.iter().map(|port| t.get(&port.extent)).collect();
            [read[0], t.get(&made.extent)]
        });
        let inputs = inputs.iter().map(|port| port.node).collect();
        self.nodes.push(Node { slot, what, extents, inputs });
        made
    }
}

/// Whether each existing layer reads the one before it and nothing else.
pub(crate) fn is_chain(nodes: &[Node]) -> bool {
    let mut before = None;
    for (at, node) in nodes.iter().enumerate() {
        if node.what.value.is_none() {
            continue;
        }
        if node.inputs != [before] {
            return false;
        }
        before = Some(at);
    }
    true
}

/// The existing layers, in the order in which they run; those of a numbered list are numbered by position.
pub(crate) fn layers(nodes: Vec<Node>) -> Vec<LayerSpec> {
    let mut places = Vec::with_capacity(nodes.len());
    let mut layers: Vec<LayerSpec> = Vec::with_capacity(nodes.len());
    let mut lists: Vec<(&str, usize)> = Vec::new();
    for node in nodes {
        places.push(layers.len());
        let Some(Layer { operator, input, output }) = node.layer() else { continue };
        let name = match node.slot.number {
            None => node.slot.name.to_string(),
            Some(_) => {
                let list = lists.iter().position(|(list, _)| *list == node.slot.name);
                let list = list.unwrap_or_else(|| {
                    lists.push((node.slot.name, 0));
                    lists.len() - 1
                });
                lists[list].1 += 1;
                format!("{}.{}", node.slot.name, lists[list].1 - 1)
            }
        };
        let inputs = node.inputs.iter().map(|input| input.map(|node| places[node])).collect();
        layers.push(LayerSpec { name, slot: node.slot.number, operator, input, output, inputs });
    }
    layers
}
