//! The one shape walk: a space and a sub-network become a plain list of layers.
//!
//! Feature-map sizes and strides are walked here and nowhere else.

use super::layer::{Bottleneck, FeatureMap, LayerSpec, MbConv, Operator, Place, inner_channels};
use super::search_space::Family;
use super::{Arch, Block, SearchSpace, Stage};

/// Stages that a ResNet's stem is made of.
const STEM_STAGES: usize = 2;

/// Lowers a sub-network of `space`, already checked, to its layers in the order in which they run.
pub(super) fn lower(space: &SearchSpace, arch: &Arch) -> Vec<LayerSpec> {
    let side = arch.resolution;
    let mut walk = Walk::new(FeatureMap { channels: space.input_channels(), height: side, width: side });
    match space.family() {
        Family::MobileNetV3 | Family::ProxylessNas => walk.inverted_residuals(space, arch),
        Family::ResNetD => walk.resnet(space, arch),
    }
    let logits = FeatureMap { channels: space.classes(), height: 1, width: 1 };
    walk.push("classifier", Operator::Classifier, logits);
    walk.layers
}

struct Walk {
    map: FeatureMap,
    layers: Vec<LayerSpec>,
    blocks: usize,
}

/// A stage with what was chosen for it.
struct Chosen<'a> {
    stage: &'a Stage,
    index: usize,
    channels: usize,
    blocks: &'a [Block],
}

fn chosen<'a>(space: &'a SearchSpace, arch: &'a Arch) -> Vec<Chosen<'a>> {
    let stages = space.stages().iter().zip(&arch.stages).enumerate();
    let of = |(index, (stage, blocks)): (usize, (&'a Stage, &'a Vec<Block>))| Chosen {
        stage,
        index,
        channels: stage.channels_at(arch.widths.get(index).copied()),
        blocks,
    };
    stages.map(of).collect()
}

impl Walk {
    fn new(image: FeatureMap) -> Self {
        Self { map: image, layers: Vec::new(), blocks: 0 }
    }

    fn push(&mut self, name: &str, operator: Operator, output: FeatureMap) {
        let inputs = self.layers.len().checked_sub(1).into_iter().collect();
        let (name, input) = (name.to_string(), self.map);
        self.layers.push(LayerSpec { name, slot: None, place: None, operator, input, output, inputs });
        self.map = output;
    }

    /// Says of the layer that was pushed last where it stands in the largest network.
    fn stands(&mut self, slot: usize, place: Option<Place>) {
        if let Some(layer) = self.layers.last_mut() {
            (layer.slot, layer.place) = (Some(slot), place);
        }
    }

    fn push_block(&mut self, operator: Operator, output: FeatureMap, slot: usize, place: Option<Place>) {
        self.push(&format!("blocks.{}", self.blocks), operator, output);
        self.stands(slot, place);
        self.blocks += 1;
    }

    fn pool(&mut self) {
        self.push("pool", Operator::Pool, FeatureMap { channels: self.map.channels, height: 1, width: 1 });
    }
}

/// MobileNetV3 and ProxylessNAS.
impl Walk {
    fn inverted_residuals(&mut self, space: &SearchSpace, arch: &Arch) {
        let stem = space.stem();
        let operator = Operator::Stem { kernel: 3, stride: stem.stride, activation: stem.activation };
        self.push("first_conv", operator, self.map.through(stem.channels, stem.stride));
        self.first_block(space);
        let mut slot = 1;
        for chosen in chosen(space, arch) {
            for position in 0..chosen.blocks.len() {
                self.inverted_residual(&chosen, position, slot + position);
            }
            slot += chosen.stage.choices.max_depth();
        }
        self.head(space);
    }

    /// The one block that is not elastic: kernel 3, no expansion. ProxylessNAS never has a shortcut there.
    fn first_block(&mut self, space: &SearchSpace) {
        let (Some(first), mid) = (space.first_block(), self.map.channels) else { return };
        let block = MbConv {
            kernel: 3,
            stride: 1,
            mid,
            expansion: false,
            activation: first.activation,
            squeeze: None,
            residual: mid == first.channels && space.family() == Family::MobileNetV3,
        };
        self.push_block(Operator::MbConv(block), self.map.through(first.channels, 1), 0, None);
    }

    fn inverted_residual(&mut self, chosen: &Chosen, position: usize, slot: usize) {
        let &Chosen { stage, channels, index, blocks } = chosen;
        let Block { kernel, expand } = blocks[position];
        let stride = if position == 0 { stage.stride } else { 1 };
        let mid = inner_channels(expand, self.map.channels);
        let block = MbConv {
            kernel,
            stride,
            mid,
            expansion: true,
            activation: stage.activation,
            squeeze: stage.squeeze_excite.then(|| LayerSpec::squeeze_of(mid)),
            residual: stride == 1 && self.map.channels == channels,
        };
        let output = self.map.through(channels, stride);
        self.push_block(Operator::MbConv(block), output, slot, Some(Place { stage: index, position }));
    }

    fn head(&mut self, space: &SearchSpace) {
        let Some(head) = space.head() else { return };
        let activation = head.activation;
        // the names are those of the authors' two classes
        let name = if head.feature_channels.is_some() { "final_expand_layer" } else { "feature_mix_layer" };
        self.push(name, Operator::HeadConv { activation }, self.map.through(head.expand_channels, 1));
        self.pool();
        if let Some(channels) = head.feature_channels {
            let mixed = FeatureMap { channels, ..self.map };
            self.push("feature_mix_layer", Operator::FeatureMix { activation }, mixed);
        }
    }
}

/// ResNet, variant D.
impl Walk {
    fn resnet(&mut self, space: &SearchSpace, arch: &Arch) {
        let (stages, stem) = (chosen(space, arch), space.stem());
        let operator = Operator::Stem { kernel: 3, stride: stem.stride, activation: stem.activation };
        let channels = stages.first().map_or(stem.channels, |first| first.channels);
        self.push("input_stem.0", operator, self.map.through(channels, stem.stride));
        for chosen in &stages[..STEM_STAGES] {
            self.stem_convolutions(chosen);
        }
        self.push("max_pooling", Operator::MaxPool, self.map.through(self.map.channels, 2));
        let mut slot = 0;
        for (before, chosen) in stages[STEM_STAGES - 1..].iter().zip(&stages[STEM_STAGES..]) {
            for position in 0..chosen.blocks.len() {
                self.bottleneck(chosen, before.stage, position, slot + position);
            }
            slot += chosen.stage.choices.max_depth();
        }
        self.pool();
    }

    /// The stem's first stage keeps the channels and adds its input; the second changes them.
    fn stem_convolutions(&mut self, chosen: &Chosen) {
        let activation = chosen.stage.activation;
        for (position, block) in chosen.blocks.iter().enumerate() {
            let operator = Operator::Conv { kernel: block.kernel, activation, residual: chosen.index == 0 };
            let name = format!("input_stem.{}", self.layers.len());
            self.push(&name, operator, self.map.through(chosen.channels, 1));
            self.stands(1 + chosen.index, Some(Place { stage: chosen.index, position }));
        }
    }

    fn bottleneck(&mut self, chosen: &Chosen, before: &Stage, position: usize, slot: usize) {
        let &Chosen { stage, channels, index, blocks } = chosen;
        let Block { kernel, expand } = blocks[position];
        let stride = if position == 0 { stage.stride } else { 1 };
        // decided by what the stages can be, not by what was chosen: all sub-networks share the block's weights
        let same = stride == 1
            && before.channels == stage.channels
            && before.channels_by_width.len() <= 1
            && stage.channels_by_width.len() <= 1;
        let block = Bottleneck {
            kernel,
            stride,
            mid: inner_channels(expand, channels),
            activation: stage.activation,
            downsample: position == 0 && !same,
        };
        let output = self.map.through(channels, stride);
        self.push_block(Operator::Bottleneck(block), output, slot, Some(Place { stage: index, position }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler;

    #[test]
    fn layers_chain_and_blocks_are_numbered_as_they_stand() {
        let space = crate::preset("ofa-mbv3-w1.0").expect("a preset");
        let arch = crate::sampler::smallest(&space).at(160);
        let layers = space.lower(&arch).expect("legal");
        for (index, pair) in layers.windows(2).enumerate() {
            assert_eq!(pair[0].output, pair[1].input, "layer {index}");
            assert_eq!(pair[1].inputs, [index]);
        }
        let slots: Vec<_> = layers.iter().filter_map(|layer| layer.slot).collect();
        assert_eq!(slots, [0, 1, 2, 5, 6, 9, 10, 13, 14, 17, 18]);
        assert_eq!(layers[4].key(), "mbconv k3 s2 24-72-40 relu se24 @40x40");
        assert_eq!(layers[4].name, "blocks.3");
        assert_eq!(layers[4].shared_name(), "blocks.5");
        assert_eq!(layers[4].place, Some(Place { stage: 1, position: 0 }));
    }

    #[test]
    fn a_skipped_stem_convolution_renumbers_the_next() {
        let space = crate::preset("ofa-resnet50").expect("a preset");
        for (arch, key, name, shared) in [
            (sampler::largest(&space), "conv k3 32-32 relu skip @112x112", "input_stem.1", "input_stem.1"),
            (sampler::smallest(&space), "conv k3 24-40 relu @64x64", "input_stem.1", "input_stem.2"),
        ] {
            let layer = &space.lower(&arch).expect("legal")[1];
            assert_eq!(
                (layer.key().as_str(), layer.name.as_str(), layer.shared_name().as_str()),
                (key, name, shared)
            );
        }
        let layers = space.lower(&sampler::largest(&space)).expect("legal");
        assert_eq!(layers[4].key(), "bottleneck k3 s1 64-88-256 relu down @56x56");
        assert_eq!(layers[5].key(), "bottleneck k3 s1 256-88-256 relu @56x56");
    }

    #[test]
    fn a_shortcut_between_elastic_widths_is_never_the_identity() {
        let text = include_str!("presets/tiny-resnet.toml");
        let twins = text.replace("channels = 64\nstride = 2", "channels = 80\nstride = 1");
        let space = SearchSpace::from_toml("twins", &twins).expect("a space");
        for arch in [sampler::smallest(&space), sampler::largest(&space)] {
            let layers = space.lower(&arch).expect("legal");
            let first = layers
                .iter()
                .find(|layer| layer.place == Some(Place { stage: STEM_STAGES + 1, position: 0 }))
                .expect("the second stage");
            assert!(matches!(first.operator, Operator::Bottleneck(Bottleneck { downsample: true, .. })));
        }
        let even = twins.replace("width = [0.5, 0.75, 1]\n", "");
        let space = SearchSpace::from_toml("even", &even).expect("a space");
        let layers = space.lower(&sampler::largest(&space)).expect("legal");
        let downs = layers.iter().filter(|layer| {
            matches!(layer.operator, Operator::Bottleneck(Bottleneck { downsample: true, .. }))
        });
        assert_eq!(downs.count(), 1, "after the stem alone");
    }
}
