//! A TCP segment that the packet program handed to userspace.

use monitor_common::{
    abi::{SegmentHead, TX},
    classify::App,
};

use super::FlowKey;

/// A segment of an SSH connection, or of one that may become one, from its local end's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEvent {
    /// Key of the flow's entry.
    pub key: FlowKey,
    /// Which of the entry's connections: [`monitor_common::abi::FlowValue::generation`].
    pub generation: u32,
    /// Whether the local end sent it.
    pub sent: bool,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Payload bytes.
    pub length: u32,
    /// Whether it ends what its sender wrote at once, for all that is known: its last bytes were pushed
    /// (PSH).
    pub is_pushed: bool,
    /// Precise clock in nanoseconds.
    pub time_ns: u64,
    /// [`monitor_common::abi::flag`]s of both directions until then.
    pub flags: [u16; 2],
    /// What the flow was classified as.
    pub app: App,
    /// First bytes of this direction, which may have passed before.
    pub prefix: Box<[u8]>,
    /// Sequence number that follows `prefix`.
    pub prefix_end: u32,
    /// The first of its bytes; not all of them, or none, where the limits are reached.
    pub bytes: Box<[u8]>,
}

// === impl SegmentEvent ===

impl SegmentEvent {
    /// As told by the packet program; `bytes` are what follows the head.
    pub fn new<K: Copy + Into<FlowKey>>(head: &SegmentHead<K>, bytes: &[u8]) -> Self {
        let prefix = head.prefix.get(..usize::from(head.prefix_length));
        let bytes = bytes.get(..usize::from(head.captured)).unwrap_or(bytes);
        Self {
            key: head.key.into(),
            generation: head.generation,
            sent: usize::from(head.direction) == TX,
            sequence: head.sequence,
            length: u32::from(head.length),
            is_pushed: head.pushed != 0,
            time_ns: head.time_ns,
            flags: head.flags,
            app: App::from_code(head.app),
            prefix: prefix.unwrap_or(&head.prefix).into(),
            prefix_end: head.prefix_end,
            bytes: bytes.into(),
        }
    }
}
