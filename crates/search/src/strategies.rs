//! Search strategies, each behind [`Strategy`](crate::Strategy).

pub mod climbers;
pub mod random;

#[cfg(test)]
mod tests;
