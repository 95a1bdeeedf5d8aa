//! SSH_MSG_KEXINIT (RFC 4253 section 7.1): what an end offers, and what both agree on.

/// The message number and the cookie.
const LISTS: usize = 17;
/// `first_kex_packet_follows` and the reserved word.
const TAIL: usize = 5;

/// Raw name-lists, as sent; those of languages are checked and left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kexinit<'a> {
    /// Random bytes that tell this connection from others.
    pub(super) cookie: [u8; 16],
    /// Key exchange algorithms.
    pub(super) kex: &'a [u8],
    /// Ciphers; client to server and server to client, as the other pairs.
    pub(super) ciphers: [&'a [u8]; 2],
    /// MACs.
    pub(super) macs: [&'a [u8]; 2],
    /// Compressions.
    pub(super) compressions: [&'a [u8]; 2],
}

// === impl Kexinit ===

impl<'a> Kexinit<'a> {
    /// From a payload, message number included. None: a list exceeds the payload.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let cookie = *payload.get(1..)?.first_chunk()?;
        let mut rest = payload.get(LISTS..)?;
        let mut lists: [&[u8]; 10] = [&[]; 10];
        for list in &mut lists {
            let (length, after) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            (*list, rest) = after.split_at_checked(length)?;
        }
        if rest.len() < TAIL {
            return None;
        }
        let [kex, _, c, s, mac_c, mac_s, comp_c, comp_s, _, _] = lists;
        Some(Self {
            cookie,
            kex,
            ciphers: [c, s],
            macs: [mac_c, mac_s],
            compressions: [comp_c, comp_s],
        })
    }
}

/// The first of the client's names that the server has too. In time of the product of the lengths;
/// both lists are within a captured window.
pub(super) fn agree<'a>(client: &'a [u8], server: &[u8]) -> Option<&'a [u8]> {
    let is_comma = |byte: &u8| *byte == b',';
    client
        .split(is_comma)
        .find(|name| !name.is_empty() && server.split(is_comma).any(|other| other == *name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::tests::fixture::kexinit_payload;

    #[test]
    fn lists_and_cookie() {
        let lists = ["k1,k2", "h", "c", "s", "mc", "ms", "zc", "zs", "", "x"];
        let payload = kexinit_payload(7, lists);
        let kexinit = Kexinit::parse(&payload).unwrap();
        assert_eq!(kexinit.cookie, [7; 16]);
        assert_eq!(kexinit.kex, b"k1,k2");
        assert_eq!(kexinit.ciphers, [b"c", b"s"]);
        assert_eq!(kexinit.macs, [b"mc", b"ms"]);
        assert_eq!(kexinit.compressions, [b"zc", b"zs"]);
        for length in 0..payload.len() {
            assert_eq!(Kexinit::parse(&payload[..length]), None, "{length}");
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let payload = kexinit_payload(7, [""; 10]);
        for list in 0..10 {
            for length in [1_u32, 0x7FFF_FFFF, 0xFFFF_FFFC, u32::MAX] {
                let mut payload = payload.clone();
                payload[17 + 4 * list..][..4].copy_from_slice(&length.to_be_bytes());
                // One byte is there to be had, and shifts the others.
                assert!(length == 1 || Kexinit::parse(&payload).is_none());
            }
        }
    }

    #[test]
    fn the_client_chooses() {
        assert_eq!(agree(b"a,b,c", b"c,b"), Some(&b"b"[..]));
        assert_eq!(agree(b"a", b"aa,b"), None);
        assert_eq!(agree(b"", b""), None);
        assert_eq!(agree(b",,a", b",a"), Some(&b"a"[..]));
    }
}
