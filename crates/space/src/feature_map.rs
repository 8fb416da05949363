//! Sizes of the maps between layers.

use crate::value::Extent;

/// Channels, height and width of a map between layers, for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureMap {
    /// Number of channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FeatureMap {
    /// The given number of channels of the given extent.
    pub fn of(channels: usize, extent: Extent) -> Self {
        Self { channels, height: extent.height, width: extent.width }
    }

    /// Height and width.
    pub fn extent(self) -> Extent {
        Extent { height: self.height, width: self.width }
    }

    /// Values in the map of one image.
    pub fn len(self) -> usize {
        self.channels * self.plane()
    }

    /// Whether the map is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Values in one channel of one image.
    pub fn plane(self) -> usize {
        self.height * self.width
    }
}
