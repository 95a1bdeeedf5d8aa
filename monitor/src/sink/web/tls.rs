//! The section `tls_server_config` as a configuration of rustls.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::WebPkiClientVerifier,
    version,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{file::Wrong, read_text};

/// Names of protocol versions as in Go, oldest first.
const VERSIONS: [(&str, Option<&SupportedProtocolVersion>); 4] = [
    ("TLS10", None),
    ("TLS11", None),
    ("TLS12", Some(&version::TLS12)),
    ("TLS13", Some(&version::TLS13)),
];

/// `tls_server_config` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Section {
    cert_file: Option<Spanned<String>>,
    key_file: Option<Spanned<String>>,
    cert: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    client_auth_type: Option<Spanned<String>>,
    client_ca_file: Option<Spanned<String>>,
    client_ca: Option<Spanned<String>>,
    client_allowed_sans: Option<Spanned<Vec<String>>>,
    min_version: Option<Spanned<String>>,
    max_version: Option<Spanned<String>>,
    cipher_suites: Option<Spanned<Vec<String>>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Spanned<Vec<String>>>,
}

/// What the section comes to.
pub(super) struct Tls {
    pub(super) config: ServerConfig,
    pub(super) needs_certificate: bool,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    No,
    IfGiven,
    Required,
}

// === impl Section ===

impl Section {
    /// Reads the files and puts it all together; notes the files that were read.
    pub(super) fn build(
        &self,
        line: u64,
        folder: &Path,
        files: &mut Vec<PathBuf>,
    ) -> Result<Tls, Wrong> {
        let mut source = |key: &'static str, file: &Option<Spanned<String>>, text: &Option<_>| {
            one_of(key, file.as_ref(), text.as_ref(), folder, files)
        };
        let at = |key: &str, message: String| {
            Wrong::new(line, format!("tls_server_config.{key}: {message}"))
        };
        let certificate = source("cert", &self.cert_file, &self.cert)?
            .ok_or_else(|| at("cert_file", "is missing".to_owned()))?;
        let key = source("key", &self.key_file, &self.key)?
            .ok_or_else(|| at("key_file", "is missing".to_owned()))?;
        let authority = source("client_ca", &self.client_ca_file, &self.client_ca)?;

        if let Some(sans) = &self.client_allowed_sans
            && !sans.value.is_empty()
        {
            let message = "is not supported: give an authority of its own to those who may read \
                           (client_ca_file)";
            return Err(wrong(sans, "client_allowed_sans", message));
        }
        let provider = Arc::new(self.provider()?);
        let versions = self.versions()?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(|error| at("cipher_suites", format!("do not fit the versions: {error}")))?;
        let client_auth = self.client_auth()?;
        let builder = match (client_auth, &authority) {
            (ClientAuth::No, None) => builder.with_no_client_auth(),
            (ClientAuth::No, Some(authority)) => {
                return Err(authority.wrong(
                    "is given, and client_auth_type is none of RequireAndVerifyClientCert and \
                     VerifyClientCertIfGiven",
                ));
            }
            (_, None) => {
                return Err(at(
                    "client_ca_file",
                    "is missing: certificates of which authority are accepted?".to_owned(),
                ));
            }
            (_, Some(authority)) => {
                // Those without a certificate get as far as HTTP: the kubelet's probes have none.
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(authority.roots()?),
                    Arc::clone(&provider),
                );
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| authority.wrong(&error.to_string()))?,
                )
            }
        };
        let mut config = builder
            .with_single_cert(certificate.chain()?, key.private_key()?)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    key.wrong("is not the key of the certificate")
                }
                error => certificate.wrong(&format!("cannot be used: {error}")),
            })?;
        config.ignore_client_order = self.prefer_server_cipher_suites.unwrap_or(true);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls {
            config,
            needs_certificate: client_auth == ClientAuth::Required,
        })
    }

    fn client_auth(&self) -> Result<ClientAuth, Wrong> {
        let Some(kind) = &self.client_auth_type else {
            return Ok(ClientAuth::No);
        };
        match kind.value.as_str() {
            "" | "NoClientCert" => Ok(ClientAuth::No),
            "VerifyClientCertIfGiven" => Ok(ClientAuth::IfGiven),
            "RequireAndVerifyClientCert" => Ok(ClientAuth::Required),
            other => Err(wrong(
                kind,
                "client_auth_type",
                &format!(
                    "`{}` is none of NoClientCert, VerifyClientCertIfGiven and \
                     RequireAndVerifyClientCert; certificates that nobody verifies are not asked for",
                    other.escape_debug()
                ),
            )),
        }
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, Wrong> {
        let position = |given: &Option<Spanned<String>>, key, default| match given {
            None => Ok(default),
            Some(given) => VERSIONS
                .iter()
                .position(|(name, _)| *name == given.value)
                .ok_or_else(|| {
                    let name = given.value.escape_debug();
                    wrong(given, key, &format!("`{name}` is none of TLS12 and TLS13"))
                }),
        };
        // Older than 1.2 is asked for by old files; the least that is spoken is 1.2 all the same.
        let least = position(&self.min_version, "min_version", 0)?;
        let most = position(&self.max_version, "max_version", VERSIONS.len() - 1)?;
        let versions: Vec<_> = VERSIONS
            .get(least..=most)
            .unwrap_or_default()
            .iter()
            .filter_map(|(_, version)| *version)
            .collect();
        match &self.max_version {
            Some(most) if versions.is_empty() => {
                Err(wrong(most, "max_version", "leaves none of TLS12 and TLS13"))
            }
            _ => Ok(versions),
        }
    }

    fn provider(&self) -> Result<CryptoProvider, Wrong> {
        let mut provider = ring::default_provider();
        if let Some(wanted) = &self.cipher_suites {
            let all = provider.cipher_suites;
            let name = |suite: &rustls::SupportedCipherSuite| {
                let name = suite.suite().as_str().unwrap_or_default();
                // rustls' own prefix, which nobody else writes.
                name.replacen("TLS13_", "TLS_", 1)
            };
            provider.cipher_suites = chosen(wanted, "cipher_suites", &all, name)?;
            // As in Go, these choose among the suites of TLS 1.2 only.
            if !provider
                .cipher_suites
                .iter()
                .any(|suite| suite.tls13().is_some())
            {
                let newer = all.iter().filter(|suite| suite.tls13().is_some());
                provider.cipher_suites.extend(newer);
            }
        }
        if let Some(wanted) = &self.curve_preferences {
            let all = provider.kx_groups;
            let name = |group: &&'static dyn rustls::crypto::SupportedKxGroup| {
                let name = group.name().as_str().unwrap_or_default();
                match name {
                    "secp256r1" => "CurveP256".to_owned(),
                    "secp384r1" => "CurveP384".to_owned(),
                    other => other.to_owned(),
                }
            };
            provider.kx_groups = chosen(wanted, "curve_preferences", &all, name)?;
        }
        Ok(provider)
    }
}

/// The ones of a list that are wanted by name, in the order in which they are wanted.
fn chosen<T: Copy>(
    wanted: &Spanned<Vec<String>>,
    key: &str,
    all: &[T],
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, Wrong> {
    let chosen: Result<Vec<T>, Wrong> = wanted
        .value
        .iter()
        .map(|one| {
            let found = all.iter().find(|item| name(item) == *one).copied();
            found.ok_or_else(|| {
                let names: Vec<_> = all.iter().map(&name).collect();
                let message = format!("`{}` is none of {}", one.escape_debug(), names.join(", "));
                wrong(wanted, key, &message)
            })
        })
        .collect();
    match chosen {
        Ok(list) if list.is_empty() => Ok(all.to_vec()),
        other => other,
    }
}

fn wrong<T>(value: &Spanned<T>, key: &str, message: &str) -> Wrong {
    let line = value.referenced.line();
    Wrong::new(line, format!("tls_server_config.{key}: {message}"))
}

/// PEM text and where it is from, for messages.
struct Pem {
    text: String,
    line: u64,
    key: String,
}

/// The text of `KEY_file` or of `KEY`, whichever is given.
fn one_of(
    key: &'static str,
    file: Option<&Spanned<String>>,
    inline: Option<&Spanned<String>>,
    folder: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<Option<Pem>, Wrong> {
    let file = file.filter(|file| !file.value.is_empty());
    let inline = inline.filter(|text| !text.value.is_empty());
    match (file, inline) {
        (None, None) => Ok(None),
        (Some(file), Some(_)) => Err(wrong(
            file,
            &format!("{key}_file"),
            &format!("and {key} are both given"),
        )),
        (None, Some(text)) => Ok(Some(Pem {
            text: text.value.clone(),
            line: text.referenced.line(),
            key: key.to_owned(),
        })),
        (Some(file), None) => {
            let path = folder.join(&file.value);
            let key = format!("{key}_file");
            let text =
                read_text(&path).map_err(|error| wrong(file, &key, &cannot_read(&path, &error)))?;
            let pem = Pem {
                text,
                line: file.referenced.line(),
                key: format!("{key}: {}", path.display()),
            };
            files.push(path);
            Ok(Some(pem))
        }
    }
}

/// Message for a file that a key names.
pub(super) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

// === impl Pem ===

impl Pem {
    fn wrong(&self, message: &str) -> Wrong {
        let key = &self.key;
        Wrong::new(self.line, format!("tls_server_config.{key}: {message}"))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Wrong> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.text.as_bytes()).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) => Err(self.wrong("has no certificate (-----BEGIN CERTIFICATE-----)")),
            Err(error) => Err(self.wrong(&format!("is no PEM: {error}"))),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Wrong> {
        PrivateKeyDer::from_pem_slice(self.text.as_bytes()).map_err(|error| match error {
            pem::Error::NoItemsFound if self.text.contains("ENCRYPTED PRIVATE KEY") => {
                self.wrong("is encrypted; nobody is there to ask for its password")
            }
            pem::Error::NoItemsFound => {
                self.wrong("has no private key (-----BEGIN PRIVATE KEY-----)")
            }
            error => self.wrong(&format!("is no PEM: {error}")),
        })
    }

    fn roots(&self) -> Result<RootCertStore, Wrong> {
        let mut roots = RootCertStore::empty();
        for certificate in self.chain()? {
            roots
                .add(certificate)
                .map_err(|error| self.wrong(&format!("is no authority's certificate: {error}")))?;
        }
        Ok(roots)
    }
}
