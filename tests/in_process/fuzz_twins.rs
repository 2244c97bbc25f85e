//! The fuzz targets' own code, run here on seeded mutations of the same seeds, so that their invariants
//! hold wherever the tests run and not only where a fuzzer is.

#[path = "../../fuzz/harness/raw.rs"]
mod raw;
#[path = "../../fuzz/harness/seeds.rs"]
mod seeds;
#[path = "../../fuzz/harness/spec.rs"]
mod spec;
#[cfg(feature = "ring")]
#[path = "../../fuzz/harness/vhost_msg.rs"]
mod vhost_msg;
#[cfg(feature = "ring")]
#[path = "../../fuzz/harness/vhost_seeds.rs"]
mod vhost_seeds;
#[cfg(feature = "ring")]
#[path = "../../fuzz/harness/virtqueue.rs"]
mod virtqueue;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn seeds_of_sessions_and_specs_keep_the_invariants() {
    for (name, input) in seeds::raw() {
        check(raw::run, name, &input);
    }
    for text in spec_seeds() {
        check(spec::run, "spec", &text);
    }
}

#[test]
fn mutated_sessions_keep_the_invariants() {
    let seeds: Vec<Vec<u8>> = seeds::raw().into_iter().map(|(_, input)| input).collect();
    run_mutations(raw::run, &seeds, 20_000);
}

#[cfg(feature = "ring")]
#[test]
fn mutated_queues_keep_the_invariants() {
    let seeds: Vec<Vec<u8>> =
        vhost_seeds::virtqueue().into_iter().map(|(_, input)| input).collect();
    seeds.iter().for_each(|input| check(virtqueue::run, "virtqueue", input));
    run_mutations(virtqueue::run, &seeds, 5_000);
}

#[cfg(feature = "ring")]
#[test]
fn mutated_messages_keep_the_invariants() {
    // Other tests open descriptors meanwhile.
    let target = |input: &[u8]| vhost_msg::run(input, false);
    let seeds: Vec<Vec<u8>> =
        vhost_seeds::vhost_msg().into_iter().map(|(_, input)| input).collect();
    seeds.iter().for_each(|input| check(target, "vhost_msg", input));
    run_mutations(target, &seeds, 500);
}

#[test]
fn mutated_specs_keep_the_invariants() {
    run_mutations(spec::run, &spec_seeds(), 20_000);
}

fn spec_seeds() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/spec");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut seeds: Vec<Vec<u8>> = files.map(|file| fs::read(file).unwrap()).collect();
    seeds.sort();
    seeds
}

fn run_mutations(target: fn(&[u8]), seeds: &[Vec<u8>], runs: usize) {
    let mut random = Random(0x5eed);
    for run in 0..runs {
        let mut input = random.pick(seeds).clone();
        for _ in 0..=random.below(8) {
            mutate(&mut input, seeds, &mut random);
        }
        check(target, &format!("run {run}"), &input);
    }
}

/// Says which input broke an invariant.
fn check(target: fn(&[u8]), name: &str, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(outcome.is_ok(), "{name}: {}", input.escape_ascii());
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 => input.insert(at, random.byte()),
        1 => drop(input.drain(at..input.len().min(at + random.below(9)))),
        2 => input.truncate(at),
        3 => {
            let other = random.pick(seeds);
            let from = random.below(other.len());
            let piece = &other[from..other.len().min(from + random.below(64))];
            input.splice(at..at, piece.iter().copied());
        }
        4 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.byte()),
    }
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit.max(1)
    }

    /// Often one of those at which something changes.
    fn byte(&mut self) -> u8 {
        let edges = [0, 1, 2, 0x7f, 0x80, 0xff];
        if self.below(2) == 0 { *self.pick(&edges) } else { self.next().to_le_bytes()[0] }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
