//! Writes protobuf messages field by field, straight into their bytes: building a reply from the
//! generated types first would cost a dozen allocations a check.

use prost::encoding::{WireType, encode_key, encode_varint};

pub struct Message(Vec<u8>);

impl Message {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn number(&mut self, field: u32, value: u32) {
        encode_key(field, WireType::Varint, &mut self.0);
        encode_varint(u64::from(value), &mut self.0);
    }

    pub fn double(&mut self, field: u32, value: f64) {
        encode_key(field, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn text(&mut self, field: u32, text: &str) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(text.len() as u64, &mut self.0);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A message within this one.
    pub fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        // Nearly every length fits the one byte that is kept for it.
        let length_at = self.0.len();
        self.0.push(0);
        fill(self);
        let length = self.0.len() - length_at - 1;
        if length < 0x80 {
            self.0[length_at] = length as u8;
        } else {
            let mut bytes = Vec::with_capacity(4);
            encode_varint(length as u64, &mut bytes);
            self.0.splice(length_at..=length_at, bytes);
        }
    }
}
