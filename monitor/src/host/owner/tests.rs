//! Connections of this process and of many others.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::super::scan::BUDGET;
use super::*;

/// Ends its processes whatever happens.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn finder() -> Option<Finder> {
    match Finder::new() {
        Ok(mut finder) => {
            // What is found does not depend on how busy the machine is.
            finder.scanner.budget = Duration::from_secs(100);
            Some(finder)
        }
        Err(Missing::Capabilities(missing)) => {
            assert!(missing_for_processes() == missing && !missing.is_empty());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn connection() -> (TcpListener, TcpStream, Tuple) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let remote = listener.local_addr().expect("an address");
    let client = TcpStream::connect(remote).expect("a connection");
    let local = client.local_addr().expect("an address");
    (listener, client, Tuple { local, remote })
}

#[test]
fn own_connections_are_found() {
    let Some(mut finder) = finder() else {
        return;
    };
    let (_listener, client, tuple) = connection();
    let owner = finder.find(&tuple).expect("an answer").expect("an owner");
    let process = owner.process.clone().expect("a process");
    assert_eq!(process.pid, std::process::id());
    assert_eq!((owner.authenticated, owner.listener), (None, false));
    assert_eq!(owner.user.as_ref().map(|user| user.uid), Some(owner.uid));
    assert_eq!(finder.refresh(&owner).as_ref(), Some(&owner));
    assert_eq!(finder.counters().scans, 1);
    // Nobody has accepted the other end.
    let other = Tuple {
        local: tuple.remote,
        remote: tuple.local,
    };
    let waiting = finder.find(&other).expect("an answer").expect("an owner");
    assert_eq!((waiting.inode, waiting.process), (0, None));
    drop(client);
    assert_eq!(finder.refresh(&owner), None);
    let nobody = Tuple {
        local: "192.0.2.1:1".parse().expect("an address"),
        remote: "192.0.2.2:2".parse().expect("an address"),
    };
    assert_eq!(finder.find(&nobody).expect("an answer"), None);
}

/// What a look at 2,000 processes may take.
const MOST: Duration = Duration::from_millis(50);

fn time_on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let time = text.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(time.expect("a number"))
}

/// `cargo xtask figures ssh`
#[test]
#[ignore = "starts 2,000 processes"]
fn two_thousand_processes_take_little_time() {
    let Some(mut finder) = finder() else {
        return;
    };
    let mut crowd = Crowd(Vec::new());
    for _ in 0..2000 {
        let mut sleep = Command::new("sleep");
        sleep.arg("120").stdin(Stdio::null());
        crowd.0.push(sleep.spawn().expect("a process"));
    }
    // A look that has all the time it wants; then one that has as much as in the daemon.
    let mut measure = |what: &str, inode: Option<u32>, forget: bool| {
        let mut medians = Vec::new();
        for budget in [Duration::from_secs(100), BUDGET] {
            let (mut took, mut given_up) = (Vec::new(), 0);
            for round in 0..20 {
                if forget {
                    finder.scanner = Scanner::new(Path::new("/proc")).expect("a scanner");
                }
                finder.scanner.budget = budget;
                finder.scanner.counters = Counters::default();
                let (start, before) = (Instant::now(), time_on_processor());
                let wanted = [inode.unwrap_or(u32::MAX - round)].into();
                let holders = finder.scanner.scan(&wanted, start + budget);
                let on_processor = time_on_processor().saturating_sub(before);
                took.push((on_processor, start.elapsed()));
                let gave_up = finder.scanner.counters.scans_given_up > 0;
                given_up += u32::from(gave_up);
                assert!(gave_up || holders.is_empty() == inode.is_none());
                assert!(budget == BUDGET || !gave_up, "all of it was looked at");
            }
            took.sort_unstable();
            let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
            println!(
                "{what}, {budget:?} at most: on the processor and by the clock: median {median:?}, \
                 most {most:?}; {given_up} of 20 given up"
            );
            medians.push(median.0);
        }
        let [whole, cut] = medians[..] else {
            unreachable!("two budgets");
        };
        // By the clock of this thread: how busy the machine is is another question.
        assert!(whole < MOST, "{what}: {whole:?}");
        assert!(cut < MOST, "{what}: {cut:?}");
    };
    let (_listener, client, tuple) = connection();
    let inode = finder.asker.ask(tuple.local, tuple.remote);
    let inode = inode.expect("an answer").map(|found| found.inode);
    measure("held by nobody, first scan", None, true);
    measure("held by nobody, later scan", None, false);
    measure(
        "held by the last that is looked at, first scan",
        inode,
        true,
    );
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("sshd");
    std::fs::copy("/bin/sleep", &program).expect("a program");
    let mut named = Command::new(program);
    named.arg("120").stdin(std::os::fd::OwnedFd::from(client));
    crowd.0.push(named.spawn().expect("a process"));
    drop(named);
    measure("held by one named sshd, first scan", inode, true);
    measure("held by one named sshd, later scan", inode, false);
    let (_listener, _client, tuple) = connection();
    // On a busy machine one look is not enough for all processes; the next one goes on.
    let mut looks = 0;
    let owner = loop {
        let owner = finder.find(&tuple).expect("an answer").expect("an owner");
        looks += 1;
        if owner.process.is_some() || looks > 50 {
            break owner;
        }
    };
    println!("found at look {looks}");
    let start = Instant::now();
    let again = finder.refresh(&owner);
    println!("again, with 2,000 children: {:?}", start.elapsed());
    assert!(again.is_some());
    println!("{:?}", finder.counters());
}
