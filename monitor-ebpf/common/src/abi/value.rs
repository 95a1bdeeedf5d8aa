//! What the kernel keeps of a flow.

use super::{Carried, RX, TX, Traffic};

/// Makes [`FlowValue`] of [`Hot`] and [`Cold`], which have its fields.
macro_rules! flow_value {
    (
        hot { $($(#[$hot_meta:meta])* $hot:ident: $hot_type:ty,)* }
        cold { $($(#[$cold_meta:meta])* $cold:ident: $cold_type:ty,)* }
    ) => {
        /// What most packets touch of a flow; with the key before it, in a [`Place`](super::Place), one
        /// cache line for IPv4. What comes first is enough for a packet without TCP payload: with the
        /// key it is as long as a cache line for IPv6 (and one in every second place).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Hot {
            /// [`Traffic::word`] of each direction.
            pub words: [u64; 2],
            $($(#[$hot_meta])* pub $hot: $hot_type,)*
            /// [`Traffic::carried`] of each direction.
            pub carried: [Carried; 2],
        }

        impl Hot {
            /// Packets and bytes of each direction.
            pub const fn traffic(&self) -> [Traffic; 2] {
                [
                    Traffic { word: self.words[TX], carried: self.carried[TX] },
                    Traffic { word: self.words[RX], carried: self.carried[RX] },
                ]
            }
        }

        /// What few packets of a flow touch.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C)]
        pub struct Cold { $($(#[$cold_meta])* pub $cold: $cold_type,)* }

        /// What the kernel keeps of a flow, for everybody else: [`Hot`] and [`Cold`].
        ///
        /// Two-element arrays are indexed by [`TX`] and [`RX`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct FlowValue {
            /// Packets (segments of a GRO/GSO packet count one each).
            pub packets: [u64; 2],
            /// Layer-3 bytes: IP headers included, link layer and padding excluded.
            pub bytes: [u64; 2],
            $($(#[$hot_meta])* pub $hot: $hot_type,)*
            $($(#[$cold_meta])* pub $cold: $cold_type,)*
        }

        impl FlowValue {
            /// Both parts together.
            pub const fn of(hot: &Hot, cold: &Cold) -> Self {
                let [tx, rx] = hot.traffic();
                Self {
                    packets: [tx.packets(), rx.packets()],
                    bytes: [tx.bytes(), rx.bytes()],
                    $($hot: hot.$hot,)*
                    $($cold: cold.$cold,)*
                }
            }

            /// The part that most packets touch.
            pub const fn hot(&self) -> Hot {
                let tx = Traffic::new(self.packets[TX], self.bytes[TX]);
                let rx = Traffic::new(self.packets[RX], self.bytes[RX]);
                Hot {
                    words: [tx.word, rx.word],
                    $($hot: self.$hot,)*
                    carried: [tx.carried, rx.carried],
                }
            }

            /// The other part.
            pub const fn cold(&self) -> Cold {
                Cold { $($cold: self.$cold,)* }
            }
        }
    };
}

flow_value! {
    hot {
        /// [`flag`](super::flag)s of each direction.
        flags: [u16; 2],
        /// Coarse clock at the last packet, in ticks (jiffies in the kernel), wrapping.
        last_seen_ticks: u32,
        /// TCP: the sequence number that follows the highest one seen.
        next_sequence: [u32; 2],
    }
    cold {
        /// TCP: from the SYN to the ACK that completes the handshake, in nanoseconds; 0 if not seen.
        handshake_rtt_ns: u32,
        /// [`crate::classify::App`].
        app: u8,
        /// Padding, zero.
        _pad: [u8; 3],
        /// Precise clock at the first packet, in nanoseconds (`CLOCK_MONOTONIC` in the kernel).
        first_seen_ns: u64,
        /// Precise clock at the last SYN, in nanoseconds.
        syn_ns: u64,
        /// Cgroup of the node's own socket (`bpf_skb_cgroup_id`), of that which sent the first packet or the
        /// last SYN; 0 where the hook does not know it.
        cgroup_id: u64,
        /// TCP segments whose payload had been sent before.
        retransmits: [u32; 2],
        /// First payload bytes of each direction, for classification.
        prefix: [[u8; 8]; 2],
        /// How many of `prefix` are filled.
        prefix_length: [u8; 2],
        /// What looking at data packets has cost so far: their number, where they are datagrams.
        inspected: [u8; 2],
        /// How many connections before this one used this entry.
        generation: u32,
        /// TCP: sequence number that follows the bytes in `prefix`.
        inspect_sequence: [u32; 2],
        /// Payload bytes of each direction that were handed to userspace.
        captured: [u16; 2],
        /// Events of each direction that were made of payload.
        told: [u8; 2],
        /// Padding, zero.
        _pad2: [u8; 2],
    }
}
