//! Addresses of pods that cannot be used as they stand.

use super::*;

#[test]
fn addresses_that_are_none_or_of_two_pods_are_told_of() {
    let running = |name: &str, ip: &str, more: &str| {
        format!(
            "---\n{}status:\n  phase: Running\n  podIP: \"{ip}\"\n{more}",
            pod(name)
        )
    };
    let text = [
        running("a", "300.1.1.1", ""),
        running("b", "10.0.0.1", ""),
        running("c", "10.0.0.1", "").replace("Running", "Succeeded"),
        running("d", "10.0.0.1", "spec: {hostNetwork: true}\n"),
        running("b", "10.0.0.1", ""),
        running("e", "::ffff:10.0.0.1", ""),
        running("f", "", ""),
    ];
    let manifests = parse(&text.concat());
    assert_eq!((manifests.left_out, pods(&manifests).len()), (0, 7));
    assert_eq!(
        told(&manifests),
        [
            (
                7,
                "status.podIP: `300.1.1.1` is no IP address: it is not used".to_owned()
            ),
            (
                43,
                "status.podIP: 10.0.0.1 is the address of pod x/b, too, and neither has ended: its flows \
                 are those of the pod that began last"
                    .to_owned()
            ),
        ]
    );
    let status = &manifests.status;
    assert_eq!(status.invalid_addresses["pods"], 1);
    assert_eq!(
        status.last_invalid_address.as_deref(),
        Some("m.yaml:7: Pod x/a: status.podIP: `300.1.1.1` is no IP address: it is not used")
    );
    assert!(status.skipped.is_empty(), "{status:?}");
}
