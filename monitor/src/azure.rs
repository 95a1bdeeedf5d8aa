//! Network security groups from files: what the flags name, read and made ready to judge; and
//! watched, so that a changed document comes into force.

mod watch;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use ipnet::IpNet;
use monitor_core::nsg::{
    Chain, Direction, LevelKind, Levels, Names, NamesError, ReadError,
    profile::{Profile, ProfileError},
    read,
};

pub use watch::Watch;

/// The profile that is built in.
const AKS: &str = "aks";
/// Larger files are not read into memory; what the readers accept is smaller.
const MOST_BYTES: u64 = 128 << 20;

/// Files with rules, and what the names in them stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Sources {
    /// The network security group of the subnet or of the network card; FILE#NAME chooses one of
    /// several
    #[arg(long, value_name = "subnet|nic=FILE")]
    pub nsg: Vec<String>,
    /// Effective rules: output of `az network nic list-effective-nsg`
    #[arg(long, value_name = "FILE")]
    pub effective: Option<String>,
    /// Service tags: the weekly file or the discovery API's answer (repeatable)
    #[arg(long, value_name = "FILE")]
    pub service_tags: Vec<String>,
    /// Define or override a tag, also VirtualNetwork and Internet (repeatable)
    #[arg(long, value_name = "NAME=CIDR,…")]
    pub tag: Vec<String>,
    /// Members of an application security group (repeatable)
    #[arg(long, value_name = "NAME=IP,…")]
    pub asg: Vec<String>,
    /// A range of the virtual network, its peers or its routes; adds to VirtualNetwork (repeatable)
    #[arg(long, value_name = "CIDR")]
    pub virtual_network: Vec<IpNet>,
    /// Admin rules of Virtual Network Manager: a JSON array of rules
    #[arg(long, value_name = "FILE")]
    pub admin_rules: Option<String>,
    /// What the platform needs from the rules: `aks`, or a file that `nsg profile aks` is an example
    /// of
    #[arg(long, value_name = "aks|FILE")]
    pub profile: Option<String>,
}

/// Rules, ready to judge.
#[derive(Debug)]
pub struct Loaded {
    /// The rules.
    pub chain: Chain,
    /// What the names in them stand for.
    pub names: Names,
    /// What the platform needs, if that was asked for.
    pub profile: Option<Profile>,
    /// What is doubtful about the documents.
    pub warnings: Vec<ReadError>,
}

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is too large.
    #[error("{file}: more than {MOST_BYTES} bytes")]
    Large {
        /// The file.
        file: String,
    },
    /// A file has another encoding.
    #[error("{file}: is UTF-16: save it as UTF-8")]
    Utf16 {
        /// The file.
        file: String,
    },
    /// A file has another encoding.
    #[error("{file}:{line}: is not UTF-8")]
    Utf8 {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },
    /// A document is not valid.
    #[error(transparent)]
    Document(#[from] ReadError),
    /// A flag defines a name that is none.
    #[error("{flag}: {source}")]
    Names {
        /// The flag.
        flag: &'static str,
        /// The cause.
        #[source]
        source: NamesError,
    },
    /// A profile is not valid.
    #[error("{file}: {source}")]
    Profile {
        /// The file.
        file: String,
        /// The cause.
        #[source]
        source: ProfileError,
    },
    /// `--nsg` without a place.
    #[error("--nsg `{0}`: write subnet=FILE or nic=FILE")]
    Place(String),
    /// Two groups for one place.
    #[error("--nsg `{text}`: there is one group for the {kind} already")]
    Twice {
        /// The flag's value.
        text: String,
        /// The place.
        kind: LevelKind,
    },
    /// Two sets of admin rules.
    #[error("--admin-rules {0}: the effective rules have admin rules already")]
    Admin(String),
    /// Rules that would take too much memory.
    #[error(
        "group {name} ({kind}): its rules and the addresses that they name are more than can be \
         compiled"
    )]
    Rules {
        /// The place.
        kind: LevelKind,
        /// The group.
        name: String,
    },
    /// Standard input twice.
    #[error("standard input (`-`) can be one file only")]
    StandardInput,
    /// Standard input in a daemon.
    #[error("standard input (`-`) cannot be watched: name files")]
    Unwatchable,
}

// === impl Sources ===

impl Sources {
    /// Reads everything for a daemon, which watches its files.
    pub fn watched(&self) -> Result<Option<Loaded>, SourceError> {
        if self.reads_standard_input() {
            return Err(SourceError::Unwatchable);
        }
        (!self.is_empty()).then(|| self.load()).transpose()
    }

    /// Whether any rules were given.
    pub fn is_empty(&self) -> bool {
        self.nsg.is_empty() && self.effective.is_none() && self.admin_rules.is_none()
    }

    /// Whether any groups were given.
    pub fn has_groups(&self) -> bool {
        !self.nsg.is_empty() || self.effective.is_some()
    }

    /// The files that are read, of which at most one is standard input.
    fn files(&self) -> impl Iterator<Item = &str> {
        let groups = self.nsg.iter().filter_map(|text| text.split_once('='));
        groups
            .map(|(_, file)| file)
            .chain(self.effective.as_deref())
            .chain(self.admin_rules.as_deref())
            .chain(self.service_tags.iter().map(String::as_str))
            .chain(self.profile.as_deref().filter(|profile| *profile != AKS))
    }

    /// Whether a file is standard input.
    pub fn reads_standard_input(&self) -> bool {
        self.files().any(is_standard_input)
    }

    /// Reads the rules, and what is doubtful about them.
    pub fn levels(&self) -> Result<(Levels, Vec<ReadError>), SourceError> {
        let mut warnings = Vec::new();
        if self.files().filter(|file| is_standard_input(file)).count() > 1 {
            return Err(SourceError::StandardInput);
        }
        let mut levels = match &self.effective {
            Some(file) => {
                let mut document = read::read(file, &content(file)?)?;
                warnings.append(&mut document.warnings);
                document.into_levels()?
            }
            None => Levels::default(),
        };
        for text in &self.nsg {
            let (kind, file) = match text.split_once('=') {
                Some(("subnet", file)) => (LevelKind::Subnet, file),
                Some(("nic", file)) => (LevelKind::Nic, file),
                _ => return Err(SourceError::Place(text.clone())),
            };
            let (file, name) = chosen(file);
            let mut document = read::read(file, &content(file)?)?;
            warnings.append(&mut document.warnings);
            let nsg = document.choose(name, kind)?;
            let place = match kind {
                LevelKind::Nic => &mut levels.nic,
                LevelKind::Subnet | LevelKind::Admin => &mut levels.subnet,
            };
            if place.is_some() {
                let text = text.clone();
                return Err(SourceError::Twice { text, kind });
            }
            *place = Some(nsg);
        }
        if let Some(file) = &self.admin_rules {
            if levels.admin.is_some() {
                return Err(SourceError::Admin(file.clone()));
            }
            let (admin, mut doubts) = read::read_admin_rules(file, &content(file)?)?;
            warnings.append(&mut doubts);
            levels.admin = Some(admin);
        }
        Ok((levels, warnings))
    }

    /// Reads what names stand for.
    pub fn names(&self) -> Result<Names, SourceError> {
        let mut names = Names::default();
        for file in &self.service_tags {
            names.add_service_tags(read::read_service_tags(file, &content(file)?)?);
        }
        for text in &self.tag {
            let flag = "--tag";
            let named = names.define_tag(text);
            named.map_err(|source| SourceError::Names { flag, source })?;
        }
        for text in &self.asg {
            let flag = "--asg";
            let named = names.define_group(text);
            named.map_err(|source| SourceError::Names { flag, source })?;
        }
        names.add_network(self.virtual_network.iter().copied());
        Ok(names)
    }

    /// Reads what the platform needs.
    fn profile(&self) -> Result<Option<Profile>, SourceError> {
        let Some(file) = &self.profile else {
            return Ok(None);
        };
        if file == AKS {
            return Ok(Some(Profile::aks()));
        }
        let profile = Profile::parse(&content(file)?);
        profile.map(Some).map_err(|source| SourceError::Profile {
            file: file.clone(),
            source,
        })
    }

    /// Whether there are admin rules, or effective rules that would have them.
    pub fn has_admin_rules(&self, chain: &Chain) -> bool {
        let mut levels = chain.levels(Direction::Inbound);
        self.effective.is_some() || levels.any(|level| level.kind == LevelKind::Admin)
    }

    /// Reads rules and names and makes them ready to judge.
    pub fn load(&self) -> Result<Loaded, SourceError> {
        let (levels, warnings) = self.levels()?;
        let names = self.names()?;
        let profile = self.profile()?;
        let mut chain = Chain::new(levels, &names);
        if let Some(level) = chain.too_large() {
            return Err(SourceError::Rules {
                kind: level.kind,
                name: level.nsg.name.to_string(),
            });
        }
        if let Some(profile) = &profile {
            let needs = profile.resolve(&names, chain.network(), &[]);
            chain = chain.with_needs(needs);
        }
        Ok(Loaded {
            chain,
            names,
            profile,
            warnings,
        })
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
fn content(file: &str) -> Result<String, SourceError> {
    let failed = |source| SourceError::File {
        file: file.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    if file == "-" {
        let mut input = crate::stdin::take().map_err(failed)?.take(MOST_BYTES + 1);
        input.read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let input = File::open(file).map_err(failed)?;
        let mut input = input.take(MOST_BYTES + 1);
        input.read_to_end(&mut bytes).map_err(failed)?;
    }
    let file = || file.to_owned();
    if bytes.len() as u64 > MOST_BYTES {
        return Err(SourceError::Large { file: file() });
    }
    // PowerShell writes UTF-16 unless told otherwise.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(SourceError::Utf16 { file: file() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        SourceError::Utf8 { file: file(), line }
    })
}
