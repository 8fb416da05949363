//! Reads the words of latency keys.

use super::MOST_CHANNELS;
use crate::activation::Activation;

/// Greatest side of a kernel.
const MOST_KERNEL: usize = 31;
/// Greatest stride.
const MOST_STRIDE: usize = 2;

/// A whole number of at least 1.
pub(crate) fn number(text: &str, most: usize) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=most).contains(number))
}

/// An odd kernel side after `k`.
pub(super) fn kernel(text: &str) -> Option<usize> {
    number(text.strip_prefix('k')?, MOST_KERNEL).filter(|kernel| kernel % 2 == 1)
}

/// A stride after `s`.
pub(super) fn stride(text: &str) -> Option<usize> {
    number(text.strip_prefix('s')?, MOST_STRIDE)
}

/// The side of a pooling's window after `k`, which may be even.
pub(super) fn window(text: &str) -> Option<usize> {
    number(text.strip_prefix('k')?, MOST_KERNEL)
}

/// A stride as it stands in a key: nothing where it is 1.
pub(super) fn written_stride(stride: usize) -> String {
    if stride == 1 { String::new() } else { format!(" s{stride}") }
}

/// A stride that is not written where it is 1, and the words after it.
pub(super) fn optional_stride<'a, 'b>(words: &'b [&'a str]) -> Option<(usize, &'b [&'a str])> {
    match words {
        [first, rest @ ..] if first.starts_with('s') => Some((stride(first)?, rest)),
        _ => Some((1, words)),
    }
}

/// One number of channels.
pub(super) fn channels(text: &str) -> Option<usize> {
    number(text, MOST_CHANNELS)
}

/// Several numbers of channels with `-` between them.
pub(super) fn channel_list<const N: usize>(text: &str) -> Option<[usize; N]> {
    let list: Vec<usize> = text.split('-').map(channels).collect::<Option<_>>()?;
    list.try_into().ok()
}

/// An activation by its name.
pub(super) fn activation(text: &str) -> Option<Activation> {
    Activation::ALL.into_iter().find(|activation| activation.name() == text)
}

/// Whether the optional flag follows.
pub(super) fn flag(flags: &[&str], name: &str) -> Option<bool> {
    match flags {
        [] => Some(false),
        [flag] if *flag == name => Some(true),
        _ => None,
    }
}
