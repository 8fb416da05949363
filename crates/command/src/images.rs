//! Looking through a command's images, with a progress bar.

use std::time::Duration;

use base::machine;
use network::data::{Catalogue, Dataset, Looking};
use tracing::info;

use crate::flags::Common;
use crate::output::warn_of;

/// If looking takes less than this, no index is written.
const WORTH_KEEPING: Duration = Duration::from_secs(1);

/// Looks through the images of a data set; reports how many there are, and which are left out.
///
/// # Errors
/// If images cannot be used.
pub fn look_at(common: &Common, catalogue: Catalogue) -> anyhow::Result<Dataset> {
    let bar = common.bar(0, "looking at images {bar:30} {pos}/{len}  ETA {eta}");
    let looking = Looking::default().with_index_in(machine::cache_folder());
    let looking = looking.keeping_from(WORTH_KEEPING).telling(move |done, of| {
        if done == 1 {
            // the bar of this split; another split may have come before
            bar.reset();
            bar.set_length(of as u64);
        }
        bar.set_position(done as u64);
        if done == of {
            bar.finish_and_clear();
        }
    });
    let dataset = catalogue.look_with(&looking)?;
    info!("{}", dataset.in_words());
    warn_of(&dataset.warnings());
    Ok(dataset)
}
