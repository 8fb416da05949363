//! Fixtures that several tests share, one module per topic.

pub(crate) mod commands;
pub(crate) mod controllers;
pub(crate) mod files;
pub(crate) mod formula;
pub(crate) mod python;
pub(crate) mod signals;
pub(crate) mod snapshot;
pub(crate) mod spaces;
pub(crate) mod tables;
pub(crate) mod training;
