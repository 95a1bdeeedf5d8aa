//! What the daemon is told: flags over a TOML file over defaults.

mod file;
mod value;

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use monitor_common::abi::{DEFAULT_FLOWS4, DEFAULT_FLOWS6};
use monitor_core::{
    engine,
    entity::{NamedRange, Names, RangeError},
    flow::Timeouts,
    judge::{Expectations, Thresholds},
    netpol,
};
use serde::Deserialize;

pub use file::FileError;
pub use value::{
    Attach, InterfaceName, KernelLog, Kubernetes, Labels, Listen, LogFormat, Pattern, Period,
    PollInterval, Range, ValueError, parse_duration,
};

use crate::{azure::Sources, source::select::WORKLOAD_PATTERNS};

/// Default address of the HTTP server.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);
/// Default path of the API socket.
pub const DEFAULT_SOCKET: &str = "/run/nodewatch/api.sock";
/// Default path of the file that says that a reboot is wanted, as Debian and Ubuntu write it and
/// kured reads it.
pub const DEFAULT_REBOOT_REQUIRED: &str = "/var/run/reboot-required";
/// Default size at which the event log is rotated.
pub const DEFAULT_EVENT_LOG_MIB: u32 = 64;
/// Default time between two readings of the kernel's maps.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What the daemon is told, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Names of uplinks; the interfaces of the default routes if empty.
    pub uplink: Vec<String>,
    /// Who names them: the flag, or the file with line and key.
    pub uplink_origin: String,
    /// Name patterns of workload interfaces.
    pub workload: Vec<String>,
    /// Address of the HTTP server; `None` for no server.
    pub listen: Option<SocketAddr>,
    /// File that says who may read over HTTP; `None` for everyone, without TLS.
    pub web_config: Option<PathBuf>,
    /// Path of the API socket.
    pub socket: PathBuf,
    /// The most series that may grow with traffic.
    pub max_series: usize,
    /// What series tell apart.
    pub labels: Labels,
    /// How long series of a pod that is gone are kept.
    pub series_ttl: Duration,
    /// The file that says that the node wants to be rebooted.
    pub reboot_required_file: PathBuf,
    /// Capacity of the IPv4 flow map.
    pub max_flows4: u32,
    /// Capacity of the IPv6 flow map.
    pub max_flows6: u32,
    /// How many closed connections are remembered.
    pub recent: usize,
    /// Time between two readings of the kernel's maps.
    pub poll_interval: Duration,
    /// How to attach.
    pub attach: Attach,
    /// Level of the kernel program's own log.
    pub kernel_log: KernelLog,
    /// Names of address ranges.
    pub ranges: Vec<NamedRange>,
    /// From where SSH is expected.
    pub expectations: Expectations,
    /// When attempts to log in are reported as brute force and the like.
    pub thresholds: Thresholds,
    /// Whether to watch a cluster.
    pub kubernetes: Kubernetes,
    /// How to reach it; as a pod does if absent.
    pub kubeconfig: Option<PathBuf>,
    /// Files and directories with Kubernetes objects.
    pub manifests: Vec<PathBuf>,
    /// Files and directories with policies that are proposed.
    pub proposed: Vec<PathBuf>,
    /// What networks differ in about network policies.
    pub policy_options: netpol::Options,
    /// Network security groups that are declared.
    pub nsg: Sources,
    /// How long idle connections are kept.
    pub timeouts: Timeouts,
    /// How the daemon logs.
    pub log_format: LogFormat,
    /// File for findings and SSH connections, `-` for standard output; `None` for none.
    pub event_log: Option<PathBuf>,
    /// Size at which that file is rotated.
    pub event_log_bytes: u64,
}

/// What flags or a file say; the flags of `run` and the keys of the file are the same fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Watch this interface as an uplink, instead of those of the default routes (repeatable)
    #[arg(long, value_name = "IFACE")]
    uplink: Vec<InterfaceName>,
    /// Watch interfaces of this name pattern as workloads (repeatable) [default: veth* azv* cali* lxc* eni*]
    #[arg(long, value_name = "GLOB")]
    workload: Vec<Pattern>,
    /// Serve metrics and health over HTTP here, `none` for nowhere [default: 127.0.0.1:9469]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<Listen>,
    /// TLS and authentication of that server: a web configuration as Prometheus exporters have it, read
    /// again when it or a file that it names changes
    #[arg(long, value_name = "FILE")]
    web_config: Option<PathBuf>,
    /// API socket for the other commands [default: /run/nodewatch/api.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The most metric series that may grow with traffic; what is beyond counts as `other` [default: 20000]
    #[arg(long, value_name = "N")]
    max_series: Option<u32>,
    /// What metric series tell apart: pods, or workloads only, which leaves the label `pod` empty [default: pod]
    #[arg(long, value_name = "pod|workload")]
    labels: Option<Labels>,
    /// Keep series of a pod that is gone, and has no open connection, for so long [default: 1h]
    #[arg(long, value_name = "DURATION")]
    series_ttl: Option<Period>,
    /// The node wants to be rebooted when this file exists; where its folder does not exist, nothing is
    /// said [default: /var/run/reboot-required]
    #[arg(long, value_name = "PATH")]
    reboot_required_file: Option<PathBuf>,
    /// Connections that the kernel's IPv4 map can hold [default: 131072]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(value::FLOWS))]
    #[serde(deserialize_with = "value::flows")]
    max_flows4: Option<u32>,
    /// Connections that the kernel's IPv6 map can hold [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(value::FLOWS))]
    #[serde(deserialize_with = "value::flows")]
    max_flows6: Option<u32>,
    /// Closed connections to remember for `nodewatch flows` [default: 4096]
    #[arg(long, value_name = "N")]
    recent: Option<u32>,
    /// Time between two readings of the kernel's maps [default: 1s]
    #[arg(long, value_name = "DURATION")]
    poll_interval: Option<PollInterval>,
    /// How to attach: TCX where the kernel has it, else clsact; or only one of them [default: auto]
    #[arg(long, value_name = "auto|tcx|clsact")]
    attach: Option<Attach>,
    /// Log of the kernel program itself, for diagnosis: off, error, warn, info, debug or trace [default: off]
    #[arg(long, value_name = "LEVEL")]
    kernel_log: Option<KernelLog>,
    /// Name a range of addresses (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    range: Vec<Range>,
    /// SSH to nodes is expected from this range; without one, no SSH is unexpected (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    expect_ssh: Vec<Range>,
    /// SSH to pods is expected from this range (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    expect_ssh_pod: Vec<Range>,
    /// Watch a cluster's objects: auto (in a pod with a service account), on (elsewhere the cluster that
    /// kubectl talks to, by KUBECONFIG or ~/.kube/config) or off [default: auto]
    #[arg(long, value_name = "auto|on|off")]
    kubernetes: Option<Kubernetes>,
    /// Watch the objects of this cluster, by the current context of a file as kubectl has it
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// YAML or JSON with Kubernetes objects: pods are named, and flows judged by network policies; a
    /// directory is read with all below, and again when it changes (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    manifests: Vec<PathBuf>,
    /// Policies that are proposed: judged in place of those of the same names, beside the others; what
    /// they would change is in `findings --proposed`; read again when they change (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    proposed: Vec<PathBuf>,
    /// Whether an ipBlock matches addresses of pods: not so with Cilium, for one [default: true]
    #[arg(long, value_name = "true|false")]
    ip_block_matches_pods: Option<bool>,
    /// The network security group of the subnet or of the network card; FILE#NAME chooses one of
    /// several
    #[arg(long, value_name = "subnet|nic=FILE")]
    nsg: Vec<String>,
    /// Effective rules: output of `az network nic list-effective-nsg`
    #[arg(long, value_name = "FILE")]
    effective: Option<String>,
    /// Service tags: the weekly file or the discovery API's answer (repeatable)
    #[arg(long, value_name = "FILE")]
    service_tags: Vec<String>,
    /// Define or override a service tag, also VirtualNetwork and Internet (repeatable)
    #[arg(long, value_name = "NAME=CIDR,…")]
    tag: Vec<String>,
    /// Members of an application security group (repeatable)
    #[arg(long, value_name = "NAME=IP,…")]
    asg: Vec<String>,
    /// A range of the virtual network, its peers or its routes; adds to VirtualNetwork (repeatable)
    #[arg(long, value_name = "CIDR")]
    virtual_network: Vec<IpNet>,
    /// Admin rules of Virtual Network Manager: a JSON array of rules
    #[arg(long, value_name = "FILE")]
    admin_rules: Option<String>,
    /// What the platform needs from the rules: `aks`, or a file that `nsg profile aks` is an example
    /// of
    #[arg(long, value_name = "aks|FILE")]
    profile: Option<String>,
    /// How to log: text or json [default: text]
    #[arg(long, value_name = "text|json")]
    log_format: Option<LogFormat>,
    /// Write findings and SSH connections as JSON lines to this file, `-` for standard output
    #[arg(long, value_name = "FILE")]
    event_log: Option<PathBuf>,
    /// Rotate that file at this size; four old ones are kept [default: 64]
    #[arg(long, value_name = "MIB")]
    event_log_mib: Option<NonZeroU32>,
    /// Where the file names uplinks: file, line and key.
    #[arg(skip)]
    #[serde(skip)]
    uplink_origin: Option<String>,
    /// Timeouts; only in the file.
    #[arg(skip)]
    timeouts: TimeoutSettings,
    /// When attempts to log in are reported; only in the file.
    #[arg(skip)]
    ssh: SshSettings,
}

/// The table `timeouts` of the file: how long idle connections are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimeoutSettings {
    tcp_closed: Option<Period>,
    tcp_half_closed: Option<Period>,
    tcp_established: Option<Period>,
    tcp_unanswered: Option<Period>,
    udp_one_way: Option<Period>,
    udp_two_way: Option<Period>,
    icmp: Option<Period>,
    other: Option<Period>,
}

/// The table `ssh` of the file: when attempts to log in are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SshSettings {
    brute_force_attempts: Option<NonZeroU32>,
    brute_force_connections: Option<NonZeroU32>,
    brute_force_unknown: Option<NonZeroU32>,
    spray_connections: Option<NonZeroU32>,
    spray_targets: Option<NonZeroU32>,
    spray_sources: Option<NonZeroU32>,
    scan_targets: Option<NonZeroU32>,
    failures_before_success: Option<NonZeroU32>,
    window: Option<Period>,
    memory: Option<Period>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Ranges contradict each other.
    #[error("--range: {0}")]
    Ranges(#[from] RangeError),
    /// Objects from two places.
    #[error(
        "--manifests and {0}: objects come from files or from a cluster, not from both; \
         leave out one of them (policies that are only proposed: --proposed)"
    )]
    ManifestsAndCluster(&'static str),
}

// === impl Config ===

impl Config {
    /// Flags over the file over defaults.
    pub fn new(flags: Settings, file: Option<Settings>) -> Result<Self, ConfigError> {
        let settings = flags.over(file.unwrap_or_default());
        let defaults = engine::Config::default();
        let count = |given: Option<u32>, default: usize| given.map_or(default, |n| n as usize);
        let ranges = named(settings.range);
        Names::new(ranges.clone())?;
        let mut kubernetes = settings.kubernetes.unwrap_or_default();
        if !settings.manifests.is_empty() {
            kubernetes = match (kubernetes, &settings.kubeconfig) {
                (Kubernetes::Off, _) | (Kubernetes::Auto, None) => Kubernetes::Off,
                (Kubernetes::Auto | Kubernetes::On, Some(_)) => {
                    return Err(ConfigError::ManifestsAndCluster("--kubeconfig"));
                }
                (Kubernetes::On, None) => {
                    return Err(ConfigError::ManifestsAndCluster("--kubernetes on"));
                }
            };
        }
        Ok(Self {
            uplink: settings.uplink.into_iter().map(String::from).collect(),
            uplink_origin: settings
                .uplink_origin
                .unwrap_or_else(|| "--uplink".to_owned()),
            workload: if settings.workload.is_empty() {
                WORKLOAD_PATTERNS.map(str::to_owned).into()
            } else {
                settings.workload.into_iter().map(String::from).collect()
            },
            listen: settings
                .listen
                .map_or(Some(DEFAULT_LISTEN), |Listen(listen)| listen),
            web_config: settings.web_config,
            socket: settings.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            max_series: count(settings.max_series, defaults.max_series),
            labels: settings.labels.unwrap_or_default(),
            series_ttl: settings
                .series_ttl
                .map_or(defaults.series_ttl, |Period(ttl)| ttl),
            reboot_required_file: settings
                .reboot_required_file
                .unwrap_or_else(|| DEFAULT_REBOOT_REQUIRED.into()),
            max_flows4: settings.max_flows4.unwrap_or(DEFAULT_FLOWS4),
            max_flows6: settings.max_flows6.unwrap_or(DEFAULT_FLOWS6),
            recent: count(settings.recent, defaults.recent),
            poll_interval: settings
                .poll_interval
                .map_or(DEFAULT_POLL_INTERVAL, |PollInterval(interval)| interval),
            attach: settings.attach.unwrap_or_default(),
            kernel_log: settings.kernel_log.unwrap_or_default(),
            ranges,
            expectations: Expectations {
                node: named(settings.expect_ssh),
                pod: named(settings.expect_ssh_pod),
            },
            thresholds: settings.ssh.over_defaults(),
            kubernetes,
            kubeconfig: settings.kubeconfig,
            manifests: settings.manifests,
            proposed: settings.proposed,
            policy_options: netpol::Options {
                blocks_match_pods: settings
                    .ip_block_matches_pods
                    .unwrap_or(netpol::Options::default().blocks_match_pods),
            },
            nsg: Sources {
                nsg: settings.nsg,
                effective: settings.effective,
                service_tags: settings.service_tags,
                tag: settings.tag,
                asg: settings.asg,
                virtual_network: settings.virtual_network,
                admin_rules: settings.admin_rules,
                profile: settings.profile,
            },
            timeouts: settings.timeouts.over_defaults(),
            log_format: settings.log_format.unwrap_or_default(),
            event_log: settings.event_log,
            event_log_bytes: u64::from(
                settings
                    .event_log_mib
                    .map_or(DEFAULT_EVENT_LOG_MIB, NonZeroU32::get),
            ) << 20,
        })
    }
}

// === impl Settings ===

impl Settings {
    /// These where they say something, else those of `below`.
    fn over(self, below: Self) -> Self {
        fn list<T>(above: Vec<T>, below: Vec<T>) -> Vec<T> {
            if above.is_empty() { below } else { above }
        }
        Self {
            uplink_origin: below.uplink_origin.filter(|_| self.uplink.is_empty()),
            uplink: list(self.uplink, below.uplink),
            workload: list(self.workload, below.workload),
            listen: self.listen.or(below.listen),
            web_config: self.web_config.or(below.web_config),
            socket: self.socket.or(below.socket),
            max_series: self.max_series.or(below.max_series),
            labels: self.labels.or(below.labels),
            series_ttl: self.series_ttl.or(below.series_ttl),
            reboot_required_file: self.reboot_required_file.or(below.reboot_required_file),
            max_flows4: self.max_flows4.or(below.max_flows4),
            max_flows6: self.max_flows6.or(below.max_flows6),
            recent: self.recent.or(below.recent),
            poll_interval: self.poll_interval.or(below.poll_interval),
            attach: self.attach.or(below.attach),
            kernel_log: self.kernel_log.or(below.kernel_log),
            range: list(self.range, below.range),
            expect_ssh: list(self.expect_ssh, below.expect_ssh),
            expect_ssh_pod: list(self.expect_ssh_pod, below.expect_ssh_pod),
            kubernetes: self.kubernetes.or(below.kubernetes),
            kubeconfig: self.kubeconfig.or(below.kubeconfig),
            manifests: list(self.manifests, below.manifests),
            proposed: list(self.proposed, below.proposed),
            ip_block_matches_pods: self.ip_block_matches_pods.or(below.ip_block_matches_pods),
            nsg: list(self.nsg, below.nsg),
            effective: self.effective.or(below.effective),
            service_tags: list(self.service_tags, below.service_tags),
            tag: list(self.tag, below.tag),
            asg: list(self.asg, below.asg),
            virtual_network: list(self.virtual_network, below.virtual_network),
            admin_rules: self.admin_rules.or(below.admin_rules),
            profile: self.profile.or(below.profile),
            log_format: self.log_format.or(below.log_format),
            event_log: self.event_log.or(below.event_log),
            event_log_mib: self.event_log_mib.or(below.event_log_mib),
            timeouts: below.timeouts,
            ssh: below.ssh,
        }
    }
}

fn named(ranges: Vec<Range>) -> Vec<NamedRange> {
    ranges.into_iter().map(|Range(range)| range).collect()
}

// === impl SshSettings ===

impl SshSettings {
    fn over_defaults(self) -> Thresholds {
        let defaults = Thresholds::default();
        let or = |given: Option<NonZeroU32>, default| given.map_or(default, NonZeroU32::get);
        let period =
            |given: Option<Period>, default| given.map_or(default, |Period(period)| period);
        Thresholds {
            attempts: or(self.brute_force_attempts, defaults.attempts),
            connections: or(self.brute_force_connections, defaults.connections),
            unknown: or(self.brute_force_unknown, defaults.unknown),
            spray_connections: or(self.spray_connections, defaults.spray_connections),
            spray_targets: or(self.spray_targets, defaults.spray_targets),
            spray_sources: or(self.spray_sources, defaults.spray_sources),
            scan_targets: or(self.scan_targets, defaults.scan_targets),
            failures: or(self.failures_before_success, defaults.failures),
            window: period(self.window, defaults.window),
            memory: period(self.memory, defaults.memory),
        }
    }
}

// === impl TimeoutSettings ===

impl TimeoutSettings {
    fn over_defaults(self) -> Timeouts {
        let defaults = Timeouts::default();
        let or = |given: Option<Period>, default| given.map_or(default, |Period(period)| period);
        Timeouts {
            tcp_closed: or(self.tcp_closed, defaults.tcp_closed),
            tcp_half_closed: or(self.tcp_half_closed, defaults.tcp_half_closed),
            tcp_established: or(self.tcp_established, defaults.tcp_established),
            tcp_unanswered: or(self.tcp_unanswered, defaults.tcp_unanswered),
            udp_one_way: or(self.udp_one_way, defaults.udp_one_way),
            udp_two_way: or(self.udp_two_way, defaults.udp_two_way),
            icmp: or(self.icmp, defaults.icmp),
            other: or(self.other, defaults.other),
        }
    }
}

#[cfg(test)]
mod tests;
