//! Writes protobuf messages field by field, straight into their bytes. As a prost message, built
//! first and encoded then, a reply costs half as much as all the rest of a check (docs/decisions.md
//! has the figures).

use prost::encode_length_delimiter;

/// How a value is written (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    SixtyFourBit = 1,
    LengthDelimited = 2,
}

pub struct Message(Vec<u8>);

impl Message {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn number(&mut self, field: u8, value: u16) {
        self.key(field, WireType::Varint);
        self.varint(value.into());
    }

    pub fn double(&mut self, field: u8, value: f64) {
        self.key(field, WireType::SixtyFourBit);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn text(&mut self, field: u8, text: &str) {
        self.key(field, WireType::LengthDelimited);
        self.varint(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A message within this one.
    pub fn message(&mut self, field: u8, fill: impl FnOnce(&mut Self)) {
        self.key(field, WireType::LengthDelimited);
        // Nearly every length fits the one byte that is kept for it.
        let length_at = self.0.len();
        self.0.push(0);
        fill(self);
        let length = self.0.len() - length_at - 1;
        if length < 0x80 {
            self.0[length_at] = length as u8;
        } else {
            let mut bytes = Self::with_capacity(4);
            bytes.varint(length);
            self.0.splice(length_at..=length_at, bytes.0);
        }
    }

    /// One byte, for the numbers below 16.
    fn key(&mut self, field: u8, wire_type: WireType) {
        debug_assert!((1..16).contains(&field));
        self.0.push(field << 3 | wire_type as u8);
    }

    fn varint(&mut self, value: usize) {
        if value < 0x80 {
            return self.0.push(value as u8);
        }
        encode_length_delimiter(value, &mut self.0).expect("a vector grows");
    }
}
