//! tshark as an independent count of what a capture holds, conversation by conversation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::process;

/// One direction of a conversation: protocol, sender, receiver.
pub type Way = (String, SocketAddr, SocketAddr);

/// Packets and layer-3 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

/// Every direction of every TCP and UDP conversation.
pub type Conversations = BTreeMap<Way, Count>;

/// An SSH connection: ports of client and server.
pub type Ports = (u64, u64);

/// What tshark sees in a capture without fragments.
pub fn conversations(capture: &Path) -> Result<Conversations> {
    let fields = [
        "ip.version",
        "ip.src",
        "ip.dst",
        "ip.len",
        "ipv6.src",
        "ipv6.dst",
        "ipv6.plen",
        "tcp.srcport",
        "tcp.dstport",
        "udp.srcport",
        "udp.dstport",
    ];
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(capture)
        .args(["-n", "-T", "fields", "-E", "separator=/t"]);
    // The first IP and transport header count, not those quoted in an ICMP error.
    command.args([
        "-E",
        "occurrence=f",
        "-Y",
        "(tcp or udp) and not icmp and not icmpv6",
    ]);
    for field in fields {
        command.args(["-e", field]);
    }
    let text = process::checked_within(&mut command, Duration::from_mins(2))?;
    let mut found = Conversations::new();
    for line in text.lines() {
        let (way, bytes) = read(line).with_context(|| format!("tshark printed {line:?}"))?;
        let count = found.entry(way).or_default();
        count.packets += 1;
        count.bytes += bytes;
    }
    Ok(found)
}

/// `hassh` and `hassh_server` of each connection to these ports; of several key exchanges, the first.
pub fn hasshes(capture: &Path, servers: &[u16]) -> Result<BTreeMap<(Ports, &'static str), String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-n", "-T", "fields"]);
    for port in servers {
        command.args(["-d", &format!("tcp.port=={port},ssh")]);
    }
    command.args(["-Y", "ssh.kex.hassh or ssh.kex.hasshserver"]);
    for field in [
        "tcp.srcport",
        "tcp.dstport",
        "ssh.kex.hassh",
        "ssh.kex.hasshserver",
    ] {
        command.args(["-e", field]);
    }
    let text = process::checked_within(&mut command, Duration::from_mins(1))?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [source, destination, client, server] = fields[..] else {
            anyhow::bail!("tshark printed {line:?}");
        };
        let (source, destination) = (source.parse()?, destination.parse()?);
        let (ports, field, hassh) = if client.is_empty() {
            ((destination, source), "hassh_server", server)
        } else {
            ((source, destination), "hassh", client)
        };
        found
            .entry((ports, field))
            .or_insert_with(|| hassh.to_owned());
    }
    Ok(found)
}

/// What flow records say of TCP and UDP.
pub fn of_records(records: &[Value]) -> Result<Conversations> {
    let mut found = Conversations::new();
    for record in records.iter().filter(|record| record["type"] == "flow") {
        let protocol = record["protocol"].as_str().context("no protocol")?;
        if !matches!(protocol, "TCP" | "UDP") {
            continue;
        }
        let end = |name: &str| -> Result<SocketAddr> {
            let ip = record[name]["ip"].as_str().context("no address")?;
            let port = record[name]["port"].as_u64().context("no port")?;
            Ok(SocketAddr::new(ip.parse()?, u16::try_from(port)?))
        };
        let (source, destination) = (end("source")?, end("destination")?);
        for (side, from, to) in [
            ("forward", source, destination),
            ("reverse", destination, source),
        ] {
            let number = |unit: &str| record[side][unit].as_u64().context("no count");
            let (packets, bytes) = (number("packets")?, number("bytes")?);
            if packets > 0 {
                let count = found.entry((protocol.to_owned(), from, to)).or_default();
                count.packets += packets;
                count.bytes += bytes;
            }
        }
    }
    Ok(found)
}

/// How two counts differ, a line each; empty if they do not.
pub fn differences(own: &Conversations, theirs: &Conversations) -> Vec<String> {
    let ways: std::collections::BTreeSet<_> = own.keys().chain(theirs.keys()).collect();
    ways.into_iter()
        .filter(|way| own.get(*way) != theirs.get(*way))
        .map(|way| {
            let (protocol, from, to) = way;
            format!(
                "{protocol} {from} > {to}: {:?}, tshark {:?}",
                own.get(way),
                theirs.get(way)
            )
        })
        .collect()
}

fn read(line: &str) -> Result<(Way, u64)> {
    let fields: Vec<&str> = line.split('\t').collect();
    ensure!(fields.len() == 11, "{} fields", fields.len());
    let (source, destination, bytes) = if fields[1].is_empty() {
        (
            fields[4],
            fields[5],
            40 + fields[6].parse::<u64>().context("ipv6.plen")?,
        )
    } else {
        (fields[1], fields[2], fields[3].parse().context("ip.len")?)
    };
    let (protocol, ports) = if fields[7].is_empty() {
        ("UDP", &fields[9..11])
    } else {
        ("TCP", &fields[7..9])
    };
    let end = |address: &str, port: &str| -> Result<SocketAddr> {
        Ok(SocketAddr::new(address.parse()?, port.parse()?))
    };
    let way = (
        protocol.to_owned(),
        end(source, ports[0])?,
        end(destination, ports[1])?,
    );
    Ok((way, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_records_give_the_same_ways() {
        let line = "4\t10.0.0.1\t10.0.0.2\t60\t\t\t\t1000\t80\t\t";
        let (way, bytes) = read(line).expect("a line");
        let record = serde_json::json!({"type": "flow", "protocol": "TCP",
            "source": {"ip": "10.0.0.1", "port": 1000}, "destination": {"ip": "10.0.0.2", "port": 80},
            "forward": {"packets": 1, "bytes": 60}, "reverse": {"packets": 0, "bytes": 0}});
        let own = of_records(&[record]).expect("a record");
        let theirs = Conversations::from([(way, Count { packets: 1, bytes })]);
        assert_eq!(differences(&own, &theirs), Vec::<String>::new());
        assert_eq!(differences(&own, &Conversations::new()).len(), 1);
        let line = "\t\t\t\tfd00::1\tfd00::2\t20\t\t\t53\t54";
        let ((protocol, from, _), bytes) = read(line).expect("a line");
        assert_eq!((protocol.as_str(), from.port(), bytes), ("UDP", 53, 60));
    }
}
