//! What every exporter tells of its own process; names as in the Prometheus client libraries,
//! behind the prefix that all names have here.

use std::{fs, io, path::Path, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::web::{Counts, Refused};

/// A metric: name, type, labels and meaning.
type Described = (&'static str, &'static str, &'static str, &'static str);

const BUILD: Described = (
    "nodewatch_build_info",
    "gauge",
    "`version`",
    "Version of the program, always 1",
);
const CPU: Described = (
    "nodewatch_process_cpu_seconds_total",
    "counter",
    "",
    "User and system time spent",
);
const RESIDENT: Described = (
    "nodewatch_process_resident_memory_bytes",
    "gauge",
    "",
    "Resident memory",
);
const FILES: Described = (
    "nodewatch_process_open_fds",
    "gauge",
    "",
    "Open file descriptors",
);

const REFUSED: Described = (
    "nodewatch_http_refused_total",
    "counter",
    "`reason`",
    "Connections and requests that the HTTP server turned away, by why",
);
const LOADS: Described = (
    "nodewatch_web_config_loads_total",
    "counter",
    "`result`",
    "Changed web configurations and certificates that came into force, or were refused",
);
const REBOOT: Described = (
    "nodewatch_node_reboot_required",
    "gauge",
    "",
    "Whether the node wants to be rebooted (1) or not (0)",
);

/// All of them, for the documentation.
#[cfg(test)]
pub(super) const METRICS: [Described; 7] = [BUILD, CPU, RESIDENT, FILES, REFUSED, LOADS, REBOOT];

/// Registers the process metrics as they are now; those that the system does not tell are absent.
pub(super) fn register(registry: &mut Registry) {
    let build = Family::<[(&str, &str); 1], Gauge>::default();
    build
        .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
        .set(1);
    registry.register(BUILD.0, BUILD.3, build);
    if let Some((cpu_seconds, resident_bytes)) = usage() {
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(cpu_seconds);
        registry.register(counter(CPU.0), CPU.3, cpu);
        registry.register(RESIDENT.0, RESIDENT.3, gauge(resident_bytes));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The listing itself has one open.
        let open = entries.count().saturating_sub(1);
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        registry.register(FILES.0, FILES.3, gauge(open));
    }
}

/// Registers what the HTTP server counted.
pub(super) fn register_web(registry: &mut Registry, counts: &Counts) {
    let refused = Family::<[(&str, &str); 1], Counter>::default();
    for why in Refused::ALL {
        let count = refused.get_or_create(&[("reason", why.name())]);
        count.inc_by(counts.refused(why));
    }
    registry.register(counter(REFUSED.0), REFUSED.3, refused);
    let loads = Family::<[(&str, &str); 1], Counter>::default();
    for (result, count) in counts.loads() {
        loads.get_or_create(&[("result", result)]).inc_by(count);
    }
    registry.register(counter(LOADS.0), LOADS.3, loads);
}

/// Registers what the node says of itself; what it does not say is absent.
pub(super) fn register_node(registry: &mut Registry, reboot: &Path) {
    if let Some(is_required) = is_reboot_required(reboot) {
        registry.register(REBOOT.0, REBOOT.3, gauge(i64::from(is_required)));
    }
}

/// Whether the file exists; `None` where that cannot be known: without its folder, as in a container
/// that has no part of the node's file system.
fn is_reboot_required(file: &Path) -> Option<bool> {
    match fs::symlink_metadata(file) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            file.parent()?.is_dir().then_some(false)
        }
        Err(_) => None,
    }
}

/// The name of a counter as the encoder wants it, which appends `_total`.
fn counter(name: &str) -> &str {
    name.trim_end_matches("_total")
}

fn gauge(value: i64) -> Gauge {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    gauge
}

/// Processor time in seconds and resident memory in bytes, from proc(5).
fn usage() -> Option<(f64, i64)> {
    // The kernel's USER_HZ, which is 100 on every architecture that is supported.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((
        (user + system) / TICKS_PER_SECOND,
        kibibytes.saturating_mul(1024),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_that_a_reboot_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("reboot-required");
        assert_eq!(is_reboot_required(&file), Some(false));
        fs::write(&file, "*** System restart required ***\n").expect("written");
        assert_eq!(is_reboot_required(&file), Some(true));
        assert_eq!(is_reboot_required(&folder.path().join("run/file")), None);
        assert_eq!(is_reboot_required(&file.join("below")), None);
    }

    #[test]
    fn what_is_registered_is_documented() {
        let mut registry = prometheus_client::registry::Registry::default();
        register(&mut registry);
        register_web(&mut registry, &Counts::default());
        let folder = tempfile::tempdir().expect("a folder");
        register_node(&mut registry, &folder.path().join("reboot-required"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for (name, kind, _, help) in METRICS {
            let name = name.trim_end_matches("_total");
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{text}");
            assert!(text.contains(&format!("# HELP {name} {help}.\n")), "{text}");
        }
        assert_eq!(text.matches("# TYPE").count(), METRICS.len(), "{text}");
    }

    #[test]
    fn this_process_uses_memory() {
        let (cpu, resident) = usage().expect("proc is mounted");
        assert!(cpu >= 0.0);
        assert!(resident > 100_000, "{resident}");
    }
}
