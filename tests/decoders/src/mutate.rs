//! Changes to bytes that make sense, so that some of it still does.

use fastrand::Rng;

/// The longest input that it makes.
const INPUT_BYTES_MAX: usize = 4096;

/// The most changes to one input.
const CHANGES_MAX: usize = 6;

/// Bytes that mean something to many formats: ends of ranges, and the marks of longer numbers.
const BYTES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

/// Numbers that mean something to those who count.
const NUMBERS: [u64; 9] = [
    0,
    1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Makes inputs out of seeds.
#[derive(Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    random: Rng,
}

impl Mutator {
    /// Inputs of `seeds`, drawn by `seed`.
    pub fn new(seeds: Vec<Vec<u8>>, seed: u64) -> Self {
        Self {
            seeds,
            random: Rng::with_seed(seed),
        }
    }

    /// Fills `input` with the next one.
    pub fn next(&mut self, input: &mut Vec<u8>) {
        let Self { seeds, random } = self;
        input.clear();
        if let Some(seed) = random.choice(seeds.iter()) {
            input.extend_from_slice(seed);
        }
        for _ in 0..random.usize(1..=CHANGES_MAX) {
            change(input, seeds, random);
        }
        input.truncate(INPUT_BYTES_MAX);
    }
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Rng) {
    let at = random.usize(0..=input.len());
    match random.u8(0..9) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = BYTES[random.usize(..BYTES.len())];
            }
        }
        2 => input.insert(at, BYTES[random.usize(..BYTES.len())]),
        3 => input.insert(at, random.u8(..)),
        4 => input.truncate(at),
        5 => {
            let end = random.usize(at..=input.len());
            input.drain(at..end);
        }
        6 => {
            let end = random.usize(at..=input.len()).min(at + 64);
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        7 => {
            let number = NUMBERS[random.usize(..NUMBERS.len())].to_le_bytes();
            let width = [2, 4, 8][random.usize(..3)];
            for (byte, of_number) in input[at..].iter_mut().zip(&number[..width]) {
                *byte = *of_number;
            }
        }
        _ => {
            if let Some(other) = random.choice(seeds.iter()) {
                let from = random.usize(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
