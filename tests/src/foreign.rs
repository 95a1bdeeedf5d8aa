//! Somebody else's programs on an interface's hooks: what the daemon has to leave alone.
//!
//! The TCX program is loaded by the plain bpf(2) system call and counts the packets that it sees,
//! so that a test can tell "still attached" from "still served".

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use crate::bpf::{self, Command, address, number};
use crate::lab::{Namespace, process};

/// The name that the program shows in `bpftool prog`.
pub const NAME: &str = "foreign";

/// A direction of an interface's hook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Packets that come in by the interface.
    Ingress,
    /// Packets that leave by it.
    Egress,
}

/// What a program says of every packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i32)]
pub enum Verdict {
    /// Ask the next program (`TCX_NEXT`).
    Next = -1,
    /// Let it pass and ask nobody else (`TCX_PASS`): what stands behind sees nothing.
    Pass = 0,
}

/// A foreign program on a TCX hook; it is detached when this is dropped.
#[derive(Debug)]
pub struct Program {
    map: OwnedFd,
    code: OwnedFd,
    _link: OwnedFd,
}

/// One eBPF instruction.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct CreateLink {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct Lookup {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
}

#[repr(C)]
struct Query {
    interface: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

// === impl Direction ===

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `BPF_TCX_INGRESS` or `BPF_TCX_EGRESS`.
    fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 46,
            Self::Egress => 47,
        }
    }
}

// === impl Program ===

impl Program {
    /// Attaches a program that counts packets and hands them to the next program.
    pub fn attach(namespace: &Namespace, interface: &str, direction: Direction) -> Result<Self> {
        Self::attach_with(namespace, interface, direction, Verdict::Next)
    }

    /// Attaches a program that counts packets and gives this verdict.
    pub fn attach_with(
        namespace: &Namespace,
        interface: &str,
        direction: Direction,
        verdict: Verdict,
    ) -> Result<Self> {
        let array = CreateMap {
            kind: 2,
            key_size: 4,
            value_size: 8,
            entries: 1,
        };
        let map = bpf::open(Command::MapCreate, &array).context("cannot create a map")?;
        let program = load(&map, verdict).context("cannot load a program")?;
        let link = namespace.run(|| {
            let link = CreateLink {
                program: number(&program),
                interface: index(interface)?,
                attach_type: direction.attach_type(),
                flags: 0,
            };
            bpf::open(Command::LinkCreate, &link)
                .context("cannot attach to TCX (Linux 6.6 and newer)")
        })??;
        Ok(Self {
            map,
            code: program,
            _link: link,
        })
    }

    /// Packets that the program saw so far.
    pub fn packets(&self) -> Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        let lookup = Lookup {
            map: number(&self.map),
            pad: 0,
            key: address(&raw const key),
            value: address(&raw mut value),
        };
        bpf::call(Command::MapLookup, &lookup).context("cannot read the count")?;
        Ok(value)
    }

    /// The program's id.
    pub fn id(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.code.as_raw_fd());
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        line.and_then(|id| id.trim().parse().ok())
            .with_context(|| format!("no id in {text}"))
    }
}

/// Gives an interface a clsact qdisc with classifiers of somebody else in both directions: one by
/// u32, one by classic BPF.
pub fn add_filters(namespace: &Namespace, interface: &str, priority: u16) -> Result<()> {
    let tc = |line: &str, last: &[&str]| {
        process::checked(namespace.command("tc").args(line.split(' ')).args(last)).map(drop)
    };
    tc(&format!("qdisc add dev {interface} clsact"), &[])?;
    for direction in ["ingress", "egress"] {
        let filter = format!("filter add dev {interface} {direction} protocol all prio");
        tc(
            &format!("{filter} {priority} u32 match u32 0 0 flowid 1:1"),
            &[],
        )?;
        // Classic BPF that returns 0 matches nothing: the packet goes on.
        let next = priority + 1;
        tc(
            &format!("{filter} {next} bpf bytecode"),
            &["1,6 0 0 0", "flowid", "1:2"],
        )?;
    }
    Ok(())
}

/// What `tc` shows of an interface's hooks: qdiscs and filters of both directions.
pub fn show_filters(namespace: &Namespace, interface: &str) -> Result<String> {
    let mut shown = String::new();
    for arguments in [
        ["qdisc", "show", "dev", interface].as_slice(),
        &["filter", "show", "dev", interface, "ingress"],
        &["filter", "show", "dev", interface, "egress"],
    ] {
        shown.push_str(&process::checked(namespace.command("tc").args(arguments))?);
    }
    Ok(shown)
}

/// The ids of the programs on an interface's TCX hook, first to run first; `None` where the kernel
/// has no such hook.
pub fn tcx_programs(
    namespace: &Namespace,
    interface: &str,
    direction: Direction,
) -> Result<Option<Vec<u32>>> {
    namespace.run(|| {
        let mut ids = [0_u32; 64];
        let query = Query {
            interface: index(interface)?,
            attach_type: direction.attach_type(),
            flags: 0,
            attach_flags: 0,
            programs: address(&raw mut ids),
            count: u32::try_from(ids.len()).context("a short list")?,
            pad: 0,
            program_flags: 0,
            links: 0,
            link_flags: 0,
            revision: 0,
        };
        let Err(error) = bpf::call(Command::ProgramQuery, &query) else {
            return Ok(Some(ids.into_iter().take_while(|id| *id != 0).collect()));
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Some(Vec::new())),
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error).with_context(|| format!("cannot query TCX of {interface}")),
        }
    })?
}

/// `if let Some(value) = array.get(0) { atomic_add(value, 1) } return verdict`
fn load(map: &OwnedFd, verdict: Verdict) -> Result<OwnedFd> {
    let map = i32::try_from(number(map)).context("descriptors are small")?;
    let op = |code: u8, registers: u8, offset: i16, immediate: i32| Instruction {
        code,
        registers,
        offset,
        immediate,
    };
    let instructions = [
        op(0x62, 0x0a, -4, 0),  // *(u32 *)(r10 - 4) = 0
        op(0xbf, 0xa2, 0, 0),   // r2 = r10
        op(0x07, 0x02, 0, -4),  // r2 += -4
        op(0x18, 0x11, 0, map), // r1 = map
        op(0x00, 0x00, 0, 0),
        op(0x85, 0x00, 0, 1),              // call map_lookup_elem
        op(0x15, 0x00, 2, 0),              // if r0 == 0 skip two
        op(0xb7, 0x01, 0, 1),              // r1 = 1
        op(0xdb, 0x10, 0, 0),              // lock *(u64 *)(r0 + 0) += r1
        op(0xb7, 0x00, 0, verdict as i32), // r0 = verdict
        op(0x95, 0x00, 0, 0),              // exit
    ];
    let license = c"GPL";
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let program = LoadProgram {
        kind: 3,
        count: u32::try_from(instructions.len()).context("a short program")?,
        instructions: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    bpf::open(Command::ProgramLoad, &program)
}

/// An interface's index in the calling thread's namespace.
fn index(interface: &str) -> Result<u32> {
    let name = CString::new(interface).context("not an interface name")?;
    // SAFETY: the name is a valid C string for the whole call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface} here");
    Ok(index)
}

/// Whether this kernel has TCX hooks, found by trying.
pub fn has_tcx(namespace: &Namespace, interface: &str) -> bool {
    Program::attach(namespace, interface, Direction::Ingress).is_ok()
}
