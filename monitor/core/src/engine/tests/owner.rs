//! Who holds SSH connections on this node, through the engine.

use super::{ssh::*, *};
use crate::{
    engine::{Existing, Owner, OwnerAnswer, OwnerQuestion, Wanted},
    event::{ProcessRecord, Severity},
    flow::SegmentEvent,
    ssh::{
        AuthOutcome, Basis, Class, Hint, Side,
        tests::fixture::{CHACHA, OPENSSH, Talk},
    },
};
use monitor_common::abi::{RX, TX};

/// An engine that asks, of a node with the address of the local ends.
pub(super) fn asking() -> Engine {
    let mut engine = engine_with(Config {
        owners: true,
        ..Config::default()
    });
    let local = key(1).local();
    step(&mut engine, Input::Addresses(vec![local.into()]));
    engine
}

/// Both banners; what is asked then.
pub(super) fn begin(engine: &mut Engine, key: FlowKey) -> Vec<OwnerQuestion> {
    let first = step(engine, segment(key, true, SERVER, App::Ssh));
    let second = step(engine, segment(key, false, CLIENT, App::Ssh));
    [first.owners, second.owners].concat()
}

pub(super) fn at(engine: &mut Engine, second: u64) -> Outputs {
    step(engine, Input::Clock(clock(second)));
    step(engine, Input::Tick)
}

pub(super) fn sshd(authenticated: Option<bool>, user: Option<&str>) -> Owner {
    Owner {
        user: user.map(str::to_owned),
        process: Some(ProcessRecord {
            pid: 812,
            name: "sshd".to_owned(),
            executable: None,
            container: None,
        }),
        authenticated,
    }
}

pub(super) fn answer(engine: &mut Engine, question: OwnerQuestion, owner: Owner) -> Outputs {
    let owner = Some(owner);
    step(engine, Input::Owner(OwnerAnswer { question, owner }))
}

#[test]
fn it_is_asked_when_ssh_is_seen_and_some_times_later() {
    let mut engine = asking();
    let key = key(50_000);
    let questions = begin(&mut engine, key);
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].local, (key.local(), 22).into());
    assert_eq!(questions[0].remote, (key.remote(), 50_000).into());
    assert_eq!(questions[0].wanted, Wanted::Process);
    // Seen at second 99: after one, five, thirty and a hundred and twenty seconds.
    let mut asked = Vec::new();
    for second in 99..240 {
        let owners = at(&mut engine, second).owners;
        assert!(owners.len() <= 1);
        if !owners.is_empty() {
            asked.push(second - 99);
        }
    }
    assert_eq!(asked, [1, 5, 30, 120]);
    // Once more when it ends.
    step(&mut engine, Input::Flows(vec![(key, counted(App::Ssh))]));
    let last = at(&mut engine, 241).owners;
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].wanted, Wanted::Present);
    assert_eq!(at(&mut engine, 242).owners, []);
}

/// A FIN that the server ignores.
#[test]
fn a_stray_end_does_not_stop_the_looks() {
    let mut engine = asking();
    let key = key(50_000);
    begin(&mut engine, key);
    let flags = [SYN | ACK | ACCEPTS | DATA, SYN | ACK | OPENS | DATA | FIN];
    let value = FlowValue {
        app: App::Ssh as u8,
        ..reading(99, [5, 6], flags)
    };
    step(&mut engine, Input::Flows(vec![(key, value)]));
    let mut asked = Vec::new();
    for second in 99..240 {
        let owners = at(&mut engine, second).owners;
        asked.extend(owners.iter().map(|_| second - 99));
    }
    assert_eq!(asked, [0, 1, 5, 30, 120], "once more for the end");
}

/// A client can have its server say what looks like a login, and log in later.
#[test]
fn what_looks_like_a_login_again_is_asked_about_again() {
    let mut engine = asking();
    let key = key(50_000);
    logs_in(&mut engine, key);
    let decisive = at(&mut engine, 101).owners[0];
    answer(&mut engine, decisive, sshd(Some(false), None));
    let mut again = Vec::new();
    for second in (106..160).step_by(6) {
        at(&mut engine, second);
        let segment = segment_at(second * SECOND, key, true, &[7; 44], App::Ssh);
        let owners = step(&mut engine, segment).owners;
        again.extend(owners.iter().map(|question| question.wanted));
    }
    assert_eq!(again, [Wanted::Login; 4], "five times in all");
}

#[test]
fn only_ends_on_this_node_are_asked_about() {
    let mut engine = asking();
    // What the node's own addresses are is not known.
    step(&mut engine, Input::Addresses(Vec::new()));
    assert_eq!(begin(&mut engine, key(50_000)), []);
    // The remote end of a pod's interface may be the node.
    let node = key(50_001).remote();
    step(&mut engine, Input::Addresses(vec![node.into()]));
    let questions = begin(&mut engine, key(50_001));
    assert_eq!(questions[0].local, (node, 50_001).into());
    assert!(!questions[0].is_pod);
    // Neither is the node's: the local one may be a pod's.
    let other = "192.0.2.77/32".parse().unwrap();
    step(&mut engine, Input::Addresses(vec![other]));
    let questions = begin(&mut engine, key(50_002));
    assert_eq!(questions[0].local, (key(1).local(), 22).into());
    assert!(questions[0].is_pod);
    // Where nobody answers, nothing is asked.
    let mut engine = engine_with(Config::default());
    let local = key(1).local();
    step(&mut engine, Input::Addresses(vec![local.into()]));
    assert_eq!(begin(&mut engine, key(50_000)), []);
}

#[test]
fn a_login_by_the_servers_process() {
    let mut engine = asking();
    let key = key(50_000);
    let question = begin(&mut engine, key)[0];
    let early = answer(&mut engine, question, sshd(Some(false), None));
    assert_eq!(ssh_of(&[early]), []);
    at(&mut engine, 101);
    let told = answer(&mut engine, question, sshd(Some(true), Some("alice")));
    let told = ssh_of(&[told]);
    assert_eq!(told.len(), 1, "the login, once");
    assert_eq!(
        (told[0].authentication, told[0].basis),
        (AuthOutcome::Success, Basis::Process)
    );
    assert_eq!(told[0].user.as_deref(), Some("alice"));
    let pid = |process: Option<&ProcessRecord>| process.map(|process| process.pid);
    assert_eq!(pid(told[0].process.as_ref()), Some(812));
    assert_eq!(pid(told[0].destination.process.as_deref()), Some(812));
    assert_eq!(told[0].source.process, None);
    // The process has gone: what was known stays.
    let gone = OwnerAnswer {
        question,
        owner: None,
    };
    step(&mut engine, Input::Owner(gone));
    let record = close_of(&mut engine, key);
    assert_eq!(record.authentication, AuthOutcome::Success);
    assert_eq!(record.user.as_deref(), Some("alice"));
    // One that closed meanwhile.
    let late = answer(&mut engine, question, sshd(Some(true), None));
    assert_eq!(late, Outputs::default());
}

#[test]
fn what_a_server_connects_to_is_no_login_there() {
    let mut engine = asking();
    // The node's end is the client: a forwarded port of someone who is logged in here.
    let key = key(50_000);
    step(&mut engine, Input::Addresses(vec![key.remote().into()]));
    let question = begin(&mut engine, key)[0];
    answer(&mut engine, question, sshd(Some(true), Some("alice")));
    let record = close_of(&mut engine, key);
    assert_eq!(record.authentication, AuthOutcome::None);
    assert_eq!(record.user.as_deref(), Some("alice"));
    let process = record.source.process.map(|process| process.pid);
    assert_eq!(process, Some(812));
}

#[test]
fn a_session_that_was_there_before_is_told_by_its_process() {
    // Whether its flow was seen before the processes were looked at, and what its packets say.
    for (is_seen, flags, is_told) in [
        (true, [ACK | DATA; 2], true),
        (false, [ACK | DATA; 2], true),
        (false, [SYN | ACK | ACCEPTS, SYN | OPENS], false),
    ] {
        let mut engine = asking();
        engine.books.ssh.expectations.node = vec!["admin=198.51.100.0/24".parse().unwrap()];
        let key = key(50_000);
        let flows = Input::Flows(vec![(key, reading(99, [5, 6], flags))]);
        let existing = Input::Existing(vec![Existing {
            local: (key.local(), 22).into(),
            remote: (key.remote(), 50_000).into(),
            is_server: true,
            owner: sshd(Some(true), Some("alice")),
        }]);
        let inputs = if is_seen {
            [flows, existing]
        } else {
            [existing, flows]
        };
        let outputs = inputs.map(|input| step(&mut engine, input));
        let records = ssh_of(&outputs);
        assert_eq!(!records.is_empty(), is_told, "{flags:?}");
        for record in &records {
            assert_eq!(record.class, None);
            assert_eq!(record.hints, [Hint::Midstream]);
            assert_eq!(record.destination.port, Some(22));
            assert_eq!(record.authentication, AuthOutcome::Success);
            assert_eq!(record.basis, Basis::Process);
            assert_eq!(record.user.as_deref(), Some("alice"));
            assert_eq!(record.expected, Some(false));
        }
        let findings = engine.query_findings(&FlowFilter::default(), None);
        let logins = findings
            .iter()
            .filter(|found| found.severity == Severity::High);
        assert_eq!(logins.count(), usize::from(is_told));
        // It is closed as any other.
        let end = Input::Removed(vec![(key, reading(99, [9, 9], flags))]);
        let last = ssh_of(&[step(&mut engine, end)]);
        assert_eq!(last.len(), usize::from(is_told));
        assert_eq!(engine.summary().ssh_connections, u64::from(is_told));
    }
}

/// What the sizes of packets show to be a login at second 99.
fn logs_in(engine: &mut Engine, key: FlowKey) -> Vec<Outputs> {
    let talk = Talk::handshake(OPENSSH, CHACHA, "m").answers(&[44]);
    let talk = talk.answers(&[76]).answers(&[28]);
    let mut flags = [0; 2];
    flags[RX] = SYN | OPENS;
    flags[TX] = SYN | ACK | ACCEPTS;
    let segments = talk.segments.iter().map(|segment| {
        Input::Segment(SegmentEvent {
            key,
            generation: 0,
            sent: segment.side == Side::Server,
            sequence: segment.sequence,
            length: segment.length,
            is_pushed: segment.is_pushed,
            time_ns: 99 * SECOND + segment.time_ns,
            flags,
            app: App::Ssh,
            prefix: Box::default(),
            prefix_end: segment.sequence,
            bytes: segment.bytes.clone().into(),
        })
    });
    segments.map(|segment| step(engine, segment)).collect()
}

#[test]
fn a_login_by_sizes_waits_for_what_the_process_says() {
    let told = |outputs: &[Outputs]| -> Vec<_> {
        let records = ssh_of(outputs).into_iter();
        let logins = records.filter(|record| record.authentication != AuthOutcome::Unknown);
        logins
            .map(|record| (record.authentication, record.basis, record.state))
            .collect()
    };
    let by_sizes = (AuthOutcome::Success, Basis::Sizes, State::Open);
    let by_process = (AuthOutcome::Success, Basis::Process, State::Open);
    // What the process says early and after a second, and what is told then and in the end.
    for (early, late, expected) in [
        (
            None,
            Some(sshd(Some(true), Some("alice"))),
            vec![by_process],
        ),
        (
            Some(sshd(Some(false), None)),
            Some(sshd(Some(false), None)),
            vec![],
        ),
        // Nothing: it is no server that is known.
        (
            Some(sshd(None, None)),
            Some(sshd(None, None)),
            vec![by_sizes],
        ),
        (None, Some(Owner::default()), vec![by_sizes]),
    ] {
        let mut engine = asking();
        let key = key(50_000);
        let outputs = logs_in(&mut engine, key);
        assert_eq!(told(&outputs), [], "it is not heard yet");
        let asked: Vec<_> = outputs.into_iter().flat_map(|out| out.owners).collect();
        assert_eq!(asked.last().unwrap().wanted, Wanted::Login);
        if let Some(early) = early.clone() {
            let early = answer(&mut engine, *asked.last().unwrap(), early);
            assert_eq!(told(&[early]), []);
        }
        let open = engine.query_ssh(&FlowFilter::default(), None);
        assert!(
            open.iter()
                .all(|record| record.authentication == AuthOutcome::Unknown)
        );
        let due = at(&mut engine, 101);
        let question = due.owners[0];
        let mut then = vec![due];
        then.push(answer(&mut engine, question, late.clone().unwrap()));
        assert_eq!(told(&then), expected, "{early:?} {late:?}");
        let last = close_of(&mut engine, key);
        let outcome = if expected.is_empty() {
            AuthOutcome::Unknown
        } else {
            AuthOutcome::Success
        };
        assert_eq!(last.authentication, outcome);
    }
    // Nobody answers in time, or it ends before.
    let mut engine = asking();
    logs_in(&mut engine, key(50_000));
    assert_eq!(told(&[at(&mut engine, 101)]), []);
    assert_eq!(told(&[at(&mut engine, 103)]), [by_sizes]);
    let mut engine = asking();
    logs_in(&mut engine, key(50_000));
    let end = Input::Removed(vec![(key(50_000), counted(App::Ssh))]);
    let closed = (AuthOutcome::Success, Basis::Sizes, State::Closed);
    assert_eq!(told(&[step(&mut engine, end)]), [by_sizes, closed]);
    // A client's process here, or nobody who could say: told at once.
    let mut engine = engine_with(Config::default());
    assert_eq!(told(&logs_in(&mut engine, key(50_000))), [by_sizes]);
    let mut engine = asking();
    step(&mut engine, Input::Addresses(vec![key(1).remote().into()]));
    assert_eq!(told(&logs_in(&mut engine, key(50_000))), [by_sizes]);
}

/// An RST that the server ignores, and a SYN in the midst of the connection.
#[test]
fn what_goes_on_after_its_end_is_told_once_more() {
    let server = ACK | DATA;
    for (flags, is_told) in [
        ([server, ACK | DATA], true),
        // The server answers a SYN with a challenge, and goes on.
        ([server, SYN | ACK | OPENS | DATA], true),
        // It takes in what the client sends.
        ([ACK, ACK | DATA], true),
        // Its client says that it accepts something.
        ([ACK | DATA, SYN | ACK | ACCEPTS | DATA], true),
        // It knows of no connection, says nothing, or accepts another one.
        ([ACK | RST, ACK | DATA], false),
        ([0, ACK | DATA], false),
        ([SYN | ACCEPTS | server, SYN | ACK | OPENS | DATA], false),
    ] {
        let mut engine = asking();
        let key = key(50_000);
        begin(&mut engine, key);
        at(&mut engine, 101);
        let ends = [SYN | ACK | ACCEPTS | DATA, SYN | ACK | OPENS | DATA | RST];
        let end = FlowValue {
            app: App::Ssh as u8,
            ..reading(99, [5, 6], ends)
        };
        let inputs = [
            Input::Flows(vec![(key, end)]),
            Input::Removed(vec![(key, end)]),
        ];
        let first = ssh_of(&inputs.map(|input| step(&mut engine, input))).pop();
        assert_eq!(first.unwrap().state, State::Closed);
        at(&mut engine, 110);
        let value = FlowValue {
            generation: 1,
            ..reading(109, [3, 3], flags)
        };
        let outputs = step(&mut engine, Input::Flows(vec![(key, value)]));
        let asked = outputs.owners.clone();
        let records = ssh_of(&[outputs]);
        assert_eq!(!records.is_empty(), is_told, "{flags:?}");
        assert_eq!(!asked.is_empty(), is_told);
        if let Some(record) = records.first() {
            assert_eq!(record.class, Some(Class::Ssh));
            assert_eq!(record.hints, [Hint::Midstream]);
            assert_eq!(record.client_banner.as_deref(), Some("SSH-2.0-client_1.0"));
            assert_eq!(record.destination.port, Some(22));
            assert_eq!(record.authentication, AuthOutcome::Unknown);
            // Once.
            let more = FlowValue {
                generation: 1,
                ..reading(109, [4, 4], flags)
            };
            let again = step(&mut engine, Input::Flows(vec![(key, more)]));
            assert_eq!(ssh_of(&[again]), []);
            let login = answer(&mut engine, asked[0], sshd(Some(true), Some("alice")));
            let login = ssh_of(&[login]).pop().unwrap();
            assert_eq!(login.authentication, AuthOutcome::Success);
            assert_eq!(login.user.as_deref(), Some("alice"));
        }
    }
    // What both ends closed is over.
    let mut engine = asking();
    let key = key(50_000);
    begin(&mut engine, key);
    close_of(&mut engine, key);
    let value = FlowValue {
        generation: 1,
        ..reading(109, [3, 3], [ACK | DATA; 2])
    };
    let after = step(&mut engine, Input::Flows(vec![(key, value)]));
    assert_eq!(ssh_of(&[after]), []);
}

#[test]
fn of_what_may_go_on_a_bounded_number_is_remembered() {
    let mut engine = asking();
    let ends = [SYN | ACK | ACCEPTS | DATA, SYN | ACK | OPENS | DATA | RST];
    let end = FlowValue {
        app: App::Ssh as u8,
        ..reading(99, [5, 6], ends)
    };
    let goes_on = |engine: &mut Engine, port| {
        let value = FlowValue {
            generation: 1,
            ..reading(109, [3, 3], [ACK | DATA; 2])
        };
        let outputs = step(engine, Input::Flows(vec![(key(port), value)]));
        !ssh_of(&[outputs]).is_empty()
    };
    for port in 10_000..11_025 {
        begin(&mut engine, key(port));
        step(&mut engine, Input::Removed(vec![(key(port), end)]));
    }
    assert!(!goes_on(&mut engine, 10_000), "the oldest made room");
    assert!(goes_on(&mut engine, 10_001));
    at(&mut engine, 99 + 3_602);
    assert!(!goes_on(&mut engine, 10_002), "an hour later");
}
