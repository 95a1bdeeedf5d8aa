//! How SSH connections are judged, through the engine.

use monitor_common::abi::RX;

use super::{owner::*, ssh::*, *};
use crate::{
    event::{FindingKind, FindingRecord, Severity, SshRecord},
    ssh::{AuthOutcome, Class, Hint},
};

const UNEXPECTED: FindingKind = FindingKind::SshUnexpected;

fn expecting(net: &str) -> Engine {
    let mut engine = asking();
    engine.books.ssh.expectations.node = vec![format!("admin={net}").parse().unwrap()];
    engine
}

fn findings(engine: &Engine) -> Vec<FindingRecord> {
    engine.query_findings(&FlowFilter::default(), None)
}

fn graded(engine: &Engine) -> Vec<(FindingKind, Severity)> {
    findings(engine)
        .iter()
        .map(|record| (record.finding, record.severity))
        .collect()
}

/// The engine's view of segments in which neither end's SYN was seen.
fn midstream(input: Input) -> Input {
    match input {
        Input::Segment(mut segment) => {
            segment.flags = [ACK | DATA; 2];
            Input::Segment(segment)
        }
        other => other,
    }
}

#[test]
fn an_unexpected_source_is_told_once_and_a_login_is_graver() {
    let mut engine = expecting("198.51.100.0/24");
    for port in 50_000..50_005 {
        begin(&mut engine, key(port));
        close_of(&mut engine, key(port));
    }
    assert_eq!(graded(&engine), [(UNEXPECTED, Severity::Medium)]);
    // The record says it each time.
    let records = engine.query_ssh(&FlowFilter::default(), None);
    assert_eq!(records.len(), 5);
    assert!(
        records
            .iter()
            .all(|record| record.finding == Some(UNEXPECTED))
    );
    for port in [50_010, 50_011] {
        let question = begin(&mut engine, key(port))[0];
        at(&mut engine, 101);
        answer(&mut engine, question, sshd(Some(true), Some("alice")));
    }
    let expected = [(UNEXPECTED, Severity::Medium), (UNEXPECTED, Severity::High)];
    assert_eq!(graded(&engine), expected);
    assert!(findings(&engine)[1].reason.contains("login as alice"));
}

#[test]
fn what_was_there_before_is_no_evidence() {
    let mut engine = expecting("198.51.100.0/24");
    let key = key(50_000);
    for (sent, line) in [(true, SERVER), (false, CLIENT)] {
        step(&mut engine, midstream(segment(key, sent, line, App::Ssh)));
    }
    at(&mut engine, 101);
    let mut value = counted(App::Ssh);
    value.flags = [ACK | FIN | DATA; 2];
    let outputs = [
        Input::Flows(vec![(key, value)]),
        Input::Removed(vec![(key, value)]),
    ]
    .map(|input| step(&mut engine, input));
    let record = ssh_of(&outputs).pop().expect("a record");
    assert_eq!(record.hints, [Hint::Midstream]);
    // No attempt was seen, which does not mean that there was none.
    assert_eq!(record.authentication, AuthOutcome::Unknown);
    assert_eq!(graded(&engine), [], "who is the source is a guess");
}

#[test]
fn what_was_there_before_is_judged_once_its_server_is_known() {
    let mut engine = expecting("198.51.100.0/24");
    let key = key(50_000);
    let mut questions = Vec::new();
    for (sent, line) in [(true, SERVER), (false, CLIENT)] {
        let outputs = step(&mut engine, midstream(segment(key, sent, line, App::Ssh)));
        questions.extend(outputs.owners);
    }
    at(&mut engine, 101);
    assert_eq!(graded(&engine), []);
    answer(&mut engine, questions[0], sshd(Some(true), Some("alice")));
    let expected = [(UNEXPECTED, Severity::Medium), (UNEXPECTED, Severity::High)];
    assert_eq!(graded(&engine), expected);
}

const REFUSAL: &[u8] = b"Not allowed at this time\r\n";

/// A client's identification, and a refusal.
fn refused(engine: &mut Engine, key: FlowKey) -> SshRecord {
    step(engine, segment(key, false, CLIENT, App::Ssh));
    step(engine, segment(key, true, REFUSAL, App::Ssh));
    close_of(engine, key)
}

#[test]
fn a_refused_connection_is_no_scan_and_counts_beside_failures() {
    let mut engine = expecting("0.0.0.0/0");
    let local = key(1).local();
    for port in 50_000..50_010 {
        let record = refused(&mut engine, key(port));
        assert_eq!(record.class, Some(Class::ClientOnly));
        assert_eq!(record.authentication, AuthOutcome::None);
        assert_eq!(record.hints, [Hint::Refused]);
    }
    // Whoever is expected is locked out.
    let blocked = (FindingKind::SshExpectedBlocked, Severity::Medium);
    assert_eq!(graded(&engine), [blocked]);
    let reason = &findings(&engine)[0].reason;
    assert!(reason.contains("refused by the server"), "{reason}");
    assert!(reason.contains(&local.to_string()), "{reason}");
}

#[test]
fn refusals_of_older_servers_are_told_too() {
    let mut engine = engine();
    let key = key(50_000);
    step(&mut engine, segment(key, false, CLIENT, App::Ssh));
    step(
        &mut engine,
        segment(key, true, b"Exceeded MaxStartups\r\n", App::Ssh),
    );
    let record = close_of(&mut engine, key);
    assert_eq!(record.hints, [Hint::Refused]);
    assert_eq!(record.authentication, AuthOutcome::None);
}

/// The server's lines and its banner; the client speaks another protocol, so that nothing marks the
/// connection in the kernel.
#[test]
fn a_server_with_lines_before_its_banner_is_found_whoever_probes_it() {
    let lines = [&b"Welcome.\r\nAll is recorded.\r\n"[..], SERVER].concat();
    for (has_client_spoken, port, is_found) in
        [(false, 2222, true), (true, 22, true), (true, 2222, false)]
    {
        let mut engine = expecting("198.51.100.0/24");
        let key = key4(1, Protocol::TCP, port, 50_000);
        let mut first = segment(key, true, &lines, App::Unknown);
        if let Input::Segment(segment) = &mut first
            && has_client_spoken
        {
            segment.flags[RX] |= DATA;
        }
        step(&mut engine, first);
        at(&mut engine, 101);
        let outputs = [
            Input::Flows(vec![(key, counted(App::Http))]),
            Input::Removed(vec![(key, counted(App::Http))]),
        ]
        .map(|input| step(&mut engine, input));
        let records = ssh_of(&outputs);
        assert_eq!(
            records.len(),
            usize::from(is_found),
            "{has_client_spoken} {port}"
        );
        for record in records {
            assert_eq!(record.class, Some(Class::ServerOnly));
            assert_eq!(record.authentication, AuthOutcome::None);
            assert_eq!(record.hints, [Hint::LinesBeforeBanner]);
            assert_eq!(record.finding, Some(UNEXPECTED));
        }
    }
}

/// The ring was full when the client identified itself: the server went as far as NEWKEYS.
#[test]
fn a_client_whose_bytes_were_lost_is_not_without_attempts() {
    // DH reply and NEWKEYS (RFC 4253 sections 7.3 and 8).
    let newkeys = [0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (tail, outcome) in [
        (&newkeys[..], AuthOutcome::Unknown),
        (&[], AuthOutcome::None),
    ] {
        let mut engine = engine();
        let key = key(50_000);
        let sent = [&offer(SERVER, 1)[..], tail].concat();
        step(&mut engine, segment(key, true, &sent, App::Ssh));
        let record = close_of(&mut engine, key);
        assert_eq!(record.class, Some(Class::ServerOnly));
        assert_eq!(record.authentication, outcome, "{tail:?}");
    }
}

#[test]
fn connections_that_began_with_text_and_were_forgotten_are_counted() {
    let mut engine = engine();
    for port in 10_000..12_000 {
        step(
            &mut engine,
            segment(key(port), true, b"220 mail.example\r\n", App::Unknown),
        );
    }
    step(&mut engine, Input::Tick);
    let lost = engine.status().events_lost;
    assert_eq!(lost[&LossStage::SshPending], 2_000 - 1_024);
    // Of those that are left no banner follows any more: they are mail servers and the like.
    for port in 12_000..13_024 {
        let text = segment(key(port), true, b"220 mail.example\r\n", App::Unknown);
        let Input::Segment(mut text) = text else {
            unreachable!("a segment");
        };
        text.time_ns += 10 * SECOND;
        step(&mut engine, Input::Segment(text));
    }
    step(&mut engine, Input::Tick);
    let lost = engine.status().events_lost;
    assert_eq!(lost[&LossStage::SshPending], 2_000 - 1_024);
}
