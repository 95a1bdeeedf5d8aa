//! Kernel modules: those that tests need, after those that they depend on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::quiet;

/// Modules that the tests use. Built into some kernels, absent from others; both are fine.
const WANTED: [&str; 20] = [
    "veth",
    "bridge",
    "8021q",
    "dummy",
    "ifb",
    "vxlan",
    "bonding",
    "sch_ingress",
    "cls_bpf",
    "cls_matchall",
    "act_gact",
    "act_mirred",
    "tcp_diag",
    "udp_diag",
    "af_packet",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
];

/// A module, unpacked.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The object that `insmod` takes.
    pub(crate) object: Vec<u8>,
}

/// The wanted modules of a kernel in an order in which they load.
pub(crate) fn load_order(directory: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(directory, &mut files)?;
    let mut ordered = Vec::new();
    for name in WANTED {
        visit(name, &files, &mut ordered)?;
    }
    Ok(ordered)
}

fn visit(name: &str, files: &BTreeMap<String, PathBuf>, done: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    if done.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(&name) else {
        return Ok(());
    };
    let object = unpacked(file)?;
    for dependency in dependencies(&object) {
        visit(&dependency, files, done)?;
    }
    done.push(Module { name, object });
    Ok(())
}

/// Every module below a directory by name.
fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            index(&path, files)?;
        } else if let Some((stem, _)) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once(".ko"))
        {
            files.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn unpacked(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut unpack = Command::new(program);
    Ok(quiet(unpack.args(["-d", "-c", "-q"]).arg(file))?.stdout)
}

/// The `depends=` entry of a module's `.modinfo` section.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = object[start + KEY.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_module_depends_on() {
        assert_eq!(
            dependencies(b"x\0depends=stp,llc\0retpoline=Y\0"),
            ["stp", "llc"]
        );
        assert_eq!(dependencies(b"x\0depends=\0"), [""; 0]);
        assert_eq!(dependencies(b"nothing"), [""; 0]);
    }
}
