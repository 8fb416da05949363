//! Files of a run's folder to go back to: the end of the last phase, the best weights, and the log line of a
//! divergence.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use base::file::{copy_atomically, link_or_copy, write_atomically};

use super::RunFolder;
use crate::error::{Error, Result};
use crate::train::record::{Divergence, LogLine};

/// Bytes at the end of a log that hold its last line.
const LAST_LINE: u64 = 1 << 16;

/// Prefix and suffix of the file of a phase's best weights; the number of steps stands between them.
const BEST: &str = "best-";
const WEIGHTS: &str = ".safetensors";

impl RunFolder {
    /// The checkpoint at the end of the last phase that has ended.
    pub fn phase_end(&self) -> PathBuf {
        self.path.join("phase_end.safetensors")
    }

    /// Keeps the checkpoint as the end of a phase.
    ///
    /// # Errors
    /// If it cannot be linked or copied.
    pub(in crate::train) fn keep_phase_end(&self) -> Result<()> {
        Ok(link_or_copy(&self.checkpoint(), &self.phase_end())?)
    }

    /// Keeps the checkpoint permanently, as the end of the phase with this number and name. It is a copy, not a link:
    /// a user goes back by copying it over the checkpoint, which must not be the same file.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub(in crate::train) fn keep_checkpoint(&self, number: usize, phase: &str) -> Result<()> {
        let folder = self.path.join("checkpoints");
        std::fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        Ok(copy_atomically(&self.checkpoint(), &folder.join(name_of(number, phase)))?)
    }

    /// Makes the saved end of a phase the checkpoint.
    ///
    /// # Errors
    /// If it cannot be linked or copied; the checkpoint then stays as it was.
    pub(in crate::train) fn take_back_phase_end(&self) -> Result<()> {
        Ok(link_or_copy(&self.phase_end(), &self.checkpoint())?)
    }

    /// Removes the saved end of a phase, if there is one.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(in crate::train) fn forget_phase_end(&self) -> Result<()> {
        remove(self.phase_end())
    }

    /// The weights of a phase's best validation so far, after `step` steps.
    pub fn best(&self, step: u64) -> PathBuf {
        self.path.join(format!("{BEST}{step}{WEIGHTS}"))
    }

    /// Removes the best weights of all validations except those after `steps`.
    ///
    /// # Errors
    /// If the folder cannot be read, or one of them cannot be removed.
    pub(in crate::train) fn keep_only_best(&self, steps: [Option<u64>; 2]) -> Result<()> {
        let entries = std::fs::read_dir(&self.path).map_err(Error::io("read the folder", &self.path))?;
        for entry in entries {
            let name = entry.map_err(Error::io("read the folder", &self.path))?.file_name();
            let name = name.to_string_lossy();
            let taken = name.strip_prefix(BEST).and_then(|rest| rest.strip_suffix(WEIGHTS));
            let taken = taken.and_then(|taken| taken.parse::<u64>().ok());
            if let Some(taken) = taken.filter(|taken| !steps.contains(&Some(*taken))) {
                remove(self.best(taken))?;
            }
        }
        Ok(())
    }

    /// Removes checkpoint and log, so that the run starts over. The checkpoint goes first: while the log still
    /// records the divergence, a resume knows why there is no checkpoint.
    ///
    /// # Errors
    /// If one of them cannot be removed or written.
    pub(in crate::train) fn start_over(&mut self) -> Result<()> {
        remove(self.checkpoint())?;
        self.log = None;
        self.checkpoint_noted = false;
        Ok(write_atomically(&self.log_path(), b"")?)
    }

    /// The divergence that ended the run, if the last line of the log records one.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(in crate::train) fn divergence(&self) -> Result<Option<Divergence>> {
        let path = self.log_path();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = end_of(&path).map_err(Error::io("read", &path))?;
        let text = String::from_utf8_lossy(&bytes);
        let last = text.strip_suffix('\n').and_then(|lines| lines.rsplit('\n').next());
        Ok(match last.and_then(|line| serde_json::from_str(line).ok()) {
            Some(LogLine::Diverged(divergence)) => Some(divergence),
            _ => None,
        })
    }

    /// Logs that the run has diverged. A failure to write is ignored: the error that ends the run matters more.
    pub(in crate::train) fn note_divergence(&mut self, divergence: Divergence) {
        let _ = self.log(&LogLine::Diverged(divergence)).and_then(|()| self.sync_log());
    }
}

/// Most characters of a phase's name in a file name.
const MOST_CHARACTERS: usize = 40;

/// File name of a phase's checkpoint, valid on every file system: `3-depth-1.safetensors`.
fn name_of(number: usize, phase: &str) -> String {
    let name: String = phase
        .chars()
        .take(MOST_CHARACTERS)
        .map(|letter: char| if letter.is_alphanumeric() || letter == '_' { letter } else { '-' })
        .collect();
    format!("{number}-{name}.safetensors")
}

fn end_of(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn remove(path: PathBuf) -> Result<()> {
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_phases_are_made_safe() {
        for (number, phase, expected) in [
            (3, "depth 1", "3-depth-1.safetensors"),
            (1, "../voll: größer/\0", "1----voll--größer--.safetensors"),
            (12, "", "12-.safetensors"),
        ] {
            assert_eq!(name_of(number, phase), expected);
        }
        assert_eq!(name_of(1, &"ä".repeat(300)).chars().count(), 2 + MOST_CHARACTERS + 12);
    }

    #[test]
    fn a_divergence_is_known_by_the_last_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = RunFolder::open(folder.path(), false).expect("empty");
        assert_eq!(run.divergence().expect("no log"), None);
        for step in 0..2000 {
            run.log(&LogLine::Checkpoint { step }).expect("written");
        }
        assert_eq!(run.divergence().expect("a log"), None);
        let phase = "full".to_string();
        let what = "the loss is NaN".to_string();
        let seen = Divergence { step: 7, phase, first_step: 0, what };
        run.note_divergence(seen.clone());
        assert_eq!(run.divergence().expect("a log"), Some(seen));
        let text = std::fs::read_to_string(run.log_path()).expect("a log");
        let line = "{\"event\":\"diverged\",\"step\":7,\"phase\":\"full\",\"first_step\":0,\"what\":\"the loss is NaN\"}\n";
        assert!(text.ends_with(line), "{text}");
        std::fs::write(run.log_path(), text.trim_end()).expect("written");
        assert_eq!(run.divergence().expect("a torn line"), None);
        run.cut_log(5000).expect("cut");
        assert_eq!(run.divergence().expect("a log"), None);
        run.start_over().expect("written");
        assert_eq!(std::fs::read(run.log_path()).expect("a log"), b"");
    }
}
