//! The entry of a checkpoint's object that holds its network.

use super::state_dict::Entries;
use super::value::PickleValue;
use crate::error::{Error, Result};

/// Where a checkpoint keeps its network: the first of these entries that is there.
const ENTRIES: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema"];

/// Keys that a message lists at most.
const LISTED: usize = 8;

/// The tensors by name of the network under `key`, or, without a key, of the object itself or of the first of its usual
/// entries, again and again.
///
/// # Errors
/// If there is no network; lists the entries that may be one.
pub(super) fn network<'v>(
    place: &str,
    value: &'v PickleValue,
    key: Option<&str>,
) -> Result<(Entries, Vec<(&'v str, &'v PickleValue)>)> {
    let mut network = value;
    let mut entries = Entries::default();
    if let Some(key) = key {
        network = holder(value, key).ok_or_else(|| no_entry(place, value, key))?;
        entries.path.push(key.to_string());
    }
    while let Some((entry, inner)) = usual(network) {
        if entries.path.is_empty() {
            entries.others = networks(network).into_iter().filter(|other| *other != entry).collect();
        }
        entries.path.push(entry.to_string());
        network = inner;
    }
    let PickleValue::Dict(pairs) = network else { return Err(no_network(place, network, "no dictionary")) };
    let mut named = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let PickleValue::Text(name) = key else {
            return Err(no_network(place, network, "a dictionary of other keys"));
        };
        named.push((&**name, value));
    }
    if !named.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_))) {
        return Err(no_network(place, network, "a dictionary without tensors"));
    }
    Ok((entries, named))
}

/// The first of the usual entries that may hold a network.
fn usual(value: &PickleValue) -> Option<(&'static str, &PickleValue)> {
    ENTRIES.iter().find_map(|entry| Some((*entry, holder(value, entry)?)))
}

/// An entry of a dictionary that is one as well.
fn holder<'v>(value: &'v PickleValue, key: &str) -> Option<&'v PickleValue> {
    value.get(key).filter(|inner| matches!(inner, PickleValue::Dict(_)))
}

/// Keys of the entries that are networks: dictionaries with a tensor in them, or in one of their usual entries.
fn networks(value: &PickleValue) -> Vec<String> {
    let PickleValue::Dict(pairs) = value else { return Vec::new() };
    pairs
        .iter()
        .filter_map(|(key, value): &(PickleValue, PickleValue)| match key {
            PickleValue::Text(key) if is_network(value) => Some(key.to_string()),
            _ => None,
        })
        .collect()
}

/// Whether a dictionary, or the innermost of its usual entries, has a tensor in it.
fn is_network(mut value: &PickleValue) -> bool {
    while let Some((_, inner)) = usual(value) {
        value = inner;
    }
    let PickleValue::Dict(pairs) = value else { return false };
    pairs.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_)))
}

fn listed(keys: &[String]) -> String {
    let more = if keys.len() > LISTED { ", …" } else { "" };
    format!("{}{more}", keys[..keys.len().min(LISTED)].join(", "))
}

fn no_network(place: &str, value: &PickleValue, got: &str) -> Error {
    let expected = format!("tensors by name, by themselves or in an entry {}", ENTRIES.join(", "));
    let error = Error::invalid(place, "object", expected, got);
    match networks(value).as_slice() {
        [] => error.and_then_do("save the network: torch.save(network.state_dict(), FILE)"),
        keys => error.and_then_do(format!("choose one of its entries with --key: {}", listed(keys))),
    }
}

fn no_entry(place: &str, value: &PickleValue, key: &str) -> Error {
    let keys = networks(value);
    let expected = format!("an entry {key} that holds a network");
    let got = match keys.as_slice() {
        [] => "no entry that does".to_string(),
        keys => listed(keys),
    };
    let advice = if keys.is_empty() { "leave --key out" } else { "choose one of these with --key" };
    Error::invalid(place, "object", expected, got).and_then_do(advice)
}
