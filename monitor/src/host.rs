//! What this host is and what it allows.

mod cgroup;
pub mod cgroups;
mod clock;
pub mod conntrack;
mod login;
mod names;
mod namespaces;
pub mod owner;
mod process;
mod scan;
mod sock_diag;

use std::fs;

/// The oldest kernel that is supported.
const FLOOR: (u32, u32) = (5, 15);
/// Lifts the floor, for the kernel matrix.
const ALLOW_OLD: &str = "NODEWATCH_ALLOW_OLD_KERNEL";

/// Capabilities by number, as in linux/capability.h.
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// The host cannot run the daemon.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Too old a kernel.
    #[error(
        "kernel {release} is too old: {}.{} or newer is supported ({ALLOW_OLD}=1 tries anyway)",
        FLOOR.0,
        FLOOR.1
    )]
    OldKernel {
        /// Its release.
        release: String,
    },
    /// Privileges are missing.
    #[error("missing {}: run as root, or grant {}", .0.join(", "), .0.join(" and "))]
    Capabilities(Vec<&'static str>),
}

/// Release of the running kernel.
pub fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    if release.is_empty() {
        "unknown".to_owned()
    } else {
        release.to_owned()
    }
}

/// Processors that the kernel may ever have; per-CPU maps are sized by them.
pub fn possible_cpus() -> Option<usize> {
    count_cpus(&fs::read_to_string("/sys/devices/system/cpu/possible").ok()?)
}

/// Refuses kernels below the floor; one whose release cannot be read is given a try.
pub fn check_kernel() -> Result<(), HostError> {
    let release = kernel_release();
    let allowed = std::env::var_os(ALLOW_OLD).is_some_and(|value| value == "1");
    match version(&release) {
        Some(version) if version < FLOOR && !allowed => Err(HostError::OldKernel { release }),
        _ => Ok(()),
    }
}

/// Refuses to go on without the capabilities that loading and attaching need.
pub fn check_capabilities() -> Result<(), HostError> {
    let missing = missing_capabilities();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HostError::Capabilities(missing))
    }
}

/// Names of the capabilities that are needed and not effective. `CAP_SYS_ADMIN` includes
/// `CAP_BPF` and `CAP_PERFMON`.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective(&status) else {
        return Vec::new();
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let mut missing = Vec::new();
    for (number, name) in [
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ] {
        let included = number != CAP_NET_ADMIN && has(CAP_SYS_ADMIN);
        if !has(number) && !included {
            missing.push(name);
        }
    }
    missing
}

/// Names of the capabilities that are needed to tell whose a connection is, and not effective.
fn missing_for_processes() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective(&status) else {
        return Vec::new();
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let mut missing = Vec::new();
    if !has(CAP_SYS_PTRACE) {
        missing.push("CAP_SYS_PTRACE");
    }
    if !has(CAP_DAC_READ_SEARCH) && !has(CAP_DAC_OVERRIDE) {
        missing.push("CAP_DAC_READ_SEARCH");
    }
    missing
}

/// Whether a process has `CAP_NET_ADMIN`; `None` if that is not told.
pub fn has_net_admin(pid: i32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(effective(&status)? >> CAP_NET_ADMIN & 1 == 1)
}

/// Whether a capability is effective; false where that cannot be told.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_some_and(|effective| effective >> number & 1 == 1)
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// How many processors a list such as `0-3,8` names.
fn count_cpus(list: &str) -> Option<usize> {
    let mut count = 0;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions() {
        let check = |release: &str, expected| assert_eq!(version(release), expected, "{release}");
        check("5.15.0-1074-azure", Some((5, 15)));
        check("6.6.57.1-7.cm2", Some((6, 6)));
        check("6.18.44-fc-v669", Some((6, 18)));
        check("unknown", None);
        assert!((5, 4) < FLOOR && (5, 15) >= FLOOR && (6, 1) > FLOOR);
    }

    #[test]
    fn an_old_kernel_is_told_the_floor() {
        let release = "5.10.0-30-amd64".to_owned();
        let message = HostError::OldKernel { release }.to_string();
        assert_eq!(
            message,
            "kernel 5.10.0-30-amd64 is too old: 5.15 or newer is supported \
             (NODEWATCH_ALLOW_OLD_KERNEL=1 tries anyway)"
        );
    }

    #[test]
    fn processors_are_counted() {
        for (list, expected) in [
            ("0\n", Some(1)),
            ("0-127\n", Some(128)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
        ] {
            assert_eq!(count_cpus(list), expected, "{list:?}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let text = "Name:\tx\nCapEff:\t000000c000001000\nCapBnd:\t0\n";
        assert_eq!(effective(text), Some(0xc0_0000_1000));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
