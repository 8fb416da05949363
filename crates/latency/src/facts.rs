//! Facts about the machine and the engine of a table.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Facts of a device. Facts that an external tool does not report are empty, or 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFacts {
    /// The owner's name for it.
    pub name: String,
    /// Processor model, from the operating system.
    #[serde(default)]
    pub cpu: String,
    /// Operating system, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Instruction set, such as `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// Hardware threads that this process may use.
    #[serde(default)]
    pub cores: usize,
}

/// The engine that ran the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Name, such as `native`.
    pub engine: String,
    /// Version.
    pub engine_version: String,
    /// Number of threads.
    pub threads: usize,
    /// Number type of the activations, such as `f32`.
    pub dtype: String,
    /// Batch size.
    pub batch: usize,
}

/// Conditions that may change between sessions on one device, as far as the operating system reports them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// How the first processor's frequency is chosen, such as `performance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// The first processor's frequency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_mhz: Option<f64>,
    /// Processors that this process may run on, as a list of ranges, such as `0-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// The hottest of the machine's thermal zones, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// Processes that were running or waiting to, on average over the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Processor time since the machine started, over all processors, in the system's ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ticks: Option<u64>,
    /// The part of it in which a virtual machine's processors waited while the host did something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steal_ticks: Option<u64>,
}

impl Conditions {
    /// The present conditions of this machine, as Linux reports them.
    pub fn now() -> Self {
        Self::under(Path::new("/"))
    }

    /// The conditions from the files under another root.
    fn under(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let cpufreq = |file: &str| text(&format!("sys/devices/system/cpu/cpu0/cpufreq/{file}"));
        let governor = Some(cpufreq("scaling_governor").trim().to_string()).filter(|name| !name.is_empty());
        let khz = cpufreq("scaling_cur_freq").trim().parse::<f64>().ok();
        let frequency_mhz =
            khz.map(|khz| khz / 1e3).or_else(|| field(&text("proc/cpuinfo"), "cpu MHz")?.parse().ok());
        let affinity = field(&text("proc/self/status"), "Cpus_allowed_list").map(str::to_string);
        let zones = std::fs::read_dir(root.join("sys/class/thermal")).into_iter().flatten().flatten();
        let temperatures_c = zones.filter_map(|zone| {
            let millidegrees = std::fs::read_to_string(zone.path().join("temp")).ok()?;
            Some(millidegrees.trim().parse::<f64>().ok()? / 1e3)
        });
        let temperature_c = temperatures_c.max_by(f64::total_cmp);
        let load = text("proc/loadavg").split(' ').next().and_then(|load| load.parse().ok());
        let known = |value: Option<f64>| value.filter(|value| value.is_finite());
        let frequency_mhz = known(frequency_mhz);
        let temperature_c = known(temperature_c);
        let ticks = processor_ticks(&text("proc/stat"));
        let cpu_ticks = ticks.map(|ticks| ticks[0]);
        let steal_ticks = ticks.map(|ticks| ticks[1]);
        let load = known(load);
        Self { governor, frequency_mhz, affinity, temperature_c, load, cpu_ticks, steal_ticks }
    }

    /// Share of the processors' time since `earlier` that a host took away.
    pub fn steal_since(&self, earlier: &Self) -> Option<f64> {
        let all = self.cpu_ticks?.checked_sub(earlier.cpu_ticks?)?;
        let stolen = self.steal_ticks?.checked_sub(earlier.steal_ticks?)?;
        (all > 0).then(|| stolen as f64 / all as f64)
    }
}

/// All ticks and the stolen ones, from the first line of Linux' `/proc/stat`: user, nice, system, idle, iowait, irq,
/// softirq, steal; guests' time is among the user's.
fn processor_ticks(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    Some([ticks.iter().sum(), *ticks.get(7)?])
}

/// The value after `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(':').filter(|(key, _)| key.trim() == name);
    text.lines().find_map(value).map(|(_, value)| value.trim())
}

impl DeviceFacts {
    /// The machine that this runs on; without a name, its processor's model is used.
    pub fn this_machine(name: Option<&str>) -> Self {
        let cpu = base::machine::cpu();
        Self {
            name: name.map_or_else(|| cpu.clone(), str::to_string),
            cpu,
            os: std::env::consts::OS.to_string(),
            arch: std::env::consts::ARCH.to_string(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// The facts with the GPU's name, if there is one, in place of the processor's, and, if `named_by_it`, of the
    /// machine's.
    #[must_use]
    pub fn computing_on(mut self, gpu: Option<String>, named_by_it: bool) -> Self {
        if let Some(gpu) = gpu {
            if named_by_it {
                self.name.clone_from(&gpu);
            }
            self.cpu = format!("{gpu}, {}", self.cpu);
        }
        self
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

    #[test]
    fn conditions_are_read_where_they_are_told() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(Conditions::under(root.path()), Conditions::default());
        for (path, text) in [
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51000\n"),
            ("sys/class/thermal/thermal_zone2/temp", "none\n"),
            ("proc/self/status", "Name:\tmeasure\nCpus_allowed_list:\t0-3\n"),
            ("proc/loadavg", "0.25 0.11 0.02 1/123 4567\n"),
            ("proc/stat", "cpu  10 20 30 400 5 6 7 22 0 0\ncpu0 1 2 3\n"),
        ] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let conditions = Conditions {
            governor: Some("ondemand".to_string()),
            frequency_mhz: Some(1500.0),
            affinity: Some("0-3".to_string()),
            temperature_c: Some(51.0),
            load: Some(0.25),
            cpu_ticks: Some(500),
            steal_ticks: Some(22),
        };
        let later = Conditions { cpu_ticks: Some(700), steal_ticks: Some(32), ..conditions.clone() };
        assert_eq!(later.steal_since(&conditions), Some(0.05));
        assert_eq!(conditions.steal_since(&later), None);
        assert_eq!(Conditions::under(root.path()), conditions);
    }
}
