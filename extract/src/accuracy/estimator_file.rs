//! The estimator on disk: layers as safetensors in PyTorch's order, everything else in one metadata key.

use std::collections::HashMap;
use std::path::Path;

use base::Error;
use base::document;
use base::document::sorted;
use base::file::{self, write_atomically};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use space::{Encoder, SearchSpace};

use super::perceptron::{Dense, Network};
use super::report::HeldOutReport;
use super::{AccuracyEstimator, EstimatorOrigin, Fitted, ImportedPredictor, MOST_LAYERS, ModelKind};
use crate::error::Result;

/// The one metadata key.
const METADATA: &str = "once-for-all";
/// The metadata's `kind`.
const KIND: &str = "estimator";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 3;
/// The form before it, whose reports are of rows that were held out; it is still read.
const HELD_OUT_VERSION: u32 = 2;
/// The first form, which knew fitted estimators only; it is still read.
const FITTED_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    kind: String,
    version: u32,
    model: ModelKind,
    space: SearchSpace,
    origin: EstimatorOrigin,
}

/// Version 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldOutMetadata {
    kind: String,
    #[serde(rename = "version")]
    _version: u32,
    model: ModelKind,
    space: SearchSpace,
    origin: HeldOutOrigin,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum HeldOutOrigin {
    Fitted(HeldOutFitted),
    Imported(ImportedPredictor),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldOutFitted {
    report: HeldOutReport,
    supernet: String,
}

impl From<HeldOutMetadata> for Metadata {
    fn from(old: HeldOutMetadata) -> Self {
        let HeldOutMetadata { kind, model, space, origin, .. } = old;
        let origin = match origin {
            HeldOutOrigin::Fitted(HeldOutFitted { report, supernet }) => {
                EstimatorOrigin::Fitted(Fitted { report: report.into(), supernet, unseen: None })
            }
            HeldOutOrigin::Imported(imported) => EstimatorOrigin::Imported(imported),
        };
        Self { kind, version: VERSION, model, space, origin }
    }
}

/// Version 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FittedMetadata {
    kind: String,
    #[serde(rename = "version")]
    _version: u32,
    model: ModelKind,
    space: SearchSpace,
    report: HeldOutReport,
    supernet: String,
}

impl From<FittedMetadata> for Metadata {
    fn from(old: FittedMetadata) -> Self {
        let FittedMetadata { kind, model, space, report, supernet, .. } = old;
        let origin = EstimatorOrigin::Fitted(Fitted { report: report.into(), supernet, unseen: None });
        Self { kind, version: VERSION, model, space, origin }
    }
}

impl AccuracyEstimator {
    /// The file's bytes; equal estimators have equal bytes.
    ///
    /// # Errors
    /// If the tensor format refuses the layers.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let metadata = Metadata {
            kind: KIND.to_string(),
            version: VERSION,
            model: self.model,
            space: self.space().clone(),
            origin: self.origin.clone(),
        };
        let value = serde_json::to_value(metadata).expect("checked numbers are finite and keys are text");
        let metadata = HashMap::from([(METADATA.to_string(), sorted(value).to_string())]);
        let mut tensors = Vec::new();
        for (index, layer) in self.network.layers.iter().enumerate() {
            let shape = vec![layer.outputs(), layer.inputs()];
            tensors.push((format!("layers.{index}.weight"), shape, little_endian(&layer.weight)));
            tensors.push((format!("layers.{index}.bias"), vec![layer.outputs()], little_endian(&layer.bias)));
        }
        tensors.push(("mean".to_string(), vec![1], little_endian(&[self.network.mean])));
        let mut views = Vec::with_capacity(tensors.len());
        for (name, shape, bytes) in &tensors {
            views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(refused)?));
        }
        Ok(safetensors::serialize(views, Some(metadata)).map_err(refused)?)
    }

    /// Writes the file, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, &self.to_bytes()?)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read, is not an estimator of this version, or its layers do not fit its space.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`AccuracyEstimator::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let unreadable = |error| Error::invalid(place, "format", "safetensors", error);
        let (_, front) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let text = front.metadata().as_ref().and_then(|map| map.get(METADATA)).map_or("", String::as_str);
        let metadata = read_metadata(place, text)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let encoder = Encoder::new(&metadata.space);
        let (layers, mean) = read_layers(place, &tensors, encoder.len())?;
        check_fitted(place, &metadata, &encoder)?;
        if (layers.len() == 1) != (metadata.model == ModelKind::Linear) {
            let expected = "one layer of a linear model, several of an mlp";
            return Err(Error::invalid(place, "number of layers", expected, layers.len()).into());
        }
        let network = Network::new(layers, mean)?;
        Ok(Self { encoder, network, model: metadata.model, origin: metadata.origin })
    }

    /// BLAKE3 of the file, in hexadecimal.
    ///
    /// # Errors
    /// As [`AccuracyEstimator::to_bytes`].
    pub fn hash(&self) -> Result<String> {
        Ok(blake3::hash(&self.to_bytes()?).to_hex().to_string())
    }
}

fn check_fitted(place: &str, metadata: &Metadata, encoder: &Encoder) -> Result<()> {
    let EstimatorOrigin::Fitted(Fitted { report, unseen, .. }) = &metadata.origin else { return Ok(()) };
    if report.model != metadata.model {
        let expected = format!("{:?}", metadata.model);
        let got = format!("{:?}", report.model);
        return Err(Error::invalid(place, "report.model", expected, got).into());
    }
    Ok(unseen.as_ref().map_or(Ok(()), |unseen| unseen.check(place, encoder))?)
}

fn refused(error: safetensors::SafeTensorError) -> Error {
    Error::invalid("estimator", "tensors", "what safetensors can hold", error)
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read_metadata(place: &str, text: &str) -> Result<Metadata> {
    const FORM: &str = "the metadata of an accuracy estimator";
    #[derive(Deserialize)]
    struct Front {
        version: u32,
    }
    match serde_json::from_str::<Front>(text).map(|front| front.version) {
        Ok(FITTED_VERSION) => {
            Ok(document::read::<FittedMetadata>(place, text, KIND, FITTED_VERSION, FORM)?.into())
        }
        Ok(HELD_OUT_VERSION) => {
            Ok(document::read::<HeldOutMetadata>(place, text, KIND, HELD_OUT_VERSION, FORM)?.into())
        }
        _ => Ok(document::read(place, text, KIND, VERSION, FORM)?),
    }
}

/// The layers, from the one that reads `inputs` features to the one with a single output, and the constant.
fn read_layers(place: &str, tensors: &SafeTensors, inputs: usize) -> Result<(Vec<Dense>, f32)> {
    let count = tensors.len().saturating_sub(1) / 2;
    if tensors.len().is_multiple_of(2) || !(1..=MOST_LAYERS).contains(&count) {
        let expected = format!("weight and bias of 1 to {MOST_LAYERS} layers, and the mean");
        return Err(Error::invalid(place, "number of tensors", expected, tensors.len()).into());
    }
    let mut layers: Vec<Dense> = Vec::with_capacity(count);
    for index in 0..count {
        let inputs = layers.last().map_or(inputs, Dense::outputs);
        let name = format!("layers.{index}.bias");
        let outputs =
            if index + 1 == count { 1 } else { tensor(place, tensors, &name)?.shape().iter().product() };
        let weight = values(place, tensors, &format!("layers.{index}.weight"), &[outputs, inputs])?;
        layers.push(Dense { weight, bias: values(place, tensors, &name, &[outputs])? });
    }
    Ok((layers, values(place, tensors, "mean", &[1])?[0]))
}

fn tensor<'a>(place: &str, tensors: &SafeTensors<'a>, name: &str) -> Result<TensorView<'a>> {
    Ok(tensors.tensor(name).map_err(|_| Error::invalid(place, name, "a tensor", "none"))?)
}

/// A tensor of finite f32 values with this shape, none of whose sizes is 0.
fn values(place: &str, tensors: &SafeTensors, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let view = tensor(place, tensors, name)?;
    if view.dtype() != Dtype::F32 || view.shape() != shape || shape.contains(&0) {
        let got = format!("{:?} {:?}", view.dtype(), view.shape());
        return Err(Error::invalid(place, name, format!("F32 {shape:?}"), got).into());
    }
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let values: Vec<f32> = view.data().chunks_exact(4).map(value).collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::invalid(place, name, "finite numbers", value).into()),
        None => Ok(values),
    }
}
