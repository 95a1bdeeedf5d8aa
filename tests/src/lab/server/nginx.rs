//! nginx with HTTP and TLS, from a prefix of its own.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::START;
use crate::lab::gate;
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::{self, Guard};

/// Size of `/big`.
pub const BIG_BYTES: usize = 8 << 20;

/// What `/` answers.
pub const HELLO: &str = "hello from the lab\n";

/// A running nginx on ports 80 and 443.
#[derive(Debug)]
pub struct Nginx {
    /// The process.
    pub guard: Guard,
}

impl Nginx {
    /// Starts nginx: `/` says hello, `/big` is [`BIG_BYTES`] long.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = namespace
            .directory()
            .join(format!("{}-nginx", namespace.name()));
        fs::create_dir_all(directory.join("www")).context("cannot make nginx's directory")?;
        fs::write(directory.join("www/index.html"), HELLO).context("cannot write index.html")?;
        let big: Vec<u8> = (0_u8..=250).cycle().take(BIG_BYTES).collect();
        fs::write(directory.join("www/big"), big).context("cannot write the big file")?;
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=lab.test", "-keyout"]);
        openssl
            .arg(directory.join("tls.key"))
            .arg("-out")
            .arg(directory.join("tls.crt"));
        process::checked(&mut openssl)?;
        fs::write(
            directory.join("nginx.conf"),
            config(&directory.display().to_string()),
        )
        .context("cannot write nginx.conf")?;
        let nginx = gate::find_tool("nginx").context("nginx is not installed (nginx-light)")?;
        let mut command = namespace.command(nginx);
        command
            .arg("-p")
            .arg(&directory)
            .args(["-e", "stderr", "-c"]);
        command.arg(directory.join("nginx.conf"));
        let guard = namespace.spawn("nginx", &mut command)?;
        for port in [80, 443] {
            namespace
                .wait_listening(Transport::Tcp, port, START)
                .with_context(|| format!("nginx: {}", guard.log()))?;
        }
        Ok(Self { guard })
    }
}

fn config(directory: &str) -> String {
    format!(
        "daemon off;
user root root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  server_tokens off;
  client_body_temp_path {directory}/client_body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 80;
    listen [::]:80;
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    ssl_certificate {directory}/tls.crt;
    ssl_certificate_key {directory}/tls.key;
    root {directory}/www;
  }}
}}
"
    )
}
