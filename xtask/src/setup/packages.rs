//! System packages by group, and how to see that one is there.

use std::path::Path;

use crate::setup::Group;
use crate::toolchain::which;

/// One thing that the system must provide.
#[derive(Debug)]
pub(crate) struct Need {
    /// Which group needs it.
    pub(crate) group: Group,
    /// What shows that it is there.
    pub(crate) probe: Probe,
    /// Packages that bring it, the first that the system offers is taken.
    pub(crate) packages: &'static [&'static str],
    /// Service that the package would start; it stays off on this machine.
    pub(crate) service: Option<&'static str>,
}

/// What shows that a need is met.
#[derive(Debug)]
pub(crate) enum Probe {
    /// An executable of this name.
    Program(&'static str),
    /// A file at this path.
    File(&'static str),
}

// === impl Need ===

impl Need {
    /// Whether the machine has it.
    pub(crate) fn is_met(&self) -> bool {
        match self.probe {
            Probe::Program(name) => which(name).is_some(),
            Probe::File(path) => Path::new(path).is_file(),
        }
    }
}

/// Modules of the system's own Python.
const ASYNCSSH: &str = "/usr/lib/python3/dist-packages/asyncssh/__init__.py";
const PARAMIKO: &str = "/usr/lib/python3/dist-packages/paramiko/__init__.py";

/// Everything outside Rust that this repository uses.
pub(crate) const NEEDS: &[Need] = &[
    program(Group::Build, "cc", &["gcc"]),
    file(Group::Build, "/usr/include/stdio.h", &["libc6-dev"]),
    // the lab: namespaces, traffic, independent counts
    program(Group::Test, "ip", &["iproute2"]),
    program(Group::Test, "unshare", &["util-linux"]),
    program(Group::Test, "script", &["bsdutils"]),
    program(Group::Test, "ethtool", &["ethtool"]),
    program(Group::Test, "nft", &["nftables"]),
    // kube-proxy in the cluster test
    program(Group::Test, "iptables", &["iptables"]),
    program(Group::Test, "ping", &["iputils-ping"]),
    program(Group::Test, "tcpdump", &["tcpdump"]),
    program(Group::Test, "tshark", &["tshark"]),
    service(Group::Test, "iperf3", &["iperf3"], "iperf3"),
    service(Group::Test, "sshd", &["openssh-server"], "ssh"),
    program(Group::Test, "ssh", &["openssh-client"]),
    program(Group::Test, "dropbear", &["dropbear-bin"]),
    program(Group::Test, "dbclient", &["dropbear-bin"]),
    file(Group::Test, ASYNCSSH, &["python3-asyncssh"]),
    file(Group::Test, PARAMIKO, &["python3-paramiko"]),
    program(Group::Test, "openssl", &["openssl"]),
    program(Group::Test, "dnsmasq", &["dnsmasq-base"]),
    service(Group::Test, "nginx", &["nginx-light", "nginx"], "nginx"),
    program(Group::Test, "curl", &["curl"]),
    program(Group::Test, "socat", &["socat"]),
    program(Group::Test, "tcpreplay", &["tcpreplay"]),
    program(Group::Test, "bpftool", &["bpftool", "linux-tools-common"]),
    program(Group::Test, "ps", &["procps"]),
    service(Group::Test, "promtool", &["prometheus"], "prometheus"),
    program(Group::Test, "setpriv", &["util-linux"]),
    // manifests and the image
    program(Group::Deploy, "kubectl", &["kubectl", "kubernetes-client"]),
    program(Group::Deploy, "python3", &["python3-minimal"]),
    program(Group::Image, "buildah", &["buildah"]),
    // TLS has some C and assembly in it, built for the static binary, too
    program(Group::Image, "musl-gcc", &["musl-tools"]),
    program(
        Group::Cross,
        "aarch64-linux-gnu-gcc",
        &["gcc-aarch64-linux-gnu"],
    ),
    file(
        Group::Cross,
        "/usr/aarch64-linux-gnu/include/string.h",
        &["libc6-dev-arm64-cross"],
    ),
    // libFuzzer is C++
    program(Group::Fuzz, "c++", &["g++"]),
    // kernels in virtual machines
    program(Group::Vm, "qemu-system-x86_64", &["qemu-system-x86"]),
    file(Group::Vm, "/usr/share/seabios/bios-256k.bin", &["seabios"]),
    program(Group::Vm, "busybox", &["busybox-static"]),
    program(Group::Vm, "ip", &["iproute2"]),
    program(Group::Vm, "xz", &["xz-utils"]),
    program(Group::Vm, "zstd", &["zstd"]),
    program(Group::Vm, "strip", &["binutils"]),
    file(
        Group::Vm,
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        &["debian-archive-keyring"],
    ),
];

const fn program(group: Group, name: &'static str, packages: &'static [&'static str]) -> Need {
    Need {
        group,
        probe: Probe::Program(name),
        packages,
        service: None,
    }
}

const fn file(group: Group, path: &'static str, packages: &'static [&'static str]) -> Need {
    Need {
        group,
        probe: Probe::File(path),
        packages,
        service: None,
    }
}

const fn service(
    group: Group,
    name: &'static str,
    packages: &'static [&'static str],
    service: &'static str,
) -> Need {
    Need {
        group,
        probe: Probe::Program(name),
        packages,
        service: Some(service),
    }
}
