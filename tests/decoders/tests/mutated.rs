//! Over two million mutated inputs: no panic, no hang, and no allocation beyond what an input's length
//! allows. `RHASH_FUZZ_INPUTS` says how many each decoder gets, `RHASH_FUZZ_SEED` where they begin.

use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use rhash_decoders::{DECODERS, Decoder, Mutator};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Inputs of each decoder, over two million of all.
const INPUTS: u64 = 250_000;

/// None takes longer; by far none should.
const TIME_MAX: Duration = Duration::from_secs(1);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Decodes one input; gives how long that took, and the most that it allocated.
fn decode(decoder: &Decoder, input: &[u8]) -> (Duration, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let began = Instant::now();
    (decoder.decode)(input);
    let took = began.elapsed();
    (took, ALLOCATOR.peak_usage().saturating_sub(before))
}

fn hold(decoder: &Decoder, inputs: u64, seed: u64) {
    let mut mutator = Mutator::new((decoder.seeds)(), seed);
    let mut input = Vec::new();
    for number in 0..inputs {
        mutator.next(&mut input);
        let (mut took, allocated) = decode(decoder, &input);
        if took > TIME_MAX {
            // The machine may have stood still.
            took = decode(decoder, &input).0;
        }
        let allowed = decoder.floor_bytes + decoder.growth * input.len();
        assert!(
            took <= TIME_MAX && allocated <= allowed,
            "{} input {number} of {} bytes took {took:?} and {allocated} bytes of {allowed}: \
             {input:02x?}",
            decoder.name,
            input.len()
        );
    }
}

// The only test of this file, since the allocator counts what others allocate, too.
#[test]
fn whatever_bytes_come_decoding_ends_soon_and_takes_little() {
    let seed = number("RHASH_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("RHASH_FUZZ_SEED={seed}");
    let inputs = number("RHASH_FUZZ_INPUTS").unwrap_or(INPUTS);
    for decoder in DECODERS {
        let began = Instant::now();
        for seed in (decoder.seeds)() {
            (decoder.decode)(&seed);
        }
        hold(&decoder, inputs, seed);
        println!("{}: {:?}", decoder.name, began.elapsed());
    }
}
