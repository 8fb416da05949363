//! Preprocessing, from an image file to a network's input, as data: it lies in every file of weights, so that evaluation,
//! deployment and other programs agree whatever folder is at hand.

use serde::{Deserialize, Serialize};

use super::image_set::Normalization;
use super::pixels::PixelKind;
use crate::error::{Error, Result};

/// Share of the shorter side that evaluation shows of photographs (224 of 256 pixels), as torchvision's reference and
/// PyTorch's `ofa` have it.
pub const MIDDLE_SHARE: f64 = 0.875;

/// Orientation of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orient {
    /// As its EXIF data say, which is how every viewer shows it.
    Exif,
    /// As its pixels are stored.
    Stored,
}

/// Formula of brightness from red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grey {
    /// .299, .587 and .114 (ITU-R BT.601), in Pillow's whole numbers: 76, 150 and 29 for the pure colors.
    Rec601,
    /// .2126, .7152 and .0722 (ITU-R BT.709).
    Rec709,
}

impl Grey {
    /// The brightness of a pixel.
    pub(super) fn of(self, [red, green, blue]: [u8; 3]) -> u8 {
        let [red, green, blue] = [red, green, blue].map(u32::from);
        match self {
            Self::Rec601 => ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8,
            Self::Rec709 => ((red * 2_126 + green * 7_152 + blue * 722) / 10_000) as u8,
        }
    }
}

/// Part of an image that evaluation shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// All of it, squeezed into a square.
    Stretch,
    /// The middle square: the shorter side is resized to the network's resolution over this share, rounded up, and of
    /// both sides the middle is taken.
    Middle(f64),
}

/// Resampling filter: a triangle (Pillow's `BILINEAR`, as wide as the step from one output to the next).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// In f32.
    Bilinear,
    /// Rounded to 8 bits after each of its two passes, as Pillow does, bit for bit.
    BilinearRounded,
}

/// The steps from an image to the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Orientation.
    pub orient: Orient,
    /// Formula of grey, where the network takes one channel.
    pub grey: Grey,
    /// Part that evaluation shows; training shows random crops.
    pub resize: Resize,
    /// Resampling filter.
    pub filter: Filter,
    /// Kind of the values. Floats are not turned, made grey or rounded.
    #[serde(default, skip_serializing_if = "PixelKind::is_bytes")]
    pub values: PixelKind,
    /// Shift and scale of the values; as many channels as the network takes.
    #[serde(rename = "normalisation")]
    pub normalization: Normalization,
}

impl Preprocess {
    /// As torchvision evaluates photographs.
    pub fn photographs(normalization: Normalization) -> Self {
        Self {
            orient: Orient::Exif,
            grey: Grey::Rec601,
            resize: Resize::Middle(MIDDLE_SHARE),
            filter: Filter::BilinearRounded,
            values: PixelKind::Bytes,
            normalization,
        }
    }

    /// The whole image, for small ones whose object fills them.
    pub fn whole(normalization: Normalization) -> Self {
        let resize = Resize::Stretch;
        let filter = Filter::Bilinear;
        Self { resize, filter, ..Self::photographs(normalization) }
    }

    /// All of an array of floats.
    pub fn array(normalization: Normalization) -> Self {
        Self { orient: Orient::Stored, values: PixelKind::Floats, ..Self::whole(normalization) }
    }

    /// The preprocessing of files of weights that were written before it had a field.
    pub fn unsaid(normalization: Normalization) -> Self {
        Self { orient: Orient::Stored, grey: Grey::Rec709, ..Self::whole(normalization) }
    }

    /// Channels that the network takes.
    pub fn channels(&self) -> usize {
        self.normalization.channels()
    }

    pub(super) fn decoding(&self) -> Decoding {
        Decoding { orient: self.orient, grey: self.grey, channels: self.channels() }
    }

    /// Whether a file could say this; `place` names it in messages.
    ///
    /// # Errors
    /// If the share shown is no share, or floats were to be cut or rounded.
    pub fn check(&self, place: &str) -> Result<()> {
        match self.resize {
            Resize::Middle(_) if !self.values.is_bytes() => {
                Err(Error::invalid(place, "preprocess.resize", "stretch for floats", "middle")
                    .and_then_do("leave out --resize: all bands and frames of an array are shown"))
            }
            Resize::Middle(share) if !(0.1..=1.0).contains(&share) => {
                Err(Error::invalid(place, "preprocess.resize.middle", "a share from 0.1 to 1", share))
            }
            _ if !self.values.is_bytes() && self.filter == Filter::BilinearRounded => {
                Err(Error::invalid(place, "preprocess.filter", "bilinear for floats", "bilinear_rounded"))
            }
            _ => Ok(()),
        }
    }
}

/// The part of it that a decoder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoding {
    pub orient: Orient,
    pub grey: Grey,
    pub channels: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_pillows() {
        // Image.new("RGB", (1, 1), color).convert("L")
        for (color, grey) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([255, 255, 255], 255),
            ([13, 200, 77], 130),
        ] {
            assert_eq!(Grey::Rec601.of(color), grey, "{color:?}");
        }
        assert_eq!([[255, 0, 0], [0, 255, 0], [0, 0, 255]].map(|c| Grey::Rec709.of(c)), [54, 182, 18]);
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let said = Preprocess::photographs(Normalization::imagenet());
        let text = serde_json::to_string(&said).unwrap();
        assert_eq!(
            text,
            r#"{"orient":"exif","grey":"rec601","resize":{"middle":0.875},"filter":"bilinear_rounded","normalisation":{"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}}"#
        );
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), said);
        let unsaid = Preprocess::unsaid(Normalization::imagenet());
        let text = serde_json::to_string(&unsaid).unwrap();
        assert!(text.contains(r#""resize":"stretch","filter":"bilinear""#), "{text}");
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), unsaid);
        let broken = text.replace("0.229", "0");
        assert!(serde_json::from_str::<Preprocess>(&broken).unwrap_err().to_string().contains("positive"));
        assert!(Preprocess { resize: Resize::Middle(1.5), ..said.clone() }.check("x").is_err());
        let array = Preprocess::array(Normalization::imagenet());
        let text = serde_json::to_string(&array).unwrap();
        assert!(text.contains(r#""filter":"bilinear","values":"floats","normalisation":"#), "{text}");
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), array);
        let cut =
            Preprocess { resize: Resize::Middle(0.875), ..array.clone() }.check("x").unwrap_err().to_string();
        assert!(cut.contains("preprocess.resize: expected stretch for floats, got middle"), "{cut}");
        assert!(array.check("x").is_ok() && Preprocess { filter: said.filter, ..array }.check("x").is_err());
    }
}
