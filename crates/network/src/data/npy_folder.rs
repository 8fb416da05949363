//! Folders of numpy arrays, one folder per class, laid out as folders of images are: `train/CLASS/NAME.npy`, optional `val/`
//! and `test/` alike.
//!
//! All arrays have one shape and lie in memory as f32; an unusable one is an error, since arrays are not made by hand.

use std::path::{Path, PathBuf};

use base::file;
use rayon::prelude::*;

use super::about::About;
use super::catalogue::Files;
use super::dataset::{Dataset, Late};
use super::folder;
use super::image_set::ImageSet;
use super::look::{Hashed, doubled, held_out};
use super::npy::{NpyArray, shown};
use super::passed_over::Contents;
use super::{Split, Splits};
use crate::error::{Error, Result};

/// Arrays that are read together, by all threads: more of them would lie in memory twice.
const AT_ONCE: usize = 256;

/// The data set in `folder`. Arrays are not mirrored by default: time has a direction.
pub(super) fn open(folder: &Path, about: impl Fn(&Path) -> Result<About>) -> Result<Dataset> {
    let Files { origin, classes, train, val, test, val_from, mut warnings } =
        folder::list(folder, Contents::Arrays, |at: &Path| {
            let about = about(at)?;
            Ok(About { flip: about.flip.or(Some(false)), ..about })
        })?;
    let test = match test {
        Some(Late::Folder(test)) => {
            Some(folder::list_split(Split::Test, &test, Contents::Arrays, &classes, &mut warnings)?.files)
        }
        _ => None,
    };
    let mut reading = Reading::default();
    let place = train.place.clone();
    let train = reading.read(train.files)?;
    let (train, val) = match val {
        Some(val) => (train, reading.read(val.files)?),
        None => train.hold_out(&place, &classes)?,
    };
    let test = test.map(|test| reading.read(test)).transpose()?;
    warnings.extend(doubled("array", val.hashed(Split::Val), train.hashed(Split::Train)));
    if let Some(test) = &test {
        warnings.extend(doubled("array", test.hashed(Split::Test), train.hashed(Split::Train)));
        warnings.extend(doubled("array", test.hashed(Split::Test), val.hashed(Split::Val)));
    }
    let set = |arrays: Arrays| reading.set(arrays, classes.len());
    let splits = Splits {
        train: set(train)?.into(),
        val: set(val)?.into(),
        test: test.map(set).transpose()?.map(Into::into),
    };
    Ok(Dataset::new(origin, classes.clone(), splits)?.with_val_from(val_from).with_warnings(warnings))
}

/// Arrays of a split.
struct Arrays {
    values: Vec<f32>,
    labels: Vec<u32>,
    /// Each file with the BLAKE3 of its content.
    contents: Vec<(PathBuf, [u8; 32])>,
}

/// The first array's path and shape, which all others must have.
#[derive(Default)]
struct Reading {
    first: Option<(PathBuf, [usize; 3])>,
}

impl Reading {
    /// The arrays of some files, in their order.
    fn read(&mut self, files: Vec<(PathBuf, u32)>) -> Result<Arrays> {
        let mut arrays =
            Arrays { values: Vec::new(), labels: Vec::new(), contents: Vec::with_capacity(files.len()) };
        for files in files.chunks(AT_ONCE) {
            // of several errors that of the first file counts, so that it is the same each time
            let read: Vec<_> = files.par_iter().map(|(path, _)| read_file(path)).collect();
            for ((path, label), read) in files.iter().zip(read) {
                let (values, shape, hash) = read?;
                self.check_shape(path, shape)?;
                arrays.values.extend(values);
                arrays.labels.push(*label);
                arrays.contents.push((path.clone(), hash));
            }
        }
        Ok(arrays)
    }

    /// Whether an array has the shape of the first.
    fn check_shape(&mut self, path: &Path, shape: [usize; 3]) -> Result<()> {
        let (first, expected) = self.first.get_or_insert_with(|| (path.to_path_buf(), shape));
        if shape == *expected {
            return Ok(());
        }
        let expected = format!("{} as in {}", maps(*expected), first.display());
        Err(Error::invalid(path.display(), "shape", expected, maps(shape))
            .and_then_do("make all arrays of one shape"))
    }

    fn set(&self, arrays: Arrays, classes: usize) -> Result<ImageSet> {
        let shape = self.first.as_ref().map_or([0; 3], |(_, shape)| *shape);
        ImageSet::of_floats(arrays.values, arrays.labels, shape, classes)
    }
}

/// `[H, W, C]` as its file has it.
fn maps([height, width, channels]: [usize; 3]) -> String {
    if channels == 1 { shown(&[height, width]) } else { shown(&[channels, height, width]) }
}

fn read_file(path: &Path) -> Result<(Vec<f32>, [usize; 3], [u8; 32])> {
    let place = path.display().to_string();
    let bytes = file::read(path)?;
    let (values, shape) = NpyArray::from_bytes(&place, &bytes)?.into_image(&place)?;
    Ok((values, shape, *blake3::hash(&bytes).as_bytes()))
}

impl Arrays {
    /// The files as those of a split.
    fn hashed(&self, split: Split) -> Hashed<impl Iterator<Item = (&PathBuf, &[u8; 32])>> {
        Hashed { split, files: self.contents.iter().map(|(path, hash)| (path, hash)) }
    }

    /// Validation arrays where there are none by themselves: a tenth of each class.
    fn hold_out(self, place: &Path, classes: &[String]) -> Result<(Self, Self)> {
        let held_out = held_out("arrays", &self.labels, place, classes)?;
        let size = self.values.len() / self.labels.len();
        let part = |held: bool| {
            let places = held_out.iter().enumerate().filter(|(_, out)| **out == held).map(|(place, _)| place);
            let mut part = Self { values: Vec::new(), labels: Vec::new(), contents: Vec::new() };
            for place in places {
                part.values.extend_from_slice(&self.values[place * size..(place + 1) * size]);
                part.labels.push(self.labels[place]);
                part.contents.push(self.contents[place].clone());
            }
            part
        };
        Ok((part(false), part(true)))
    }
}

#[cfg(test)]
mod tests;
