//! Properties of the machine, as the operating system reports them.

mod memory;

use std::path::{Path, PathBuf};

pub use memory::{memory_held, memory_left};

/// The processor's model as the operating system reports it, else `unknown`.
pub fn cpu() -> String {
    let cpuinfo = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    cpu_model(&cpuinfo).unwrap_or("unknown").to_string()
}

/// The processor's name in the text of Linux's `/proc/cpuinfo`: x86 says `model name`; boards say `Model`,
/// `Hardware` or only an implementer and a part number.
fn cpu_model(cpuinfo: &str) -> Option<&str> {
    ["model name", "Model", "Hardware", "CPU part"].iter().find_map(|wanted| {
        let value = |line: &'_ str| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == *wanted && !value.trim().is_empty()).then_some(())
        };
        let line = cpuinfo.lines().find(|line| value(line).is_some())?;
        line.split_once(':').map(|(_, value)| value.trim())
    })
}

/// The machine's network name, if the operating system reports one that is allowed in a file name.
pub fn host() -> Option<String> {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok()?;
    let name = name.trim();
    (!name.is_empty()
        && name.chars().all(|letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'))
    .then(|| name.to_string())
}

/// Whether the process ignores hangups, because it was started to outlive its terminal, as by `nohup`.
pub fn ignores_hangups() -> bool {
    ignores_first_signal(&std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default())
}

/// Whether the text of Linux's `/proc/self/status` lists signal 1, the hangup, as ignored.
fn ignores_first_signal(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The folder for caches: `ONCE_FOR_ALL_CACHE`, else a folder `once-for-all` in the system's cache folder
/// (`XDG_CACHE_HOME`, `~/.cache`, on a Mac `~/Library/Caches`, on Windows `LOCALAPPDATA`). `None` if
/// the variable is empty, or no variable names a folder.
pub fn cache_folder() -> Option<PathBuf> {
    cache_folder_of(|name| std::env::var_os(name))
}

fn cache_folder_of(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    if let Some(folder) = variable("ONCE_FOR_ALL_CACHE") {
        return (!folder.is_empty()).then(|| folder.into());
    }
    let given = |name: &str| variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let of_home = match () {
        () if cfg!(windows) => given("LOCALAPPDATA"),
        () if cfg!(target_os = "macos") => given("HOME").map(|home| home.join("Library/Caches")),
        () => given("HOME").map(|home| home.join(".cache")),
    };
    given("XDG_CACHE_HOME").or(of_home).map(|folder| folder.join("once-for-all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_kept_lies_where_the_environment_says() {
        let folder = |variables: &[(&str, &str)]| {
            let variables = variables.to_vec();
            cache_folder_of(move |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        let expected = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/home/me");
        assert_eq!(folder(&[home]), expected("/home/me/.cache/once-for-all"));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/caches")]), expected("/caches/once-for-all"));
        assert_eq!(
            folder(&[home, ("XDG_CACHE_HOME", "not/absolute")]),
            expected("/home/me/.cache/once-for-all")
        );
        assert_eq!(folder(&[home, ("ONCE_FOR_ALL_CACHE", "here")]), expected("here"));
        assert_eq!((folder(&[home, ("ONCE_FOR_ALL_CACHE", "")]), folder(&[])), (None, None));
    }

    #[test]
    fn ignored_hangups_are_known() {
        assert!(ignores_first_signal("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_first_signal("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_first_signal("SigIgn:\tmany\n") && !ignores_first_signal(""));
    }

    #[test]
    fn processors_are_named() {
        let board = "processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n";
        for (text, expected) in [
            ("processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags : a b\n", Some("AMD EPYC 9B14")),
            (board, Some("Raspberry Pi 4 Model B Rev 1.4")),
            ("CPU part\t: 0xd08\n", Some("0xd08")),
            ("model name\t:\n", None),
            ("", None),
        ] {
            assert_eq!(cpu_model(text), expected);
        }
    }
}
