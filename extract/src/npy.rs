//! numpy's `.npy` arrays as images: what a header of format 1 to 3 says, and the values in C order.

use base::Error;

use crate::error::Result;

/// How an array's elements are written.
#[derive(Clone, Copy)]
enum Element {
    F32(fn([u8; 4]) -> f32),
    F64(fn([u8; 8]) -> f64),
}

/// The types of elements that are read, by numpy's names.
const ELEMENTS: [(&str, Element); 4] = [
    ("<f4", Element::F32(f32::from_le_bytes)),
    (">f4", Element::F32(f32::from_be_bytes)),
    ("<f8", Element::F64(f64::from_le_bytes)),
    (">f8", Element::F64(f64::from_be_bytes)),
];

impl Element {
    fn size(self) -> usize {
        match self {
            Self::F32(..) => 4,
            Self::F64(..) => 8,
        }
    }

    fn values(self, data: &[u8]) -> Vec<f32> {
        match self {
            Self::F32(value) => data.as_chunks().0.iter().map(|bytes| value(*bytes)).collect(),
            Self::F64(value) => data.as_chunks().0.iter().map(|bytes| value(*bytes) as f32).collect(),
        }
    }
}

/// Values in C order of an array of this shape, or of a batch of one of them: f32 or f64, in C or Fortran order; `place`
/// names it in messages.
///
/// # Errors
/// If the bytes are no such array, or a value is not finite as f32.
pub fn from_bytes(place: &str, bytes: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
    let wrong = |field: &str, expected: String, got: String| Error::invalid(place, field, expected, got);
    let (header, data) = split(bytes)
        .ok_or_else(|| wrong("header", "numpy's .npy format".to_string(), "something else".to_string()))?;
    let header: String = header.split_whitespace().collect();
    let entry = |key: &str, end: char| {
        let (_, rest) = header.split_once(&format!("'{key}':"))?;
        rest.split(end).next()
    };
    let element = entry("descr", ',').and_then(|name| {
        let name = name.trim_matches('\'');
        ELEMENTS.iter().find(|(known, _)| *known == name).map(|(_, element)| *element)
    });
    let element = element.ok_or_else(|| wrong("dtype", "float32 or float64".to_string(), header.clone()))?;
    let columns_first = match entry("fortran_order", ',') {
        Some("False") => false,
        Some("True") => true,
        _ => return Err(wrong("order", "'fortran_order': True or False".to_string(), header.clone()).into()),
    };
    let dims = entry("shape", ')').and_then(|list| {
        let dims = list.strip_prefix('(')?.split_terminator(',').map(str::parse);
        dims.collect::<Result<Vec<usize>, _>>().ok()
    });
    let [channels, height, width] = shape;
    if dims.is_none_or(|dims| dims != shape && dims != [1, channels, height, width]) {
        let expected = format!("({channels}, {height}, {width}), or that with a batch of 1 before it");
        return Err(wrong("shape", expected, header.clone()).into());
    }
    let length: usize = element.size() * shape.iter().product::<usize>();
    if data.len() != length {
        return Err(wrong("data", format!("{length} bytes"), format!("{} bytes", data.len())).into());
    }
    let mut values = element.values(data);
    if columns_first {
        values = by_rows(&values, shape);
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(wrong("values", "finite numbers".to_string(), value.to_string()).into()),
        None => Ok(values),
    }
}

/// Values whose first index runs fastest, in the order in which the last one does.
fn by_rows(values: &[f32], [channels, height, width]: [usize; 3]) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for channel in 0..channels {
        for y in 0..height {
            turned.extend((0..width).map(|x| values[channel + channels * (y + height * x)]));
        }
    }
    turned
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

    fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<f32>, String> {
        from_bytes("x.npy", bytes, [2, 1, 3]).map_err(|error| error.to_string())
    }

    /// 0 to 5 as bytes.
    fn data<const N: usize>(bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
        (0..6).flat_map(|value| bytes(value as f32)).collect()
    }

    #[test]
    fn arrays_of_every_kind_are_read() {
        let rising = vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        for (descr, data) in [
            ("<f4", data(f32::to_le_bytes)),
            (">f4", data(f32::to_be_bytes)),
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
    }

    #[test]
    fn broken_arrays_are_refused() {
        let data = data(f32::to_le_bytes);
        let good = npy("<f4", "False", "(2, 1, 3)", &data);
        let nan = [&data[..20], &f32::NAN.to_le_bytes()].concat();
        let large: Vec<u8> = (0..6).flat_map(|_| 1e300f64.to_le_bytes()).collect();
        for (bytes, part) in [
            (npy("<i8", "False", "(2, 1, 3)", &data), "dtype: expected float32 or float64"),
            (npy("<f2", "False", "(2, 1, 3)", &data), "dtype"),
            (npy("<f4", "Perhaps", "(2, 1, 3)", &data), "order"),
            (npy("<f4", "False", "(2, 3)", &data), "shape: expected (2, 1, 3), or that with a batch of 1"),
            (npy("<f4", "False", "(2, 2, 1, 3)", &data), "shape"),
            (npy("<f4", "False", "(2, 1, 3", &data), "shape"),
            (npy("<f4", "False", "(2, -1, 3)", &data), "shape"),
            (npy("<f4", "False", "()", &data), "shape"),
            (npy("<f4", "False", "(2, 1, 3)", &data[..20]), "data: expected 24 bytes, got 20 bytes"),
            (npy("<f8", "False", "(2, 1, 3)", &data), "data: expected 48 bytes, got 24 bytes"),
            (npy("<f4", "False", "(2, 1, 3)", &nan), "values: expected finite numbers, got NaN"),
            (npy("<f8", "False", "(2, 1, 3)", &large), "values: expected finite numbers, got inf"),
            (npy("<f4", "False", "", &data), "shape"),
            (b"PNG".to_vec(), "header"),
            (good[..20].to_vec(), "header"),
        ] {
            let error = read(&bytes).expect_err(part);
            assert!(error.starts_with("x.npy: ") && error.contains(part), "{part}: {error}");
        }
    }
}
