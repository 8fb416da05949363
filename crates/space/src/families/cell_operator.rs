//! The operators that an edge of a cell can choose.

use serde::{Deserialize, Serialize};

use crate::builder::{Builder, Port, SlotName};
use crate::operators::Operator;
use crate::trace::fixed;
use crate::value::{Readable, Value};

/// What an edge does with the output of the node that it begins at, the largest first. The names are those of
/// NAS-Bench-201 (Dong and Yang 2020).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
pub(crate) enum CellOperator {
    /// ReLU, 5x5 convolution, batch norm.
    #[serde(rename = "nor_conv_5x5")]
    Conv5,
    /// ReLU, 3x3 convolution, batch norm.
    #[serde(rename = "nor_conv_3x3")]
    Conv3,
    /// ReLU, 1x1 convolution, batch norm.
    #[serde(rename = "nor_conv_1x1")]
    Conv1,
    /// Mean over 3x3; places outside of the map are not counted.
    #[serde(rename = "avg_pool_3x3")]
    AveragePool,
    /// Maximum over 3x3.
    #[serde(rename = "max_pool_3x3")]
    MaxPool,
    /// The output itself.
    #[serde(rename = "skip_connect")]
    Skip,
    /// No edge.
    #[serde(rename = "none")]
    None,
}

impl CellOperator {
    /// All operators.
    pub const ALL: [Self; 7] =
        [Self::Conv5, Self::Conv3, Self::Conv1, Self::AveragePool, Self::MaxPool, Self::Skip, Self::None];

    /// The name in files, in texts, and of its layers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv5 => "nor_conv_5x5",
            Self::Conv3 => "nor_conv_3x3",
            Self::Conv1 => "nor_conv_1x1",
            Self::AveragePool => "avg_pool_3x3",
            Self::MaxPool => "max_pool_3x3",
            Self::Skip => "skip_connect",
            Self::None => "none",
        }
    }

    /// The operator of its layer, which keeps channels and extent; `None` where it is no layer.
    fn layer(self) -> Option<Operator> {
        let conv = |kernel| Some(Operator::ReluConv { kernel, stride: 1 });
        match self {
            Self::Conv5 => conv(5),
            Self::Conv3 => conv(3),
            Self::Conv1 => conv(1),
            Self::AveragePool => Some(Operator::AveragePool { kernel: 3, stride: 1 }),
            Self::MaxPool => Some(Operator::MaxPool { stride: 1 }),
            Self::Skip | Self::None => None,
        }
    }

    /// The edge's output; `number` is the edge's among all of the network.
    pub fn push(self, b: &mut Builder<'_>, number: usize, x: &Port, channels: usize) -> Port {
        let Some(operator) = self.layer() else { return x.clone() };
        let name = SlotName::numbered(self.name(), number);
        b.push(name, &[x], fixed(channels), x.extent.clone(), |_| operator.clone())
    }
}

impl Readable for CellOperator {
    fn read(value: Value) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.value() == value)
    }

    fn value(self) -> Value {
        Value::Name(self.name())
    }
}
