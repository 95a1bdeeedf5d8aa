//! SSH servers with an account of their own: OpenSSH's, Dropbear and AsyncSSH.
//!
//! Each runs in a mount namespace of its own, where `/etc/passwd`, `/etc/shadow` and the home
//! directory are the test's: no account of the machine is used or changed.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::START;
use crate::lab::gate;
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::{self, Guard};

/// Who may log in, with the key `client_key` or the password; root may with the key.
pub const USER: &str = "nwalice";
/// The user's number.
pub const UID: u32 = 31_337;
/// The user's password, where the server asks no PAM.
pub const PASSWORD: &str = "open sesame";
/// Debian's Python, which has Debian's packages.
pub const PYTHON: &str = "/usr/bin/python3";

/// A running server.
#[derive(Debug)]
pub struct Account {
    /// The process.
    pub guard: Guard,
    /// Its port.
    pub port: u16,
    directory: PathBuf,
}

/// Whether a process without a login session may start one, as `pam_loginuid` does.
pub fn sessions_work() -> bool {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "echo 1 > /proc/self/loginuid && cat /proc/self/loginuid",
    ]);
    process::checked(&mut shell).is_ok_and(|text| text.trim() == "1")
}

/// Whether Debian's Python has a module.
pub fn has_module(name: &str) -> bool {
    let mut python = Command::new(PYTHON);
    process::checked(python.args(["-c", &format!("import {name}")])).is_ok()
}

/// Options of OpenSSH's client that keep it away from the machine's own files.
const SSH_OPTIONS: [&str; 7] = [
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "GlobalKnownHostsFile=/dev/null",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "LogLevel=ERROR",
    "ConnectTimeout=10",
];

// === impl Account ===

impl Account {
    /// OpenSSH's server. With PAM a login has a session, and no password is right.
    pub fn sshd(namespace: &Namespace, port: u16, with_pam: bool) -> Result<Self> {
        let directory = prepare(namespace, port)?;
        let shown = directory.display();
        let mut keys = String::new();
        for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")] {
            let name = format!("host_key_{kind}");
            keygen(&directory.join(&name), &["-t", kind, "-b", bits])?;
            writeln!(keys, "HostKey {shown}/{name}")?;
        }
        let pam = if with_pam { "yes" } else { "no" };
        let config = format!(
            "Port {port}\nListenAddress 0.0.0.0\nListenAddress ::\n{keys}\
             AuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nStrictModes no\n\
             UsePAM {pam}\nPermitRootLogin prohibit-password\nPasswordAuthentication yes\n\
             KbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\nUseDNS no\n\
             LogLevel VERBOSE\nSubsystem sftp internal-sftp\nMaxStartups 100\n\
             GatewayPorts clientspecified\n"
        );
        fs::write(directory.join("sshd_config"), config)?;
        // What PAM does beyond setting the session is not wanted here.
        fs::write(
            directory.join("pam_sshd"),
            "auth required pam_deny.so\naccount required pam_permit.so\n\
             password required pam_deny.so\nsession required pam_loginuid.so\n",
        )?;
        let sshd = gate::find_tool("sshd").context("sshd is not installed (openssh-server)")?;
        let config = directory.join("sshd_config").display().to_string();
        let arguments = [&*sshd.to_string_lossy(), "-D", "-e", "-f", &config].map(str::to_owned);
        Self::start(namespace, directory, port, &arguments)
    }

    /// Dropbear.
    pub fn dropbear(namespace: &Namespace, port: u16) -> Result<Self> {
        let directory = prepare(namespace, port)?;
        let host_key = directory.join("host_key").display().to_string();
        process::checked(Command::new("dropbearkey").args(["-t", "ed25519", "-f", &host_key]))?;
        let dropbear = gate::find_tool("dropbear").context("dropbear is not installed")?;
        let port_text = port.to_string();
        let program = dropbear.to_string_lossy();
        let arguments = [&*program, "-F", "-E", "-r", &host_key, "-p", &port_text];
        Self::start(namespace, directory, port, &arguments.map(str::to_owned))
    }

    /// A server made with AsyncSSH, which runs as root and starts no session.
    pub fn asyncssh(namespace: &Namespace, port: u16) -> Result<Self> {
        let directory = prepare(namespace, port)?;
        keygen(&directory.join("host_key"), &["-t", "ed25519"])?;
        let script = directory.join("server.py");
        fs::write(&script, include_str!("asyncssh_server.py"))?;
        let path = |name: &str| directory.join(name).display().to_string();
        let arguments = [
            PYTHON.to_owned(),
            path("server.py"),
            port.to_string(),
            path("host_key"),
            path("authorized_keys"),
            PASSWORD.to_owned(),
        ];
        Self::start(namespace, directory, port, &arguments)
    }

    fn start(
        namespace: &Namespace,
        directory: PathBuf,
        port: u16,
        arguments: &[String],
    ) -> Result<Self> {
        let script = "mount -t tmpfs lab /run && mkdir -m 755 /run/sshd && \
                      mount -t tmpfs lab /var/log && mount -t tmpfs lab /home && \
                      mkdir -m 755 /home/user && mkdir -m 700 /home/user/.ssh && \
                      cp \"$1/authorized_keys\" /home/user/.ssh/ && chown -R \"$2\" /home/user && \
                      mount --bind \"$1/passwd\" /etc/passwd && \
                      mount --bind \"$1/shadow\" /etc/shadow && \
                      { test ! -e \"$1/pam_sshd\" || test ! -e /etc/pam.d/sshd || \
                        mount --bind \"$1/pam_sshd\" /etc/pam.d/sshd; } && \
                      shift 2 && exec \"$@\"";
        let mut command = namespace.command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command
            .arg(&directory)
            .arg(format!("{UID}:{UID}"))
            .args(arguments);
        let guard = namespace.spawn("server", &mut command)?;
        namespace
            .wait_listening(Transport::Tcp, port, START)
            .map_err(|error| error.context(guard.log()))?;
        Ok(Self {
            guard,
            port,
            directory,
        })
    }

    /// A file of this server: `client_key`, `wrong_key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// OpenSSH's client in `from`, with a key of this server, as a user; without a command yet.
    pub fn ssh(&self, from: &Namespace, to: IpAddr, user: &str, key: &str) -> Command {
        self.ssh_at(from, SocketAddr::new(to, self.port), user, key)
    }

    /// The same where the server is reached at another place.
    pub fn ssh_at(&self, from: &Namespace, to: SocketAddr, user: &str, key: &str) -> Command {
        let mut command = from.command("ssh");
        command
            .args(["-F", "/dev/null", "-T", "-i"])
            .arg(self.file(key));
        options(&mut command);
        let (port, address) = (to.port().to_string(), to.ip().to_string());
        command.args(["-p", &port, "-l", user, &address]);
        command
    }

    /// The same with a password.
    pub fn ssh_password(&self, from: &Namespace, to: IpAddr, password: &str) -> Result<Command> {
        let askpass = self.file("askpass");
        fs::write(&askpass, "#!/bin/sh\nprintf '%s\\n' \"$LAB_PASSWORD\"\n")?;
        fs::set_permissions(&askpass, fs::Permissions::from_mode(0o755))?;
        let mut command = from.command("ssh");
        command.args(["-F", "/dev/null", "-T"]);
        options(&mut command);
        for option in [
            "PreferredAuthentications=password",
            "NumberOfPasswordPrompts=2",
        ] {
            command.args(["-o", option]);
        }
        command
            .env("SSH_ASKPASS", askpass)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("LAB_PASSWORD", password);
        let port = self.port.to_string();
        command.args(["-p", &port, "-l", USER, &to.to_string()]);
        Ok(command)
    }

    /// What the server itself says of the connection from a port: Some(true) for a login,
    /// Some(false) for attempts that failed.
    pub fn verdict(&self, port: u16) -> Option<bool> {
        let log = self.guard.log();
        let is_of = |line: &&str| {
            [format!(" port {port}"), format!(":{port}")]
                .iter()
                .any(|end| {
                    line.split_once(end.as_str()).is_some_and(|(_, rest)| {
                        !rest.starts_with(|next: char| next.is_ascii_digit())
                    })
                })
        };
        let lines: Vec<&str> = log.lines().filter(is_of).collect();
        let says = |words: &[&str]| {
            let mut lines = lines.iter();
            lines.any(|line| words.iter().any(|word| line.contains(word)))
        };
        if says(&["Accepted ", "auth succeeded"]) {
            return Some(true);
        }
        let failed = [
            "Failed ",
            "Bad password",
            "Connection closed by authenticating",
            "Invalid user",
            "Exit before auth",
            "refused",
        ];
        says(&failed).then_some(false)
    }
}

fn options(command: &mut Command) {
    for option in SSH_OPTIONS {
        command.args(["-o", option]);
    }
}

/// The own end of the connection to an address, in the network namespace of a process.
pub fn client_end(pid: u32, to: SocketAddr) -> Option<SocketAddr> {
    let table = if to.is_ipv4() { "tcp" } else { "tcp6" };
    let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let is_established = fields.get(3) == Some(&"01");
        let matches = is_established && address(fields.get(2)?)? == to;
        matches.then(|| address(fields.get(1)?))?
    })
}

/// An address as in `/proc/net/tcp`: words in the order of the host.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..words.len()).step_by(8) {
        let word = u32::from_str_radix(words.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
    Some(SocketAddr::new(v4.or(v6).ok()?, port))
}

/// Keys and accounts of a server.
fn prepare(namespace: &Namespace, port: u16) -> Result<PathBuf> {
    let name = format!("{}-owner-{port}", namespace.name());
    let directory = namespace.directory().join(name);
    fs::create_dir(&directory)?;
    // The user has to read the keys that are authorized.
    for path in [namespace.directory(), &directory] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    for key in ["client_key", "wrong_key"] {
        keygen(&directory.join(key), &["-t", "ed25519"])?;
    }
    fs::copy(
        directory.join("client_key.pub"),
        directory.join("authorized_keys"),
    )?;
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:31336:65534::/run/sshd:/usr/sbin/nologin\n\
         {USER}:x:{UID}:{UID}::/home/user:/bin/sh\n"
    );
    fs::write(directory.join("passwd"), passwd)?;
    let shadow = directory.join("shadow");
    let mut openssl = Command::new("openssl");
    let hash = process::checked(openssl.args(["passwd", "-6", PASSWORD]))?;
    let entry = |(user, hash)| format!("{user}:{hash}:19000:0:99999:7:::\n");
    let entries = [("root", "*"), ("sshd", "*"), (USER, hash.trim())];
    fs::write(&shadow, entries.map(entry).concat())?;
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600))?;
    Ok(directory)
}

fn keygen(path: &Path, kind: &[&str]) -> Result<()> {
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-N", "", "-C", "lab"])
        .args(kind)
        .arg("-f");
    process::checked(keygen.arg(path)).map(drop)
}
