//! ONNX Runtime as an engine, from a shared library that is loaded on demand.

mod library;

use std::path::Path;

use candle_core::Tensor;
use latency::EngineFacts;
use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{IoBinding, Session, SessionOutputs};
use space::LayerSpec;

use super::engine::{Engine, Run};
use super::weights::{EPSILON, INPUT_RANGE, random, random_weights};
use crate::error::{Error, Result};
use crate::onnx;

/// Runs layers as ONNX models with random weights on ONNX Runtime's CPU provider: f32, all graph optimizations, its
/// own pool of threads, which spin while they wait, as they do by default.
#[derive(Debug)]
pub struct OnnxRuntimeEngine {
    environment: Environment,
    version: String,
    threads: usize,
    batch: usize,
}

impl OnnxRuntimeEngine {
    /// An engine that computes `batch` images at once with so many threads. `library` is ONNX Runtime's shared library
    /// (1.24 or newer), or a folder in which it lies; the first that is loaded stays for as long as the process runs.
    ///
    /// # Errors
    /// If there is no such library, if it is another one, an older one, or not that which the process has already, or
    /// if a number is 0.
    pub fn new(library: &Path, threads: usize, batch: usize) -> Result<Self> {
        for (field, value) in [("threads", threads), ("batch", batch)] {
            if value == 0 {
                return Err(base::Error::invalid("ONNX Runtime", field, "at least 1", value).into());
            }
        }
        let library::Loaded { environment, version, .. } = library::load(library)?;
        Ok(Self { environment, version, threads, batch })
    }

    fn load(&self, model: &[u8]) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .commit_from_memory(model)
    }

    /// A session of the model, with an input that stays where it is.
    fn session(&self, layers: &[LayerSpec], model: &[u8], input: &Tensor) -> ort::Result<Prepared> {
        let session = self.load(model)?;
        let [_, made] = onnx::shapes(layers, self.batch);
        let input = value(input)?;
        let mut binding = session.create_binding()?;
        binding.bind_input(onnx::INPUT, &input)?;
        binding.bind_output(onnx::OUTPUT, ort::value::Tensor::<f32>::new(&Allocator::default(), made)?)?;
        Ok(Prepared { session, binding })
    }
}

impl Engine for OnnxRuntimeEngine {
    fn describe(&self) -> EngineFacts {
        EngineFacts {
            engine: "onnxruntime".to_string(),
            engine_version: self.version.clone(),
            threads: self.threads,
            dtype: "f32".to_string(),
            batch: self.batch,
        }
    }

    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
        let model = onnx::model(layers, &random_weights(layers)?, EPSILON, self.batch)?;
        let [read, _] = onnx::shapes(layers, self.batch);
        let input = random(&read, INPUT_RANGE, "input")?;
        let mut prepared =
            self.session(layers, &model, &input).map_err(refused("a model that it can load"))?;
        Ok(Box::new(move || {
            prepared.run()?;
            Ok(())
        }))
    }
}

impl onnx::OnnxRuntime for OnnxRuntimeEngine {
    fn describe(&self) -> String {
        format!("onnxruntime {}", self.version)
    }

    fn run_model(&self, model: &[u8], inputs: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        let mut session = self.load(model).map_err(refused("a model that it can load"))?;
        let outputs = inputs.iter().map(|input| run_once(&mut session, input));
        outputs.map(|output| output.map_err(refused("a model that it can run"))).collect()
    }
}

/// The model's output for one input.
fn run_once(session: &mut Session, input: &Tensor) -> ort::Result<Vec<f32>> {
    let outputs = session.run(ort::inputs![onnx::INPUT => value(input)?])?;
    let output = outputs.get(onnx::OUTPUT).ok_or_else(|| ort::Error::new("no output of this name"))?;
    Ok(output.try_extract_tensor::<f32>()?.1.to_vec())
}

fn value(tensor: &Tensor) -> ort::Result<ort::value::Tensor<f32>> {
    let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(ort::Error::wrap)?;
    ort::value::Tensor::from_array((tensor.dims(), values))
}

/// A session with its input and its output, both in place: a run makes no tensor.
struct Prepared {
    session: Session,
    binding: IoBinding,
}

impl Prepared {
    fn run(&mut self) -> Result<SessionOutputs<'_>> {
        self.session.run_binding(&self.binding).map_err(refused("a model that it can run"))
    }
}

fn refused(expected: &'static str) -> impl FnOnce(ort::Error) -> Error {
    move |error| base::Error::invalid("ONNX Runtime", "model", expected, error).into()
}

#[cfg(test)]
mod tests {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    use std::path::PathBuf;
    use std::sync::Once;

    use kernels::Backend;
    use network::nn::{FoldedNetwork, MapSource, Network, Source};
    use space::{preset, sampler};

    use super::*;

    /// Relative to the largest value.
    const TOLERANCE: f32 = 1e-4;

    /// What is refused is tried before any library is loaded, since afterwards the process has one.
    static REFUSALS: Once = Once::new();

    /// An engine, where the variable says where the library is.
    fn engine(threads: usize, batch: usize) -> Option<OnnxRuntimeEngine> {
        REFUSALS.call_once(refusals);
        let Some(library) = std::env::var_os("ONNXRUNTIME_LIB").map(PathBuf::from) else {
            eprintln!("skipped: ONNXRUNTIME_LIB does not name a library of ONNX Runtime");
            return None;
        };
        Some(OnnxRuntimeEngine::new(&library, threads, batch).expect("a library"))
    }

    fn error(library: &Path) -> String {
        OnnxRuntimeEngine::new(library, 1, 1).expect_err("refused").to_string()
    }

    fn refusals() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("libonnxruntime.so");
        let said = error(&missing);
        assert!(said.starts_with(&format!("{}: cannot open the library: ", missing.display())), "{said}");
        let said = error(folder.path());
        assert!(said.contains("in this folder, got none; give the shared library"), "{said}");
        let name = |version| format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}{version}");
        std::fs::write(folder.path().join(name("")), "no library").expect("written");
        let said = error(folder.path()); // found by its name
        assert!(said.contains("expected a shared library of this system, got "), "{said}");
        std::fs::write(folder.path().join(name(".2")), "another").expect("written");
        let said = error(folder.path());
        assert!(said.ends_with("; give one of them"), "{said}");
    }

    #[test]
    fn what_is_no_library_is_refused() {
        REFUSALS.call_once(refusals);
        for (threads, batch) in [(0, 1), (1, 0)] {
            let said =
                OnnxRuntimeEngine::new(Path::new("."), threads, batch).expect_err("refused").to_string();
            assert!(said.ends_with("expected at least 1, got 0"), "{said}");
        }
    }

    /// The native engine's output of the layers, `[N, C', H', W']`.
    fn ours(layers: &[LayerSpec], input: &Tensor) -> Vec<f32> {
        let builder = MapSource::builder(random_weights(layers).expect("weights"));
        let source = Source::new(builder, &Backend::detect(), EPSILON);
        let network = FoldedNetwork::new(&Network::new(layers, &source).expect("a network")).expect("folded");
        let transposed = |tensor: &Tensor| tensor.transpose(0, 1).and_then(|tensor| tensor.contiguous());
        let maps = network.forward_maps(transposed(input).expect("maps")).expect("forward");
        let output = transposed(&maps).and_then(|output| output.flatten_all()).expect("maps");
        output.to_vec1().expect("f32")
    }

    fn assert_agrees(engine: &OnnxRuntimeEngine, what: &str, layers: &[LayerSpec]) {
        let model = onnx::model(layers, &random_weights(layers).expect("weights"), EPSILON, engine.batch)
            .expect("a model");
        let [read, _] = onnx::shapes(layers, engine.batch);
        let input = random(&read, INPUT_RANGE, what).expect("an input");
        let mut prepared = engine.session(layers, &model, &input).expect("loaded");
        let expected = ours(layers, &input);
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for _ in 0..2 {
            let outputs = prepared.run().expect("run");
            let (_, got) = outputs[onnx::OUTPUT].try_extract_tensor::<f32>().expect("f32");
            assert_eq!(got.len(), expected.len(), "{what}");
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() <= TOLERANCE * largest, "{what}: {got} not {expected}");
            }
        }
    }

    #[test]
    fn layers_and_networks_agree_with_our_own() {
        for (threads, batch) in [(1, 1), (2, 3)] {
            let Some(engine) = engine(threads, batch) else { return };
            let space = preset("tiny").expect("a preset");
            for (key, layer) in space.layers() {
                assert_agrees(&engine, &key, std::slice::from_ref(&layer));
            }
            for arch in [sampler::smallest(&space), sampler::largest(&space)] {
                assert_agrees(&engine, "tiny", &space.lower(&arch).expect("legal"));
            }
            for (name, side) in [("ofa-mbv3-w1.0", 128), ("ofa-proxyless-w1.0", 100), ("ofa-resnet50", 100)] {
                let space = preset(name).expect("a preset");
                let layers = space.lower(&sampler::smallest(&space).at(side)).expect("legal");
                assert_agrees(&engine, name, &layers);
            }
            // odd sizes, with every kind of layer that a ResNet has
            let space = preset("ofa-resnet50").expect("a preset");
            for layer in &space.lower(&sampler::largest(&space).at(100)).expect("legal")[..12] {
                assert_agrees(&engine, &layer.key(), &[layer.alone()]);
            }
        }
    }

    #[test]
    fn a_model_runs_on_any_number_of_images() {
        use crate::onnx::OnnxRuntime;
        let Some(engine) = engine(1, 1) else { return };
        let space = preset("tiny").expect("a preset");
        let layers = space.lower(&sampler::smallest(&space)).expect("legal");
        let weights = random_weights(&layers).expect("weights");
        let model = onnx::model_for_any_batch(&layers, &weights, EPSILON, Default::default());
        let model = model.expect("written");
        let inputs = [1, 3]
            .map(|batch| random(&onnx::shapes(&layers, batch)[0], INPUT_RANGE, "images").expect("an input"));
        let got = engine.run_model(&model, &inputs).expect("run");
        for (input, got) in inputs.iter().zip(&got) {
            let expected = ours(&layers, input);
            assert_eq!(got.len(), expected.len());
            let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() <= TOLERANCE * largest, "{got} not {expected}");
            }
        }
        let error = engine.run_model(&model[..model.len() / 2], &inputs).expect_err("refused").to_string();
        assert!(error.starts_with("ONNX Runtime: model: expected a model that it can load, got "), "{error}");
    }

    #[test]
    fn it_runs_what_it_prepared_and_says_what_it_is() {
        let Some(engine) = engine(1, 1) else { return };
        let mut nothing = engine.prepare(&[]).expect("prepared");
        nothing().expect("first");
        nothing().expect("again");
        let facts = engine.describe();
        assert_eq!((facts.engine.as_str(), facts.threads, facts.batch), ("onnxruntime", 1, 1));
        let version: Vec<u32> =
            facts.engine_version.split('.').map(|part| part.parse().expect(&facts.engine_version)).collect();
        assert!(version[0] == 1 && version[1] >= 24, "{}", facts.engine_version);
    }

    #[test]
    fn a_process_keeps_its_library() {
        let Some(_) = engine(1, 1) else { return };
        let other = tempfile::NamedTempFile::new().expect("a file");
        let said = error(other.path());
        assert!(said.ends_with("got another library; use another process for it"), "{said}");
    }
}
