use super::{App, tcp, udp, word};

#[track_caller]
fn check_tcp(payload: &[u8], expected: App) {
    let length = u32::try_from(payload.len()).expect("short payload");
    assert_eq!(tcp(word(payload), length, true), expected, "{payload:02x?}");
}

#[track_caller]
fn check_udp(payload: &[u8], ports: (u16, u16), expected: App) {
    let length = u32::try_from(payload.len()).expect("short payload");
    let mut head = [0; 16];
    for (to, from) in head.iter_mut().zip(payload) {
        *to = *from;
    }
    let head = [word(&head[..8]), word(&head[8..])];
    assert_eq!(
        udp(head, length, ports.0, ports.1),
        expected,
        "{payload:02x?}"
    );
}

#[test]
fn codes_and_names_are_unique_and_stable() {
    for (code, app) in App::ALL.iter().enumerate() {
        let code = u8::try_from(code).expect("few protocols");
        assert_eq!(*app as u8, code);
        assert_eq!(App::from_code(code), *app);
        assert_eq!(
            App::ALL
                .iter()
                .filter(|other| other.name() == app.name())
                .count(),
            1
        );
    }
    assert_eq!(App::from_code(255), App::Unknown);
}

#[test]
fn ssh_is_an_identification_string() {
    check_tcp(b"SSH-2.0-OpenSSH_9.2\r\n", App::Ssh);
    check_tcp(b"SSH-1.99-OpenSSH_3.4\r\n", App::Ssh);
    check_tcp(b"SSH-1.5-old\r\n", App::Ssh);
    check_tcp(b"SSH-3.0-x\r\n", App::Unknown);
    check_tcp(b"SSH-1.x-x\r\n", App::Unknown);
    check_tcp(b"xSSH-2.0-OpenSSH", App::Unknown);
    check_tcp(b"ssh-2.0-lower", App::Unknown);
}

#[test]
fn tls_is_a_handshake_record_with_a_hello() {
    check_tcp(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], App::Tls);
    check_tcp(&[0x16, 3, 3, 0, 0x7a, 2, 0, 0, 0x76], App::Tls);
    check_tcp(&[0x17, 3, 3, 0, 0x7a, 2, 0, 0, 0x76], App::Unknown);
    check_tcp(&[0x16, 2, 0, 0, 0x7a, 1, 0, 0, 0x76], App::Unknown);
    check_tcp(&[0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0], App::Unknown);
}

#[test]
fn http_needs_a_method_or_a_status_line() {
    for line in [
        "GET / HTTP/1.1",
        "POST /x HTTP/1.1",
        "PUT /abcdef",
        "HEAD /abc",
        "DELETE /x",
    ] {
        check_tcp(line.as_bytes(), App::Http);
    }
    for line in [
        "OPTIONS * HTTP/1.1",
        "PATCH /abc",
        "CONNECT a:443",
        "TRACE /abc",
        "HTTP/1.1 200",
    ] {
        check_tcp(line.as_bytes(), App::Http);
    }
    check_tcp(b"GETX / HTTP", App::Unknown);
    check_tcp(b"get / http/1.1", App::Unknown);
    check_tcp(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", App::Http2);
}

#[test]
fn databases_and_queues() {
    let mut startup = [0_u8; 41];
    startup[3] = 41;
    startup[5] = 3;
    check_tcp(&startup, App::Postgresql);
    startup[3] = 40;
    check_tcp(&startup, App::Unknown);
    check_tcp(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], App::Postgresql);
    let mut greeting = [0_u8; 78];
    greeting[..6].copy_from_slice(&[74, 0, 0, 0, 10, b'8']);
    check_tcp(&greeting, App::Mysql);
    greeting[0] = 73;
    check_tcp(&greeting, App::Unknown);
    check_tcp(b"*3\r\n$3\r\nSET", App::Redis);
    check_tcp(b"AMQP\0\0\x09\x01", App::Amqp);
    check_tcp(b"\x10\x10\0\x04MQTT\x04", App::Mqtt);
    check_tcp(b"\0\0\0\x54\xfeSMB\x40", App::Smb);
    check_tcp(&[3, 0, 0, 0x13, 0x0e, 0xe0, 0, 0, 0, 0, 0], App::Rdp);
}

#[test]
fn dns_by_its_header() {
    let query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03com\0\0\x01\0\x01";
    check_udp(query, (40_000, 53), App::Dns);
    check_udp(query, (40_000, 5_300), App::Dns);
    let mut answer = *query;
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[7] = 1;
    check_udp(&answer, (53, 40_000), App::Dns);
    let mut over_tcp = [0_u8; 35];
    over_tcp[1] = 33;
    over_tcp[2..].copy_from_slice(query);
    check_tcp(&over_tcp, App::Dns);
    over_tcp[1] = 32;
    check_tcp(&over_tcp, App::Unknown);
    check_udp(&[0; 64], (40_000, 53), App::Unknown);
    check_udp(&[0xff; 64], (40_000, 53), App::Unknown);
}

#[test]
fn other_datagrams() {
    check_udp(
        &[0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
        (40_000, 443),
        App::Quic,
    );
    check_udp(
        &[0x43, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0],
        (40_000, 443),
        App::Unknown,
    );
    let mut ntp = [0_u8; 48];
    ntp[0] = 0x23;
    check_udp(&ntp, (40_000, 123), App::Ntp);
    check_udp(&ntp, (40_000, 124), App::Unknown);
    let mut dhcp = [0_u8; 300];
    dhcp[..3].copy_from_slice(&[1, 1, 6]);
    check_udp(&dhcp, (68, 67), App::Dhcp);
    let mut wireguard = [7_u8; 148];
    wireguard[..4].copy_from_slice(&[1, 0, 0, 0]);
    check_udp(&wireguard, (51_820, 51_820), App::Wireguard);
}
