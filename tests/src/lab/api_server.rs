//! A real API server with its etcd, on loopback of a namespace: a cluster without nodes, whose
//! pods are what a test writes into it.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::process::{self, Guard};
use super::{Namespace, Permit, gate, wait};

/// Environment variable with the directory of the programs.
pub const PROGRAMS: &str = "NODEWATCH_KUBE";
/// Where `cargo xtask kube` puts them, in the cache directory.
const CACHED: &str = "kube/1.20.2-1";
/// Where the server is unless a test moves it.
pub const PORT: u16 = 6443;
const ETCD: &str = "127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
/// How long a start may take, on a machine that does other things, too.
const START: Duration = Duration::from_secs(90);

/// Users, with the tokens that they have: who may do all, the service account that `deploy` makes,
/// and one without rights.
pub const ADMIN: &str = "admin";
/// The service account of the DaemonSet.
pub const AGENT: &str = "system:serviceaccount:nodewatch:nodewatch";
/// Nobody has given it anything.
pub const LIMITED: &str = "limited";

/// The server and its etcd; both are ended when this is dropped.
#[derive(Debug)]
pub struct ApiServer<'lab> {
    namespace: &'lab Namespace,
    directory: PathBuf,
    programs: PathBuf,
    _etcd: Guard,
    server: Option<Guard>,
}

/// Writes objects, as one user.
#[derive(Clone)]
pub struct Writer(Client);

/// A permit where labs work and the programs are there; else the test is skipped, or fails where
/// skipping is not allowed.
pub fn require() -> Option<Permit> {
    let permit = gate::require()?;
    let directory = directory();
    let missing = ["etcd", "kube-apiserver"]
        .map(|name| directory.join(name))
        .into_iter()
        .find(|path| !path.is_file());
    if let Some(path) = missing {
        gate::skip(&format!(
            "{} is missing: `cargo xtask kube server` builds it, once",
            path.display()
        ));
        return None;
    }
    Some(permit)
}

/// The directory of the programs, whether or not they are there.
pub fn directory() -> PathBuf {
    let from = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from(PROGRAMS).unwrap_or_else(|| {
        let home = || from("HOME").map(|home| home.join(".cache"));
        let caches = || from("XDG_CACHE_HOME").or_else(home);
        from("NODEWATCH_CACHE")
            .or_else(|| caches().map(|caches| caches.join("nodewatch")))
            .unwrap_or_else(env::temp_dir)
            .join(CACHED)
    })
}

// === impl ApiServer ===

impl<'lab> ApiServer<'lab> {
    /// Starts etcd, and not the server yet.
    pub fn prepare(namespace: &'lab Namespace) -> Result<Self> {
        let directory = namespace.directory().join("kube");
        fs::create_dir(&directory).context("cannot make a directory")?;
        process::checked(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"])
                .arg(directory.join("accounts")),
        )?;
        let tokens: String = [
            (ADMIN, "system:masters"),
            (AGENT, "system:serviceaccounts"),
            (LIMITED, "limited"),
        ]
        .map(|(user, group)| format!("{},{user},{user},\"{group}\"\n", token(user)))
        .concat();
        fs::write(directory.join("tokens.csv"), tokens).context("cannot write")?;
        let programs = self::directory();
        let mut etcd = namespace.command(programs.join("etcd"));
        etcd.arg("--data-dir").arg(directory.join("etcd"));
        etcd.args(["--listen-client-urls", &format!("http://{ETCD}")]);
        etcd.args(["--advertise-client-urls", &format!("http://{ETCD}")]);
        etcd.args(["--listen-peer-urls", ETCD_PEERS, "--unsafe-no-fsync"]);
        let etcd = namespace.spawn("etcd", &mut etcd)?;
        Ok(Self {
            namespace,
            directory,
            programs,
            _etcd: etcd,
            server: None,
        })
    }

    /// Starts etcd and the server, and waits until it is ready.
    pub fn start(namespace: &'lab Namespace) -> Result<Self> {
        let mut server = Self::prepare(namespace)?;
        server.run(PORT)?;
        Ok(server)
    }

    /// Starts the server on a port, and waits until it is ready.
    pub fn run(&mut self, port: u16) -> Result<()> {
        let mut command = self.namespace.command(self.programs.join("kube-apiserver"));
        let flag =
            |name: &str, path: &str| format!("--{name}={}", self.directory.join(path).display());
        command.args([
            format!("--etcd-servers=http://{ETCD}"),
            format!("--secure-port={port}"),
            // It makes itself a certificate and an authority there, once.
            flag("cert-dir", "certificates"),
            flag("token-auth-file", "tokens.csv"),
            flag("service-account-key-file", "accounts"),
            flag("service-account-signing-key-file", "accounts"),
        ]);
        command.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            // No controllers run that would make accounts.
            "--disable-admission-plugins=ServiceAccount",
        ]);
        self.server = Some(self.namespace.spawn("kube-apiserver", &mut command)?);
        let kubeconfig = self.kubeconfig_at(ADMIN, port)?;
        let namespace = self.namespace;
        wait::until("the API server to be ready", START, || {
            let server = self.server.as_mut().expect("it was just started");
            assert!(server.is_running(), "it ended:\n{}", server.log());
            namespace
                .run(|| is_ready(&kubeconfig))
                .expect("a namespace")
                .then_some(())
        })
        .with_context(|| self.server.as_ref().map(Guard::log).unwrap_or_default())
    }

    /// Kills the server, without a warning; etcd keeps what it knew.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// The authority that the server's certificate is by; it is there once it runs.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("certificates/apiserver.crt")
    }

    /// A file as `kubectl` takes it, for a user.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        self.kubeconfig_at(user, PORT)
    }

    fn kubeconfig_at(&self, user: &str, port: u16) -> Result<PathBuf> {
        let name = user.replace(':', "-");
        let path = self.directory.join(format!("{name}-{port}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.authority(),
            }}],
            "users": [{"name": "one", "user": {"token": token(user)}}],
            "contexts": [{"name": "it", "context": {"cluster": "lab", "user": "one"}}],
            "current-context": "it",
        });
        fs::write(&path, config.to_string()).context("cannot write")?;
        Ok(path)
    }

    /// Does something with the cluster, as its administrator, at a port.
    pub fn write_at<T: Send>(
        &self,
        port: u16,
        what: impl AsyncFnOnce(Writer) -> Result<T> + Send,
    ) -> Result<T> {
        let path = self.kubeconfig_at(ADMIN, port)?;
        self.namespace.run(|| {
            block_on(async {
                let writer = Writer(client(&path).await?);
                what(writer).await
            })
        })?
    }

    /// Does something with the cluster, as its administrator.
    pub fn write<T: Send>(&self, what: impl AsyncFnOnce(Writer) -> Result<T> + Send) -> Result<T> {
        self.write_at(PORT, what)
    }

    /// Makes etcd forget what was before now.
    pub fn compact(&self) -> Result<()> {
        self.namespace.run(|| {
            let answer = post("/v3/kv/range", &json!({"key": "AA=="}))?;
            let revision = &answer["header"]["revision"];
            ensure!(!revision.is_null(), "no revision: {answer}");
            let what = json!({"revision": revision, "physical": true});
            post("/v3/kv/compaction", &what).map(drop)
        })?
    }
}

/// The token of a user.
pub fn token(user: &str) -> String {
    format!("{}-token", user.replace(':', "-"))
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn is_ready(kubeconfig: &Path) -> bool {
    let asked = block_on(async {
        let client = client(kubeconfig).await?;
        let request = kube::core::Request::new("/readyz").list(&kube::api::ListParams::default())?;
        Ok(client.request_text(request).await?)
    });
    asked.is_ok()
}

fn block_on<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(what)
}

/// Asks etcd, by its gateway.
fn post(path: &str, body: &Value) -> Result<Value> {
    let address: SocketAddr = ETCD.parse().context("an address")?;
    let mut stream = TcpStream::connect_timeout(&address, START)?;
    stream.set_read_timeout(Some(START))?;
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {ETCD}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    ensure!(head.contains(" 200 "), "{path}: {text}");
    serde_json::from_str(body).with_context(|| format!("{path}: {body}"))
}

// === impl Writer ===

impl Writer {
    fn api(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let name = text(&object["metadata"]["name"]);
        ensure!(!name.is_empty(), "no name: {object}");
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &resource),
            None => Api::all_with(self.0.clone(), &resource),
        };
        Ok((api, name))
    }

    /// Makes an object, with its status.
    pub async fn create(&self, object: Value) -> Result<()> {
        let (api, name) = self.api(&object)?;
        let made: DynamicObject = serde_json::from_value(object.clone())?;
        api.create(&PostParams::default(), &made)
            .await
            .with_context(|| format!("cannot create {object}"))?;
        if let Some(status) = object.get("status") {
            self.status(&api, &name, status).await?;
        }
        Ok(())
    }

    /// Makes a CustomResourceDefinition, and waits until the server has the kind.
    pub async fn install(&self, definition: Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        let version = text(&spec["versions"][0]["name"]);
        self.create(definition).await?;
        let request = kube::core::Request::new(format!("/apis/{group}/{version}/{plural}"));
        let start = Instant::now();
        loop {
            let list = request.list(&kube::api::ListParams::default())?;
            match self.0.request_text(list).await {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > START => {
                    return Err(error).with_context(|| format!("no {plural}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Merges something into an object that is there.
    pub async fn patch(&self, object: Value) -> Result<()> {
        let (api, name) = self.api(&object)?;
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&object))
            .await
            .with_context(|| format!("cannot patch {object}"))?;
        if let Some(status) = object.get("status") {
            self.status(&api, &name, status).await?;
        }
        Ok(())
    }

    async fn status(&self, api: &Api<DynamicObject>, name: &str, status: &Value) -> Result<()> {
        let patch = json!({"status": status});
        let parameters = PatchParams::default();
        api.patch_status(name, &parameters, &Patch::Merge(&patch))
            .await
            .with_context(|| format!("cannot patch the status of {name}"))?;
        Ok(())
    }

    /// Deletes an object at once.
    pub async fn delete(&self, object: &Value) -> Result<()> {
        let (api, name) = self.api(object)?;
        api.delete(&name, &DeleteParams::default().grace_period(0))
            .await
            .with_context(|| format!("cannot delete {object}"))?;
        Ok(())
    }

    /// Makes what a file of `deploy` holds.
    pub async fn deploy(&self, file: &str) -> Result<()> {
        for object in crate::deploy::yaml(&crate::deploy::read(file)?)? {
            self.create(object).await?;
        }
        Ok(())
    }
}
