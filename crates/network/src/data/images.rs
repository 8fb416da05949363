//! The images of a split: pixels in memory, or files that are decoded on request.

use space::Extent;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::file;

use super::augment::{normalize, show};
use super::image_file::{ImageFile, InTurn};
use super::image_set::{Image, ImageSet};
use super::pixels::{PixelKind, Pixels};
use super::preprocess::{Decoding, Filter, Preprocess};
use super::room::Taken;
use super::view_cache::ViewCache;
use crate::error::{Error, Result};

/// Labeled images of a split; never empty.
#[derive(Debug, Clone)]
pub enum Images {
    /// Of one size, in memory.
    Pixels(Arc<ImageSet>),
    /// Of any size, in files.
    Files(ImageFiles),
}

/// Labeled image files.
#[derive(Debug, Clone)]
pub struct ImageFiles {
    paths: Arc<Vec<PathBuf>>,
    labels: Arc<Vec<u32>>,
    /// BLAKE3 of each file.
    hashes: Arc<Vec<[u8; 32]>>,
    decoding: Decoding,
    views: Arc<ViewCache>,
}

/// One loaded image.
#[derive(Debug, Clone)]
pub struct Loaded<'a> {
    pixels: LoadedPixels<'a>,
    shape: [usize; 3],
    fraction: usize,
    _room: Option<Taken>,
}

/// The values of a loaded image: in memory, or of a decoded file.
#[derive(Debug, Clone)]
enum LoadedPixels<'a> {
    There(Pixels<'a>),
    Decoded(Vec<u8>),
}

impl Loaded<'_> {
    /// The image.
    ///
    /// # Errors
    /// None for an image that was loaded: its size was checked.
    pub fn image(&self) -> Result<Image<'_>> {
        let pixels = match &self.pixels {
            LoadedPixels::There(pixels) => *pixels,
            LoadedPixels::Decoded(bytes) => Pixels::Bytes(bytes),
        };
        Image::of_pixels(pixels, self.shape)
    }

    /// The fraction of its sides at which it was decoded; 1 for whole.
    pub(super) fn fraction(&self) -> usize {
        self.fraction
    }
}

impl ImageFiles {
    /// Files with their labels and hashes, and how they are decoded. The caller has seen to it that there is at least one.
    pub(super) fn new(files: Vec<(PathBuf, u32)>, hashes: Vec<[u8; 32]>, decoding: Decoding) -> Self {
        let (paths, labels): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        Self {
            paths: paths.into(),
            labels: labels.into(),
            hashes: hashes.into(),
            decoding,
            views: Arc::default(),
        }
    }

    /// Each file with the hash of its content.
    pub(super) fn contents(&self) -> impl Iterator<Item = (&PathBuf, &[u8; 32])> {
        self.paths.iter().zip(self.hashes.iter())
    }

    fn load(&self, i: usize, fraction: impl FnOnce([usize; 2]) -> usize) -> Result<Loaded<'static>> {
        let path: &Path = &self.paths[i];
        let Decoding { orient, grey, channels } = self.decoding;
        let bytes = file::read(path)?;
        let how = InTurn { orient, fraction };
        let file = ImageFile::from_bytes_in_turn(&path.display().to_string(), &bytes, how)?;
        let [height, width] = file.size();
        let fraction = file.fraction();
        let room = file.room();
        let pixels = file
            .into_pixels(channels, grey)
            .ok_or_else(|| Error::invalid(path.display(), "channels", "1 or 3", channels))?;
        Ok(Loaded {
            pixels: LoadedPixels::Decoded(pixels),
            shape: [height, width, channels],
            fraction,
            _room: Some(room),
        })
    }
}

impl From<ImageSet> for Images {
    fn from(set: ImageSet) -> Self {
        Self::Pixels(Arc::new(set))
    }
}

impl Images {
    /// The same images with another decoding; `views` says whether evaluation views are shown again and may be cached.
    ///
    /// # Errors
    /// If the images cannot be converted to these channels.
    pub(super) fn decoded_as(&self, place: &str, decoding: Decoding, views: bool) -> Result<Self> {
        let wrong = || {
            let expected = format!("{} for the network, or 1 or 3", decoding.channels);
            Error::invalid(place, "channels", expected, self.channels())
        };
        match self {
            Self::Pixels(_) if decoding.channels == self.channels() => Ok(self.clone()),
            Self::Pixels(set) => {
                set.with_channels(decoding.channels, decoding.grey).map(Self::from).ok_or_else(wrong)
            }
            Self::Files(_) if ![1, 3].contains(&decoding.channels) => Err(wrong()),
            Self::Files(files) if views && files.decoding == decoding => Ok(self.clone()),
            Self::Files(files) => {
                Ok(Self::Files(ImageFiles { decoding, views: Arc::default(), ..files.clone() }))
            }
        }
    }

    /// The same images with each label replaced by its entry in `labels`.
    pub(super) fn relabelled(&self, labels: &[u32]) -> Self {
        match self {
            Self::Pixels(set) => set.relabelled(labels).into(),
            Self::Files(files) => {
                let labels = files.labels.iter().map(|label| labels[*label as usize]).collect();
                Self::Files(ImageFiles { labels: Arc::new(labels), ..files.clone() })
            }
        }
    }

    /// Number of images; at least 1.
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
            Self::Files(files) => files.decoding.channels,
        }
    }

    /// Kind of the values of every image.
    pub fn kind(&self) -> PixelKind {
        match self {
            Self::Pixels(set) => set.kind(),
            Self::Files(_) => PixelKind::Bytes,
        }
    }

    /// The file of image `i`, which is below [`Images::len`]; none of an image in memory.
    pub fn path(&self, i: usize) -> Option<&Path> {
        match self {
            Self::Pixels(_) => None,
            Self::Files(files) => Some(&files.paths[i]),
        }
    }

    /// Whether an image is there at once; else it takes a worker's time to decode.
    pub fn in_memory(&self) -> bool {
        matches!(self, Self::Pixels(_))
    }

    /// Writes the evaluation view of image `i` at a resolution, normalized, to `out` [C, rows, columns].
    /// Views of files that are rounded to 8 bits are cached, as many as there is room for, and not decoded again.
    ///
    /// # Errors
    /// As [`Images::load`].
    pub(super) fn plain_view(
        &self,
        i: usize,
        resolution: Extent,
        preprocess: &Preprocess,
        out: &mut [f32],
    ) -> Result<()> {
        let views = match (self, preprocess.filter) {
            (Self::Files(files), Filter::BilinearRounded) => Some(&files.views),
            _ => None,
        };
        match views.and_then(|views| views.get(i, resolution)) {
            Some(view) => out.iter_mut().zip(view.iter()).for_each(|(out, value)| *out = f32::from(*value)),
            None => {
                show(self.load(i)?.image()?, resolution, preprocess, out);
                if let Some(views) = views {
                    views.keep(i, resolution, out);
                }
            }
        }
        normalize(out, resolution, preprocess);
        Ok(())
    }

    /// Some of the images, in the same order: those of these places, which rise.
    pub(super) fn only(&self, places: &[usize]) -> Self {
        match self {
            Self::Pixels(set) => {
                let kept = set.filter(|i| places.binary_search(&i).is_ok());
                kept.map_or_else(|| self.clone(), Self::from)
            }
            Self::Files(files) => {
                let kept = places.iter().map(|i| (files.paths[*i].clone(), files.labels[*i])).collect();
                let hashes = places.iter().map(|i| files.hashes[*i]).collect();
                Self::Files(ImageFiles::new(kept, hashes, files.decoding))
            }
        }
    }

    /// Image `i`, which is below [`Images::len`].
    ///
    /// # Errors
    /// If its file can no longer be read or decoded.
    pub fn load(&self, i: usize) -> Result<Loaded<'_>> {
        self.load_at(i, |_| 1)
    }

    /// Loads image `i`, at a fraction of its sides if its format allows: `fraction` gets height and width of the whole,
    /// once.
    pub(super) fn load_at(&self, i: usize, fraction: impl FnOnce([usize; 2]) -> usize) -> Result<Loaded<'_>> {
        match self {
            Self::Pixels(set) => {
                let [height, width, _] = set.shape();
                fraction([height, width]);
                let pixels = LoadedPixels::There(set.pixels(i));
                Ok(Loaded { pixels, shape: set.shape(), fraction: 1, _room: None })
            }
            Self::Files(files) => files.load(i, fraction).map_err(|error| {
                error.and_then_do("it was sound when the command began; put it back and resume")
            }),
        }
    }
}
