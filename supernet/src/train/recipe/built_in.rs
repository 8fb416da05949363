//! The recipes that come with the tool, in one table.

/// A recipe that comes with the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn {
    /// The name that users give.
    pub name: &'static str,
    /// One line of description.
    pub about: &'static str,
    /// The recipe in TOML.
    pub text: &'static str,
}

/// All built-in recipes, the default first. A recipe is a file in `recipes/` and a line here.
pub(super) const BUILT_IN: [BuiltIn; 12] = [
    BuiltIn {
        name: "progressive",
        about: "progressive shrinking (Cai et al. 2020): full network, kernels, depths, widths",
        text: include_str!("../../../recipes/progressive.toml"),
    },
    BuiltIn {
        name: "sandwich",
        about: "sandwich rule (Yu et al. 2020, BigNAS): one phase, the largest teaches smaller ones in each step",
        text: include_str!("../../../recipes/sandwich.toml"),
    },
    BuiltIn {
        name: "alphanet",
        about: "the sandwich rule with alpha-divergence (Wang et al. 2021, AlphaNet) in place of cross-entropy",
        text: include_str!("../../../recipes/alphanet.toml"),
    },
    BuiltIn {
        name: "attentive",
        about: "the sandwich rule with the worst of three networks of equal cost (Wang et al. 2021, AttentiveNAS)",
        text: include_str!("../../../recipes/attentive.toml"),
    },
    BuiltIn {
        name: "shrinking",
        about: "progressive shrinking with higher rates in the last phases",
        text: include_str!("../../../recipes/shrinking.toml"),
    },
    BuiltIn {
        name: "once-for-all",
        about: "progressive shrinking as its authors train it on images, for comparison; opens no choice of operators",
        text: include_str!("../../../recipes/once-for-all.toml"),
    },
    BuiltIn {
        name: "uniform",
        about: "one random sub-network a step (Guo et al. 2020), for choices of operators and connections",
        text: include_str!("../../../recipes/uniform.toml"),
    },
    BuiltIn {
        name: "fair",
        about: "five sub-networks a step in which each operator occurs equally often (Chu et al. 2021, FairNAS)",
        text: include_str!("../../../recipes/fair.toml"),
    },
    BuiltIn {
        name: "enas",
        about: "one sub-network a step, drawn by an LSTM that learns what scores best (Pham et al. 2018, ENAS)",
        text: include_str!("../../../recipes/enas.toml"),
    },
    BuiltIn {
        name: "darts",
        about: "all operators of an edge at once, weighted by what follows a gradient (Liu et al. 2019, DARTS)",
        text: include_str!("../../../recipes/darts.toml"),
    },
    BuiltIn {
        name: "gdas",
        about: "one operator of an edge at a time, drawn with noise by what follows a gradient (Dong and Yang 2019, GDAS)",
        text: include_str!("../../../recipes/gdas.toml"),
    },
    BuiltIn {
        name: "proxyless",
        about: "two operators of an edge compete at a time, by binary gates (Cai et al. 2019, ProxylessNAS)",
        text: include_str!("../../../recipes/proxyless.toml"),
    },
];

/// The recipe of that name.
pub(super) fn find(name: &str) -> Option<BuiltIn> {
    BUILT_IN.into_iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    #[test]
    fn each_recipe_is_sound_and_called_as_in_the_table() {
        for BuiltIn { name, about, text } in BUILT_IN {
            assert_eq!(Recipe::from_toml(name, text).expect(name).name, name);
            assert!(!about.is_empty() && about.lines().count() == 1, "{about}");
        }
    }

    #[test]
    fn every_file_is_in_the_table() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes");
        let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
        let mut names: Vec<_> =
            files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
        names.sort();
        let mut listed = BUILT_IN.map(|recipe| recipe.name);
        listed.sort_unstable();
        assert_eq!(names, listed);
    }
}
