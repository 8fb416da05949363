//! The tensor names of PyTorch's `ofa` package, in its several generations.
//!
//! Ours are the names of its static networks today. Files have others for the same tensor: the convolution of a block
//! was called `mobile_inverted_conv`, and an elastic layer holds a static one of the same name, so that the last part
//! but one stands twice (`bn.bn.weight`, `conv.conv.weight`, `linear.linear.bias`). A name cannot be undoubled
//! without knowing what it should be, for `input_stem.1.conv.conv.weight` of a ResNet is undoubled already; so every
//! spelling comes from the name that the space expects.

/// Every spelling of one of our names, ours first.
pub(super) fn spellings(name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for stem in [Some(name.to_string()), of_older_block(name)].into_iter().flatten() {
        let doubled = doubled(&stem);
        all.push(stem);
        all.extend(doubled);
    }
    all
}

/// `blocks.N.conv.` as it was called once.
fn of_older_block(name: &str) -> Option<String> {
    let rest = name.strip_prefix("blocks.")?;
    let (number, rest) = rest.split_once('.')?;
    rest.strip_prefix("conv.").map(|rest| format!("blocks.{number}.mobile_inverted_conv.{rest}"))
}

/// The name within an elastic layer.
fn doubled(name: &str) -> Option<String> {
    let (layer, leaf) = name.rsplit_once('.')?;
    let inner = match layer.rsplit_once('.')?.1 {
        own @ ("conv" | "bn" | "linear") if !leaf.ends_with("_matrix") => own,
        "reduce" | "expand" => "conv",
        _ => return None,
    };
    Some(format!("{layer}.{inner}.{leaf}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_generations() {
        let table: [(&str, &[&str]); 6] = [
            (
                "blocks.3.conv.depth_conv.conv.weight",
                &[
                    "blocks.3.conv.depth_conv.conv.weight",
                    "blocks.3.conv.depth_conv.conv.conv.weight",
                    "blocks.3.mobile_inverted_conv.depth_conv.conv.weight",
                    "blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
                ],
            ),
            (
                "blocks.3.conv.depth_conv.conv.7to5_matrix",
                &[
                    "blocks.3.conv.depth_conv.conv.7to5_matrix",
                    "blocks.3.mobile_inverted_conv.depth_conv.conv.7to5_matrix",
                ],
            ),
            (
                "blocks.12.conv.depth_conv.se.fc.reduce.bias",
                &[
                    "blocks.12.conv.depth_conv.se.fc.reduce.bias",
                    "blocks.12.conv.depth_conv.se.fc.reduce.conv.bias",
                    "blocks.12.mobile_inverted_conv.depth_conv.se.fc.reduce.bias",
                    "blocks.12.mobile_inverted_conv.depth_conv.se.fc.reduce.conv.bias",
                ],
            ),
            (
                "input_stem.1.conv.conv.weight",
                &["input_stem.1.conv.conv.weight", "input_stem.1.conv.conv.conv.weight"],
            ),
            (
                "blocks.0.downsample.bn.running_var",
                &["blocks.0.downsample.bn.running_var", "blocks.0.downsample.bn.bn.running_var"],
            ),
            ("classifier.linear.bias", &["classifier.linear.bias", "classifier.linear.linear.bias"]),
        ];
        for (name, expected) in table {
            assert_eq!(spellings(name), expected);
        }
    }
}
