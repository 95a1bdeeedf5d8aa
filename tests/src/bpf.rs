//! The few bpf(2) commands that tests need, without a loader in between.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};

/// Commands of bpf(2), as in the kernel's `enum bpf_cmd`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i32)]
pub(crate) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapNextKey = 4,
    ProgramLoad = 5,
    ProgramTestRun = 10,
    ProgramById = 13,
    MapById = 14,
    ObjectInfo = 15,
    ProgramQuery = 16,
    LinkCreate = 28,
}

/// Runs a command with a C struct of the kernel's layout; addresses in it have to point to values
/// that outlive the call.
pub(crate) fn call<T>(command: Command, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: valid for its size; these commands answer elsewhere.
    unsafe { raw(command, &raw const *attributes) }
}

/// The same for a command that answers in the struct.
fn call_mut<T>(command: Command, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: valid for its size, also for what the kernel writes.
    unsafe { raw(command, &raw mut *attributes) }
}

/// # Safety
/// `attributes` must be valid for its size, for writing too where the command answers there.
unsafe fn raw<T>(command: Command, attributes: *const T) -> io::Result<libc::c_long> {
    // SAFETY: attributes is plain data, the caller's; every caller keeps what its addresses point to
    // alive and large enough until this returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            attributes,
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Runs a command that gives a descriptor.
pub(crate) fn open<T>(command: Command, attributes: &T) -> Result<OwnedFd> {
    let result = call(command, attributes).with_context(|| format!("bpf {command:?}"))?;
    let fd = i32::try_from(result).context("descriptors are small")?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as bpf(2) takes it.
pub(crate) fn number(fd: &OwnedFd) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("descriptors are not negative")
}

/// A value's address as bpf(2) takes it.
pub(crate) fn address<T>(value: *const T) -> u64 {
    value.expose_provenance() as u64
}

/// What the kernel says of a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MapInfo {
    /// The id.
    pub id: u32,
    /// The name, cut to 15 bytes by the kernel.
    pub name: String,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Capacity.
    pub capacity: u32,
    /// Whether it has a value per CPU.
    pub per_cpu: bool,
}

/// One entry: the key's and the value's bytes.
pub type Entry = (Vec<u8>, Vec<u8>);

#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    pointer: u64,
}

#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    capacity: u32,
    flags: u32,
    name: [u8; 16],
}

/// What `BPF_PROG_TEST_RUN` takes, up to the number of runs.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Runs a program so many times over a frame, as if it came from loopback; what it returned last.
pub fn run_program(id: u32, frame: &[u8], repeat: u32) -> Result<u32> {
    let by_id = ById {
        id,
        next_id: 0,
        flags: 0,
    };
    let program = open(Command::ProgramById, &by_id)?;
    let mut run = TestRun {
        program: number(&program),
        size_in: u32::try_from(frame.len()).context("a frame")?,
        data_in: address(frame.as_ptr()),
        repeat,
        ..TestRun::default()
    };
    call_mut(Command::ProgramTestRun, &mut run).context("the program was not run")?;
    Ok(run.result)
}

/// Whether a program with this id exists.
pub fn program_exists(id: u32) -> bool {
    open(
        Command::ProgramById,
        &ById {
            id,
            next_id: 0,
            flags: 0,
        },
    )
    .is_ok()
}

/// Describes a map.
pub fn map_info(id: u32) -> Result<MapInfo> {
    describe(&map(id)?)
}

/// Every entry of a map that is not per CPU.
pub fn map_entries(id: u32) -> Result<Vec<Entry>> {
    let map = map(id)?;
    let info = describe(&map)?;
    if info.per_cpu {
        bail!("map {} is per CPU", info.name);
    }
    let mut entries = Vec::new();
    let mut key: Option<Vec<u8>> = None;
    // Entries may come and go meanwhile; twice the capacity ends any loop.
    for _ in 0..u64::from(info.capacity) * 2 {
        let mut next = vec![0_u8; info.key_size];
        let step = Element {
            map: number(&map),
            pad: 0,
            key: key.as_ref().map_or(0, |key| address(key.as_ptr())),
            value: address(next.as_mut_ptr()),
            flags: 0,
        };
        if call(Command::MapNextKey, &step).is_err() {
            break;
        }
        let mut value = vec![0_u8; info.value_size.next_multiple_of(8)];
        let lookup = Element {
            map: number(&map),
            pad: 0,
            key: address(next.as_ptr()),
            value: address(value.as_mut_ptr()),
            flags: 0,
        };
        if call(Command::MapLookup, &lookup).is_ok() {
            value.truncate(info.value_size);
            entries.push((next.clone(), value));
        }
        key = Some(next);
    }
    Ok(entries)
}

fn map(id: u32) -> Result<OwnedFd> {
    open(
        Command::MapById,
        &ById {
            id,
            next_id: 0,
            flags: 0,
        },
    )
}

fn describe(map: &OwnedFd) -> Result<MapInfo> {
    let mut raw = RawMapInfo::default();
    let length = u32::try_from(size_of::<RawMapInfo>()).context("a small struct")?;
    let info = Info {
        fd: number(map),
        length,
        pointer: address(&raw mut raw),
    };
    call(Command::ObjectInfo, &info).context("no information about a map")?;
    let name = raw.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(MapInfo {
        id: raw.id,
        name: String::from_utf8_lossy(name).into_owned(),
        key_size: usize::try_from(raw.key_size).context("small")?,
        value_size: usize::try_from(raw.value_size).context("small")?,
        capacity: raw.capacity,
        // BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY and _LRU_PERCPU_HASH
        per_cpu: matches!(raw.kind, 5 | 6 | 10),
    })
}
