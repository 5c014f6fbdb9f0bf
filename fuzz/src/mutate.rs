//! Makes inputs from samples.

use snug_sizing::random::Random;

/// Largest input, bytes.
const MAX_INPUT: usize = 256 << 10;

/// Pieces that parsers trip over.
const PIECES: &[&[u8]] = &[
    b"0",
    b"-1",
    b"1e308",
    b"NaN",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775807",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"\n---\n",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"|-\n",
    b"? ",
    b"!!str ",
    b"%",
    b"max",
    b"../",
    b"/",
    b"=",
    b"&",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
];

/// Mutates samples, from a seed.
#[derive(Debug)]
pub struct Mutator(Random);

impl Mutator {
    /// The same seed makes the same inputs.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// A mutated sample; now and then only noise.
    pub fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.0.pick(corpus).cloned().unwrap_or_default();
        if self.0.below(50) == 0 {
            let length = self.0.below(200);
            input = (0..length).map(|_| self.byte()).collect();
        }
        for _ in 0..=self.0.below(6) {
            self.mutate_once(&mut input, corpus);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn mutate_once(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.0.below(input.len() + 1);
        let range = self.range(input.len());
        match self.0.below(9) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.0.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.byte();
                }
            }
            2 => input.truncate(at),
            3 => drop(input.drain(range)),
            // Repetition finds what grows faster than its input.
            4 => {
                let piece = input.get(range).unwrap_or_default();
                let repeated = piece.repeat(1 + self.0.below(2000 / (piece.len() + 1) + 2));
                insert(input, at, &repeated);
            }
            5 => {
                let piece = self.0.pick(PIECES).copied().unwrap_or_default();
                let times = if self.0.below(10) == 0 { 1 + self.0.below(2000) } else { 1 };
                insert(input, at, &piece.repeat(times));
            }
            6 => {
                let piece = self.0.pick(PIECES).copied().unwrap_or_default();
                input.splice(range, piece.iter().copied());
            }
            7 => {
                let other = self.0.pick(corpus).map(Vec::as_slice).unwrap_or_default();
                let piece = other.get(self.range(other.len())).unwrap_or_default();
                insert(input, at, piece);
            }
            // A number becomes another one.
            _ => {
                let digits = |byte: &u8| byte.is_ascii_digit();
                let Some(first) = input.iter().skip(at).position(digits).map(|skip| at + skip) else {
                    return;
                };
                let length = input.iter().skip(first).take_while(|byte| digits(byte)).count();
                let number = (self.0.bits() >> self.0.below(64)).to_string();
                input.splice(first..first + length, number.bytes());
            }
        }
    }

    fn byte(&mut self) -> u8 {
        self.0.bits().to_le_bytes()[7]
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.0.below(length + 1);
        // Mostly short.
        let most = if self.0.below(4) == 0 { length - start } else { (length - start).min(16) };
        start..start + self.0.below(most + 1)
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
