//! The memory that a process may still allocate, by Linux's reports on the machine and its control groups.

use std::path::{Path, PathBuf};

/// Bytes that this process may still allocate before the system has none left or a control group's limit is reached; `None`
/// if the system does not report them.
pub fn memory_left() -> Option<u64> {
    let of_machine = available(&read(Path::new("/proc/meminfo")));
    let groups = groups(&read(Path::new("/proc/self/cgroup")));
    let of_groups = groups.iter().filter_map(|group| group.left(&read));
    of_machine.into_iter().chain(of_groups).min()
}

/// Bytes of memory that this process holds now, if the system reports them.
pub fn memory_held() -> Option<u64> {
    kibibytes(&read(Path::new("/proc/self/status")), "VmRSS:")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Bytes that can be allocated without swapping, from the text of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemAvailable:")
}

/// The bytes in a line such as `MemAvailable:   13160 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    count.checked_mul(1024)
}

/// The two forms of control groups, which name their files differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A control group that this process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    folder: PathBuf,
}

/// The control groups that `/proc/self/cgroup` names, each with its ancestors: a limit of any of them counts. Within a
/// container the root is the container's own group, whose outside path means nothing there.
fn groups(cgroup: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (version, root) = match controllers {
            "" => (Version::Two, "/sys/fs/cgroup"),
            some if some.split(',').any(|name| name == "memory") => (Version::One, "/sys/fs/cgroup/memory"),
            _ => continue,
        };
        let within = Path::new(path.trim_start_matches('/'));
        let folders = within.ancestors().map(|path| Path::new(root).join(path));
        found.extend(folders.map(|folder| Group { version, folder }));
    }
    found
}

impl Group {
    /// Bytes left up to the group's limit, if it has one. `read` returns a file's text, or none if there is no file.
    fn left(&self, read: &dyn Fn(&Path) -> String) -> Option<u64> {
        let (limit, used, cache) = match self.version {
            Version::Two => ("memory.max", "memory.current", ["inactive_file", "active_file"]),
            Version::One => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
        };
        let file = |name: &str| read(&self.folder.join(name));
        // `max`, and in the first version a number beyond any memory, are no limit
        let limit: u64 = file(limit).trim().parse().ok()?;
        let used: u64 = file(used).trim().parse().ok()?;
        let statistics = file("memory.stat");
        let reclaimable: u64 = cache.iter().filter_map(|name| counted(&statistics, name)).sum();
        Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
    }
}

/// The number in a line such as `inactive_file 4096`.
fn counted(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine_is_read() {
        let text = "MemTotal:       24689764 kB\nMemFree:        1000 kB\nMemAvailable:   13160 kB\n";
        assert_eq!(available(text), Some(13160 * 1024));
        for text in ["", "MemTotal: 1 kB\n", "MemAvailable: many kB\n", "MemAvailable: 5 pages\n"] {
            assert_eq!(available(text), None, "{text:?}");
        }
        assert_eq!(kibibytes("VmHWM:\t 3 kB\nVmRSS:\t 2 kB\n", "VmRSS:"), Some(2048));
    }

    fn folders(cgroup: &str) -> Vec<String> {
        groups(cgroup).iter().map(|group| group.folder.display().to_string()).collect()
    }

    #[test]
    fn groups_are_found_with_those_around_them() {
        let two = "0::/user.slice/a.scope\n";
        assert_eq!(
            folders(two),
            ["/sys/fs/cgroup/user.slice/a.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/"]
        );
        let one = "9:name=systemd:/x\n4:cpu,memory:/box\n1:cpu:/\n";
        assert_eq!(folders(one), ["/sys/fs/cgroup/memory/box", "/sys/fs/cgroup/memory/"]);
        assert_eq!(folders("0::/"), ["/sys/fs/cgroup/"]);
        assert_eq!(folders("nothing of the kind\n\n"), [""; 0]);
    }

    /// Bytes left of a group with these files.
    fn left(version: Version, files: &[(&str, &str)]) -> Option<u64> {
        let group = Group { version, folder: PathBuf::from("/group") };
        group.left(&|path: &Path| {
            let found = files.iter().find(|(name, _)| path == Path::new("/group").join(name));
            found.map(|(_, text)| text.to_string()).unwrap_or_default()
        })
    }

    #[test]
    fn a_limit_counts_less_what_is_used_and_cannot_be_given_back() {
        let stat = "anon 500\nfile 300\ninactive_file 200\nactive_file 50\ninactive_file_x 9\n";
        let two = [("memory.max", "1000\n"), ("memory.current", "800\n"), ("memory.stat", stat)];
        assert_eq!(left(Version::Two, &two), Some(1000 - 550));
        assert_eq!(left(Version::Two, &[("memory.max", "max\n"), ("memory.current", "800\n")]), None);
        assert_eq!(left(Version::Two, &[]), None, "a group that cannot be seen");
        assert_eq!(left(Version::Two, &[("memory.max", "5"), ("memory.current", "9")]), Some(0));
        let stat = "inactive_file 1\ntotal_inactive_file 100\ntotal_active_file 100\n";
        let one =
            [("memory.limit_in_bytes", "1000\n"), ("memory.usage_in_bytes", "900\n"), ("memory.stat", stat)];
        assert_eq!(left(Version::One, &one), Some(300));
        // "no limit" is a number larger than the machine's memory
        let none = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "900\n")];
        assert!(left(Version::One, &none) > Some(1 << 60));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_tells() {
        assert!(memory_left().is_some_and(|bytes| bytes > 1 << 20));
        assert!(memory_held().is_some_and(|bytes| bytes > 1 << 20));
    }
}
