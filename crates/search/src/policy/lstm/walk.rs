//! The steps of an LSTM along a row: what each reads, and what is decided after it.

use space::{Genome, Index, NodeGene, NodeRole};

use super::super::{RowOdds, odds_of, softmax};
use super::{Lstm, State};

/// What a step reads.
#[derive(Clone)]
pub(super) enum Input {
    /// Weights from this place on: an embedding, or the first input.
    Weights(usize),
    /// The sum of the anchors of nodes, each times this share.
    Anchors { steps: Vec<usize>, share: f64 },
}

/// A step of the LSTM, with all that its gradient needs.
pub(super) struct Step {
    pub input: Input,
    pub values: Vec<f64>,
    pub before: State,
    /// Input, forget and output gate, and the new content.
    pub gates: Vec<f64>,
    pub after: State,
    pub decisions: Vec<Decision>,
}

/// A choice that was made after a step.
pub(super) struct Decision {
    pub choice: Choice,
    /// Of the values that could be chosen.
    pub probabilities: Vec<f64>,
    pub chosen: usize,
}

/// What was chosen among.
pub(super) enum Choice {
    /// Values of a gene, with the logits divided by the temperature, before the tanh.
    Value { gene: usize, tempered: Vec<f64> },
    /// Nodes, by the steps that are their anchors. A single one is a link: not taken, or taken.
    Nodes(Vec<(usize, Attention)>),
}

/// The attention of a hidden state on a node's anchor.
pub(super) struct Attention {
    /// `tanh(W1 anchor + W2 hidden)`.
    pub scores: Vec<f64>,
    /// The logit divided by the temperature, before the tanh.
    pub tempered: f64,
}

impl Decision {
    /// Whether it is a link, of logits `-q` and `q`.
    pub fn is_link(&self) -> bool {
        matches!(&self.choice, Choice::Nodes(nodes) if nodes.len() < self.probabilities.len())
    }

    /// How sure the policy was of it.
    pub fn odds(&self) -> RowOdds {
        odds_of(&self.probabilities, self.chosen)
    }
}

/// A walk along the genes of a row.
pub(super) struct Walk<'a> {
    lstm: &'a Lstm,
    steps: Vec<Step>,
    input: Input,
    state: State,
    /// The step that is the anchor of each node so far.
    anchors: Vec<usize>,
    /// The node that is being decided, if one is, and the anchors that it has been linked to.
    node: Option<(usize, Linked)>,
}

/// The links of a node so far.
#[derive(Default)]
struct Linked {
    is_asked: bool,
    steps: Vec<usize>,
}

impl<'a> Walk<'a> {
    /// The row that `choose` makes, given a gene and the probabilities of its values that may be drawn, and the steps.
    pub fn run(
        lstm: &'a Lstm,
        genome: &Genome,
        mut choose: impl FnMut(usize, &[f64]) -> usize,
    ) -> (Vec<Index>, Vec<Step>) {
        let input = Input::Weights(lstm.first_input());
        let state = lstm.rest();
        let mut walk = Self { lstm, steps: Vec::new(), input, state, anchors: Vec::new(), node: None };
        let mut row = vec![0; genome.len()];
        for gene in 0..genome.len() {
            if genome.exists(&row, gene) {
                let chosen = walk.decide(genome, gene, &mut choose);
                row[gene] = genome.allowed(gene)[chosen];
            }
        }
        (row, walk.steps)
    }

    /// Decides a gene; the place of its value among those that may be drawn.
    fn decide(
        &mut self,
        genome: &Genome,
        gene: usize,
        choose: &mut impl FnMut(usize, &[f64]) -> usize,
    ) -> usize {
        let allowed = genome.allowed(gene);
        match genome.genes()[gene].of_node {
            Some(NodeGene { node, role }) => {
                self.enter(node);
                match role {
                    NodeRole::Input { first } => {
                        let nodes = allowed.iter().map(|value| first + usize::from(*value)).collect();
                        self.read(nodes, |probabilities| choose(gene, probabilities))
                    }
                    NodeRole::Link { from } if allowed.len() == 1 => {
                        self.fixed_link(node, from, allowed[0] > 0);
                        0
                    }
                    // one of some other form is a value as any other
                    NodeRole::Link { from } if allowed.len() == 2 => {
                        self.link(node, from, |probabilities| choose(gene, probabilities))
                    }
                    NodeRole::Link { .. } | NodeRole::Property => {
                        self.value(gene, |probabilities| choose(gene, probabilities))
                    }
                }
            }
            None => {
                self.leave();
                self.value(gene, |probabilities| choose(gene, probabilities))
            }
        }
    }

    /// Takes a step; its place.
    fn advance(&mut self) -> usize {
        let size = self.lstm.settings.hidden;
        let values = match &self.input {
            Input::Weights(place) => self.lstm.weights.values[*place..place + size].to_vec(),
            Input::Anchors { steps, share } => {
                let mut sum = vec![0.0; size];
                for step in steps {
                    let anchor = &self.steps[*step].after.hidden;
                    sum.iter_mut().zip(anchor).for_each(|(sum, value)| *sum += share * value);
                }
                sum
            }
        };
        let (gates, after) = self.lstm.advance(&values, &self.state);
        let before = std::mem::replace(&mut self.state, after.clone());
        let input = self.input.clone();
        self.steps.push(Step { input, values, before, gates, after, decisions: Vec::new() });
        self.steps.len() - 1
    }

    /// Begins a node, unless it is begun; inputs before it get their anchors.
    fn enter(&mut self, node: usize) {
        if self.node.as_ref().is_some_and(|(current, _)| *current == node) {
            return;
        }
        self.leave();
        while self.anchors.len() < node {
            self.input = Input::Weights(self.lstm.first_input());
            let anchor = self.advance();
            self.anchors.push(anchor);
            self.input = Input::Weights(self.lstm.first_input());
        }
        self.node = Some((node, Linked::default()));
    }

    /// Makes the anchor of the node that is being decided, unless it has one.
    fn anchor(&mut self, node: usize) {
        if self.anchors.len() == node {
            let anchor = self.advance();
            self.anchors.push(anchor);
        }
    }

    /// Ends the node that is being decided, if one is.
    fn leave(&mut self) {
        let Some((node, linked)) = self.node.take() else { return };
        self.anchor(node);
        self.input = match linked.is_asked {
            true => {
                let share = 1.0 / (1.0 + linked.steps.len() as f64);
                Input::Anchors { steps: linked.steps, share }
            }
            false => Input::Weights(self.lstm.first_input()),
        };
    }

    /// Chooses a gene's value by its output weights.
    fn value(&mut self, gene: usize, choose: impl FnOnce(&[f64]) -> usize) -> usize {
        let at = self.advance();
        let tempered = self.lstm.tempered(gene, &self.steps[at].after.hidden);
        let logits: Vec<f64> = tempered.iter().map(|logit| self.lstm.squashed(*logit)).collect();
        let probabilities = softmax(&logits);
        let chosen = choose(&probabilities);
        let choice = Choice::Value { gene, tempered };
        self.steps[at].decisions.push(Decision { choice, probabilities, chosen });
        let size = self.lstm.settings.hidden;
        self.input = Input::Weights(self.lstm.places[self.lstm.kinds[gene]].1 + chosen * size);
        chosen
    }

    /// Chooses which node is read.
    fn read(&mut self, nodes: Vec<usize>, choose: impl FnOnce(&[f64]) -> usize) -> usize {
        let at = self.advance();
        let nodes: Vec<(usize, Attention)> =
            nodes.into_iter().map(|node| (self.anchors[node], self.attention(node, at))).collect();
        let logits: Vec<f64> =
            nodes.iter().map(|(_, attention)| self.lstm.squashed(attention.tempered)).collect();
        let probabilities = softmax(&logits);
        let chosen = choose(&probabilities);
        self.input = Input::Anchors { steps: vec![nodes[chosen].0], share: 1.0 };
        let choice = Choice::Nodes(nodes);
        self.steps[at].decisions.push(Decision { choice, probabilities, chosen });
        chosen
    }

    /// Chooses whether an earlier node is added to this one.
    fn link(&mut self, node: usize, from: usize, choose: impl FnOnce(&[f64]) -> usize) -> usize {
        self.anchor(node);
        let at = self.anchors[node];
        let attention = self.attention(from, at);
        let logit = self.lstm.squashed(attention.tempered);
        let probabilities = softmax(&[-logit, logit]);
        let chosen = choose(&probabilities);
        if let Some((_, linked)) = &mut self.node {
            linked.is_asked = true;
            if chosen == 1 {
                linked.steps.push(self.anchors[from]);
            }
        }
        let choice = Choice::Nodes(vec![(self.anchors[from], attention)]);
        self.steps[at].decisions.push(Decision { choice, probabilities, chosen });
        chosen
    }

    /// A link that is taken or not without a choice.
    fn fixed_link(&mut self, node: usize, from: usize, is_taken: bool) {
        self.anchor(node);
        if let Some((_, linked)) = &mut self.node {
            linked.is_asked = true;
            if is_taken {
                linked.steps.push(self.anchors[from]);
            }
        }
    }

    fn attention(&self, node: usize, at: usize) -> Attention {
        self.lstm.attend(&self.steps[self.anchors[node]], &self.steps[at].after.hidden)
    }
}
