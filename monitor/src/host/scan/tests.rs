//! Processes of a made-up `/proc`.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(100);

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// On a busy machine, too, it looks at all that it looks at.
    fn scanner(&self) -> Scanner {
        let scanner = Scanner::new(self.0.path()).expect("a scanner");
        Scanner {
            budget: PATIENCE,
            nobody_for: PATIENCE,
            ..scanner
        }
    }

    fn add(&self, pid: u32, name: &str, children: &str, links: &[&str]) {
        let directory = self.0.path().join(pid.to_string());
        fs::create_dir_all(directory.join("fd")).expect("a process");
        let task = directory.join(format!("task/{pid}"));
        fs::create_dir_all(&task).expect("a task");
        fs::write(task.join("children"), children).expect("children");
        fs::write(directory.join("comm"), format!("{name}\n")).expect("a name");
        let stat = format!("{pid} ({name}) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {pid} 0");
        fs::write(directory.join("stat"), stat).expect("stat");
        for (number, link) in links.iter().enumerate() {
            symlink(link, directory.join(format!("fd/{number}"))).expect("a link");
        }
    }

    fn remove(&self, pid: u32) {
        fs::remove_dir_all(self.0.path().join(pid.to_string())).expect("removed");
    }
}

fn pids(holders: &[Holder]) -> Vec<u32> {
    let mut pids: Vec<_> = holders.iter().map(|holder| holder.process.pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn programs_that_speak_ssh_come_first() {
    let fake = Fake::new();
    fake.add(10, "sshd", "", &["/dev/null", "socket:[7]"]);
    fake.add(11, "sshd-session", "", &["socket:[7]"]);
    fake.add(12, "bash", "", &["socket:[7]", "socket:[8]"]);
    fake.add(
        13,
        "x",
        "",
        &["socket:[71]", "socket:[17]", "anon:[7]", "socket:[7] "],
    );
    let mut scanner = fake.scanner();
    assert_eq!(pids(&scanner.holders(7)), [10, 11]);
    assert_eq!(pids(&scanner.holders(8)), [12]);
    assert_eq!(pids(&scanner.holders(9)), [0; 0]);
    assert_eq!(scanner.counters.scans, 3);
    assert_eq!(pids(&scanner.holders(7)), [10, 11]);
    assert_eq!(pids(&scanner.holders(9)), [0; 0]);
    assert_eq!(
        (scanner.counters.scans, scanner.counters.scans_avoided),
        (3, 2)
    );
}

#[test]
fn a_server_may_accept_what_nobody_held() {
    let fake = Fake::new();
    fake.add(10, "sshd", "", &[]);
    fake.add(11, "x", "", &[]);
    let mut scanner = fake.scanner();
    assert_eq!(pids(&scanner.holders(7)), [0; 0]);
    fake.add(12, "x", "", &["socket:[7]"]);
    assert_eq!(pids(&scanner.holders(7)), [0; 0], "not all are looked at");
    fake.add(13, "sshd-session", "", &["socket:[7]"]);
    assert_eq!(pids(&scanner.holders(7)), [13]);
    assert_eq!(scanner.counters.scans, 1);
}

#[test]
fn children_take_over() {
    let fake = Fake::new();
    fake.add(10, "sshd", "11 ", &["socket:[7]"]);
    let mut scanner = fake.scanner();
    assert_eq!(pids(&scanner.holders(7)), [10]);
    fake.add(11, "sshd", "12 ", &["socket:[7]"]);
    fake.add(12, "bash", "13 ", &[]);
    fake.add(13, "x", "", &["socket:[7]"]);
    assert_eq!(
        pids(&scanner.again(7)),
        [10, 11],
        "not below one that does not hold it"
    );
    fake.remove(10);
    assert_eq!(pids(&scanner.again(7)), [11]);
    fake.remove(11);
    assert_eq!(pids(&scanner.again(7)), [0; 0]);
    assert_eq!(scanner.counters.scans, 1);
}

#[test]
fn children_of_listeners_are_known_places() {
    let fake = Fake::new();
    fake.add(10, "sshd", "11 12 ", &["socket:[1]"]);
    fake.add(11, "sshd", "", &["socket:[7]"]);
    fake.add(12, "sshd", "13 ", &["socket:[8]"]);
    fake.add(13, "sshd", "", &["socket:[8]"]);
    let mut scanner = fake.scanner();
    scanner.add_listener(Identity {
        pid: 10,
        start_time_ticks: 10,
    });
    assert_eq!(pids(&scanner.holders(7)), [11]);
    assert_eq!(pids(&scanner.holders(8)), [12, 13]);
    assert_eq!(scanner.counters.scans, 0);
    fake.remove(10);
    assert_eq!(pids(&scanner.holders(9)), [0; 0]);
    assert!(scanner.listeners.is_empty());
}

#[test]
fn another_process_with_the_same_number_is_not_taken() {
    let fake = Fake::new();
    fake.add(10, "sshd", "", &["socket:[7]"]);
    let scanner = fake.scanner();
    let of = |start_time_ticks| Identity {
        pid: 10,
        start_time_ticks,
    };
    assert!(scanner.open(of(10)).is_some());
    assert!(scanner.open(of(9)).is_none());
}

#[test]
fn time_and_memory_are_bounded() {
    let fake = Fake::new();
    for pid in 10..20 {
        fake.add(pid, "x", "", &[]);
    }
    fake.add(20, "sshd", "20 21 20 x -1 99999999999 21 ", &["socket:[7]"]);
    fake.add(21, "sshd", "20 21 ", &["socket:[7]"]);
    let mut scanner = fake.scanner();
    assert_eq!(scanner.scan(&[7].into(), Instant::now()).len(), 0);
    assert_eq!(scanner.counters.scans_given_up, 1);
    assert_eq!(pids(&scanner.holders(7)), [20, 21]);
    assert_eq!(pids(&scanner.again(7)), [20, 21], "a circle ends");
    for inode in 0..10_000 {
        scanner.remember(inode, Vec::new());
    }
    assert_eq!(scanner.sockets.len(), MOST_SOCKETS);
    assert_eq!(scanner.order.len(), MOST_SOCKETS);
    for pid in 0..100 {
        scanner.add_listener(Identity {
            pid,
            start_time_ticks: 0,
        });
    }
    assert_eq!(scanner.listeners.len(), MOST_LISTENERS);
}

#[test]
fn sockets_are_looked_for_together() {
    let fake = Fake::new();
    fake.add(10, "sshd", "", &["socket:[7]"]);
    fake.add(11, "x", "", &["socket:[8]", "socket:[9]", "socket:[8]"]);
    fake.add(12, "x", "", &["socket:[9]"]);
    let mut scanner = fake.scanner();
    scanner.prepare([7, 8, 9, 99]);
    assert_eq!(scanner.counters.scans, 1);
    for (inode, holders) in [(7, &[10][..]), (8, &[11]), (9, &[11, 12]), (99, &[])] {
        assert_eq!(pids(&scanner.holders(inode)), holders, "{inode}");
    }
    scanner.prepare([7, 8, 9, 99]);
    assert_eq!(scanner.counters.scans, 1, "all are known");
    // One that is not known is found when it is asked for.
    fake.add(13, "x", "", &["socket:[13]"]);
    scanner.prepare([13]);
    assert_eq!(scanner.counters.scans, 1);
    assert_eq!(pids(&scanner.holders(13)), [13]);
}

#[test]
fn what_there_was_no_time_for_comes_next() {
    let fake = Fake::new();
    for pid in 10..20 {
        fake.add(pid, "x", "", &[]);
    }
    fake.add(15, "x", "", &["socket:[7]"]);
    let mut scanner = fake.scanner();
    scanner.left = Some(Left {
        pid: 15,
        newest: 19,
    });
    fake.add(20, "x", "", &["socket:[7]"]);
    let order = |scanner: &mut Scanner| {
        let (_, mut rest) = scanner.processes(None);
        scanner.resume(&mut rest);
        rest
    };
    // New ones, those that were left, and the others.
    let expected = [20, 15, 14, 13, 12, 11, 10, 19, 18, 17, 16];
    assert_eq!(order(&mut scanner), expected);
    scanner.left = Some(Left { pid: 9, newest: 30 });
    assert_eq!(order(&mut scanner).len(), 11);
    assert_eq!(scanner.scan(&[7].into(), Instant::now()).len(), 0);
    assert!(scanner.left.is_some());
    let later = Instant::now() + PATIENCE;
    assert_eq!(pids(&scanner.scan(&[7].into(), later)[&7]), [15, 20]);
    assert!(scanner.left.is_none());
}
