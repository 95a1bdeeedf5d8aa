//! docs/metrics.md, generated: `NODEWATCH_BLESS=1 cargo test -p monitor docs` writes it.

use std::{env, fmt::Write as _, fs, path::Path};

use monitor_core::metric::{ALL, MetricDef};

const HEAD: &str = "\
# Metrics

Served at `/metrics` in the OpenMetrics text format. Written by a test from the definitions in
`monitor/core/src/metric.rs`; after a change there, `NODEWATCH_BLESS=1 cargo test -p monitor docs`
writes this file again.

The series of metrics that are *capped* grow with traffic. Together there are at most `--max-series`
of them (20,000 by default). Beyond, a new set of labels is counted in one row of its metric whose
labels all read `other`: sums stay right.

| metric | type | labels | capped | meaning |
|---|---|---|---|---|
";

const TAIL: &str = "
Of the process itself, its HTTP server and the node:

| metric | type | labels | meaning |
|---|---|---|---|
| `nodewatch_build_info` | gauge | `version` | Version of the program, always 1 |
| `nodewatch_process_cpu_seconds_total` | counter |  | User and system time spent |
| `nodewatch_process_resident_memory_bytes` | gauge |  | Resident memory |
| `nodewatch_process_open_fds` | gauge |  | Open file descriptors |
| `nodewatch_http_refused_total` | counter | `reason` | Connections and requests that the HTTP server turned away: `credentials`, `certificate`, `handshake`, `plaintext`, `crowd` (too many from one address), `timeout` |
| `nodewatch_web_config_loads_total` | counter | `result` | Changed web configurations and certificates that came into force (`applied`), or were `refused` |
| `nodewatch_node_reboot_required` | gauge |  | Whether the node wants to be rebooted; absent where the agent does not see the file that says so |

## Labels

- `point`: `uplink` (the node's network card) or `workload` (the host side of a pod's interface). A packet
  of a pod may pass both: sum over one of them, never over both.
- `port`: the service port, that of the end that accepts; empty for protocols without ports.
- `direction`: `tx` and `rx` as seen from the local end; `inbound` and `outbound` for connections;
  `ingress` and `egress` for hooks of an interface.
- `peer`: a bounded class: `pod:<namespace>`, `node`, `service`, `range:<name>`, `internet`, `private`
  (no name, not public) or `multicast`.
- `outcome`: `established`, `refused`, `unanswered`, `reset`, `one-way` or `midstream`.
- `reason`: why a packet is in no flow, as in `nodewatch status`.

## Packets and bytes

Bytes are layer-3 bytes: the IP header and what follows, without the link's header. A buffer that the kernel
merged (GRO) or has not yet cut (GSO) counts as the packets that it stands for, each with its own IP and
transport headers: what passes the wire. Where such a buffer is a tunnel's (VXLAN, Geneve, IP in IP, GRE), the
packets are right, but only the outer headers are counted for each of them, and the inner ones once per buffer: its bytes are
less than those on the wire, by the length of the inner headers for each packet but the first. The same
packets, seen inside the tunnel at a pod's interface, count in full.
";

#[test]
fn docs_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = generate();
    if env::var_os("NODEWATCH_BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &text).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/metrics.md is out of date: run NODEWATCH_BLESS=1 cargo test -p monitor docs"
    );
}

fn generate() -> String {
    let mut text = HEAD.to_owned();
    for definition in ALL {
        let MetricDef { name, help, .. } = definition;
        let labels: Vec<_> = definition
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let capped = if definition.is_capped { "yes" } else { "" };
        let (kind, labels) = (definition.kind.name(), labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {capped} | {help} |")
            .expect("strings take all");
    }
    for (name, kind, labels, help) in super::process::METRICS {
        writeln!(text, "| `{name}` | {kind} | {labels} |  | {help} |").expect("strings take all");
    }
    text + TAIL
}
