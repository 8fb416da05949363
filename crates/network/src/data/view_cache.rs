//! Evaluation views of image files, kept in memory: sub-networks that are evaluated one after the other see the same
//! images, and decoding them takes longer than most networks do.

use space::Extent;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes that the views of one split may take: all of a validation split of 50,000 images at 84 pixels, 7,000 at 224.
const MOST_BYTES: usize = 1 << 30;

/// Planes of 8-bit values.
type View = Arc<[u8]>;

/// Views by image and resolution, planes of 8-bit values; as many as there is room for.
#[derive(Default)]
pub(super) struct ViewCache {
    views: RwLock<HashMap<(usize, Extent), View>>,
    bytes: AtomicUsize,
}

impl ViewCache {
    /// The view of an image at a resolution, if it is cached.
    pub fn get(&self, image: usize, resolution: Extent) -> Option<View> {
        // a panic cannot leave half a view behind: each is put in whole
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.get(&(image, resolution)).map(Arc::clone)
    }

    /// Keeps a view whose values are whole numbers of 0 to 255, if there is room.
    pub fn keep(&self, image: usize, resolution: Extent, view: &[f32]) {
        let before = self.bytes.fetch_add(view.len(), Ordering::Relaxed);
        if before + view.len() > MOST_BYTES {
            self.bytes.fetch_sub(view.len(), Ordering::Relaxed);
            return;
        }
        let view = view.iter().map(|value| *value as u8).collect();
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert((image, resolution), view);
    }
}

impl fmt::Debug for ViewCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewCache of {} bytes", self.bytes.load(Ordering::Relaxed))
    }
}
