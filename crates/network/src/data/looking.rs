//! How image files are looked at: what is kept of it from command to command, and who is told how far it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Who is told that so many images of so many were looked at; from any thread, in any order.
type Told = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// How image files are looked at. By default nothing is kept, and nobody is told.
#[derive(Clone, Default)]
pub struct Looking {
    index: Option<PathBuf>,
    worth_keeping: Duration,
    told: Option<Told>,
}

impl Looking {
    /// Keeps in a folder what is found out about each image, and takes from there what is known of those that did not
    /// change; `None` keeps nothing.
    #[must_use]
    pub fn with_index_in(self, folder: Option<PathBuf>) -> Self {
        Self { index: folder, ..self }
    }

    /// The same, where looking takes at least this long: less need not leave a file.
    #[must_use]
    pub fn keeping_from(self, worth_keeping: Duration) -> Self {
        Self { worth_keeping, ..self }
    }

    /// Tells how many images of a split were looked at, of how many; from any thread, in any order.
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
