//! A packet costs no allocation once a connection is warm, and an announced length costs none ever.
//!
//! A test crate of its own, because its allocator counts. Each thread counts for itself: the test harness allocates
//! beside us.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use chatserver::protocol::{Chat, Cipher, Decoder, Frame, Message, PUBLISHED_KEY};

const MAX_PACKET_BYTES: usize = 65_536;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn count(&self) {
        // A thread that is ending has no counter any more, and nobody who reads it.
        let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
    }
}

// SAFETY: every call goes to `System` with the same arguments; counting neither allocates nor touches the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count();
        // SAFETY: as above; `ptr` came from `System`, since everything does.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations this thread makes in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Mostly short texts, and now and then one as long as the longest that existing clients send.
fn stream(cipher: &Cipher, packets: usize) -> Vec<u8> {
    let text = "x".repeat(2_100);
    let mut stream = Vec::new();
    for n in 0..packets {
        let text_bytes = if n % 100 == 99 { text.len() } else { n * 37 % 301 };
        let chat =
            Chat {
                from: "[38121920]--> 7", to: "小红", text: &text[..text_bytes], time: n as i64, ..Chat::default()
            };
        Message::Chat(chat).encode(cipher, &mut stream);
    }
    stream
}

/// Reads all packets and gives their number.
fn read_all(cipher: &Cipher, decoder: &mut Decoder, mut stream: &[u8]) -> usize {
    let mut packets = 0;
    while let Some(frame) = Frame::parse(stream, MAX_PACKET_BYTES).unwrap() {
        assert!(decoder.decode(cipher, frame).unwrap().exact);
        stream = &stream[frame.packet.len()..];
        packets += 1;
    }
    packets
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(7)))), 1);
    assert_eq!(allocations(|| drop(black_box(vec![0_u8; 100]))), 1);
    let mut grows = Vec::with_capacity(1);
    assert_eq!(allocations(|| grows.extend_from_slice(black_box(&[1_u8; 2]))), 1);
    assert_eq!(allocations(|| assert_eq!(black_box(7), 7)), 0);
}

#[test]
fn a_warm_decoder_allocates_nothing_for_10_000_packets() {
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let stream = stream(&cipher, 10_000);
    let mut decoder = Decoder::default();
    let cold = allocations(|| {
        read_all(&cipher, &mut decoder, &stream);
    });
    assert!(cold > 0, "buffers have to come from somewhere");
    let mut packets = 0;
    let warm = allocations(|| packets = read_all(&cipher, &mut decoder, &stream));
    assert_eq!((packets, warm), (10_000, 0));
}

#[test]
fn encoding_into_a_buffer_with_room_allocates_nothing() {
    let cipher = Cipher::new(PUBLISHED_KEY).unwrap();
    let chat = Message::Chat(Chat { from: "A", to: "B", text: "hello", time: 1_407_938_400, ..Chat::default() });
    let mut out = Vec::with_capacity(256);
    let count = allocations(|| {
        for _ in 0..1_000 {
            out.clear();
            chat.encode(&cipher, &mut out);
        }
    });
    assert_eq!((out.len(), count), (40, 0));
}

#[test]
fn an_announced_length_reserves_nothing() {
    let max = MAX_PACKET_BYTES as u32;
    let lengths = (0..=24).chain([max - 1, max, max + 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX]);
    for length in lengths {
        let header = [length.to_be_bytes(), 1_u32.to_be_bytes()].concat();
        for end in 0..=header.len() {
            let count = allocations(|| {
                let _ = black_box(Frame::parse(&header[..end], MAX_PACKET_BYTES));
                let _ = black_box(Frame::wanted(&header[..end], MAX_PACKET_BYTES));
            });
            assert_eq!(count, 0, "length {length}, {end} bytes of it");
        }
    }
}
