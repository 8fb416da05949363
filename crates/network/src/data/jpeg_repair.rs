//! JPEGs with bytes between their segments that belong to none, as some cameras and editors leave them. Other decoders skip
//! them; ours takes the file for cut off.

use std::borrow::Cow;
use std::ops::Range;

/// The file without stray bytes between its segments (ITU T.81, annex B); the file itself where there are none, or where
/// no segment follows them.
pub(super) fn without_stray_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    let stray = stray_bytes(bytes);
    if stray.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for Range { start, end } in stray {
        kept.extend_from_slice(&bytes[at..start]);
        at = end;
    }
    kept.extend_from_slice(&bytes[at..]);
    Cow::Owned(kept)
}

/// Where they stand, up to the end marker.
fn stray_bytes(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut stray = Vec::new();
    let mut at = 2;
    while let Some(start) = next_marker(bytes, at) {
        // any number of FF may stand before a marker
        if bytes[at..start].iter().any(|byte| *byte != 0xff) {
            stray.push(at..start);
        }
        let marker = bytes[start + 1];
        at = start + 2;
        match marker {
            0xd9 => break,
            0x01 | 0xd0..=0xd7 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { break };
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
        if marker == 0xda {
            // a scan's data go on to the next marker that is no restart
            let Some(end) = end_of_scan(bytes, at) else { break };
            at = end;
        }
    }
    stray
}

/// Where the next FF stands that a marker's number follows.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let found =
        bytes.get(from..)?.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
    found.map(|place| from + place)
}

fn end_of_scan(bytes: &[u8], from: usize) -> Option<usize> {
    bytes
        .get(from..)?
        .windows(2)
        .position(|pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7))
        .map(|place| from + place)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::*;
    use crate::data::Grey;
    use crate::data::ImageFile;

    fn jpeg() -> Vec<u8> {
        let image = RgbImage::from_fn(40, 24, |x, y| Rgb([(x * 6) as u8, (y * 10) as u8, (x * y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Jpeg).expect("memory");
        bytes.into_inner()
    }

    /// Where segments begin, the first after the start of the image; the last is the scan.
    fn segments(bytes: &[u8]) -> Vec<usize> {
        let mut places = Vec::new();
        let mut at = 2;
        loop {
            places.push(at);
            if bytes[at + 1] == 0xda {
                return places;
            }
            at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        }
    }

    fn with_stray(bytes: &[u8], at: usize, stray: &[u8]) -> Vec<u8> {
        [&bytes[..at], stray, &bytes[at..]].concat()
    }

    #[test]
    fn stray_bytes_between_segments_are_left_out() {
        let whole = jpeg();
        assert!(matches!(without_stray_bytes(&whole), Cow::Borrowed(_)));
        let pixels = |bytes: &[u8]| {
            ImageFile::from_bytes("x.jpg", bytes)
                .map(|file| file.into_pixels(3, Grey::Rec601))
                .map_err(|e| e.to_string())
        };
        let expected = pixels(&whole);
        assert!(expected.is_ok());
        let places = segments(&whole);
        assert!(places.len() > 5, "{places:?}");
        // right after the start of the image they make another file of it, for Pillow too
        for &at in &places[1..] {
            for stray in [&b"\0\0\0"[..], b"\x12\x34", b"\xff\0", b"a\xff\xff\0b", b"\r\n"] {
                let broken = with_stray(&whole, at, stray);
                assert!(*without_stray_bytes(&broken) == whole, "{stray:?} at {at}");
                assert!(pixels(&broken) == expected, "{stray:?} at {at}");
            }
            // fill bytes are allowed, and stay
            let filled = with_stray(&whole, at, b"\xff\xff");
            assert!(matches!(without_stray_bytes(&filled), Cow::Borrowed(_)));
            assert!(pixels(&filled) == expected, "filled at {at}");
        }
    }

    #[test]
    fn what_is_cut_off_stays_cut_off() {
        let whole = jpeg();
        let broken = with_stray(&whole, segments(&whole)[1], b"\0\0\0");
        for end in 0..broken.len() {
            let error = ImageFile::from_bytes("x.jpg", &broken[..end]).expect_err("cut off").to_string();
            assert!(error.starts_with("x.jpg: content: "), "{end}: {error}");
        }
        // what follows the end of the image is no part of it
        let appended = [&whole[..], b"\0\0\xff\xda\0"].concat();
        assert!(matches!(without_stray_bytes(&appended), Cow::Borrowed(_)));
    }
}
