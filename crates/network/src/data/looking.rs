//! Settings for reading image files: the folder of the index, and the progress callback.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Progress callback: images read, and images in all; from any thread, in any order.
type Told = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Settings for reading image files. By default there is no index and no progress report.
#[derive(Clone, Default)]
pub struct Looking {
    index: Option<PathBuf>,
    worth_keeping: Duration,
    told: Option<Told>,
}

impl Looking {
    /// Keeps an index of the images in a folder, and takes the facts of unchanged images from there; `None` keeps no
    /// index.
    #[must_use]
    pub fn with_index_in(self, folder: Option<PathBuf>) -> Self {
        Self { index: folder, ..self }
    }

    /// The settings with an index that is written only where reading takes at least this long.
    #[must_use]
    pub fn keeping_from(self, worth_keeping: Duration) -> Self {
        Self { worth_keeping, ..self }
    }

    /// Reports the number of images of a split that were read, and of all; from any thread, in any order.
    #[must_use]
    pub fn telling(self, told: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        Self { told: Some(Arc::new(told)), ..self }
    }

    pub(super) fn index(&self) -> Option<&Path> {
        self.index.as_deref()
    }

    pub(super) fn is_worth_keeping(&self, took: Duration) -> bool {
        took >= self.worth_keeping
    }

    pub(super) fn tell(&self, done: usize, of: usize) {
        if let Some(told) = &self.told {
            told(done, of);
        }
    }
}

impl fmt::Debug for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looking").field("index", &self.index).finish_non_exhaustive()
    }
}
