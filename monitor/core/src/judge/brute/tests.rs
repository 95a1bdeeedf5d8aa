use super::*;

const MINUTE: u64 = 60_000_000_000;

fn attempt(source: u8, target: u8, outcome: AuthOutcome, at_ns: u64) -> Attempt<'static> {
    Attempt {
        source: [203, 0, 113, source].into(),
        target: ([10, 0, 0, target].into(), 22),
        hassh: None,
        outcome,
        failures: u32::from(outcome == AuthOutcome::Failure),
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
        let found = watch.ended(&attempt(1, 1, AuthOutcome::Failure, index * MINUTE));
        assert_eq!(found, []);
    }
    let found = watch.ended(&attempt(1, 1, AuthOutcome::Failure, 4 * MINUTE));
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
    let found = watch.ended(&attempt(1, 1, AuthOutcome::Failure, 5 * MINUTE));
    assert_eq!(found, []);
    // Old ones no longer count.
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..20 {
        let found = watch.ended(&attempt(1, 1, AuthOutcome::Failure, index * 3 * MINUTE));
        assert_eq!(found, []);
    }
}

#[test]
fn ten_attempts_in_two_connections_are_brute_force() {
    let mut watch = Watch::new(Thresholds::default());
    let many = Attempt {
        failures: 5,
        ..attempt(1, 1, AuthOutcome::Failure, 0)
    };
    assert_eq!(watch.ended(&many), []);
    assert_eq!(kinds(watch.ended(&many)), [FindingKind::SshBruteForce]);
}

#[test]
fn few_attempts_at_many_servers_are_a_spray() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..5)
        .flat_map(|index| watch.ended(&attempt(1, index % 3, AuthOutcome::Failure, 0)))
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshSpray]);
}

#[test]
fn many_sources_with_one_hassh_at_one_server_are_a_spray() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..3)
        .flat_map(|source| {
            watch.ended(&Attempt {
                hassh: Some("aa"),
                ..attempt(source, 1, AuthOutcome::Failure, 0)
            })
        })
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshSpray]);
}

#[test]
fn looking_at_five_servers_is_a_scan() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (0..9)
        .flat_map(|target| watch.ended(&attempt(1, target % 5, AuthOutcome::None, 0)))
        .collect();
    assert_eq!(kinds(found), [FindingKind::SshScan]);
}

#[test]
fn a_login_after_failures_of_the_source_or_the_hassh_is_told() {
    for other_source in [false, true] {
        let mut watch = Watch::new(Thresholds::default());
        for index in 0..5 {
            watch.ended(&Attempt {
                hassh: Some("aa"),
                ..attempt(1, 1, AuthOutcome::Failure, index)
            });
        }
        let source = 1 + u8::from(other_source);
        let login = Attempt {
            hassh: Some("aa"),
            ..attempt(source, 1, AuthOutcome::Success, 20 * MINUTE)
        };
        let found = watch.succeeded(&login).map(|found| found.kind);
        assert_eq!(found, Some(FindingKind::SshSuccessAfterFailures));
        let late = Attempt {
            at_ns: 31 * MINUTE,
            ..login
        };
        assert_eq!(watch.succeeded(&late), None);
    }
}

#[test]
fn state_is_bounded() {
    let mut watch = Watch::new(Thresholds::default());
    for index in 0..20_000_u32 {
        let bytes = index.to_be_bytes();
        watch.ended(&Attempt {
            source: bytes.into(),
            target: (bytes.into(), 22),
            ..attempt(1, 1, AuthOutcome::Failure, u64::from(index))
        });
    }
    assert_eq!(watch.histories.len(), SOURCES);
    for index in 0..1_000 {
        watch.ended(&attempt(1, 1, AuthOutcome::Failure, index));
    }
    let who = Who::Source([203, 0, 113, 1].into());
    assert_eq!(watch.histories[&who].seen.len(), EVENTS);
}

#[test]
fn looks_do_not_push_failures_out() {
    let mut watch = Watch::new(Thresholds::default());
    let mut found = Vec::new();
    let mut at_ns = 0;
    for _ in 0..5 {
        found.extend(watch.ended(&attempt(1, 1, AuthOutcome::Failure, at_ns)));
        for _ in 0..2 * EVENTS {
            at_ns += 1_000;
            found.extend(watch.ended(&attempt(1, 1, AuthOutcome::None, at_ns)));
        }
    }
    assert_eq!(kinds(found), [FindingKind::SshBruteForce]);
}

#[test]
fn brute_force_is_told_for_each_target() {
    let mut watch = Watch::new(Thresholds::default());
    let found: Vec<_> = (1..=2)
        .flat_map(|target| (0..5).map(move |_| target))
        .enumerate()
        .flat_map(|(at, target)| watch.ended(&attempt(1, target, AuthOutcome::Failure, at as u64)))
        .collect();
    let brute = kinds(found)
        .into_iter()
        .filter(|kind| *kind == FindingKind::SshBruteForce);
    assert_eq!(brute.count(), 2);
}
