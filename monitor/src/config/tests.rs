use std::io::Write as _;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

fn flags(arguments: &[&str]) -> Settings {
    Flags::try_parse_from(std::iter::once(&"run").chain(arguments))
        .expect("valid flags")
        .settings
}

#[track_caller]
fn check_file(text: &str, expected: &str) {
    let mut file = tempfile::Builder::new()
        .suffix(".toml")
        .tempfile()
        .expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    let error = Settings::read(file.path()).expect_err(text).to_string();
    let path = file.path().display().to_string();
    assert_eq!(error.strip_prefix(&path), Some(expected), "{text}");
}

#[test]
fn nothing_needs_to_be_said() {
    let config = Config::new(Settings::default(), None).expect("the defaults");
    assert_eq!(config.listen, Some(DEFAULT_LISTEN));
    assert_eq!(config.socket, PathBuf::from(DEFAULT_SOCKET));
    assert_eq!(config.workload, ["veth*", "azv*", "cali*", "lxc*", "eni*"]);
    assert_eq!(
        (config.max_series, config.max_flows4),
        (20_000, DEFAULT_FLOWS4)
    );
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(flags(&[]), Settings::default());
}

#[test]
fn flags_override_the_file() {
    let file = Settings::parse(
        r#"
        uplink = ["eth0", "eth1"]
        workload = ["tap*"]
        listen = "none"
        socket = "/run/other.sock"
        max_series = 100
        labels = "workload"
        series_ttl = "2h"
        max_flows4 = 1024
        recent = 10
        poll_interval = "500ms"
        attach = "clsact"
        kernel_log = "debug"
        range = ["office=198.51.100.0/24"]
        log_format = "json"
        [timeouts]
        tcp_established = "1h30m"
        "#,
    )
    .expect("a valid file");
    let config = Config::new(Settings::default(), Some(file.clone())).expect("valid");
    assert_eq!(config.uplink, ["eth0", "eth1"]);
    assert_eq!(config.listen, None);
    assert_eq!(config.poll_interval, Duration::from_millis(500));
    assert_eq!(
        (config.attach, config.kernel_log.level()),
        (Attach::Clsact, 4)
    );
    assert_eq!(config.timeouts.tcp_established, Duration::from_mins(90));
    assert_eq!(config.timeouts.icmp, Timeouts::default().icmp);
    assert_eq!(config.ranges.len(), 1);
    assert_eq!(config.labels, Labels::Workload);
    assert_eq!(config.series_ttl, Duration::from_hours(2));

    let arguments = [
        "--uplink",
        "eth2",
        "--listen",
        "[::1]:80",
        "--attach=tcx",
        "--max-flows4",
        "64",
    ];
    let config = Config::new(flags(&arguments), Some(file)).expect("valid");
    assert_eq!(config.uplink, ["eth2"]);
    assert_eq!(config.listen, Some("[::1]:80".parse().expect("an address")));
    assert_eq!((config.attach, config.max_flows4), (Attach::Tcx, 64));
    assert_eq!(config.workload, ["tap*"]);
}

#[test]
fn errors_name_file_line_and_key() {
    check_file(
        "# fine\nuplnk = \"eth0\"\n",
        ":2: unknown key `uplnk`, expected one of `uplink`, `workload`, `listen`, `web_config`, `socket`, \
         `max_series`, `labels`, `series_ttl`, `reboot_required_file`, `max_flows4`, `max_flows6`, `recent`, `poll_interval`, `attach`, \
         `kernel_log`, `range`, `expect_ssh`, `expect_ssh_pod`, `kubernetes`, `kubeconfig`, `manifests`, `proposed`, \
         `ip_block_matches_pods`, `nsg`, `effective`, `service_tags`, `tag`, `asg`, \
         `virtual_network`, `admin_rules`, `profile`, `log_format`, `event_log`, \
         `event_log_mib`, `timeouts`, `ssh`",
    );
    check_file(
        "listen = 7\n",
        ":1: listen: invalid type: integer `7`, expected a string",
    );
    check_file(
        "\n\nlisten = \"nowhere\"",
        ":3: listen: `nowhere` is not an address and port such as 127.0.0.1:9469, or `none`",
    );
    check_file(
        "range = [\n  \"a=10.0.0.0/8\",\n  \"b=10.0.0.0/33\",\n]\n",
        ":1: range: `10.0.0.0/33` is not an address or address range such as 192.0.2.0/24",
    );
    check_file(
        "range = [\n  \"a=10.0.0.0/8\",\n  \"b=10.0.0.0/8\",\n]\n",
        ":3: range: range 10.0.0.0/8 has two names, `a` and `b`",
    );
    check_file(
        "max_flows4 = 0\n",
        ":1: max_flows4: 0 is not in 1..=16777216",
    );
    check_file(
        "[timeouts]\nicmp = \"0s\"\n",
        ":2: timeouts.icmp: `0s` is not a duration such as 500ms, 30s, 5m or 4h",
    );
    check_file(
        "[timeouts]\nicpm = \"1s\"\n",
        ":2: timeouts: unknown key `icpm`, expected one of `tcp_closed`, `tcp_half_closed`, \
         `tcp_established`, `tcp_unanswered`, `udp_one_way`, `udp_two_way`, `icmp`, `other`",
    );
    for key in [
        "brute_force_connections",
        "brute_force_unknown",
        "spray_connections",
        "spray_targets",
        "spray_sources",
        "scan_targets",
    ] {
        check_file(
            &format!("recent = 9\n[ssh]\nwindow = \"5m\"\n{key} = 65\n"),
            &format!(
                ":4: ssh.{key}: 65 is more than 64, the connections that are remembered of each source"
            ),
        );
        assert!(Settings::parse(&format!("[ssh]\n{key} = 64\n")).is_ok());
    }
    check_file(
        "uplink = \"eth0\"\n",
        ":1: uplink: invalid type: string \"eth0\", expected a sequence",
    );
    let syntax = Settings::parse("\n\nlisten = \n").expect_err("no value");
    assert_eq!(syntax.0, 3, "{syntax:?}");
    let error = Settings::read("/nowhere/nodewatch.toml".as_ref()).expect_err("no file");
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nowhere/nodewatch.toml: "),
        "{error}"
    );
}

#[test]
fn flags_are_checked_where_they_stand() {
    for (arguments, named) in [
        (["--listen", "127.0.0.1"], "127.0.0.1"),
        (["--attach", "xdp"], "auto, tcx or clsact"),
        (["--max-series", "many"], "many"),
        (["--max-flows4", "0"], "1..=16777216"),
        (["--labels", "container"], "pod or workload"),
        (["--series-ttl", "0s"], "30s"),
        (["--poll-interval", "1ms"], "50ms"),
        (["--uplink", "a/b"], "a/b"),
        (["--workload", "ve[th"], "ve[th"),
        (["--range", "office"], "NAME=CIDR"),
        (["--nonsense", "1"], "--nonsense"),
    ] {
        let Err(error) = Flags::try_parse_from(["run"].iter().chain(&arguments)) else {
            panic!("{arguments:?} is taken");
        };
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
        assert!(error.to_string().contains(named), "{arguments:?}: {error}");
    }
}

#[test]
fn ranges_must_not_contradict_each_other() {
    let settings = flags(&["--range", "a=10.0.0.0/8", "--range", "b=10.0.0.0/8"]);
    let error = Config::new(settings, None).expect_err("two names for one range");
    assert_eq!(
        error.to_string(),
        "--range: range 10.0.0.0/8 has two names, `a` and `b`"
    );
}

#[test]
fn the_origin_of_uplinks_is_known() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"# fine\n\nuplink = [\"eth7\"]\n")
        .expect("written");
    let read = || Settings::read(file.path()).expect("a valid file");
    let origin = |flags: Settings| {
        Config::new(flags, Some(read()))
            .expect("valid")
            .uplink_origin
    };
    let path = file.path().display();
    assert_eq!(origin(flags(&[])), format!("{path}:3: uplink"));
    assert_eq!(origin(flags(&["--uplink", "eth8"])), "--uplink");
}

#[test]
fn durations_are_read() {
    for (text, milliseconds) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("0s", 0),
    ] {
        let duration = Duration::from_millis(milliseconds);
        assert_eq!(parse_duration(text), Ok(duration), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "5x",
        "-5s",
        "5 s",
        "yesterday",
        "99999999999999999999s",
        "1.5s",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn network_security_groups_may_come_from_the_file_or_from_flags() {
    let file = Settings::parse(
        r#"
        nsg = ["subnet=/etc/a.json", "nic=/etc/b.json#name"]
        service_tags = ["/etc/tags.json"]
        virtual_network = ["10.224.0.0/12"]
        profile = "/etc/profile.toml"
        "#,
    );
    let file = file.expect("a valid file");
    let given = flags(&[
        "--nsg",
        "subnet=/x.json",
        "--asg",
        "web=10.224.0.7",
        "--profile",
        "aks",
    ]);
    let sources = Config::new(given, Some(file)).expect("valid").nsg;
    assert_eq!(sources.nsg, ["subnet=/x.json"]);
    assert_eq!(sources.service_tags, ["/etc/tags.json"]);
    assert_eq!(sources.asg, ["web=10.224.0.7"]);
    assert_eq!(sources.profile.as_deref(), Some("aks"));
    assert_eq!(
        sources.virtual_network,
        ["10.224.0.0/12".parse().expect("a range")]
    );
    assert!(
        Config::new(Settings::default(), None)
            .expect("valid")
            .nsg
            .is_empty()
    );
    check_file(
        "virtual_network = [\"10.0.0.0/40\"]",
        ":1: virtual_network: invalid IP address syntax",
    );
}
