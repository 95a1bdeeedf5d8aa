//! The flags that say which rules apply, and what their names stand for.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use monitor_core::nsg::{Chain, Direction, LevelKind, Levels, Names, read};

/// Larger files are not read into memory; what the readers accept is smaller.
const MOST_BYTES: u64 = 128 << 20;

/// Flags that say which rules apply.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct RuleArgs {
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
    /// Define or override a tag, also VirtualNetwork and Internet (repeatable)
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
}

// === impl RuleArgs ===

impl RuleArgs {
    /// Whether any rules were given.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.nsg.is_empty() && self.effective.is_none() && self.admin_rules.is_none()
    }

    /// The files that are read, of which at most one is standard input.
    fn files(&self) -> impl Iterator<Item = &str> {
        let groups = self.nsg.iter().filter_map(|text| text.split_once('='));
        groups
            .map(|(_, file)| file)
            .chain(self.effective.as_deref())
            .chain(self.admin_rules.as_deref())
            .chain(self.service_tags.iter().map(String::as_str))
    }

    /// Whether a file is standard input.
    pub(super) fn reads_standard_input(&self) -> bool {
        self.files().any(is_standard_input)
    }

    /// Reads the rules.
    pub(in crate::cli) fn levels(&self) -> anyhow::Result<Levels> {
        if self.files().filter(|file| is_standard_input(file)).count() > 1 {
            bail!("standard input (`-`) can be one file only");
        }
        let mut levels = match &self.effective {
            Some(file) => read::read(file, &content(file)?)?.into_levels()?,
            None => Levels::default(),
        };
        for text in &self.nsg {
            let (kind, file) = match text.split_once('=') {
                Some(("subnet", file)) => (LevelKind::Subnet, file),
                Some(("nic", file)) => (LevelKind::Nic, file),
                _ => bail!("--nsg `{text}`: write subnet=FILE or nic=FILE"),
            };
            let (file, name) = chosen(file);
            let nsg = read::read(file, &content(file)?)?.choose(name, kind)?;
            let place = match kind {
                LevelKind::Nic => &mut levels.nic,
                LevelKind::Subnet | LevelKind::Admin => &mut levels.subnet,
            };
            if place.is_some() {
                bail!("--nsg `{text}`: there is one group for the {kind} already");
            }
            *place = Some(nsg);
        }
        if let Some(file) = &self.admin_rules {
            if levels.admin.is_some() {
                bail!("--admin-rules {file}: the effective rules have admin rules already");
            }
            levels.admin = Some(read::read_admin_rules(file, &content(file)?)?);
        }
        Ok(levels)
    }

    /// Reads what names stand for.
    pub(in crate::cli) fn names(&self) -> anyhow::Result<Names> {
        let mut names = Names::default();
        for file in &self.service_tags {
            names.add_service_tags(read::read_service_tags(file, &content(file)?)?);
        }
        for text in &self.tag {
            names.define_tag(text).context("--tag")?;
        }
        for text in &self.asg {
            names.define_group(text).context("--asg")?;
        }
        names.add_network(self.virtual_network.iter().copied());
        Ok(names)
    }

    /// Whether there are admin rules, or effective rules that would have them.
    pub(super) fn has_admin_rules(&self, chain: &Chain) -> bool {
        let mut levels = chain.levels(Direction::Inbound);
        self.effective.is_some() || levels.any(|level| level.kind == LevelKind::Admin)
    }

    /// Reads rules and names and makes them ready to judge.
    pub(in crate::cli) fn chain(&self) -> anyhow::Result<Chain> {
        Ok(Chain::new(self.levels()?, &self.names()?))
    }
}

/// File and name of `FILE#NAME`. A file that has the sign in its own name is that file.
fn chosen(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('#') {
        Some((file, name)) if !Path::new(text).exists() => (file, Some(name)),
        _ => (text, None),
    }
}

fn is_standard_input(file: &str) -> bool {
    chosen(file).0 == "-"
}

/// Reads a file, or standard input for `-`.
fn content(file: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if file == "-" {
        let mut input = io::stdin().lock().take(MOST_BYTES + 1);
        input.read_to_end(&mut bytes).context("standard input")?;
    } else {
        let input = File::open(file).with_context(|| file.to_owned())?;
        let mut input = input.take(MOST_BYTES + 1);
        input
            .read_to_end(&mut bytes)
            .with_context(|| file.to_owned())?;
    }
    if bytes.len() as u64 > MOST_BYTES {
        bail!("{file}: more than {MOST_BYTES} bytes");
    }
    // PowerShell writes UTF-16 unless told otherwise.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        bail!("{file}: is UTF-16: save it as UTF-8");
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        anyhow::anyhow!("{file}:{line}: is not UTF-8")
    })
}
