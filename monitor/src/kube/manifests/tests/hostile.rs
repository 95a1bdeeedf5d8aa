//! Manifests that were changed at random.

use super::*;

/// A number from another (splitmix64, Vigna 2015).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn whatever_is_read_nothing_breaks() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec:\n  podSelector: {matchLabels: {a: b}, matchExpressions: [{key: k, operator: In, values: [v]}]}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n    - namespaceSelector: {}\n    ports: [{port: 80, endPort: 90}, {port: web, protocol: UDP}]\n";
    let tier = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 2}}}}]}]}\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1, selector: {a: b}, ports: [{port: 80, targetPort: web}]}\n";
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"a\"}, \"spec\": {\"containers\": [{\"ports\": [{\"name\": \"w\", \"containerPort\": 1}]}]}, \"status\": {\"podIPs\": [{\"ip\": \"::1\"}]}}]}";
    let seeds = [policy, tier, service, json, &pod("a")].map(str::to_owned);
    let all = seeds.join("---\n");
    let pieces: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"\n",
        b"---\n",
        b": ",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"'",
        b"&a ",
        b"*a ",
        b"<<: ",
        b"!!binary ",
        b"|\n",
        b">",
        b"#",
        b"%",
        b"\t",
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        "\u{feff}".as_bytes(),
        "\u{202e}".as_bytes(),
        b"kind: List\nitems:\n",
    ];
    let rounds = if cfg!(debug_assertions) {
        2_000
    } else {
        100_000
    };
    let (mut broken, mut skipped, mut fine) = (0, 0, 0);
    for round in 0..rounds {
        let numbers: Vec<usize> = (0..9)
            .map(|n| usize::try_from(mixed(round * 9 + n) >> 33).unwrap())
            .collect();
        let whole = if numbers[0].is_multiple_of(16) {
            &all
        } else {
            &seeds[numbers[0] % seeds.len()]
        };
        let mut bytes = whole.clone().into_bytes();
        for change in numbers[1..].chunks_exact(2).take(1 + numbers[0] / 8 % 2) {
            let at = change[0] % (bytes.len() + 1);
            let until = (at + change[1] / 64 % 4).min(bytes.len());
            let piece = pieces[change[1] % pieces.len()];
            bytes.splice(at..until, piece.iter().copied());
        }
        let mut manifests = parse(&String::from_utf8_lossy(&bytes));
        for diagnostic in &manifests.diagnostics {
            let text = diagnostic.to_string();
            assert!(
                text.len() < 2_000 && !text.chars().any(char::is_control),
                "{text:?}"
            );
        }
        broken += u32::from(manifests.is_broken);
        skipped += u32::from(manifests.left_out > 0);
        fine += u32::from(manifests.left_out == 0);
        manifests.build(Options::default());
    }
    assert!(
        broken > 100 && skipped > broken + 100 && fine > 100,
        "{broken} {skipped} {fine}"
    );
}
