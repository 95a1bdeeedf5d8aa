//! Which network namespace has an address: those of the pods of this host.
//!
//! Nothing is kept open that would keep a namespace alive: a namespace is known by its number and
//! by a process that is in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fstat, openat};

use super::process::each_process;
use super::sock_diag::{Asker, EnterError, Found};

/// Namespaces that are known at a time; a node has some hundred pods at most.
const MOST_NAMESPACES: usize = 1024;
/// Addresses of which it is remembered where they are.
const MOST_ADDRESSES: usize = 4096;
/// How long a list of namespaces is good, and that none of them has an address.
const FRESH: Duration = Duration::from_secs(1);

/// Namespaces other than one's own.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// Number of each, and a process in it.
    known: HashMap<u64, u32>,
    listed: Option<Instant>,
    /// In which one an address was found; or when in none.
    addresses: HashMap<IpAddr, Place>,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    In(u64),
    Nowhere(Instant),
}

// === impl Namespaces ===

impl Namespaces {
    /// The socket with these ends, in whichever namespace; `None` too where there was not enough
    /// time to ask in all.
    pub(super) fn find(
        &mut self,
        proc: &OwnedFd,
        local: std::net::SocketAddr,
        remote: std::net::SocketAddr,
        deadline: Instant,
    ) -> Result<Option<Found>, EnterError> {
        let address = local.ip().to_canonical();
        let first = match self.addresses.get(&address) {
            Some(Place::Nowhere(at)) if at.elapsed() < FRESH => return Ok(None),
            Some(Place::In(number)) => Some(*number),
            _ => None,
        };
        self.list(proc, deadline);
        let known = first.and_then(|number| Some((number, *self.known.get(&number)?)));
        let others = self.known.iter().map(|(number, pid)| (*number, *pid));
        let all: Vec<_> = known
            .into_iter()
            .chain(others.filter(|(number, _)| Some(*number) != first))
            .collect();
        let (mut failure, mut has_listener) = (None, false);
        for (number, pid) in all {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let Some(namespace) = open(proc, pid, number) else {
                self.known.remove(&number);
                continue;
            };
            // A listener on all addresses would match in any of them.
            let ask = |mut asker: Asker| asker.ask(local, remote).map_err(EnterError::Query);
            match Asker::in_namespace(namespace.as_fd()).and_then(ask) {
                Ok(Some(found)) if !found.listener => {
                    self.remember(address, Place::In(number));
                    return Ok(Some(found));
                }
                Ok(found) => has_listener |= found.is_some(),
                Err(error) => failure = Some(error),
            }
        }
        // The connection may be just about to reach the listener.
        if !has_listener {
            self.remember(address, Place::Nowhere(Instant::now()));
        }
        failure.map_or(Ok(None), Err)
    }

    fn list(&mut self, proc: &OwnedFd, deadline: Instant) {
        if self.listed.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let own = number(proc, "self");
        self.known.clear();
        each_process(proc, |pid| {
            if let Some(number) = number(proc, &pid.to_string())
                && Some(number) != own
                && self.known.len() < MOST_NAMESPACES
            {
                self.known.entry(number).or_insert(pid);
            }
            Instant::now() < deadline
        });
        self.listed = Some(Instant::now());
    }

    fn remember(&mut self, address: IpAddr, place: Place) {
        if self.addresses.len() >= MOST_ADDRESSES {
            self.addresses.clear();
        }
        self.addresses.insert(address, place);
    }
}

/// Number of the network namespace of a process.
fn number(proc: &OwnedFd, pid: &str) -> Option<u64> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    let path = format!("{pid}/ns/net");
    let (link, _) = rustix::fs::readlinkat_raw(proc, path, &mut buffer[..]).ok()?;
    let number = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

/// The namespace of a process, if it is still the one with this number.
fn open(proc: &OwnedFd, pid: u32, number: u64) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(proc, format!("{pid}/ns/net"), flags, Mode::empty()).ok()?;
    (fstat(&namespace).ok()?.st_ino == number).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::super::names::place;
    use super::*;

    #[test]
    fn namespaces_by_number() {
        let proc = place("/proc".as_ref()).expect("proc");
        let own = number(&proc, "self").expect("a number");
        let pid = std::process::id();
        assert_eq!(number(&proc, &pid.to_string()), Some(own));
        assert!(open(&proc, pid, own).is_some());
        assert!(open(&proc, pid, own + 1).is_none());
        assert!(number(&proc, "0").is_none());
        let mut namespaces = Namespaces::default();
        namespaces.list(&proc, Instant::now() + FRESH);
        assert!(!namespaces.known.contains_key(&own), "not one's own");
    }

    #[test]
    fn what_is_nowhere_is_not_looked_for_at_once() {
        let proc = place("/proc".as_ref()).expect("proc");
        let mut namespaces = Namespaces::default();
        let local = "192.0.2.1:22".parse().expect("an address");
        let remote = "192.0.2.2:50000".parse().expect("an address");
        let later = Instant::now() + FRESH;
        // Nobody has it, or the others may not be entered.
        let found = namespaces.find(&proc, local, remote, later);
        assert!(!matches!(found, Ok(Some(_))));
        let at = local.ip();
        assert!(matches!(namespaces.addresses[&at], Place::Nowhere(_)));
        let again = namespaces.find(&proc, local, remote, Instant::now());
        assert!(matches!(again, Ok(None)));
        for host in 0..=MOST_ADDRESSES {
            let host = u32::try_from(host).expect("few");
            namespaces.remember(IpAddr::from(host.to_be_bytes()), Place::In(1));
        }
        assert!(namespaces.addresses.len() <= MOST_ADDRESSES);
    }
}
