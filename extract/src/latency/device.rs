//! What a table says about the machine that it was measured on.

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
        let cpu = supernet::machine::cpu();
        Self {
            name: name.map_or_else(|| cpu.clone(), str::to_string),
            cpu,
            os: std::env::consts::OS.to_string(),
            arch: std::env::consts::ARCH.to_string(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_cores() {
        let facts = DeviceFacts::this_machine(Some("bench"));
        assert!(facts.cores > 0 && facts.name == "bench" && !facts.cpu.is_empty());
    }
}
