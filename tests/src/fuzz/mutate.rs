//! Inputs that are changed at random, the same for the same seed.

use crate::frames::Random;

/// Longest input.
const MOST: usize = 1 << 16;
/// Numbers at the edges of their types.
const EDGES: [u32; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
];

/// Makes inputs of others.
#[derive(Debug)]
pub struct Mutator<'a> {
    random: Random,
    seeds: &'a [Vec<u8>],
    words: &'a [&'a [u8]],
}

// === impl Mutator ===

impl<'a> Mutator<'a> {
    /// Of these inputs, of which there is one at least.
    pub fn new(seed: u64, seeds: &'a [Vec<u8>], words: &'a [&'a [u8]]) -> Self {
        assert!(!seeds.is_empty());
        Self {
            random: Random::new(seed),
            seeds,
            words,
        }
    }

    /// One more.
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.random.pick(self.seeds).clone();
        for _ in 0..=self.random.below(6) {
            self.change(&mut bytes);
        }
        bytes.truncate(MOST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len() + 1);
        let length = random.below((bytes.len() - at).min(64) + 1);
        match random.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.byte(),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let again = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                insert(bytes, to, &again);
            }
            5 => {
                // A number of one, two or four bytes, in either order of them.
                let edge = *random.pick(&EDGES);
                let width = *random.pick(&[1, 2, 4]);
                let mut number = edge.to_be_bytes()[4 - width..].to_vec();
                if random.chance(50) {
                    number.reverse();
                }
                let room = bytes.len() - at;
                let fits = width.min(room);
                bytes[at..at + fits].copy_from_slice(&number[..fits]);
            }
            6 if !self.words.is_empty() => {
                let word = *random.pick(self.words);
                insert(bytes, at, word);
            }
            7 => {
                let other = random.pick(self.seeds);
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => {
                let length = random.below(16);
                let some = random.bytes(length);
                insert(bytes, at, &some);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_and_are_the_same_again() {
        let seeds = [b"abc".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &seeds, &[b"word"]);
            (0..500).map(|_| mutator.input()).collect::<Vec<_>>()
        };
        let some = inputs(1);
        assert_eq!(some, inputs(1));
        let mut different = some.clone();
        different.sort();
        different.dedup();
        assert!(different.len() > 300, "{}", different.len());
        assert!(
            some.iter()
                .any(|input| input.windows(4).any(|bytes| bytes == b"word"))
        );
    }
}
