//! OpenSSH's server, with keys and accounts that exist only for it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::START;
use crate::lab::gate;
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::{self, Guard};

/// A running sshd.
#[derive(Debug)]
pub struct Sshd {
    /// The process.
    pub guard: Guard,
    /// Its port.
    pub port: u16,
    /// A private key that logs in as root.
    pub key: PathBuf,
    /// A private key that it refuses.
    pub wrong_key: PathBuf,
}

impl Sshd {
    /// Starts sshd on a port of a namespace.
    ///
    /// It runs in a mount namespace of its own, where `/run` and `/var/log` are empty and root's
    /// password field is not locked: nothing of the machine's own is read or written.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        Self::start_for(namespace, port, 100)
    }

    /// The same for so many clients that have not logged in yet; it refuses more.
    pub fn start_for(namespace: &Namespace, port: u16, startups: u32) -> Result<Self> {
        let directory = namespace
            .directory()
            .join(format!("{}-sshd-{port}", namespace.name()));
        fs::create_dir(&directory).context("cannot make sshd's directory")?;
        // Host keys as a system that is installed has them: their length tells a login that was slow.
        for (key, kind, bits) in [
            ("host_key", "ed25519", "256"),
            ("host_key_ecdsa", "ecdsa", "256"),
            ("host_key_rsa", "rsa", "3072"),
            ("client_key", "ed25519", "256"),
            ("wrong_key", "ed25519", "256"),
        ] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", "lab", "-f"]);
            process::checked(keygen.arg(directory.join(key)))?;
        }
        let path = |name: &str| directory.join(name).display().to_string();
        fs::copy(
            directory.join("client_key.pub"),
            directory.join("authorized_keys"),
        )
        .context("cannot authorize the client's key")?;
        let config = format!(
            "Port {port}\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {}\n\
             HostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitUserRC no\nPrintMotd no\nPrintLastLog no\n\
             UseDNS no\nX11Forwarding no\nMaxStartups {startups}\nLogLevel VERBOSE\n",
            path("host_key"),
            path("host_key_ecdsa"),
            path("host_key_rsa"),
            path("authorized_keys")
        );
        fs::write(directory.join("sshd_config"), config).context("cannot write sshd_config")?;
        let shadow = directory.join("shadow");
        fs::write(
            &shadow,
            "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n",
        )
        .and_then(|()| fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600)))
        .context("cannot write the shadow file")?;
        let sshd = gate::find_tool("sshd").context("sshd is not installed (openssh-server)")?;
        let script = "mount -t tmpfs lab /run && mkdir -m 755 /run/sshd && \
                      mount -t tmpfs lab /var/log && mount --bind \"$2\" /etc/shadow && \
                      exec \"$1\" -D -e -f \"$3\"";
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
            .arg(sshd)
            .arg(shadow)
            .arg(directory.join("sshd_config"));
        let mut guard = namespace.spawn("sshd", &mut command)?;
        namespace
            .wait_listening(Transport::Tcp, port, START)
            .with_context(|| format!("sshd: {}", guard.log()))?;
        anyhow::ensure!(guard.is_running(), "sshd ended: {}", guard.log());
        Ok(Self {
            guard,
            port,
            key: directory.join("client_key"),
            wrong_key: directory.join("wrong_key"),
        })
    }

    /// An ssh command in `from` that logs in here as root.
    pub fn login(&self, from: &Namespace, to: IpAddr) -> Command {
        self.login_with(from, to, &self.key)
    }

    /// An ssh command in `from` whose key is refused here.
    pub fn refused_login(&self, from: &Namespace, to: IpAddr) -> Command {
        self.login_with(from, to, &self.wrong_key)
    }

    fn login_with(&self, from: &Namespace, to: IpAddr, key: &std::path::Path) -> Command {
        let mut command = from.command("ssh");
        command.args(["-F", "/dev/null", "-T", "-i"]).arg(key);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "LogLevel=ERROR",
            "ConnectTimeout=10",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-p", &self.port.to_string(), "-l", "root", &to.to_string()]);
        command
    }
}
