//! Sends traffic that is bounded in count and time, and prints what it sent as one line of JSON.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::traffic::{Report, dns, icmp, tagged, tcp, udp};

#[derive(Parser)]
#[command(about = "Bounded traffic for network labs")]
struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// UDP datagrams
    Udp {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// Datagrams a second; 0: as fast as it goes
        #[arg(long, default_value_t = 0)]
        rate: u64,
        /// Source ports to use in turn
        #[arg(long, default_value_t = 1)]
        flows: usize,
        /// The first of the source ports, the others after it; 0: any
        #[arg(long, default_value_t = 0)]
        from_port: u16,
        /// Wait for the echo of each and compare it
        #[arg(long)]
        echo: bool,
    },
    /// UDP datagrams larger than the MTU
    Fragments {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 4000)]
        size: usize,
        #[arg(long, default_value_t = 0)]
        rate: u64,
        #[arg(long)]
        echo: bool,
    },
    /// A UDP server that sends back what comes
    UdpServe {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Takes UDP datagrams and answers none
    UdpSink {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Many short TCP connections to an echo server
    TcpShort {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 200)]
        size: usize,
        /// Connections a second; 0: as fast as it goes
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
    /// One long TCP connection to an echo server, compared byte by byte
    TcpStream {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        seconds: u64,
        /// Bytes a second
        #[arg(long, default_value_t = 4 << 20)]
        rate: u64,
    },
    /// A TCP server that sends back what comes
    TcpServe {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// ICMP or ICMPv6 echo requests
    Icmp {
        #[arg(long)]
        to: IpAddr,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 56)]
        size: usize,
        #[arg(long, default_value_t = 0)]
        rate: u64,
        #[arg(long, default_value_t = 1000)]
        wait_ms: u64,
    },
    /// UDP datagrams in frames with one or two VLAN tags
    Vlan {
        #[arg(long)]
        interface: String,
        /// VLAN ids, outermost first
        #[arg(long, value_delimiter = ',')]
        id: Vec<u16>,
        #[arg(long, value_parser = tagged::hardware_address)]
        from_hardware: [u8; 6],
        #[arg(long, value_parser = tagged::hardware_address)]
        to_hardware: [u8; 6],
        #[arg(long)]
        from: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: u64,
        #[arg(long, default_value_t = 64)]
        size: usize,
        #[arg(long, default_value_t = 0)]
        rate: u64,
    },
    /// DNS questions
    Dns {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        name: String,
        #[arg(long)]
        count: u64,
    },
    /// A DNS server that answers everything with one address
    DnsServe {
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    if let Some(report) = run(Arguments::parse().kind)? {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

fn run(kind: Kind) -> Result<Option<Report>> {
    let report = match kind {
        Kind::Udp {
            to,
            count,
            size,
            rate,
            flows,
            from_port,
            echo,
        } => udp::send(&udp::Job {
            to,
            count,
            size,
            rate,
            flows,
            from_port,
            echo,
        })?,
        Kind::Fragments {
            to,
            count,
            size,
            rate,
            echo,
        } => udp::send(&udp::Job {
            to,
            count,
            size,
            rate,
            flows: 1,
            from_port: 0,
            echo,
        })?,
        Kind::TcpShort {
            to,
            count,
            size,
            rate,
        } => tcp::short(to, count, size, rate)?,
        Kind::TcpStream { to, seconds, rate } => {
            tcp::stream(to, Duration::from_secs(seconds), rate)?
        }
        Kind::Icmp {
            to,
            count,
            size,
            rate,
            wait_ms,
        } => icmp::send(to, count, size, rate, Duration::from_millis(wait_ms))?,
        Kind::Vlan {
            interface,
            id,
            from_hardware,
            to_hardware,
            from,
            to,
            count,
            size,
            rate,
        } => tagged::send(&tagged::Job {
            interface,
            vlans: id,
            source_hardware: from_hardware,
            destination_hardware: to_hardware,
            source: from,
            destination: to,
            count,
            size,
            rate,
        })?,
        Kind::Dns { to, name, count } => dns::ask(to, &name, count)?,
        Kind::UdpServe { listen } => return udp::serve(listen, true).map(|()| None),
        Kind::UdpSink { listen } => return udp::serve(listen, false).map(|()| None),
        Kind::TcpServe { listen } => return tcp::serve(listen).map(|()| None),
        Kind::DnsServe { listen } => return dns::serve(listen).map(|()| None),
    };
    Ok(Some(report))
}
