//! TensorBoard's file format: the message fields that scalars need, and the records of a file.
//!
//! Source of numbers and names: `event.proto` and `summary.proto` of TensorFlow, and its `record_writer.cc`.

/// An event at one step.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// Only in the first event of a file.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
}

/// Some values of a step.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// A scalar.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    /// Name of the curve.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// Written even if it is 0.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

/// The state of the process that writes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

impl Event {
    /// An event without content.
    pub(super) fn at(wall_time: f64, step: u64) -> Self {
        Self { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), ..Self::default() }
    }
}

impl Value {
    /// A point of a curve.
    pub(super) fn new(tag: &str, value: f32) -> Self {
        Self { tag: tag.to_string(), simple_value: Some(value) }
    }
}

impl SessionLog {
    /// A process has begun: earlier files' points at its event's step and later are void.
    pub(super) const START: i32 = 1;
}

/// A record: length, checksum of the length, bytes, checksum of the bytes.
pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc32c(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_crc32c(bytes).to_le_bytes());
    record
}

/// The masked checksum of a record, rotated and offset: a CRC of bytes that contain a CRC is weak.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli 1993), bit by bit reflected: a step's record has a hundred bytes, so one table of bytes does.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte: &u8| (crc >> 8) ^ REMAINDERS[usize::from(crc as u8 ^ byte)])
}

/// The remainder of each byte.
const REMAINDERS: [u32; 256] = remainders();

const fn remainders() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let odd = remainder & 1 == 1;
            remainder >>= 1;
            if odd {
                remainder ^= 0x82f6_3b78;
            }
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
}
