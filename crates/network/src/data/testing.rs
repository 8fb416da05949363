//! A small data set and comparable batches, for tests.

use std::sync::Arc;

use super::{Batch, Dataset, DatasetOrigin, ImageSet, Images, Splits, numbered_classes};
use crate::error::Result;

/// 23 training images of 4 x 4 pixels; image i has label i.
pub(super) fn dataset() -> Arc<Dataset> {
    dataset_of(1)
}

/// The same with more validation images.
pub(super) fn dataset_of(val: u32) -> Arc<Dataset> {
    let set = |count: u32| {
        let pixels = (0..count * 16).map(|i| (i * i % 251) as u8).collect();
        Images::from(ImageSet::new(pixels, (0..count).collect(), [4, 4, 1], 23).unwrap())
    };
    let origin = DatasetOrigin { name: "small".to_owned(), source: String::new(), flip: true };
    let splits = Splits { train: set(23), val: set(val), test: None };
    Arc::new(Dataset::new(origin, numbered_classes(23), splits).unwrap())
}

/// Shape, labels and values.
pub(super) type Content = (Vec<usize>, Vec<u32>, Vec<f32>);

pub(super) fn content(batch: Result<Batch>) -> Content {
    let batch = batch.unwrap();
    let values = batch.inputs.flatten_all().unwrap().to_vec1().unwrap();
    (batch.inputs.dims().to_vec(), batch.targets.classes().to_vec(), values)
}

/// The bytes of a `.npy` file with these words in its header.
pub(super) fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}
