//! Which of the processes that hold a connection stands for it, and whether someone has logged in.
//!
//! | server | stage | holds the connection |
//! |---|---|---|
//! | OpenSSH | connected | one process of root |
//! | OpenSSH | authenticating | one of root, and its child as user `sshd` in a sandbox |
//! | OpenSSH | logged in | one of root, and its child as the user; root itself has no child |
//! | Dropbear | connected to the end | one of root, whose children run as the user |
//!
//! Two rules say that someone has logged in:
//!
//! 1. A holder's login session is another than that of its parent, which belongs to the server, too:
//!    `pam_loginuid` has set it. The parent is compared because a server that was started in a login
//!    session inherits that; where the listener is gone, or there is none as with inetd, the session
//!    tells nothing.
//! 2. A process of the server that root started has become another user, and neither is that the
//!    server's own user nor is the process in the sandbox that comes before a login.
//!
//! A login as root without PAM fits none, nor does one as root without a listener: its outcome stays
//! unknown.

use super::process::{Facts, Program};

/// The user that OpenSSH's server becomes before a login.
pub(super) const SERVER_USER: &str = "sshd";

/// What is known when it is judged.
pub(super) struct Evidence<'a> {
    /// Processes that hold the connection.
    pub(super) holders: &'a [Facts],
    /// Their parents and children that do not hold it.
    pub(super) relatives: &'a [Facts],
    /// The number of [`SERVER_USER`]; without it the second rule tells nothing about OpenSSH.
    pub(super) server_user: Option<u32>,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The process that stands for the connection.
    pub(super) pid: u32,
    /// Whether someone has logged in; never known where no SSH server holds the connection.
    pub(super) authenticated: Option<bool>,
    /// The user, and the login session.
    pub(super) user: Option<(u32, Option<u32>)>,
}

// === impl Evidence ===

impl Evidence<'_> {
    /// Judges; `None` without holders.
    pub(super) fn judge(&self) -> Option<Verdict> {
        let first = self.first()?;
        if !self.holders.iter().any(|holder| holder.program.is_server()) {
            return Some(Verdict {
                pid: first.pid,
                authenticated: None,
                user: Some((first.uid, first.session)),
            });
        }
        let user_process = self.holders.iter().find(|holder| self.became_user(holder));
        let login = self.holders.iter().find(|holder| self.logged_in(holder));
        let visitor = self
            .holders
            .iter()
            .find_map(|holder| self.dropbear_child(holder));
        let user = match (login, user_process.or(visitor)) {
            (Some(login), _) => login.login.map(|uid| (uid, login.session)),
            (None, Some(process)) => Some((process.uid, process.session)),
            (None, None) => None,
        };
        let is_before = || {
            self.holders
                .iter()
                .any(|holder| self.is_before_login(holder))
        };
        let authenticated = match user {
            Some(_) => Some(true),
            None => is_before().then_some(false),
        };
        Some(Verdict {
            pid: user_process.unwrap_or(first).pid,
            authenticated,
            user,
        })
    }

    /// The holder that the others come from.
    fn first(&self) -> Option<&Facts> {
        let is_child = |holder: &Facts| {
            let mut parents = self.holders.iter();
            parents.any(|other| other.pid == holder.parent && other.pid != holder.pid)
        };
        // Servers first: what they start may hold the connection too.
        self.holders.iter().min_by_key(|holder| {
            (
                !holder.program.is_server(),
                is_child(holder),
                holder.start_time_ticks,
                holder.pid,
            )
        })
    }

    fn parent(&self, of: &Facts) -> Option<&Facts> {
        let mut all = self.holders.iter().chain(self.relatives);
        all.find(|facts| facts.pid == of.parent)
    }

    /// The first rule.
    fn logged_in(&self, holder: &Facts) -> bool {
        let Some(parent) = self.parent(holder) else {
            return false;
        };
        let of = |facts: &Facts| facts.login.map(|login| (login, facts.session));
        let is_server = holder.program.is_server() && parent.program.is_server();
        is_server && of(holder).is_some() && of(holder) != of(parent)
    }

    /// The second rule.
    fn became_user(&self, holder: &Facts) -> bool {
        let Some(parent) = self.parent(holder) else {
            return false;
        };
        let changed = parent.uid == 0 && holder.uid != 0 && holder.uid == holder.effective_uid;
        let same_program = match holder.program {
            Program::Sshd => parent.program == Program::Sshd,
            Program::Dropbear => parent.program == Program::Dropbear,
            Program::SshdAuth | Program::Other => false,
        };
        let is_known = holder.program == Program::Dropbear || self.server_user.is_some();
        changed && same_program && is_known && !self.is_before_login(holder)
    }

    /// The second rule for a server that stays root: what it starts runs as the user. Before a
    /// login Dropbear starts nothing. The listener is not meant, whose children are connections.
    fn dropbear_child(&self, holder: &Facts) -> Option<&Facts> {
        let is_connection = holder.program == Program::Dropbear
            && self
                .parent(holder)
                .is_some_and(|parent| parent.program == Program::Dropbear);
        let mut relatives = self.relatives.iter();
        relatives.find(|child| {
            is_connection
                && child.parent == holder.pid
                && child.program != Program::Dropbear
                && child.uid != 0
                && child.uid == child.effective_uid
        })
    }

    /// Whether this is the process that OpenSSH has before a login.
    fn is_before_login(&self, holder: &Facts) -> bool {
        let is_sandboxed = || {
            self.parent(holder).is_some_and(|parent| {
                holder.no_new_privileges && !parent.no_new_privileges
                    || holder.seccomp_filters > parent.seccomp_filters
            })
        };
        match holder.program {
            Program::SshdAuth => true,
            Program::Sshd => {
                holder.uid != 0 && (self.server_user == Some(holder.uid) || is_sandboxed())
            }
            Program::Dropbear | Program::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSHD: u32 = 100;
    const ALICE: u32 = 1000;

    fn process(pid: u32, parent: u32, program: Program, uid: u32) -> Facts {
        Facts {
            pid,
            parent,
            start_time_ticks: u64::from(pid),
            program,
            uid,
            effective_uid: uid,
            login: None,
            session: None,
            no_new_privileges: false,
            seccomp_filters: 0,
        }
    }

    fn sshd(pid: u32, parent: u32, uid: u32) -> Facts {
        process(pid, parent, Program::Sshd, uid)
    }

    fn in_session(mut facts: Facts, login: u32, session: u32) -> Facts {
        facts.login = Some(login);
        facts.session = Some(session);
        facts
    }

    fn sandboxed(mut facts: Facts) -> Facts {
        facts.no_new_privileges = true;
        facts.seccomp_filters = 1;
        facts
    }

    fn judge(holders: &[Facts], relatives: &[Facts]) -> (u32, Option<bool>, Option<u32>) {
        let evidence = Evidence {
            holders,
            relatives,
            server_user: Some(SSHD),
        };
        let verdict = evidence.judge().expect("holders");
        let user = verdict.user.map(|(uid, _)| uid);
        (verdict.pid, verdict.authenticated, user)
    }

    #[test]
    fn stages_of_openssh() {
        let listener = [sshd(1, 0, 0)];
        assert_eq!(judge(&[sshd(2, 1, 0)], &listener), (2, None, None));
        let before = [sandboxed(sshd(3, 2, SSHD)), sshd(2, 1, 0)];
        assert_eq!(judge(&before, &listener), (2, Some(false), None));
        // The sandbox comes a moment after the change of the user.
        let early = [sshd(2, 1, 0), sshd(3, 2, SSHD)];
        assert_eq!(judge(&early, &listener), (2, Some(false), None));
        let apart = [sshd(2, 1, 0), process(3, 2, Program::SshdAuth, SSHD)];
        assert_eq!(judge(&apart, &listener), (2, Some(false), None));
        let by_uid = [sshd(2, 1, 0), sshd(4, 2, ALICE)];
        assert_eq!(judge(&by_uid, &listener), (4, Some(true), Some(ALICE)));
        let by_login = by_uid.map(|facts| in_session(facts, ALICE, 5));
        assert_eq!(judge(&by_login, &listener), (4, Some(true), Some(ALICE)));
        let root = [in_session(sshd(2, 1, 0), 0, 5)];
        assert_eq!(judge(&root, &listener), (2, Some(true), Some(0)));
    }

    #[test]
    fn an_inherited_session_is_no_login() {
        let listener = [in_session(sshd(1, 0, 0), ALICE, 5)];
        let before = [sshd(2, 1, 0), sandboxed(sshd(3, 2, SSHD))];
        let before = before.map(|facts| in_session(facts, ALICE, 5));
        assert_eq!(judge(&before, &listener), (2, Some(false), None));
        // The same user logs in: a session of its own.
        let after = [in_session(sshd(2, 1, 0), ALICE, 6)];
        assert_eq!(judge(&after, &listener), (2, Some(true), Some(ALICE)));
    }

    #[test]
    fn without_a_listener_a_session_is_no_login() {
        // Someone started the server by hand, and its listener has ended since.
        let init = [process(1, 0, Program::Other, 0)];
        let started = in_session(sshd(2, 1, 0), 0, 5);
        let before = in_session(sandboxed(sshd(3, 2, SSHD)), 0, 5);
        assert_eq!(
            judge(&[started.clone(), before], &init),
            (2, Some(false), None)
        );
        assert_eq!(judge(std::slice::from_ref(&started), &init).1, None);
        assert_eq!(judge(std::slice::from_ref(&started), &[]).1, None);
        // The change of the user still tells.
        let after = [started, in_session(sshd(4, 2, ALICE), 0, 5)];
        assert_eq!(judge(&after, &init), (4, Some(true), Some(ALICE)));
    }

    #[test]
    fn the_sandbox_counts_where_the_user_is_another() {
        let listener = [sshd(1, 0, 0)];
        let before = [sshd(2, 1, 0), sandboxed(sshd(3, 2, 77))];
        assert_eq!(judge(&before, &listener), (2, Some(false), None));
        // Where everything is sandboxed alike, as in a container, it says nothing.
        let after = [sshd(2, 1, 0), sshd(3, 2, ALICE)].map(sandboxed);
        assert_eq!(judge(&after, &listener), (3, Some(true), Some(ALICE)));
    }

    #[test]
    fn without_the_servers_user_the_change_says_nothing() {
        let holders = [sshd(2, 1, 0), sshd(3, 2, 77)];
        let evidence = Evidence {
            holders: &holders,
            relatives: &[],
            server_user: None,
        };
        let verdict = evidence.judge().expect("holders");
        assert_eq!((verdict.authenticated, verdict.user), (None, None));
    }

    #[test]
    fn dropbear_by_its_children() {
        let listener = process(1, 0, Program::Dropbear, 0);
        let connection = [process(2, 1, Program::Dropbear, 0)];
        assert_eq!(
            judge(&connection, std::slice::from_ref(&listener)),
            (2, None, None)
        );
        let shell = process(3, 2, Program::Other, ALICE);
        let relatives = [listener.clone(), shell];
        assert_eq!(judge(&connection, &relatives), (2, Some(true), Some(ALICE)));
        let dropped = [process(2, 1, Program::Dropbear, ALICE)];
        assert_eq!(
            judge(&dropped, std::slice::from_ref(&listener)),
            (2, Some(true), Some(ALICE))
        );
        // For a moment after accepting, the listener holds the connection too.
        let others = [
            process(7, 1, Program::Dropbear, ALICE),
            process(8, 1, Program::Other, 5),
        ];
        assert_eq!(judge(&[listener], &others), (1, None, None));
    }

    #[test]
    fn servers_of_users_and_other_programs() {
        // A server that never was root may be anything that its user likes.
        let own = [sshd(2, 1, ALICE), sshd(3, 2, ALICE)];
        assert_eq!(judge(&own, &[sshd(1, 0, ALICE)]), (2, None, None));
        let orphan = [sshd(2, 1, ALICE)];
        assert_eq!(judge(&orphan, &[]), (2, None, None));
        let mut client = process(9, 1, Program::Other, ALICE);
        client = in_session(client, 7, 3);
        assert_eq!(judge(&[client], &[]), (9, None, Some(ALICE)));
        // A set-user-id program is no login.
        let mut half = sshd(3, 2, ALICE);
        half.effective_uid = 0;
        assert_eq!(judge(&[sshd(2, 1, 0), half], &[]).1, None);
    }

    #[test]
    fn a_process_that_is_its_own_parent_ends_nothing() {
        let holders = [sshd(2, 2, 0), sshd(3, 4, 0), sshd(4, 3, 0)];
        assert_eq!(judge(&holders, &[]).1, None);
        let empty = Evidence {
            holders: &[],
            relatives: &[],
            server_user: None,
        };
        assert_eq!(empty.judge(), None);
    }
}
