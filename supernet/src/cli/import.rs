//! `supernet import`: reads a supernet of PyTorch's `ofa` package.

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

FILE.pth is a torch.save file (zip or pre-1.6 format) or a safetensors file.
Prefixes of wrappers (DataParallel, torch.compile, a trainer) are stripped from the names.
Nothing in the file is executed.")]
pub struct Arguments {
    /// The file of weights
    #[arg(value_name = "FILE.pth")]
    file: PathBuf,
    /// The space that the weights were trained in: a preset's name or a TOML file
    #[arg(long)]
    space: String,
    /// Entry of a checkpoint that holds the network, such as state_dict_ema [default: the first usual name]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Part of an image used in evaluation: its `middle` square, or all of it (`stretch`) [default: middle, as the
    /// authors evaluate]
    #[arg(long, value_name = "middle|stretch")]
    resize: Option<Shown>,
    /// File of the supernet
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// A finished import, as it is reported.
struct Imported<'a> {
    space: &'a str,
    read: &'a Import,
    source: &'a ImportSource,
    /// The entry of the checkpoint that holds the network.
    entries: &'a Entries,
    /// Prefix that was stripped from every name.
    prefix: &'a str,
    seconds: f64,
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
        // the file's bytes are no longer needed, and the written bytes need their memory
        drop(state);
        // as the authors evaluate; for other numbers of channels the authors' images are unknown
        let preprocess = (space.input_channels() == 3).then(|| {
            let preprocess = Preprocess::photographs(Normalization::imagenet());
            self.resize.map_or(preprocess.clone(), |shown| shown.of(preprocess))
        });
        let interface = Interface { preprocess, classes: None };
        let described = DescribedWeights { space: &space, interface: &interface, weights: &read.weights };
        write_imported(&self.out, described, read.statistics.as_ref(), imported.clone())?;
        let space = space.name();
        let seconds = watch.elapsed().as_secs_f64();
        self.print(&Imported {
            space,
            read: &read,
            source: &imported,
            entries: &entries,
            prefix: &prefix,
            seconds,
        })?;
        Ok(Ending::Done)
    }

    fn print(&self, imported: &Imported) -> anyhow::Result<()> {
        let Imported { space, read, source, entries, prefix, seconds } = *imported;
        let weights = read.weights.tensors();
        let parameters: usize = weights.values().map(|tensor| tensor.elem_count()).sum();
        let norms = read.statistics.as_ref().map_or(0, |statistics| statistics.len());
        let out = self.out.display().to_string();
        let document = json!({
            "file": source.file, "blake3": source.blake3, "container": source.container, "space": space,
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
                source.file,
                source.container,
                network_lines(entries, prefix),
                weights.len(),
                grouped(parameters),
                read.dropped,
            )
        })
    }
}

/// The entry chosen in a checkpoint and the prefix stripped from names; empty if there is neither.
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

/// Requests pages of the usual size from here on, where possible: of huge pages the allocator would use a part, which
/// costs as much memory again as a small file.
fn plain_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Refuses an output that would overwrite the input.
fn not_the_input(out: &Path, input: &Path) -> anyhow::Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if real(out).is_some_and(|out| real(input) == Some(out)) {
        anyhow::bail!("--out {}: expected another file than the input", out.display());
    }
    Ok(())
}
