//! What the targets share: how a fuzzer's bytes become numbers and texts, and a client.

pub mod wire;

/// Takes values off the fuzzer's input; past its end they are 0 and empty, so every input means something.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The whole of it.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// One of `count`.
    pub fn choice(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind their length.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.bytes(usize::from(length))
    }

    /// A number of any size: small ones are one byte, and the ends of the ranges that matter are near.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            250 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            251 => self.eight(),
            252 => (1 << 53) - 2 + u64::from(self.byte() % 4),
            253 => i64::MAX as u64 - 1 + u64::from(self.byte() % 4),
            254 => u64::MAX - u64::from(self.byte() % 4),
            255 => 1_800_000_000_000_000 + u64::from(self.byte()),
            small => u64::from(small),
        }
    }

    fn eight(&mut self) -> u64 {
        self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }
}
