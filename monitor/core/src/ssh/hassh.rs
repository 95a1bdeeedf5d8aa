//! HASSH, the fingerprint of what an end offers (<https://github.com/salesforce/hassh>).

use md5::{Digest, Md5};

use super::{Side, kexinit::Kexinit};

/// Lower-case hex MD5 of `kex;ciphers;macs;compressions`, the lists as sent, of the direction in
/// which `side` sends.
pub(super) fn of(kexinit: &Kexinit<'_>, side: Side) -> String {
    let [ciphers, macs, compressions] =
        [kexinit.ciphers, kexinit.macs, kexinit.compressions].map(|lists| lists[side as usize]);
    let mut md5 = Md5::new();
    md5.update(kexinit.kex);
    for list in [ciphers, macs, compressions] {
        md5.update(b";");
        md5.update(list);
    }
    let mut hex = String::with_capacity(32);
    for byte in md5.finalize() {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    hex
}
