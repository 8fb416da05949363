//! The flags of `extract search` that evaluate its best candidates.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use command::{Common, ValImages, data_form, data_help};
use extract::accuracy::AccuracyEstimator;
use extract::search::{LogFile, ValidatedSearch, ValidationPlan, ValidationProblem, search_validated};
use network::accuracy_file::{self, AccuracyFile};
use network::checkpoint::Supernet;
use network::data::{Dataset, Split};
use network::eval::{Calibration, Evaluator};
use space::Arch;

use super::super::{backend, open_data};
use super::Logged;

#[derive(clap::Args)]
pub struct ValidationFlags {
    /// Trained weights: evaluate the 20 best candidates with them on validation images before choosing
    #[arg(long, value_name = "FILE", requires = "data")]
    supernet: Option<PathBuf>,
    // its help comes from the table of formats
    #[arg(long, requires = "supernet", value_parser = data_form(), help = evaluated_help(), hide_possible_values = true)]
    data: Option<String>,
    /// Facts about the images (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE", requires = "data")]
    dataset_toml: Option<PathBuf>,
    #[command(flatten)]
    val_images: ValImages,
    /// Rounds of searching and evaluating; after each, the estimator is fitted again to --accuracy and what was evaluated
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "supernet",
        value_parser = clap::value_parser!(u8).range(1..=10)
    )]
    rounds: u8,
    /// The rows that the estimator was fitted to, for more than one round
    #[arg(long, value_name = "FILE", requires = "supernet")]
    accuracy: Option<PathBuf>,
    /// Least accuracy, such as top1=0.91; compared with the lower end of the 95 % interval
    #[arg(long = "min", value_name = "METRIC=AMOUNT", value_parser = least)]
    pub least: Option<f64>,
    /// Also search choices that no row of the estimator has
    #[arg(long)]
    pub extrapolate: bool,
}

fn evaluated_help() -> String {
    data_help("Images to evaluate on, training images for batch norms, then those of `val`")
}

fn least(text: &str) -> Result<f64, String> {
    let expected = "expected top1=AMOUNT, a share such as top1=0.91";
    let (metric, amount) = text.split_once('=').ok_or(expected)?;
    if metric != "top1" {
        return Err(format!("{expected}; got the metric {metric}"));
    }
    match amount.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(share) if share > 1.0 && share <= 100.0 => {
            Err(format!("{expected}; {amount} as per cent is top1={}", share / 100.0))
        }
        _ => Err(format!("{expected}; got {amount}")),
    }
}

impl ValidationFlags {
    /// The files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.supernet.iter().chain(&self.accuracy)
    }

    /// Searches and evaluates, and says which supernet's sub-networks these are; `None` where nothing is to be evaluated.
    pub fn search(
        &self,
        output: &Common,
        problem: &ValidationProblem<'_>,
        estimator: &AccuracyEstimator,
        log: &Logged<'_>,
    ) -> anyhow::Result<Option<(ValidatedSearch, String)>> {
        let (Some(supernet), Some(data)) = (&self.supernet, &self.data) else { return Ok(None) };
        let backend = backend()?;
        let supernet = Supernet::read(supernet)?.on(&backend)?;
        check_supernet(estimator, &supernet)?;
        let dataset = open_data(output, data, self.dataset_toml.as_deref(), &supernet)?;
        let dataset = self.val_images.of(supernet.see(&dataset, false)?);
        let rows = self.rows(&supernet, &dataset)?;
        let calibration = rows.as_ref().map_or_else(Calibration::default, |rows| rows.calibration);
        let evaluator = Evaluator::new(&supernet, &dataset, &backend).calibrating(calibration);
        let rounds = usize::from(self.rounds);
        let plan = ValidationPlan { rounds, rows: rows.as_ref(), ..ValidationPlan::default() };
        let counted = [
            ("supernet", supernet.hash.clone()),
            ("data", dataset.hash().to_string()),
            // those of --val-images are drawn with a constant seed, so that their number says which
            ("val_images", dataset.val().len().to_string()),
            ("calibration", in_words(calibration)),
        ];
        let mut log = log.open(problem.index.space(), &counted)?;
        let bar = output.plain_bar((plan.candidates * rounds) as u64);
        let validated = search_validated(problem, estimator, &plan, &mut |arch| {
            let hits = hits(&evaluator, problem.stop, log.as_mut(), arch)?;
            bar.inc(1);
            Ok(hits)
        });
        bar.finish_and_clear();
        Ok(Some((validated?, supernet.hash)))
    }

    fn rows(&self, supernet: &Supernet, dataset: &Dataset) -> anyhow::Result<Option<AccuracyFile>> {
        let Some(path) = &self.accuracy else { return Ok(None) };
        let rows = accuracy_file::read(path)?;
        let place = path.display();
        if rows.supernet != supernet.hash {
            let error = base::Error::invalid(place, "supernet", &supernet.hash, &rows.supernet);
            return Err(error.and_then_do("give the rows that were sampled from --supernet").into());
        }
        if rows.data != dataset.hash() {
            let error = base::Error::invalid(place, "data", dataset.hash(), &rows.data);
            return Err(error.and_then_do("give the images that its rows were counted on as --data").into());
        }
        Ok(Some(rows))
    }
}

/// Whether each validation image's class is found, from the log or by counting.
fn hits(
    evaluator: &Evaluator<'_>,
    stop: &AtomicBool,
    log: Option<&mut LogFile>,
    arch: &Arch,
) -> extract::Result<Option<Vec<bool>>> {
    if let Some(hits) = log.as_ref().and_then(|log| log.hits(arch)) {
        return Ok(Some(hits.to_vec()));
    }
    let hits = evaluator.hits_unless(stop, arch, Split::Val)?;
    if let (Some(log), Some(hits)) = (log, &hits) {
        log.append_hits(arch, hits)?;
    }
    Ok(hits)
}

fn in_words(Calibration { images, batch, seed }: Calibration) -> String {
    format!("{images} images in batches of {batch}, seed {seed}")
}

/// Refuses to evaluate sub-networks of another supernet than the estimator's; an imported one may be of any.
fn check_supernet(estimator: &AccuracyEstimator, supernet: &Supernet) -> anyhow::Result<()> {
    match estimator.supernet() {
        Some(theirs) if theirs != supernet.hash => {
            let error = base::Error::invalid("estimator", "supernet", &supernet.hash, theirs);
            Err(error.and_then_do("fit an estimator to rows of --supernet").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_least_accuracy_is_a_share() {
        for (text, expected) in
            [("top1=0.91", Some(0.91)), ("top1=1", Some(1.0)), ("top1=0", None), ("loss=0.1", None)]
        {
            assert_eq!(least(text).ok(), expected, "{text}");
        }
        assert!(least("top1=91").expect_err("per cent").ends_with("91 as per cent is top1=0.91"));
        assert!(least("0.91").is_err() && least("top1=nan").is_err() && least("top1=-1").is_err());
    }
}
