//! `supernet import`: a supernet of PyTorch's `ofa` package as one of ours.

use std::path::{Path, PathBuf};

use base::timing::{Stopwatch, peak_rss_mb};
use command::{Common, Ending, grouped, result_path};
use network::checkpoint::{DescribedWeights, ImportSource, Interface, write_imported};
use network::data::{Normalization, Preprocess};
use network::pytorch::{Entries, Import, StateDict, import};
use serde_json::json;

use super::arguments::Shown;

/// Read the weights of a supernet of PyTorch's ofa package
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet import ofa_mbv3_d234_e346_k357_w1.0 --space ofa-mbv3-w1.0 --out supernet.safetensors
  extract export --supernet supernet.safetensors --arch random:1 --inherit-bn --out model

FILE is what torch.save wrote, zipped or before PyTorch 1.6, or safetensors with the same names.
What wraps the network (DataParallel, torch.compile, a trainer) is stripped from the names.
Nothing in it is executed.")]
pub struct Arguments {
    /// The file
    #[arg(value_name = "FILE.pth")]
    file: PathBuf,
    /// The space that the weights were trained in: a preset's name or a TOML file
    #[arg(long)]
    space: String,
    /// Entry of a checkpoint that holds the network, such as state_dict_ema [default: the first that is usual]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// What evaluation shows of an image: its `middle` square, or all of it (`stretch`) [default: middle, as the authors
    /// evaluate]
    #[arg(long, value_name = "middle|stretch")]
    resize: Option<Shown>,
    /// The supernet
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let watch = Stopwatch::start();
        plain_pages();
        let space = space::open(&self.space)?;
        not_the_input(&self.out, &self.file)?;
        let state = StateDict::read(&self.file, self.key.as_deref())?;
        let read = import(&space, &state)?;
        let imported = ImportSource {
            tool: env!("CARGO_PKG_VERSION").to_string(),
            file: self.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            blake3: state.hash(),
            container: state.container(),
            matrices_read: read.matrices_read,
            matrices_identity: read.matrices_identity,
            key: self.key.clone(),
        };
        let entries = state.entries().clone();
        let prefix = state.prefix().to_string();
        // the file's bytes are no longer needed: the written ones take their place in memory
        drop(state);
        // as the authors evaluate; in another number of channels their images are not known
        let preprocess = (space.input_channels() == 3).then(|| {
            let preprocess = Preprocess::photographs(Normalization::imagenet());
            self.resize.map_or(preprocess.clone(), |shown| shown.of(preprocess))
        });
        let interface = Interface { preprocess, classes: None };
        let described = DescribedWeights { space: &space, interface: &interface, weights: &read.weights };
        write_imported(&self.out, described, read.statistics.as_ref(), imported.clone())?;
        self.tell((space.name(), &read, &imported), (&entries, &prefix), watch.elapsed().as_secs_f64())?;
        Ok(Ending::Done)
    }

    fn tell(
        &self,
        (space, read, imported): (&str, &Import, &ImportSource),
        (entries, prefix): (&Entries, &str),
        seconds: f64,
    ) -> anyhow::Result<()> {
        let weights = read.weights.tensors();
        let parameters: usize = weights.values().map(|tensor| tensor.elem_count()).sum();
        let norms = read.statistics.as_ref().map_or(0, |statistics| statistics.len());
        let out = self.out.display().to_string();
        let document = json!({
            "file": imported.file, "blake3": imported.blake3, "container": imported.container, "space": space,
            "entry": entries.path.join("."), "other_networks": entries.others, "prefix": prefix,
            "tensors": weights.len(), "parameters": parameters, "statistics": norms, "dropped": read.dropped,
            "matrices_read": read.matrices_read, "matrices_identity": read.matrices_identity,
            "seconds": seconds, "peak_rss_mb": peak_rss_mb(), "supernet": out,
        });
        self.common.print(&document, || {
            let matrices = match (read.matrices_read, read.matrices_identity) {
                (0, 0) => "none in this space".to_string(),
                (read, 0) => format!("{read} read"),
                (_, identity) => format!("{identity} identities: the file has none, it is a static network's"),
            };
            let statistics = match norms {
                0 => "none: sub-networks must be calibrated on images".to_string(),
                norms => format!("of {norms} batch norms of the largest network"),
            };
            format!(
                "read        {} ({})\n{}space       {space}\ntensors     {} with {} parameters\nmatrices    {matrices}\n\
                 statistics  {statistics}\nleft out    {} counters of batches\nsupernet    {out}, after {seconds:.2} s",
                imported.file,
                imported.container,
                network_lines(entries, prefix),
                weights.len(),
                grouped(parameters),
                read.dropped,
            )
        })
    }
}

/// What was chosen in a checkpoint and left out of the names; nothing, where there was nothing to choose and to leave out.
fn network_lines(entries: &Entries, prefix: &str) -> String {
    let mut lines = String::new();
    if !entries.path.is_empty() {
        lines = format!("network     entry {}", entries.path.join("."));
        if !entries.others.is_empty() {
            lines.push_str(&format!("; the file has more, choose with --key: {}", entries.others.join(", ")));
        }
        lines.push('\n');
    }
    if !prefix.is_empty() {
        lines.push_str(&format!("prefix      {prefix} stripped from every name\n"));
    }
    lines
}

/// Asks for pages of the usual size from here on, if it can be had: of huge ones the allocator would use a part, which costs
/// as much memory again as a small file.
fn plain_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Refuses an output that would take the input's place.
fn not_the_input(out: &Path, input: &Path) -> anyhow::Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if real(out).is_some_and(|out| real(input) == Some(out)) {
        anyhow::bail!("--out {}: expected another file than the input", out.display());
    }
    Ok(())
}
