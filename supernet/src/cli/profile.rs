//! The table that `--profile` prints.

use kernels::{Backend, Profile, ProfileRow};

/// The backend, recorded if `record` is true, and the record.
pub fn recorded(backend: &Backend, record: bool) -> (Backend, Option<Profile>) {
    let profile = record.then(Profile::new);
    (profile.clone().map_or(backend.clone(), |profile| backend.profiled(profile)), profile)
}

/// A table of each kernel's time in the steps, which took `total_ms` together.
pub fn table(rows: &[ProfileRow], steps: usize, total_ms: f64) -> String {
    let mut lines = vec![format!(
        "{:<15} {:<29} {:>10} {:>9} {:>7} {:>8} {:>7}",
        "layer", "kernel", "calls/step", "ms/step", "share", "GFLOP/s", "GB/s"
    )];
    let per_step = 1.0 / steps.max(1) as f64;
    for row in rows {
        let flops =
            if row.macs > 0 { format!("{:.0}", 2.0 * row.macs as f64 / row.ms / 1e6) } else { String::new() };
        lines.push(format!(
            "{:<15} {:<29} {:>10.0} {:>9.2} {:>6.1}% {flops:>8} {:>7.1}",
            row.layer,
            row.operation,
            row.calls as f64 * per_step,
            row.ms * per_step,
            100.0 * row.ms / total_ms,
            row.bytes as f64 / row.ms / 1e6
        ));
    }
    let rest = total_ms - rows.iter().map(|row| row.ms).sum::<f64>();
    lines.push(format!(
        "{:<15} {:<29} {:>10} {:>9.2} {:>6.1}%",
        "",
        "outside of kernels",
        "",
        rest * per_step,
        100.0 * rest / total_ms
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let row = ProfileRow {
            layer: "pointwise",
            operation: "product",
            calls: 20,
            ms: 30.0,
            macs: 3_000_000_000,
            bytes: 60_000_000,
        };
        let table = table(&[row], 10, 40.0);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["pointwise", "product", "2", "3.00", "75.0%", "200", "2.0"]);
        assert_eq!(lines[2], ["outside", "of", "kernels", "1.00", "25.0%"]);
    }
}
