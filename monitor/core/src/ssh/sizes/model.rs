//! Sizes of encrypted packets, and where they begin.

use super::super::{
    packet::LENGTHS,
    stream::{Stream, WINDOW},
};

/// Packets that are told apart; what an attempt is about ends long before.
const MAX_RECORDS: usize = 64;
/// Tag of AES-GCM (RFC 5647) and of chacha20-poly1305 (OpenSSH PROTOCOL.chacha20poly1305).
const TAG: u32 = 16;
/// Least padding (RFC 4253 section 6).
const MIN_PADDING: u32 = 4;
/// `kex-strict-s-v00@openssh.com`, a comma, and a block of padding.
const KEXINIT_MARGIN: u32 = 48;
/// Least packet of Dropbear, packet_length left out (`MIN_PACKET_LEN`).
const DROPBEAR_MIN: u32 = 16;

/// How the server's packets are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(in crate::ssh) struct Model {
    /// Multiple to which packets are padded, bytes.
    block: u32,
    /// MAC or tag, bytes.
    mac: u32,
    /// packet_length is left out of what is padded: encrypt-then-MAC, and AEAD.
    is_length_apart: bool,
    /// packet_length is not encrypted.
    shows_lengths: bool,
    /// Ways of the server that its banner tells.
    pub(super) quirk: Quirk,
    /// The server answers SSH_MSG_PING (OpenSSH PROTOCOL section 1.8) before a login, too, with as
    /// many bytes as the client likes: OpenSSH 9.5 up to some 9.9.
    pub(super) is_pinged: bool,
    /// Bytes of the payload of the server's KEXINIT.
    kexinit: u32,
    /// The client's first attempt is a real one, as Paramiko's: others ask with `none` first which
    /// methods there are (RFC 4252 section 5.2).
    pub(super) is_first_real: bool,
}

/// A server that does it its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quirk {
    None,
    /// Pads every packet to 16 bytes at least.
    Dropbear,
    /// Sends an SSH_MSG_IGNORE ahead of every answer.
    AsyncSsh,
}

/// An encrypted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Offset from NEWKEYS on.
    pub(super) start: u32,
    /// All of it, MAC included, bytes.
    pub(super) size: u32,
}

/// Packets of one side, where packet_length shows.
#[derive(Debug)]
pub(in crate::ssh) struct Records {
    pub(super) known: Vec<Record>,
    /// When that side's NEWKEYS passed, nanoseconds; 0 where that is not known.
    pub(super) newkeys_ns: u64,
    /// Where the next packet begins.
    pub(super) end: u32,
    /// What should be packet_length at `end` is none.
    pub(super) is_broken: bool,
}

// === impl Model ===

impl Model {
    /// From what was negotiated for the way to the client. None: sizes tell nothing.
    pub(in crate::ssh) fn new(
        cipher: &[u8],
        mac: Option<&[u8]>,
        compression: Option<&[u8]>,
        banner: &str,
        kexinit: u32,
    ) -> Option<Self> {
        // zlib@openssh.com begins after the login.
        if !matches!(compression?, b"none" | b"zlib@openssh.com") {
            return None;
        }
        let banner = banner.to_ascii_lowercase();
        let quirk = match () {
            () if banner.contains("dropbear") => Quirk::Dropbear,
            () if banner.contains("asyncssh") => Quirk::AsyncSsh,
            () => Quirk::None,
        };
        let is_pinged = is_pinged(&banner);
        let aead = |block, shows_lengths| Self {
            block,
            mac: TAG,
            is_length_apart: true,
            shows_lengths,
            quirk,
            is_pinged,
            kexinit,
            is_first_real: false,
        };
        let block = match cipher {
            b"chacha20-poly1305@openssh.com" | b"chacha20-poly1305" => return Some(aead(8, false)),
            b"aes128-gcm@openssh.com"
            | b"aes256-gcm@openssh.com"
            | b"aes128-gcm"
            | b"aes256-gcm"
            | b"AEAD_AES_128_GCM"
            | b"AEAD_AES_256_GCM" => {
                return Some(aead(16, true));
            }
            b"3des-ctr" | b"3des-cbc" | b"blowfish-ctr" | b"blowfish-cbc" | b"cast128-ctr"
            | b"cast128-cbc" | b"arcfour" | b"arcfour128" | b"arcfour256" => 8,
            b"aes128-ctr"
            | b"aes192-ctr"
            | b"aes256-ctr"
            | b"aes128-cbc"
            | b"aes192-cbc"
            | b"aes256-cbc"
            | b"rijndael-cbc@lysator.liu.se" => 16,
            _ => return None,
        };
        let mac = mac?;
        let etm = mac.strip_suffix(b"-etm@openssh.com");
        let mac = match etm.unwrap_or(mac) {
            b"hmac-sha1" | b"hmac-ripemd160" | b"hmac-ripemd160@openssh.com" => 20,
            b"hmac-sha1-96" | b"hmac-md5-96" => 12,
            b"hmac-md5" | b"umac-128" | b"umac-128@openssh.com" => 16,
            b"hmac-sha2-256" => 32,
            b"hmac-sha2-512" => 64,
            b"umac-64" | b"umac-64@openssh.com" => 8,
            _ => return None,
        };
        Some(Self {
            block,
            mac,
            is_length_apart: etm.is_some(),
            shows_lengths: etm.is_some(),
            quirk,
            is_pinged,
            kexinit,
            is_first_real: false,
        })
    }

    /// The same for a client with this banner.
    pub(in crate::ssh) fn with_client(self, banner: &str) -> Self {
        Self {
            is_first_real: banner.to_ascii_lowercase().contains("paramiko"),
            ..self
        }
    }

    /// Whether packet_length can be read.
    pub(in crate::ssh) const fn shows_lengths(&self) -> bool {
        self.shows_lengths
    }

    /// The same with packets padded to 16 bytes, as Go does with any cipher.
    pub(super) const fn wide(self) -> Self {
        Self { block: 16, ..self }
    }

    /// Whether packets of that many bytes in all may be whole ones.
    pub(super) fn is_whole(&self, bytes: u32) -> bool {
        (1..=self.most_packets(bytes)).any(|packets| self.is_packets(bytes, packets))
    }

    /// More need not be tried: what so many packets leave repeats after as many as a block has bytes.
    fn most_packets(&self, bytes: u32) -> u32 {
        (bytes / self.size(0)).min(self.block)
    }

    /// Whether that many bytes may be so many whole packets.
    pub(super) const fn is_packets(&self, bytes: u32, packets: u32) -> bool {
        let apart = if self.is_length_apart { 4 } else { 0 };
        packets * self.size(0) <= bytes
            && (bytes - packets * (apart + self.mac)).is_multiple_of(self.block)
    }

    /// Whether that many bytes may be the KEXINIT of another key exchange, whose lists may lack or
    /// have a name that the first has not. Where boundaries do not show, more may follow it.
    pub(super) const fn may_be_kexinit(&self, bytes: u32) -> bool {
        let least = self.size(self.kexinit).saturating_sub(KEXINIT_MARGIN);
        bytes >= least && (!self.shows_lengths || bytes <= least + 2 * KEXINIT_MARGIN)
    }

    /// Size of a packet with a payload of that many bytes.
    pub(super) const fn size(&self, payload: u32) -> u32 {
        let apart = if self.is_length_apart { 4 } else { 0 };
        let least = 5 - apart + payload + MIN_PADDING;
        let mut padded = least.next_multiple_of(self.block);
        if matches!(self.quirk, Quirk::Dropbear) && padded < DROPBEAR_MIN {
            padded = DROPBEAR_MIN;
        }
        apart + padded + self.mac
    }
}

/// Whether a banner in small letters is of OpenSSH 9.5 to 9.9.
fn is_pinged(banner: &str) -> bool {
    let version = banner.split_once("openssh_9.").map(|(_, minor)| minor);
    version.is_some_and(|minor| minor.starts_with(['5', '6', '7', '8', '9']))
}

// === impl Records ===

impl Records {
    /// None is known yet; NEWKEYS passed at this time.
    pub(in crate::ssh) fn new(newkeys_ns: Option<u64>) -> Self {
        Self {
            known: Vec::new(),
            newkeys_ns: newkeys_ns.unwrap_or(0),
            end: 0,
            is_broken: false,
        }
    }

    /// Reads on; false when there is no use for bytes any more.
    pub(in crate::ssh) fn advance(&mut self, stream: &Stream, model: &Model) -> bool {
        if !model.shows_lengths || self.is_broken {
            return false;
        }
        while self.known.len() < MAX_RECORDS && (self.end as usize) < WINDOW {
            let Some(length) = stream.array(self.end as usize).map(u32::from_be_bytes) else {
                return true;
            };
            if !LENGTHS.contains(&length) || length % model.block != 0 {
                self.is_broken = true;
                return false;
            }
            let size = 4 + length + model.mac;
            let start = self.end;
            self.known.push(Record { start, size });
            self.end += size;
        }
        false
    }

    /// Bytes on the heap.
    pub(in crate::ssh) fn bytes_held(&self) -> usize {
        self.known.capacity() * size_of::<Record>()
    }

    /// Whether there may be packets after those known that will not be.
    pub(super) fn is_full(&self) -> bool {
        self.known.len() >= MAX_RECORDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of USERAUTH_SUCCESS and SERVICE_ACCEPT.
    fn sizes(cipher: &str, mac: &str, banner: &str) -> Option<(u32, u32)> {
        let none = Some(&b"none"[..]);
        let model = Model::new(cipher.as_bytes(), Some(mac.as_bytes()), none, banner, 1_000)?;
        Some((model.size(1), model.size(17)))
    }

    #[test]
    fn sizes_as_measured() {
        let check = |cipher, mac, expected| assert_eq!(sizes(cipher, mac, ""), Some(expected));
        check("chacha20-poly1305@openssh.com", "ignored", (28, 44));
        check("aes128-gcm@openssh.com", "ignored", (36, 52));
        check("aes256-ctr", "hmac-sha2-256-etm@openssh.com", (52, 68));
        check("aes256-ctr", "hmac-sha2-256", (48, 64));
        check("aes128-cbc", "umac-64@openssh.com", (24, 40));
        check("3des-cbc", "hmac-sha1", (36, 52));
        let dropbear = "SSH-2.0-dropbear_2022.83";
        let chacha = sizes("chacha20-poly1305@openssh.com", "", dropbear);
        assert_eq!(chacha, Some((36, 44)));
        assert_eq!(
            sizes("aes128-ctr", "hmac-sha2-256", dropbear),
            Some((48, 64))
        );
    }

    #[test]
    fn what_is_not_known_has_no_size() {
        assert_eq!(sizes("none", "hmac-sha1", ""), None);
        assert_eq!(sizes("aes128-ctr", "none", ""), None);
        let cipher = b"aes128-ctr";
        let mac = Some(&b"hmac-sha1"[..]);
        assert!(Model::new(cipher, mac, Some(b"zlib"), "", 0).is_none());
        assert!(Model::new(cipher, mac, None, "", 0).is_none());
        assert!(Model::new(cipher, mac, Some(b"zlib@openssh.com"), "", 0).is_some());
    }

    #[test]
    fn whole_packets() {
        let none = Some(&b"none"[..]);
        let chacha = Model::new(b"chacha20-poly1305", None, none, "", 1_000).unwrap();
        for bytes in [28, 36, 76, 56, 28 + 76, 288, 260] {
            assert!(chacha.is_whole(bytes), "{bytes}");
        }
        // 48 is 76 without 28: the start of a packet, or the end.
        for bytes in [0, 1, 27, 29, 48, 55] {
            assert!(!chacha.is_whole(bytes), "{bytes}");
        }
        assert!(chacha.may_be_kexinit(1_000) && !chacha.may_be_kexinit(900));
        assert!(chacha.may_be_kexinit(5_000));
        let gcm = Model::new(b"aes128-gcm@openssh.com", None, none, "", 400).unwrap();
        assert!(gcm.may_be_kexinit(420) && !gcm.may_be_kexinit(628));
    }

    /// A peer chooses how much it has sent at once.
    #[test]
    fn how_much_came_is_no_number_of_steps() {
        let none = Some(&b"none"[..]);
        for (cipher, mac) in [
            ("chacha20-poly1305", "m"),
            ("aes128-gcm", "m"),
            ("aes128-ctr", "hmac-sha2-512"),
            ("3des-cbc", "hmac-sha1"),
            ("aes128-ctr", "hmac-sha1-etm@openssh.com"),
        ] {
            let (cipher, mac) = (cipher.as_bytes(), Some(mac.as_bytes()));
            let model = Model::new(cipher, mac, none, "", 1_000).unwrap();
            for bytes in [4 << 20, (4 << 20) + 1, u32::MAX] {
                assert!(model.most_packets(bytes) <= 16, "{bytes}");
            }
            // None is left out by that.
            for bytes in 0..1_500 {
                let any = (1..=bytes).any(|packets| model.is_packets(bytes, packets));
                assert_eq!(model.is_whole(bytes), any, "{bytes}");
            }
        }
    }

    #[test]
    fn servers_that_answer_pings() {
        for (banner, expected) in [
            ("ssh-2.0-openssh_9.2p1 debian-2", false),
            ("ssh-2.0-openssh_9.6", true),
            ("ssh-2.0-openssh_9.9p1", true),
            ("ssh-2.0-openssh_10.0p2", false),
            ("ssh-2.0-openssh_9.", false),
        ] {
            assert_eq!(is_pinged(banner), expected, "{banner}");
        }
    }
}
