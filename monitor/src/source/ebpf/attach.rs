//! Attaching to interfaces, and detaching only what is provably ours.
//!
//! At the head of the hook in both directions, since a neighbour that passes the packet or
//! redirects it ends the chain: by TCX where the kernel has it (6.6), found out by trying, else by
//! clsact. A TCX link vanishes with the process. A clsact filter survives a crash: it is told by
//! its program's name and our handle, and replaced at the next start. The clsact qdisc is shared
//! and therefore never deleted.

mod error;

use std::{collections::HashMap, time::Duration};

use aya::{
    programs::{
        LinkOrder, ProgramError, TcAttachType,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
    },
    sys::SyscallError,
};
use monitor_common::abi::Hook;
use rtnetlink::Handle;

use super::{
    filters::{self, Qdisc},
    kernel::{Kernel, program_name},
};

pub use error::AttachError;

/// Handle of our clsact filters: "nw". Never 1, which network plugins take.
const HANDLE: TcHandle = TcHandle::new(0, 0x6e77);
/// Priority where the hook is empty; leaves room in front for those who insist on being first.
const PRIORITY: u16 = 10;
/// Pauses between attempts to list filters.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
];
const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Egress];

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// By TCX, and by clsact where TCX is refused.
    #[default]
    Auto,
    /// By TCX only.
    Tcx,
    /// By clsact only.
    Clsact,
}

/// How an interface was attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// By TCX links.
    Tcx,
    /// By clsact filters.
    Clsact,
}

impl Attached {
    /// Name in records and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Links on one interface; clsact ones have to be detached by [`Attacher::detach`].
struct Links {
    name: String,
    how: Attached,
    held: Vec<(Hook, SchedClassifierLink)>,
}

/// What is attached.
///
/// Invariant: an interface is in `attached` if and only if both of its hooks run our programs.
pub struct Attacher {
    mode: AttachMode,
    handle: Handle,
    attached: HashMap<u32, Links>,
}

// === impl Attacher ===

impl Attacher {
    /// `handle` is of an rtnetlink socket in the network namespace to attach in.
    pub fn new(mode: AttachMode, handle: Handle) -> Self {
        Self {
            mode,
            handle,
            attached: HashMap::new(),
        }
    }

    /// Attaches both programs to an interface; once more is no error.
    pub async fn attach(
        &mut self,
        kernel: &mut Kernel,
        ifindex: u32,
        name: &str,
    ) -> Result<Attached, AttachError> {
        if let Some(links) = self.attached.get(&ifindex) {
            return Ok(links.how);
        }
        let gone = || AttachError::Gone {
            name: name.to_owned(),
        };
        if index_of(name) != Some(ifindex) {
            return Err(gone());
        }
        let links = match self.mode {
            AttachMode::Tcx => tcx(kernel, name),
            AttachMode::Clsact => self.clsact(kernel, ifindex, name).await,
            AttachMode::Auto => match tcx(kernel, name) {
                Err(AttachError::Refused { source, .. }) if is_unsupported(&source) => {
                    tracing::info!(cause = %source, "no TCX here, attaching by clsact");
                    self.mode = AttachMode::Clsact;
                    self.clsact(kernel, ifindex, name).await
                }
                result => result,
            },
        };
        // aya attaches by name: another interface may have taken the name meanwhile.
        if index_of(name) != Some(ifindex) {
            if let Ok(links) = links {
                self.release(links, ifindex, kernel).await;
            }
            return Err(gone());
        }
        let links = links?;
        let how = links.how;
        self.attached.insert(ifindex, links);
        Ok(how)
    }

    /// Detaches from an interface that is still there.
    pub async fn detach(&mut self, kernel: &Kernel, ifindex: u32) {
        if let Some(links) = self.attached.remove(&ifindex) {
            self.release(links, ifindex, kernel).await;
        }
    }

    /// Forgets an interface that is gone: the kernel has removed everything on it.
    pub fn forget(&mut self, ifindex: u32) {
        if let Some(links) = self.attached.remove(&ifindex) {
            for (_, link) in links.held {
                match links.how {
                    Attached::Tcx => drop(link),
                    // Detaching by index could hit a new interface with the same index.
                    Attached::Clsact => std::mem::forget(link),
                }
            }
        }
    }

    /// Detaches from every interface.
    pub async fn detach_all(&mut self, kernel: &Kernel) {
        let indices: Vec<_> = self.attached.keys().copied().collect();
        for ifindex in indices {
            self.detach(kernel, ifindex).await;
        }
    }

    /// Detaches links; of clsact filters those only whose place still holds our program.
    async fn release(&self, links: Links, ifindex: u32, kernel: &Kernel) {
        for (hook, link) in links.held {
            if links.how == Attached::Tcx {
                drop(link);
                continue;
            }
            let (Ok(priority), Ok(own)) = (link.priority(), link.handle()) else {
                std::mem::forget(link);
                continue;
            };
            let listed = persistently(|| filters::filters(&self.handle, ifindex, hook)).await;
            let present = match listed {
                Ok(present) => present,
                Err(error) => {
                    tracing::error!(
                        interface = links.name,
                        %error,
                        "cannot list the filters, so ours is not provably ours and stays: \
                         remove it by `tc filter del dev {} {} pref {priority}`, or start \
                         nodewatch again, which replaces it",
                        links.name,
                        hook_name(hook),
                    );
                    std::mem::forget(link);
                    continue;
                }
            };
            let is_ours = present.iter().any(|filter| {
                filter.priority == priority
                    && filter.handle == u32::from(own)
                    && filter.program_id.is_some()
                    && filter.program_id == kernel.program_id(hook)
            });
            if is_ours {
                drop(link);
            } else {
                tracing::warn!(
                    interface = links.name,
                    hook = hook_name(hook),
                    "our filter was replaced by another program, which is left alone"
                );
                std::mem::forget(link);
            }
        }
    }

    async fn clsact(
        &self,
        kernel: &mut Kernel,
        ifindex: u32,
        name: &str,
    ) -> Result<Links, AttachError> {
        let list = |source| AttachError::List {
            name: name.to_owned(),
            source: Box::new(source),
        };
        match filters::qdisc(&self.handle, ifindex).await.map_err(list)? {
            Qdisc::Clsact => {}
            Qdisc::Ingress => {
                return Err(AttachError::IngressQdisc {
                    name: name.to_owned(),
                });
            }
            Qdisc::Absent => match qdisc_add_clsact(name) {
                Ok(()) | Err(TcError::AlreadyAttached) => {}
                Err(source) => {
                    return Err(AttachError::Qdisc {
                        name: name.to_owned(),
                        source,
                    });
                }
            },
        }
        let mut links = Links {
            name: name.to_owned(),
            how: Attached::Clsact,
            held: Vec::new(),
        };
        for hook in HOOKS {
            match self.clsact_hook(kernel, ifindex, name, hook).await {
                Ok(link) => links.held.push((hook, link)),
                Err(error) => {
                    self.release(links, ifindex, kernel).await;
                    return Err(error);
                }
            }
        }
        Ok(links)
    }

    async fn clsact_hook(
        &self,
        kernel: &mut Kernel,
        ifindex: u32,
        name: &str,
        hook: Hook,
    ) -> Result<SchedClassifierLink, AttachError> {
        let present = filters::filters(&self.handle, ifindex, hook)
            .await
            .map_err(|source| AttachError::List {
                name: name.to_owned(),
                source: Box::new(source),
            })?;
        let mut first = None;
        for filter in present {
            let is_stale = filter.handle == u32::from(HANDLE)
                && filter.name.as_deref() == Some(program_name(hook));
            if is_stale {
                // Left by a daemon that crashed: only one runs in a network namespace.
                let link = SchedClassifierLink::attached(
                    name,
                    attach_type(hook),
                    filter.priority,
                    HANDLE,
                    None,
                );
                drop(link);
            } else {
                first = Some(first.unwrap_or(u16::MAX).min(filter.priority));
            }
        }
        let priority = match first {
            None => PRIORITY,
            Some(0 | 1) => {
                let hook = hook_name(hook);
                return Err(AttachError::NoRoom {
                    name: name.to_owned(),
                    hook,
                });
            }
            Some(first) => PRIORITY.min(first - 1),
        };
        let options = NlOptions {
            priority,
            handle: HANDLE,
            classid: None,
        };
        attach(
            kernel,
            name,
            hook,
            "clsact",
            TcAttachOptions::Netlink(options),
        )
    }
}

/// Tries a few times with pauses: a request to rtnetlink may fail when others change the same.
async fn persistently<T, E, F: Future<Output = Result<T, E>>>(
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    for pause in PAUSES {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(pause).await;
    }
    attempt().await
}

fn tcx(kernel: &mut Kernel, name: &str) -> Result<Links, AttachError> {
    let mut links = Links {
        name: name.to_owned(),
        how: Attached::Tcx,
        held: Vec::new(),
    };
    for hook in HOOKS {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        links
            .held
            .push((hook, attach(kernel, name, hook, "tcx", options)?));
    }
    Ok(links)
}

fn attach(
    kernel: &mut Kernel,
    name: &str,
    hook: Hook,
    how: &'static str,
    options: TcAttachOptions,
) -> Result<SchedClassifierLink, AttachError> {
    let program = kernel.program_mut(hook);
    program
        .attach_with_options(name, attach_type(hook), options)
        .and_then(|id| program.take_link(id))
        .map_err(|source| AttachError::Refused {
            name: name.to_owned(),
            hook: hook_name(hook),
            how,
            source: Box::new(source),
        })
}

pub(super) fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Ingress => TcAttachType::Ingress,
        Hook::Egress => TcAttachType::Egress,
    }
}

pub(super) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
    }
}

/// Whether the kernel refuses a TCX link as such.
fn is_unsupported(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(SyscallError { io_error, .. }) = error else {
        return false;
    };
    matches!(
        io_error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS)
    )
}

/// Current index of the interface with this name in the network namespace of this thread.
fn index_of(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: the name is a valid C string for the duration of the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_listing_that_fails_is_tried_again() {
        let attempts = |failures: u32| {
            let count = Cell::new(0);
            let attempt = || {
                count.set(count.get() + 1);
                let result = if count.get() > failures {
                    Ok(7)
                } else {
                    Err("busy")
                };
                async move { result }
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime");
            let result = runtime.block_on(persistently(attempt));
            (result, count.get())
        };
        assert_eq!(attempts(0), (Ok(7), 1));
        assert_eq!(attempts(3), (Ok(7), 4));
        assert_eq!(attempts(9), (Err("busy"), 4));
    }
}
