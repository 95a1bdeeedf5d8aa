use super::*;

const MINUTE: u64 = 60_000_000_000;

const HASSH: &str = "57e4cc8ee36c3d78f75c6a05acd55963";

fn attempt(source: u8, target: u8, event: Event, at_ns: u64) -> Attempt<'static> {
    from([203, 0, 113, source].into(), target, event, at_ns)
}

fn from(source: IpAddr, target: u8, event: Event, at_ns: u64) -> Attempt<'static> {
    Attempt {
        source,
        group: group(source),
        target: ([10, 0, 0, target].into(), 22),
        hassh: None,
        event,
        failures: u32::from(event == Event::Failure),
        at_ns,
    }
}

fn kinds(found: Vec<Suspicion>) -> Vec<FindingKind> {
    found.into_iter().map(|found| found.kind).collect()
}

#[test]
fn five_failed_connections_are_brute_force_once_in_a_window() {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..4 {
        let found = watch.ended(&attempt(1, 1, Event::Failure, index * MINUTE));
        assert_eq!(found, []);
    }
    let found = watch.ended(&attempt(1, 1, Event::Failure, 4 * MINUTE));
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
    let found = watch.ended(&attempt(1, 1, Event::Failure, 5 * MINUTE));
    assert_eq!(found, []);
    // Old ones no longer count.
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..20 {
        let found = watch.ended(&attempt(1, 1, Event::Failure, index * 3 * MINUTE));
        assert_eq!(found, []);
    }
}

#[test]
fn ten_attempts_in_two_connections_are_brute_force() {
    let mut watch = Watch::new(Thresholds::default());
    let many = Attempt {
        failures: 5,
        ..attempt(1, 1, Event::Failure, 0)
    };
    assert_eq!(watch.ended(&many), []);
    assert_eq!(kinds(watch.ended(&many)), [FindingKind::SshBruteForce]);
}

#[test]
fn few_attempts_at_many_servers_are_a_spray() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..5)
        .flat_map(|index| watch.ended(&attempt(1, index % 3, Event::Failure, 0)))
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshSpray]);
}

#[test]
fn many_sources_with_one_hassh_at_one_server_are_a_spray() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..3)
        .flat_map(|source| {
            watch.ended(&Attempt {
                hassh: Some(HASSH),
                ..attempt(source, 1, Event::Failure, 0)
            })
        })
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshSpray]);
}

#[test]
fn looking_at_five_servers_is_a_scan() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..9)
        .flat_map(|target| watch.ended(&attempt(1, target % 5, Event::Look, 0)))
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshScan]);
}

/// A login from 203.0.113.`source`, with the HASSH of all.
fn login(source: u8, failures: u32, at_ns: u64) -> Attempt<'static> {
    Attempt {
        hassh: Some(HASSH),
        failures,
        ..attempt(source, 1, Event::Login, at_ns)
    }
}

/// One that five connections from 203.0.113.1 failed with that HASSH.
fn failed() -> Watch {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..5 {
        watch.ended(&Attempt {
            hassh: Some(HASSH),
            ..attempt(1, 1, Event::Failure, index)
        });
    }
    watch
}

fn severity_of(watch: &mut Watch, login: &Attempt<'_>) -> Option<Severity> {
    let found = watch.succeeded(login)?;
    assert_eq!(found.kind, FindingKind::SshSuccessAfterFailures);
    Some(found.severity)
}

#[test]
fn a_login_after_failures_of_the_source_is_critical() {
    let mut watch = failed();
    let found = severity_of(&mut watch, &login(1, 0, 20 * MINUTE));
    assert_eq!(found, Some(Severity::Critical));
    // Once, and for half an hour.
    assert_eq!(watch.succeeded(&login(1, 0, 21 * MINUTE)), None);
    assert_eq!(failed().succeeded(&login(1, 0, 31 * MINUTE)), None);
}

#[test]
fn a_login_after_failures_with_the_same_hassh_alone_is_a_hint() {
    let mut watch = failed();
    let found = severity_of(&mut watch, &login(2, 0, 20 * MINUTE));
    assert_eq!(found, Some(Severity::Low));
    // It does not stand in the way of what is grave.
    let found = severity_of(&mut watch, &login(1, 0, 20 * MINUTE));
    assert_eq!(found, Some(Severity::Critical));
}

#[test]
fn failures_before_a_login_in_its_connection_count() {
    // Alone they are those of a client with many keys.
    let mut watch = Watch::new(Thresholds::default());
    assert_eq!(watch.succeeded(&login(1, 4, 0)), None);
    let found = severity_of(&mut watch, &login(1, 5, 0));
    assert_eq!(found, Some(Severity::Medium));
    // With a failed connection before they add up.
    let mut watch = Watch::new(Thresholds::default());
    watch.ended(&attempt(1, 1, Event::Failure, 0));
    let found = severity_of(&mut watch, &login(1, 4, 1));
    assert_eq!(found, Some(Severity::Critical));
    // Failures of earlier logins count, too.
    let mut watch = Watch::new(Thresholds::default());
    watch.ended(&login(1, 3, 0));
    let found = severity_of(&mut watch, &login(1, 2, 1));
    assert_eq!(found, Some(Severity::Critical));
}

#[test]
fn failures_before_logins_make_brute_force_only_beside_failed_connections() {
    let mut watch = Watch::new(Thresholds::default());
    for at in 0..10 {
        assert_eq!(watch.ended(&login(1, 3, at)), []);
    }
    let found = watch.ended(&attempt(1, 1, Event::Failure, 10));
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
}

#[test]
fn many_connections_of_unknown_outcome_may_be_brute_force() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..40)
        .flat_map(|at| watch.ended(&attempt(1, 1, Event::Unknown, at)))
        .collect();
    let told: Vec<_> = found
        .iter()
        .map(|found| (found.kind, found.severity))
        .collect();
    assert_eq!(told, [(FindingKind::SshBruteForce, Severity::Medium)]);
    assert!(
        found[0].reason.contains("30 short connections"),
        "{found:?}"
    );
    // It does not stand in the way of what is certain.
    let certain: Vec<_> = (40..45)
        .flat_map(|at| watch.ended(&attempt(1, 1, Event::Failure, at)))
        .map(|found| found.severity)
        .collect();
    assert_eq!(certain, [Severity::High]);
    // Whoever is known to get in works there.
    let mut watch = Watch::new(Thresholds::default());
    watch.ended(&login(1, 0, 0));
    for at in 1..100 {
        assert_eq!(watch.ended(&attempt(1, 1, Event::Unknown, at)), []);
    }
    // Less, spread over servers, or what tells nothing, is none.
    let mut watch = Watch::new(Thresholds::default());
    for at in 0..58 {
        let target = u8::try_from(at % 2).unwrap();
        assert_eq!(watch.ended(&attempt(1, target, Event::Unknown, at)), []);
        assert_eq!(watch.ended(&attempt(2, 1, Event::Nothing, at)), []);
    }
}

#[test]
fn refusals_count_beside_failures_of_the_same_source() {
    let mut watch = Watch::new(Thresholds::default());
    // A server that is busy refuses anyone, and nobody looked around.
    for target in 0..9 {
        assert_eq!(watch.ended(&attempt(1, target, Event::Refused, 0)), []);
        assert_eq!(watch.ended(&attempt(1, 1, Event::Refused, 0)), []);
    }
    let found = watch.ended(&attempt(1, 1, Event::Failure, 1));
    assert_eq!(kinds(found.clone()), [FindingKind::SshBruteForce]);
    assert!(found[0].reason.contains("refused 10 times"), "{found:?}");
}

#[test]
fn addresses_of_one_ipv6_network_are_one_source() {
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (source, expected) in [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9", "203.0.113.9"),
        // Pods and links: each address is a host.
        ("fd00:10:244::7", "fd00:10:244::7"),
        ("fe80::1:2", "fe80::1:2"),
    ] {
        assert_eq!(group(address(source)), address(expected), "{source}");
    }
    let mut watch = Watch::new(Thresholds::default());
    let mut found = Vec::new();
    for host in 0..5_u16 {
        let source = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, host).into();
        found.extend(watch.ended(&from(source, 1, Event::Failure, 0)));
    }
    assert_eq!(kinds(found.clone()), [FindingKind::SshBruteForce]);
    assert!(found[0].reason.contains("2001:db8:1:2::/64"), "{found:?}");
    // One network is no spray, its neighbour is somebody else.
    let mut watch = Watch::new(Thresholds::default());
    let mut found = Vec::new();
    for (host, network) in (0..).zip([2, 2, 2, 3, 3]) {
        let host = Ipv6Addr::new(0x2001, 0xdb8, 1, network, 0, 0, 0, host);
        found.push(watch.ended(&Attempt {
            hassh: Some(HASSH),
            ..from(host.into(), 1, Event::Failure, 0)
        }));
    }
    assert!(found.iter().all(Vec::is_empty), "{found:?}");
}

#[test]
fn state_is_bounded() {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..20_000_u32 {
        let bytes = index.to_be_bytes();
        watch.ended(&Attempt {
            source: bytes.into(),
            target: (bytes.into(), 22),
            ..attempt(1, 1, Event::Failure, u64::from(index))
        });
    }
    assert_eq!(watch.histories.len(), HISTORIES);
    for index in 0..1_000 {
        watch.ended(&attempt(1, 1, Event::Failure, index));
    }
    let who = Who::Source([203, 0, 113, 1].into());
    assert_eq!(watch.histories[&who].seen.len(), EVENTS);
    // 18 MiB when all are full, as `tests/ssh_memory.rs` takes it.
    assert_eq!((HISTORIES, EVENTS, size_of::<Seen>()), (4_096, 64, 72));
    assert!(watch.histories[&who].seen.capacity() <= EVENTS);
}

#[test]
fn a_hassh_for_every_connection_pushes_no_source_out() {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..4 {
        watch.ended(&attempt(7, 1, Event::Failure, index));
    }
    for index in 0..3 * HISTORIES as u64 {
        let hassh = format!("{index:032x}");
        watch.ended(&Attempt {
            hassh: Some(&hassh),
            ..attempt(1, 1, Event::Failure, 10 + index)
        });
    }
    assert_eq!(watch.histories.len(), HISTORIES);
    assert!(watch.forgotten() > 2 * HISTORIES as u64, "each is counted");
    let found = watch.ended(&attempt(7, 1, Event::Failure, 50_000));
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
}

#[test]
fn what_no_longer_counts_makes_room_without_a_loss() {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..2 * HISTORIES {
        let source = u32::try_from(index).expect("few").to_be_bytes();
        let at_ns = 60 * MINUTE * u64::from(index >= HISTORIES);
        watch.ended(&Attempt {
            source: source.into(),
            group: source.into(),
            ..attempt(1, 1, Event::Look, at_ns)
        });
    }
    assert_eq!((watch.histories.len(), watch.forgotten()), (HISTORIES, 0));
}

#[test]
fn looks_do_not_push_failures_out() {
    let mut watch = Watch::new(Thresholds::default());
    let mut found = Vec::new();
    let mut at_ns = 0;
    for _ in 0..5 {
        found.extend(watch.ended(&attempt(1, 1, Event::Failure, at_ns)));
        for _ in 0..2 * EVENTS {
            at_ns += 1_000;
            found.extend(watch.ended(&attempt(1, 1, Event::Look, at_ns)));
        }
    }
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
}

#[test]
fn failures_of_last_week_take_no_room() {
    let week = 7 * 24 * 60 * MINUTE;
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..EVENTS as u64 {
        watch.ended(&attempt(1, 1, Event::Failure, index));
    }
    let found: Vec<_> = (0..5)
        .flat_map(|target| watch.ended(&attempt(1, target, Event::Look, week)))
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshScan]);
    // Within the time in which failures before a login count they stay.
    let mut watch = failed();
    watch.ended(&attempt(1, 1, Event::Look, 29 * MINUTE));
    let found = severity_of(&mut watch, &login(1, 0, 29 * MINUTE));
    assert_eq!(found, Some(Severity::Critical));
}

#[test]
fn brute_force_is_told_for_each_target() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (1..=2)
        .flat_map(|target| (0..5).map(move |_| target))
        .enumerate()
        .flat_map(|(at, target)| watch.ended(&attempt(1, target, Event::Failure, at as u64)))
        .collect();
    let brute = kinds(found)
        .into_iter()
        .filter(|kind| *kind == FindingKind::SshBruteForce);
    assert_eq!(brute.count(), 2);
}
