//! Tests across modules: numbers of PyTorch, equality of elastic and extracted networks, the two command lines, the
//! examples.

mod cli;
mod common;
mod elastic;
mod examples;
mod folded;
mod golden;
mod gradients;
mod kills;
mod readers;
mod tables;
mod tidy;
