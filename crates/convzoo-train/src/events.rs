//! A run's figures as TensorBoard reads them: a file of records
//! ([TFRecord](https://www.tensorflow.org/tutorials/load_data/tfrecord)), each an `Event` in Protocol Buffers' wire format.

use crate::{Epoch, RunRecord};

/// The name of a run's file, by which TensorBoard knows it.
pub(crate) fn file_name(record: &RunRecord) -> String {
    format!("events.out.tfevents.{}.convzoo", record.started)
}

/// The whole file. What it says of an epoch is the same each time, so that the file of a run under way only grows.
pub(crate) fn encode(record: &RunRecord) -> Vec<u8> {
    let mut file = Vec::new();
    let mut time = record.started as f64;
    framed(&event(time, None, |event| bytes(event, 3, b"brain.Event:2")), &mut file);
    for epoch in &record.epochs {
        time += epoch.seconds;
        framed(
            &event(time, Some(epoch.epoch), |event| message(event, 5, |summary| scalars(epoch, summary))),
            &mut file,
        );
    }
    file
}

/// A `Summary` of an epoch's figures. What stands before the slash is a chart's group.
fn scalars(epoch: &Epoch, summary: &mut Vec<u8>) {
    let (part, held_out) = (epoch.held_out.part(), epoch.held_out.measures());
    let figures = [
        ("loss/train".to_owned(), epoch.train.loss),
        (format!("loss/{part}"), held_out.loss),
        ("accuracy/train".to_owned(), epoch.train.accuracy),
        (format!("accuracy/{part}"), held_out.accuracy),
        ("run/learning_rate".to_owned(), epoch.learning_rate),
        ("run/images_per_second".to_owned(), epoch.images_per_second),
    ];
    for (tag, value) in figures {
        message(summary, 1, |figure| {
            bytes(figure, 1, tag.as_bytes());
            figure.push(2 << 3 | FIXED_32);
            figure.extend((value as f32).to_le_bytes());
        });
    }
}

/// Wire types.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED_32: u8 = 5;

/// An `Event` at a time in seconds since 1970 and a step, and what else is in it.
fn event(time: f64, step: Option<usize>, content: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut event = vec![1 << 3 | FIXED_64];
    event.extend(time.to_le_bytes());
    if let Some(step) = step {
        event.push(2 << 3 | VARINT);
        varint(&mut event, step as u64);
    }
    content(&mut event);
    event
}

fn message(out: &mut Vec<u8>, field: u8, content: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    content(&mut inner);
    bytes(out, field, &inner);
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | LENGTH);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a record: its length, the length's checksum, its content, the content's checksum.
fn framed(content: &[u8], file: &mut Vec<u8>) {
    let length = (content.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(content);
    file.extend(masked(crc32c(content)).to_le_bytes());
}

/// A checksum as it is stored, so that one of a text that holds its own checksum is not degenerate.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// The CRC by Castagnoli's polynomial, bit by bit: the file has some hundred bytes an epoch.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
    }

    /// The first record of every file that TensorFlow writes, but for the time.
    #[test]
    fn records_are_framed_as_tensorflow_frames_them() {
        let mut file = Vec::new();
        framed(&event(0.0, None, |event| bytes(event, 3, b"brain.Event:2")), &mut file);
        assert_eq!(file[..8], 24u64.to_le_bytes());
        // The same for every content of 24 bytes.
        assert_eq!(file[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(file[12..36], *b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2");
        assert_eq!(file.len(), 40);
    }
}
