//! Weights of layers: their names, shapes and roles, and how a smaller weight lies in a big one.

/// A kind of normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Norm {
    /// Over the images of a batch, per channel; it has running statistics (Ioffe and Szegedy 2015).
    Batch,
    /// Over the channels of one position (Ba et al. 2016).
    Layer,
}

/// A weight's role, which decides its initial value, whether it decays, and whether it is an operand of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightRole {
    /// Filters of a convolution, `[O, I, k, k]`; initially He's normal values over the fan-out.
    Filters,
    /// Filters of a depthwise convolution, `[C, 1, k, k]`; initially He's normal values over the fan-out.
    DepthwiseFilters,
    /// Matrix of a linear layer, `[O, I]`; initially uniform in +-1/sqrt(fan-in).
    Matrix,
    /// Turns a larger depthwise kernel into a smaller one, `[k k, k k]`; initially the identity.
    KernelTransform,
    /// Bias of a convolution or a linear layer; initially zeros.
    Bias,
    /// Scale of a norm; initially ones.
    NormScale(Norm),
    /// Shift of a norm; initially zeros.
    NormShift(Norm),
}

impl WeightRole {
    /// Whether weight decay applies to it; norms and biases do not decay.
    pub fn decays(self) -> bool {
        match self {
            Self::Filters | Self::DepthwiseFilters | Self::Matrix | Self::KernelTransform => true,
            Self::Bias | Self::NormScale(_) | Self::NormShift(_) => false,
        }
    }

    /// Whether it is an operand of a matrix product.
    pub fn is_operand(self) -> bool {
        matches!(self, Self::Filters | Self::Matrix)
    }

    /// The place of a smaller weight of this role in a big one, per dimension: kernels of convolutions around the center,
    /// all else at the beginning.
    fn takes(self, dimensions: usize) -> Vec<Take> {
        let spatial = matches!(self, Self::Filters | Self::DepthwiseFilters);
        (0..dimensions)
            .map(|dimension| if spatial && dimension >= 2 { Take::Center } else { Take::Leading })
            .collect()
    }
}

/// The place of a smaller weight in a big one, in one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Take {
    /// At the beginning.
    Leading,
    /// Around the center.
    Center,
    /// In the leading part of each of this many equal blocks.
    Blocks(usize),
}

/// Name, shape and role of one weight, in PyTorch's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Name, such as `blocks.3.conv.depth_conv.conv.weight`.
    pub name: String,
    /// Shape, such as `[out, in, 1, 1]`.
    pub shape: Vec<usize>,
    /// Role.
    pub role: WeightRole,
    /// The place of a smaller weight in it, per dimension.
    pub takes: Vec<Take>,
}

impl WeightSpec {
    /// A weight in which smaller ones have the place that its role decides.
    pub fn new(name: impl Into<String>, shape: &[usize], role: WeightRole) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), role, takes: role.takes(shape.len()) }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the module that it is a parameter of: its own name without the last part.
    pub fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(module, _)| module)
    }

    /// Name of the batch norm whose scale it is. Running statistics have that name and shape.
    pub fn batch_norm(&self) -> Option<&str> {
        (self.role == WeightRole::NormScale(Norm::Batch)).then(|| self.module())
    }
}

/// An operator's weights, by the part of their names below the layer's.
#[derive(Default)]
pub(crate) struct WeightList(Vec<WeightSpec>);

impl WeightList {
    /// The weight called `leaf` of a part, which is the layer itself if its name is empty.
    pub fn push(&mut self, part: &str, leaf: &str, shape: &[usize], role: WeightRole) {
        let dot = if part.is_empty() { "" } else { "." };
        self.0.push(WeightSpec::new(format!("{part}{dot}{leaf}"), shape, role));
    }

    /// Filters and the batch norm after them.
    pub fn conv_norm(&mut self, part: &str, shape: [usize; 4]) {
        self.push(part, "conv.weight", &shape, WeightRole::Filters);
        self.batch_norm(part, shape[0]);
    }

    /// Filters of a depthwise convolution and the batch norm after them.
    pub fn depthwise_norm(&mut self, part: &str, channels: usize, kernel: usize) {
        self.push(part, "conv.weight", &[channels, 1, kernel, kernel], WeightRole::DepthwiseFilters);
        self.batch_norm(part, channels);
    }

    /// A batch norm.
    pub fn batch_norm(&mut self, part: &str, channels: usize) {
        self.push(part, "bn.weight", &[channels], WeightRole::NormScale(Norm::Batch));
        self.push(part, "bn.bias", &[channels], WeightRole::NormShift(Norm::Batch));
    }

    /// The weights in the order in which they were listed.
    pub fn into_specs(self) -> Vec<WeightSpec> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_decides() {
        for (role, decays, is_operand) in [
            (WeightRole::Filters, true, true),
            (WeightRole::DepthwiseFilters, true, false),
            (WeightRole::Matrix, true, true),
            (WeightRole::KernelTransform, true, false),
            (WeightRole::Bias, false, false),
            (WeightRole::NormScale(Norm::Batch), false, false),
            (WeightRole::NormShift(Norm::Layer), false, false),
        ] {
            assert_eq!((role.decays(), role.is_operand()), (decays, is_operand), "{role:?}");
        }
        let filters = WeightSpec::new("a.conv.weight", &[8, 4, 3, 3], WeightRole::Filters);
        assert_eq!(filters.takes, [Take::Leading, Take::Leading, Take::Center, Take::Center]);
        assert_eq!((filters.module(), filters.batch_norm(), filters.len()), ("a.conv", None, 288));
        let matrix = WeightSpec::new("a.5to3_matrix", &[9, 9], WeightRole::KernelTransform);
        assert_eq!(matrix.takes, [Take::Leading; 2]);
        for (norm, expected) in [(Norm::Batch, Some("a.bn")), (Norm::Layer, None)] {
            let scale = WeightSpec::new("a.bn.weight", &[8], WeightRole::NormScale(norm));
            assert_eq!(scale.batch_norm(), expected);
        }
    }
}
