//! numpy's `.npy` arrays (format 1 to 3): a security boundary, since a header may claim anything.
//!
//! Values become f32, in C order; their meaning is the caller's.

use half::f16;

use crate::error::{Error, Result};

/// Number type of an array's elements.
#[derive(Clone, Copy)]
enum Element {
    U8,
    I16(fn([u8; 2]) -> i16),
    F16(fn([u8; 2]) -> f16),
    F32(fn([u8; 4]) -> f32),
    F64(fn([u8; 8]) -> f64),
}

/// The types of elements that are read, by numpy's names.
const ELEMENTS: [(&str, Element); 9] = [
    ("|u1", Element::U8),
    ("<i2", Element::I16(i16::from_le_bytes)),
    (">i2", Element::I16(i16::from_be_bytes)),
    ("<f2", Element::F16(f16::from_le_bytes)),
    (">f2", Element::F16(f16::from_be_bytes)),
    ("<f4", Element::F32(f32::from_le_bytes)),
    (">f4", Element::F32(f32::from_be_bytes)),
    ("<f8", Element::F64(f64::from_le_bytes)),
    (">f8", Element::F64(f64::from_be_bytes)),
];

impl Element {
    fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I16(..) | Self::F16(..) => 2,
            Self::F32(..) => 4,
            Self::F64(..) => 8,
        }
    }

    fn values(self, data: &[u8]) -> Vec<f32> {
        match self {
            Self::U8 => data.iter().map(|byte| f32::from(*byte)).collect(),
            Self::I16(value) => data.as_chunks().0.iter().map(|bytes| f32::from(value(*bytes))).collect(),
            Self::F16(value) => data.as_chunks().0.iter().map(|bytes| value(*bytes).to_f32()).collect(),
            Self::F32(value) => data.as_chunks().0.iter().map(|bytes| value(*bytes)).collect(),
            Self::F64(value) => data.as_chunks().0.iter().map(|bytes| value(*bytes) as f32).collect(),
        }
    }

    fn is_float(self) -> bool {
        !matches!(self, Self::U8 | Self::I16(..))
    }
}

/// An array: its shape, and its values in C order, all of them finite.
#[derive(Debug, Clone, PartialEq)]
pub struct NpyArray {
    shape: Vec<usize>,
    values: Vec<f32>,
    /// Whether it was written as floats.
    floats: bool,
}

/// Content of a header.
struct Header {
    element: Element,
    columns_first: bool,
    shape: Vec<usize>,
}

impl NpyArray {
    /// The array of these bytes: float16, float32, float64, uint8 or int16, of either byte order, in C or Fortran order;
    /// `place` names it in messages.
    ///
    /// # Errors
    /// If the bytes are no such array, or a value is not finite as f32.
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let wrong = |field: &str, expected: String, got: String| Error::invalid(place, field, expected, got);
        let (header, data) = split(bytes)
            .ok_or_else(|| wrong("header", "numpy's .npy format".into(), "something else".into()))?;
        let Header { element, columns_first, shape } = Header::read(place, header)?;
        let length = shape.iter().try_fold(element.size(), |product, size| product.checked_mul(*size));
        if length != Some(data.len()) {
            let expected =
                length.map_or_else(|| "fewer values".to_string(), |length| format!("{length} bytes"));
            return Err(wrong("data", expected, format!("{} bytes", data.len())));
        }
        let mut values = element.values(data);
        if columns_first {
            values = by_rows(&values, &shape);
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(wrong("values", "finite numbers".into(), value.to_string())),
            None => Ok(Self { shape, values, floats: element.is_float() }),
        }
    }

    /// The array's shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, in C order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of floats of a shape, or of a batch of one of them; `place` is the file's.
    ///
    /// # Errors
    /// If it holds whole numbers, or has another shape.
    pub fn into_floats(self, place: &str, shape: [usize; 3]) -> Result<Vec<f32>> {
        let [channels, height, width] = shape;
        if !self.floats {
            return Err(Error::invalid(place, "dtype", "float16, float32 or float64", "whole numbers"));
        }
        if self.shape != shape && self.shape != [1, channels, height, width] {
            let expected = format!("({channels}, {height}, {width}), or that with a batch of 1 before it");
            return Err(Error::invalid(place, "shape", expected, shown(&self.shape)));
        }
        Ok(self.values)
    }

    /// The values as an image has them, with its height, width and channels: of `[H, W]` or `[C, H, W]`.
    ///
    /// # Shapes
    /// `[H, W, C]`.
    ///
    /// # Errors
    /// If it has another number of dimensions, or none of something; `place` is the file's.
    pub fn into_image(self, place: &str) -> Result<(Vec<f32>, [usize; 3])> {
        let [channels, height, width] = match self.shape[..] {
            [height, width] => [1, height, width],
            [channels, height, width] => [channels, height, width],
            _ => [0; 3],
        };
        if [channels, height, width].contains(&0) || channels > MOST_CHANNELS {
            let expected =
                format!("(rows, columns), or (channels, rows, columns) of 1 to {MOST_CHANNELS} channels");
            return Err(Error::invalid(place, "shape", expected, shown(&self.shape)));
        }
        let values = if channels == 1 { self.values } else { interleaved(&self.values, channels) };
        Ok((values, [height, width, channels]))
    }
}

/// Most channels of an image: those that a space may have.
const MOST_CHANNELS: usize = 64;

/// A shape as numpy writes it.
pub(super) fn shown(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({}{})", sizes.join(", "), if shape.len() == 1 { "," } else { "" })
}

impl Header {
    fn read(place: &str, text: &str) -> Result<Self> {
        let header: String = text.split_whitespace().collect();
        let wrong = |field: &str, expected: &str| Error::invalid(place, field, expected, &header);
        let entry = |key: &str, end: char| {
            let (_, rest) = header.split_once(&format!("'{key}':"))?;
            rest.split(end).next()
        };
        let element = entry("descr", ',').and_then(|name| {
            let name = name.trim_matches('\'');
            ELEMENTS.iter().find(|(known, _)| *known == name).map(|(_, element)| *element)
        });
        let element = element.ok_or_else(|| wrong("dtype", "float16, float32, float64, uint8 or int16"))?;
        let columns_first = match entry("fortran_order", ',') {
            Some("False") => false,
            Some("True") => true,
            _ => return Err(wrong("order", "'fortran_order': True or False")),
        };
        let shape = entry("shape", ')').and_then(|list| {
            let sizes = list.strip_prefix('(')?.split_terminator(',').map(str::parse);
            sizes.collect::<Result<Vec<usize>, _>>().ok()
        });
        let shape = shape.ok_or_else(|| wrong("shape", "a tuple of whole numbers"))?;
        Ok(Self { element, columns_first, shape })
    }
}

/// Values whose first index runs fastest, in the order in which the last one does.
fn by_rows(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut index = vec![0; shape.len()];
    let mut turned = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let place = index.iter().zip(shape).rev().fold(0, |place, (at, size)| place * size + at);
        turned.push(values[place]);
        for (at, size) in index.iter_mut().zip(shape).rev() {
            *at += 1;
            if *at < *size {
                break;
            }
            *at = 0;
        }
    }
    turned
}

/// Planes as pixels with their channels side by side.
fn interleaved(planes: &[f32], channels: usize) -> Vec<f32> {
    let plane = planes.len() / channels;
    (0..plane).flat_map(|at: usize| (0..channels).map(move |channel| planes[channel * plane + at])).collect()
}

/// Header text and data of a `.npy` file.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&[major, _], rest) = rest.split_first_chunk::<2>()?;
    if !(1..=3).contains(&major) {
        return None;
    }
    let (length, rest) = if major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::npy;

    fn read(bytes: &[u8]) -> Result<Vec<f32>, String> {
        let array = NpyArray::from_bytes("x.npy", bytes);
        array.and_then(|array| array.into_floats("x.npy", [2, 1, 3])).map_err(|error| error.to_string())
    }

    /// 0 to 5 as bytes.
    fn data<const N: usize>(bytes: impl Fn(u8) -> [u8; N]) -> Vec<u8> {
        (0..6).flat_map(bytes).collect()
    }

    #[test]
    fn arrays_of_every_kind_are_read() {
        let rising = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        for (descr, data) in [
            ("<f2", data(|value| f16::from(value).to_le_bytes())),
            (">f2", data(|value| f16::from(value).to_be_bytes())),
            ("<f4", data(|value| f32::from(value).to_le_bytes())),
            (">f4", data(|value| f32::from(value).to_be_bytes())),
            ("<f8", data(|value| f64::from(value).to_le_bytes())),
            (">f8", data(|value| f64::from(value).to_be_bytes())),
        ] {
            for shape in ["(2, 1, 3)", "(1, 2, 1, 3)"] {
                assert_eq!(read(&npy(descr, "False", shape, &data)), Ok(rising.clone()), "{descr} {shape}");
                // numpy.asfortranarray(numpy.array([[[0, 2, 4]], [[1, 3, 5]]])) has its values in this order
                let turned = read(&npy(descr, "True", shape, &data));
                assert_eq!(turned, Ok(vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0]), "{descr} {shape}");
            }
        }
        for (descr, data) in [
            ("|u1", data(|value| [value])),
            ("<i2", data(|value| i16::from(value).to_le_bytes())),
            (">i2", data(|value| i16::from(value).to_be_bytes())),
        ] {
            let array = NpyArray::from_bytes("x.npy", &npy(descr, "False", "(6,)", &data)).expect(descr);
            assert_eq!((array.shape(), array.values()), (&[6][..], &rising[..]), "{descr}");
        }
    }

    #[test]
    fn maps_become_pixels() {
        let data = data(|value| f32::from(value).to_le_bytes());
        let image = |shape: &str| {
            let array = NpyArray::from_bytes("x.npy", &npy("<f4", "False", shape, &data)).expect(shape);
            array.into_image("x.npy").map_err(|error| error.to_string())
        };
        assert_eq!(image("(2, 3)"), Ok((vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3, 1])));
        assert_eq!(image("(1, 2, 3)"), image("(2, 3)"));
        assert_eq!(image("(2, 1, 3)"), Ok((vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0], [1, 3, 2])));
        for shape in ["(6,)", "(1, 1, 2, 3)"] {
            let error = image(shape).expect_err(shape);
            let expected = "x.npy: shape: expected (rows, columns), or (channels, rows, columns) of 1 to 64";
            assert!(error.starts_with(expected) && error.ends_with(&format!("got {shape}")), "{error}");
        }
        let none = NpyArray::from_bytes("x.npy", &npy("<f4", "False", "(0, 3)", &[])).expect("none");
        assert!(none.into_image("x.npy").is_err());
    }

    #[test]
    fn broken_arrays_are_refused() {
        let data = data(|value| f32::from(value).to_le_bytes());
        let good = npy("<f4", "False", "(2, 1, 3)", &data);
        let nan = [&data[..20], &f32::NAN.to_le_bytes()].concat();
        let large: Vec<u8> = (0..6).flat_map(|_| 1e300f64.to_le_bytes()).collect();
        let huge = format!("({0}, {0}, {0})", usize::MAX);
        for (bytes, part) in [
            (
                npy("<i8", "False", "(2, 1, 3)", &data),
                "dtype: expected float16, float32, float64, uint8 or int16",
            ),
            (npy("<c8", "False", "(2, 1, 3)", &data), "dtype"),
            (
                npy("|u1", "False", "(2, 1, 3)", &data[..6]),
                "dtype: expected float16, float32 or float64, got",
            ),
            (npy("<f4", "Perhaps", "(2, 1, 3)", &data), "order"),
            (npy("<f4", "False", "(2, 3)", &data), "shape: expected (2, 1, 3), or that with a batch of 1"),
            (npy("<f4", "False", "(3, 2, 1)", &data), "shape"),
            (npy("<f4", "False", "(2, 1, 3", &data), "shape"),
            (npy("<f4", "False", "(2, -1, 3)", &data), "shape"),
            (npy("<f4", "False", "", &data), "shape"),
            (npy("<f4", "False", "()", &data), "data: expected 4 bytes, got 24 bytes"),
            (npy("<f4", "False", &huge, &data), "data: expected fewer values, got 24 bytes"),
            (npy("<f4", "False", "(2, 1, 3)", &data[..20]), "data: expected 24 bytes, got 20 bytes"),
            (npy("<f8", "False", "(2, 1, 3)", &data), "data: expected 48 bytes, got 24 bytes"),
            (npy("<f4", "False", "(2, 1, 3)", &nan), "values: expected finite numbers, got NaN"),
            (npy("<f8", "False", "(2, 1, 3)", &large), "values: expected finite numbers, got inf"),
            (b"PNG".to_vec(), "header"),
            (good[..20].to_vec(), "header"),
        ] {
            let error = read(&bytes).expect_err(part);
            assert!(error.starts_with("x.npy: ") && error.contains(part), "{part}: {error}");
        }
    }
}
