//! The images of a split: pixels in memory, or files that are decoded when they are asked for.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::image_file::ImageFile;
use super::image_set::{Image, ImageSet};
use crate::error::{Error, Result};

/// Labelled images of a split; never empty.
#[derive(Debug, Clone)]
pub enum Images {
    /// Of one size, in memory.
    Pixels(ImageSet),
    /// Of any size, in files.
    Files(ImageFiles),
}

/// Labelled image files.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    paths: Vec<PathBuf>,
    labels: Vec<u32>,
    channels: usize,
}

/// One image that was asked for.
#[derive(Debug, Clone)]
pub struct Loaded<'a> {
    pixels: Cow<'a, [u8]>,
    shape: [usize; 3],
}

impl Loaded<'_> {
    /// The image.
    ///
    /// # Errors
    /// None for an image that was loaded: its size was checked.
    pub fn image(&self) -> Result<Image<'_>> {
        Image::new(&self.pixels, self.shape)
    }
}

impl ImageFiles {
    /// Files with their labels, to be decoded to so many channels (1 or 3). The caller has seen to it that there is at
    /// least one.
    pub(super) fn new(files: Vec<(PathBuf, u32)>, channels: usize) -> Self {
        let (paths, labels) = files.into_iter().unzip();
        Self { paths, labels, channels }
    }

    fn load(&self, i: usize) -> Result<Loaded<'static>> {
        let path: &Path = &self.paths[i];
        let file = ImageFile::read(path)?;
        let [height, width] = file.size();
        let wrong = || Error::invalid(path.display(), "channels", "1 or 3", self.channels);
        let pixels = file.into_pixels(self.channels).ok_or_else(wrong)?;
        Ok(Loaded { pixels: Cow::Owned(pixels), shape: [height, width, self.channels] })
    }
}

impl From<ImageSet> for Images {
    fn from(set: ImageSet) -> Self {
        Self::Pixels(set)
    }
}

impl Images {
    /// How many images there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a split is never empty")]
    pub fn len(&self) -> usize {
        self.labels().len()
    }

    /// The classes of all images, in order.
    pub fn labels(&self) -> &[u32] {
        match self {
            Self::Pixels(set) => set.labels(),
            Self::Files(files) => &files.labels,
        }
    }

    /// Channels of every image.
    pub fn channels(&self) -> usize {
        match self {
            Self::Pixels(set) => set.shape()[2],
            Self::Files(files) => files.channels,
        }
    }

    /// Whether an image is there at once; else it takes a worker's time to decode.
    pub fn in_memory(&self) -> bool {
        matches!(self, Self::Pixels(_))
    }

    /// Image `i`, which is below [`Images::len`].
    ///
    /// # Errors
    /// If its file can no longer be read or decoded.
    pub fn load(&self, i: usize) -> Result<Loaded<'_>> {
        match self {
            Self::Pixels(set) => Ok(Loaded { pixels: Cow::Borrowed(set.pixels(i)), shape: set.shape() }),
            Self::Files(files) => files.load(i).map_err(|error| {
                error.and_then_do("it was sound when the command began; put it back and resume")
            }),
        }
    }
}
