//! The results of a sub-network's trials, in a file of its folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::document::{self, sorted_json};
use base::file::{read_text, write_atomically};
use serde::{Deserialize, Serialize};

use super::{TrialRequest, TrialResult};
use crate::error::{Error, Result};

const KIND: &str = "trial";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    kind: String,
    version: u32,
    arch: String,
    seed: u64,
    /// Space, data, recipe, first weights and kernels.
    setting: BTreeMap<String, String>,
    results: Vec<TrialResult>,
}

/// All results of a sub-network, one for each fidelity.
pub(super) struct Results {
    path: PathBuf,
    form: Form,
}

impl Form {
    /// Reads a file's text; `place` names it in messages.
    fn from_json(place: &str, text: &str) -> Result<Self> {
        let form: Self = document::read(place, text, KIND, VERSION, "a trial's results in JSON")?;
        let wrong = form.results.iter().find(|result| {
            let is_share = |share: f64| (0.0..=1.0).contains(&share);
            !is_share(result.top1) || !is_share(result.fidelity) || !result.loss.is_finite()
        });
        match wrong {
            Some(wrong) => {
                let got = format!("{} at {}", wrong.top1, wrong.fidelity);
                Err(Error::invalid(place, "results", "shares from 0 to 1, and a finite loss", got))
            }
            None => Ok(form),
        }
    }
}

/// The results in the text of a `trial.json`; `place` names it in messages.
///
/// # Errors
/// If it is no such text, or a number cannot be.
pub fn results_from_json(place: &str, text: &str) -> Result<Vec<TrialResult>> {
    Ok(Form::from_json(place, text)?.results)
}

impl Results {
    /// The results in a folder, none if it has no file.
    ///
    /// # Errors
    /// If they are of another sub-network or setting, or the file is broken.
    pub fn read(folder: &Path, setting: BTreeMap<String, String>, request: &TrialRequest) -> Result<Self> {
        let path = folder.join("trial.json");
        let fresh = Form {
            kind: KIND.to_string(),
            version: VERSION,
            arch: request.arch.to_string(),
            seed: request.seed,
            setting,
            results: Vec::new(),
        };
        if !path.exists() {
            return Ok(Self { path, form: fresh });
        }
        let place = path.display().to_string();
        let form = Form::from_json(&place, &read_text(&path)?)?;
        let advice = "give the flags of its other trials, or another --out";
        if form.arch != fresh.arch {
            return Err(Error::invalid(&place, "arch", &fresh.arch, &form.arch).and_then_do(advice));
        }
        let fields = fresh.setting.keys().chain(form.setting.keys());
        for field in fields {
            let [expected, got] =
                [&fresh, &form].map(|form| form.setting.get(field).map_or("none", String::as_str));
            if expected != got {
                return Err(Error::invalid(&place, field, expected, got).and_then_do(advice));
            }
        }
        Ok(Self { path, form })
    }

    /// The result at a fidelity.
    pub fn of(&self, fidelity: f64) -> Option<&TrialResult> {
        self.form.results.iter().find(|result| result.fidelity == fidelity)
    }

    /// Adds a result, and writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, result: TrialResult) -> Result<()> {
        self.form.results.push(result);
        let text = sorted_json(&self.form).expect("plain data");
        Ok(write_atomically(&self.path, format!("{text}\n").as_bytes())?)
    }
}
