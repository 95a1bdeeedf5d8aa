//! Attaching and counting on this kernel, by clsact and by TCX, over a veth pair in a network
//! namespace of the test's own.

use std::{
    io,
    net::UdpSocket,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use monitor::source::{
    ebpf::{AttachMode, Command as SourceCommand, Kernel, Live, LiveOptions, LoadOptions},
    select::Selection,
};
use monitor_core::{
    engine::{Config, Engine, Status},
    time::Timestamp,
};
use tests::lab;
use tokio::sync::{mpsc, oneshot, watch};

const PACKETS: u64 = 200;

/// Runs `body` on a thread in a new network namespace, which vanishes with the thread.
fn in_new_namespace<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        // SAFETY: changes the network namespace of this thread only.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
        body()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let status = Command::new(program).args(words).status();
    let status = status.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(status.success(), "{command}: {status}");
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    Timestamp::from_nanoseconds(i64::try_from(since.as_nanos()).expect("before 2262"))
}

/// Sends datagrams to an address behind the veth: the neighbour entry is static, nobody answers.
fn send() {
    let socket = UdpSocket::bind("192.0.2.1:40000").expect("bind");
    for _ in 0..PACKETS {
        socket
            .send_to(&[0x55; 100], "192.0.2.2:9000")
            .expect("send");
    }
}

/// Watches both ends of a veth pair while datagrams cross it; what the engine says then.
fn watch_veth(mode: AttachMode) -> Status {
    run("ip link set lo up");
    run(
        "ip link add vetha address 02:00:00:00:00:01 type veth peer name vethb address 02:00:00:00:00:02",
    );
    run("ip addr add 192.0.2.1/24 dev vetha");
    run("ip link set vetha up");
    run("ip link set vethb up");
    run("ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev vetha");

    let kernel = Kernel::load(&LoadOptions {
        max_flows4: 1024,
        max_flows6: 1024,
        event_ring_bytes: 65_536,
        log_level: 0,
    });
    let kernel = kernel.unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let (input_sender, mut inputs) = mpsc::channel(64);
    let (_commands, command_receiver) = mpsc::channel::<SourceCommand>(64);
    let (stop, stopped) = watch::channel(false);
    let (started, has_started) = oneshot::channel();
    let options = LiveOptions {
        selection: Selection::new(&[], &["veth*".to_owned()]).expect("a valid pattern"),
        attach: mode,
        interval: Duration::from_millis(100),
    };
    let mut engine = Engine::new(Config::default()).expect("no ranges");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let live = Live::new(kernel, options, input_sender).expect("rtnetlink");
        let source = tokio::task::spawn_local(live.run(command_receiver, stopped, started));
        let mut has_started = Some(has_started);
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Ok(Some(input)) = tokio::time::timeout_at(deadline.into(), inputs.recv()).await {
            engine.step(input, now());
            let is_up = has_started
                .as_mut()
                .is_some_and(|started| started.try_recv().is_ok());
            if is_up {
                has_started = None;
                send();
            } else if counted(&engine.status()) >= 2 * PACKETS {
                stop.send_replace(true);
            }
        }
        source
            .await
            .expect("no panic")
            .expect("the source stops cleanly");
    });
    run("ip link del vetha");
    engine.status()
}

fn counted(status: &Status) -> u64 {
    status
        .interfaces
        .iter()
        .map(|i| i.ingress.counted + i.egress.counted)
        .sum()
}

fn check(mode: AttachMode, how: &str) {
    let status = in_new_namespace(move || watch_veth(mode));
    for name in ["vetha", "vethb"] {
        let interface = status
            .interfaces
            .iter()
            .find(|interface| &*interface.name == name);
        let interface = interface.unwrap_or_else(|| panic!("{name} is not in {status:?}"));
        assert!(interface.covered, "{interface:?}");
        assert_eq!(&*interface.attach, how, "{interface:?}");
        // The kernel itself may send some IPv6 packets when an interface comes up.
        let hook = if name == "vetha" {
            &interface.egress
        } else {
            &interface.ingress
        };
        assert!(hook.counted >= PACKETS, "{name}: {hook:?}");
        let uncounted: u64 = hook.uncounted.values().sum();
        assert_eq!(hook.seen, hook.counted + uncounted, "{name}: {hook:?}");
    }
}

#[test]
fn counts_by_clsact() {
    if let Some(_permit) = lab::gate::require() {
        check(AttachMode::Clsact, "clsact");
    }
}

/// TCX came with 6.6: older kernels refuse it, and the automatic choice falls back.
#[test]
fn counts_by_tcx_or_falls_back() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let how = if version >= (6, 6) { "tcx" } else { "clsact" };
    println!("kernel {}: expecting {how}", release.trim());
    check(AttachMode::Auto, how);
}
