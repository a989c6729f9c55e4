//! The drills' chance: the same seed rolls the same numbers. (What threads and sockets do with them is never quite the same.)

use std::time::Duration;

/// Splitmix64.
pub struct Dice(u64);

impl Dice {
    /// The dice number `which` of this seed; each thread has its own.
    pub fn new(seed: u64, which: u64) -> Dice {
        let mut dice = Dice(seed ^ which.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// One time in `sides`.
    pub fn is_one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// Between the two, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.roll((to - from) * 1000 + 1))
    }
}
