//! Certificates, and what curl is answered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::daemon::{Daemon, LISTEN};
use tests::lab::{Namespace, process, wait};

/// bcrypt of [`PASSWORD`], cost 10, as `htpasswd -nBC 10` prints it.
pub(crate) const HASH: &str = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu";
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const TOKEN: &str = "b8a1c5f0e3d24a7fb8a1c5f0e3d24a7f";
pub(crate) const TOOLS: &[&str] = &["openssl", "curl", "prometheus", "promtool"];
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// An authority, and what it signed.
pub(crate) struct Authority {
    folder: PathBuf,
}

/// An answer that curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) error: String,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let own = Self {
            folder: folder.to_owned(),
        };
        own.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
             -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt",
        );
        own
    }

    /// Signs a certificate; `name.crt` and `name.key`.
    pub(crate) fn sign(&self, name: &str, usage: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key \
             -out {name}.csr"
        ));
        let extensions = format!(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage={usage}\n\
             basicConstraints=CA:FALSE\n"
        );
        fs::write(self.path("extensions"), extensions).expect("written");
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile \
             extensions -out {name}.crt"
        ));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split(' ').filter(|word| !word.is_empty()))
            .current_dir(&self.folder);
        process::checked(&mut command).expect("openssl");
    }
}

/// Asks the daemon by curl, with further arguments.
pub(crate) fn curl(node: &Namespace, path: &str, arguments: &[&str]) -> Answer {
    let mut command = node.command("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--include",
            "--http1.1",
            "--max-time",
            "10",
        ])
        .args(arguments)
        .arg(if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("https://{LISTEN}{path}")
        });
    let output = process::output(&mut command, PATIENCE).expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        head: head.to_lowercase(),
        body: body.to_owned(),
        error: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Starts the daemon on a web configuration and waits until it is ready, over HTTPS.
pub(crate) fn start<'lab>(node: &'lab Namespace, text: &str) -> (Daemon<'lab>, PathBuf) {
    let path = node.directory().join("web.yml");
    fs::write(&path, text).expect("written");
    let file = path.display().to_string();
    let mut daemon = Daemon::launch(node, &["--web-config", &file]).expect("the daemon");
    let ready = wait::until("the daemon to be ready", PATIENCE, || {
        let yes = curl(node, "/readyz", &["--insecure"]).status == 200;
        (yes || !daemon.guard.is_running()).then_some(yes)
    });
    assert!(matches!(ready, Ok(true)), "{ready:?}:\n{}", daemon.log());
    (daemon, path)
}

/// A counter in an exposition.
pub(crate) fn count(answer: &Answer, sample: &str) -> u64 {
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(sample));
    let value = line.and_then(|rest| rest.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {sample} in {} {}", answer.status, answer.body))
}

pub(crate) fn server_section(authority: &Authority) -> String {
    format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
        authority.text("server.crt"),
        authority.text("server.key")
    )
}
