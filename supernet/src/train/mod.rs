//! Progressive shrinking: schedules, loss, optimizer, trainer.

mod loss;

pub use loss::{Target, loss};
