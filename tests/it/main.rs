//! Tests across modules: numbers of PyTorch, equality of elastic and extracted networks, the two command lines, the
//! examples.

mod accuracy;
mod cli;
mod common;
mod elastic;
mod examples;
mod failures;
mod families;
mod finetune;
mod folded;
mod golden;
mod gradients;
mod kills;
mod measure;
mod memory;
mod ofa_configs;
mod ofa_tables;
mod onnx;
mod predictors;
mod properties;
mod pytorch;
mod readers;
mod snapshots;
mod stops;
mod tables;
mod tidy;
