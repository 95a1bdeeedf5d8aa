//! The kernel object's own type information agrees with the types of this build.

use std::{
    collections::BTreeMap,
    mem::{offset_of, size_of},
};

use aya::maps::loaded_maps;
use monitor::source::ebpf::object;
use monitor_common::abi::{
    Aside, Carried, ClockSample, Cold, Counters, FlowKey4, FlowKey6, FragmentKey, FragmentPorts,
    Hot, Interface, Lost, Place, Uncounted, link, names, point,
};
use tests::{held::Held, lab};

use crate::loaded::{LOOPBACK, Loaded, OPTIONS};

/// Offset of each member, and the size of the whole.
type Layout = (BTreeMap<String, usize>, usize);

/// The structures of a `.BTF` section by name (kernel documentation, "BPF Type Format").
fn structures(btf: &[u8]) -> Vec<(String, Layout)> {
    let word = |at: usize| {
        let bytes = btf.get(at..at + 4).expect("within the section");
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    };
    let size = |at: usize| usize::try_from(word(at)).expect("32 bits");
    let header = size(4);
    let (types, types_length, strings) = (header + size(8), size(12), header + size(16));
    let name = |at: usize| {
        let text = &btf[strings + size(at)..];
        let end = text.iter().position(|byte| *byte == 0).expect("terminated");
        String::from_utf8_lossy(&text[..end]).into_owned()
    };
    let mut found = Vec::new();
    let mut at = types;
    while at < types + types_length {
        let info = word(at + 4);
        let count = usize::try_from(info & 0xffff).expect("16 bits");
        let more = match info >> 24 & 0x1f {
            // int, var, declaration tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            // structure, union
            kind @ (4 | 5) => {
                let bit_fields = info >> 31 != 0;
                let members = (0..count).map(|index| {
                    let member = at + 12 + 12 * index;
                    let offset = size(member + 8);
                    let bits = if bit_fields {
                        offset & 0xff_ffff
                    } else {
                        offset
                    };
                    (name(member), bits / 8)
                });
                if kind == 4 {
                    found.push((name(at), (members.collect(), size(at + 8))));
                }
                12 * count
            }
            // enumeration, function prototype
            6 | 13 => 8 * count,
            // data section, 64-bit enumeration
            15 | 19 => 12 * count,
            // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
            2 | 7..=12 | 16 | 18 => 0,
            kind => panic!("BTF kind {kind}"),
        };
        at += 12 + more;
    }
    found
}

macro_rules! layout {
    ($type:ty: $($member:ident)*) => {
        (
            [$((stringify!($member).to_owned(), offset_of!($type, $member))),*]
                .into_iter()
                .collect::<BTreeMap<String, usize>>(),
            size_of::<$type>(),
        )
    };
}

#[test]
fn type_information_of_the_object_is_that_of_this_build() {
    let object = aya_obj::Object::parse(object::PROGRAMS).expect("an ELF object");
    let btf = object.btf.expect("with type information").to_bytes();
    let found = structures(&btf);
    let expected = [
        (
            "FlowKey4",
            layout!(FlowKey4: local remote local_port remote_port scope),
        ),
        (
            "FlowKey6",
            layout!(FlowKey6: local remote local_port remote_port scope),
        ),
        (
            "Hot",
            layout!(Hot: words flags last_seen_ticks next_sequence carried),
        ),
        ("Carried", layout!(Carried: packets bytes)),
        (
            "Cold",
            layout!(Cold: handshake_rtt_ns app _pad first_seen_ns syn_ns cgroup_id retransmits prefix
                prefix_length inspected generation inspect_sequence captured told _pad2),
        ),
        ("Aside", layout!(Aside: cold claims)),
        ("Counters", layout!(Counters: seen counted buffers bytes)),
        ("Uncounted", layout!(Uncounted: packets)),
        ("Interface", layout!(Interface: ifindex id point link _pad)),
        (
            "FragmentKey",
            layout!(FragmentKey: source destination identification scope),
        ),
        ("FragmentPorts", layout!(FragmentPorts: source destination)),
        ("Lost", layout!(Lost: ring_full merged_connections)),
        ("ClockSample", layout!(ClockSample: monotonic_ns ticks)),
    ];
    for (name, layout) in &expected {
        let same: Vec<_> = found.iter().filter(|(found, _)| found == name).collect();
        assert!(
            !same.is_empty(),
            "{name} is not in the object's type information"
        );
        for (_, found) in same {
            assert_eq!(found, layout, "{name}");
        }
    }
    // `FlowEnd` is written through a pointer only and leaves no type information: that the events
    // have its length and content, the differential test shows.
}

#[test]
fn map_sizes_are_those_of_this_build() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let interface = Interface {
        ifindex: LOOPBACK,
        id: 1,
        point: point::UPLINK,
        link: link::ETHERNET,
        _pad: [0; 2],
    };
    let _loaded = Loaded::new(&OPTIONS, interface);
    // Another daemon on the machine may be of another version.
    let own = Held::by(std::process::id()).expect("this process").maps;
    let maps: Vec<_> = loaded_maps()
        .filter_map(Result::ok)
        .filter(|map| own.contains(&map.id()))
        .collect();
    for (name, key, value) in [
        (
            names::PLACES4,
            size_of::<u32>(),
            size_of::<Place<FlowKey4>>(),
        ),
        (
            names::PLACES6,
            size_of::<u32>(),
            size_of::<Place<FlowKey6>>(),
        ),
        (names::ASIDE4, size_of::<u32>(), size_of::<Aside>()),
        (names::ASIDE6, size_of::<u32>(), size_of::<Aside>()),
        (names::FLOWS4, size_of::<FlowKey4>(), size_of::<u32>()),
        (names::FLOWS6, size_of::<FlowKey6>(), size_of::<u32>()),
        (names::SPARE4, 0, size_of::<u32>()),
        (names::SPARE6, 0, size_of::<u32>()),
        (
            names::FRAGMENTS,
            size_of::<FragmentKey>(),
            size_of::<FragmentPorts>(),
        ),
        (names::INTERFACES, size_of::<u32>(), size_of::<Interface>()),
        (names::COUNTERS, size_of::<u32>(), size_of::<Counters>()),
        (names::UNCOUNTED, size_of::<u32>(), size_of::<Uncounted>()),
        (names::LOST, size_of::<u32>(), size_of::<Lost>()),
        (names::CLOCK, size_of::<u32>(), size_of::<ClockSample>()),
    ] {
        let mut same = maps
            .iter()
            .filter(|map| map.name_as_str() == Some(name))
            .peekable();
        assert!(same.peek().is_some(), "{name} is not loaded");
        for map in same {
            let sizes = (map.key_size(), map.value_size());
            let sizes = (usize::try_from(sizes.0), usize::try_from(sizes.1));
            assert_eq!(sizes, (Ok(key), Ok(value)), "{name}");
        }
    }
}
