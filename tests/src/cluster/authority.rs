//! Keys, certificates and kubeconfigs, made by openssl for one cluster.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::process;

/// A certificate authority and what it signed.
#[derive(Debug)]
pub(super) struct Authority {
    directory: PathBuf,
}

/// A certificate and its key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

// === impl Authority ===

impl Authority {
    pub(super) fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir(&directory).context("cannot make the directory of keys")?;
        let authority = Self { directory };
        let ca = authority.identity("ca");
        let mut openssl = request(&ca, "/CN=cluster");
        openssl.args(["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]);
        process::checked(&mut openssl)?;
        Ok(authority)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.identity("ca").certificate
    }

    /// A server's identity at these addresses.
    pub(super) fn server(&self, name: &str, addresses: &[IpAddr]) -> Result<Identity> {
        let identity = self.identity(name);
        let names: Vec<String> = addresses
            .iter()
            .map(|address| format!("IP:{address}"))
            .collect();
        let mut openssl = self.signed(&identity, &format!("/CN={name}"));
        openssl.args(["-addext", &format!("subjectAltName={}", names.join(","))]);
        process::checked(&mut openssl)?;
        Ok(identity)
    }

    /// A client's identity: `/O=group/CN=user`.
    pub(super) fn client(&self, name: &str, subject: &str) -> Result<Identity> {
        let identity = self.identity(name);
        let mut openssl = self.signed(&identity, subject);
        openssl.args(["-addext", "extendedKeyUsage=clientAuth"]);
        process::checked(&mut openssl)?;
        Ok(identity)
    }

    /// A file that lets a client in as [`Self::client`] says.
    pub(super) fn kubeconfig(&self, name: &str, subject: &str, server: &str) -> Result<PathBuf> {
        let Identity { certificate, key } = self.client(name, subject)?;
        let file = self.directory.join(format!("{name}.kubeconfig"));
        let value = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cluster",
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
            "clusters": [{"name": "cluster", "cluster": {
                "server": server, "certificate-authority": self.certificate(),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": certificate, "client-key": key,
            }}],
        });
        fs::write(&file, value.to_string()).context("cannot write a kubeconfig")?;
        Ok(file)
    }

    /// What service account tokens are signed with: private and public key.
    pub(super) fn signing_key(&self) -> Result<Identity> {
        let private = self.directory.join("tokens.key");
        let public = self.directory.join("tokens.pub");
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "EC", "-pkeyopt"]);
        openssl.args(["ec_paramgen_curve:prime256v1", "-out"]);
        process::checked(openssl.arg(&private))?;
        let mut openssl = Command::new("openssl");
        openssl.args(["pkey", "-pubout", "-in"]).arg(&private);
        process::checked(openssl.arg("-out").arg(&public))?;
        Ok(Identity {
            certificate: public,
            key: private,
        })
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: self.directory.join(format!("{name}.crt")),
            key: self.directory.join(format!("{name}.key")),
        }
    }

    fn signed(&self, identity: &Identity, subject: &str) -> Command {
        let ca = self.identity("ca");
        let mut openssl = request(identity, subject);
        openssl.arg("-CA").arg(&ca.certificate);
        openssl.arg("-CAkey").arg(&ca.key);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl
    }
}

fn request(identity: &Identity, subject: &str) -> Command {
    let quoted: &Path = &identity.key;
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", subject, "-keyout"])
        .arg(quoted)
        .arg("-out")
        .arg(&identity.certificate);
    openssl
}
