//! What a table says about the machine that it was measured on.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Facts of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFacts {
    /// What its owner calls it.
    pub name: String,
    /// Processor model as the operating system gives it.
    pub cpu: String,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Instruction set, such as `x86_64`.
    pub arch: String,
    /// Hardware threads that this process may use.
    pub cores: usize,
}

impl DeviceFacts {
    /// The machine that this runs on; without a name it is called by its processor.
    pub fn this_machine(name: Option<&str>) -> Self {
        let cpuinfo = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
        let cpu = cpu_model(&cpuinfo).unwrap_or("unknown").to_string();
        Self {
            name: name.map_or_else(|| cpu.clone(), str::to_string),
            cpu,
            os: std::env::consts::OS.to_string(),
            arch: std::env::consts::ARCH.to_string(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(DeviceFacts::this_machine(Some("bench")).cores > 0);
    }
}
