//! Files of MNIST's format (IDX), gzip or not: a security boundary, since a header may claim anything.
//!
//! A header is compared with the file's real length before anything is allocated for what it claims. Knows
//! the format (<http://yann.lecun.com/exdb/mnist/>) and Fashion-MNIST's class names; nothing of the images'
//! use.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use base::random::{permutation, rng_for};

use super::about::{About, NAME};
use super::image_set::ImageSet;
use super::{Dataset, DatasetOrigin, Splits, numbered_classes};
use crate::error::{Error, Result};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;

/// DEFLATE cannot do better than 258 bytes for two bits (zlib's technical details: 1032 to 1).
const MOST_INFLATION: u64 = 1032;

/// The validation images are a property of the data set, so the seed is not the user's.
pub(super) const VALIDATION_SEED: u64 = 0;

/// blake3 of the labels of Fashion-MNIST's 60,000 training images, a byte each.
const FASHION_LABELS: &str = "32fcc5c992292ad2bdad03c701be466e8fba20b38d37a4f59514aba5d872dc07";
const FASHION_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
const FASHION_SOURCE: &str =
    "H. Xiao, K. Rasul, R. Vollgraf, \"Fashion-MNIST\", arXiv:1708.07747, Zalando Research, 2017, MIT";

/// The data set in `folder`: `train-*` without a fixed tenth, that tenth as validation images, and `t10k-*`,
/// if it is there, as test images. Names of classes and the legality of a flip come from `about`, or from the labels
/// themselves; never from the folder's name.
pub(super) fn open(folder: &Path, about: impl Fn(&str) -> Result<About>) -> Result<Dataset> {
    std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))?;
    let about = about(&folder.to_string_lossy())?;
    let train = Part::read(folder, "train")?.ok_or_else(|| missing(folder, &stem("train", Kind::Images)))?;
    let test = Part::read(folder, "t10k")?;
    let name = folder_name(folder);
    let by_name = name.to_lowercase().contains("fashion");
    let fashion = blake3::hash(&train.labels).to_hex().as_str() == FASHION_LABELS;
    let told_by = match (&about.path, fashion) {
        (Some(path), _) => path.display().to_string(),
        (None, true) => "the labels, which are Fashion-MNIST's".to_owned(),
        (None, false) => {
            format!("nothing: there is no {NAME}, so classes are numbers and nothing is mirrored")
        }
    };
    let known = fashion.then(|| FASHION_CLASSES.map(str::to_owned).to_vec());
    let classes = about.classes.or(known).unwrap_or_else(|| {
        numbered_classes(train.labels.iter().max().map_or(0, |label| usize::from(*label) + 1))
    });
    let source = about.source.unwrap_or_else(|| match fashion {
        true => FASHION_SOURCE.to_owned(),
        false => format!("IDX files in a folder {name}"),
    });
    let name = about.name.unwrap_or_else(|| if fashion { "fashion-mnist".to_owned() } else { name });
    let flip = about.flip.unwrap_or(fashion);
    let all = train.into_set(classes.len())?;
    let test = test.map(|part| part.into_set(classes.len())).transpose()?;
    let (train, val) = split(folder, &all)?;
    let splits = Splits { train: train.into(), val: val.into(), test: test.map(Into::into) };
    let set = Dataset::new(DatasetOrigin { name, source, flip }, classes, splits)?;
    Ok(set.told_by(told_by, by_name).with_val_from("a fixed tenth of train"))
}

/// The last part of the path, also where it is written as `.`; where files lie on this machine stays out.
pub(super) fn folder_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.file_name().map_or_else(|| "idx".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Training images and validation images: a tenth, drawn with a constant seed, and all others.
fn split(folder: &Path, all: &ImageSet) -> Result<(ImageSet, ImageSet)> {
    let count = all.len();
    let mut held_out = vec![false; count];
    let order = permutation(count, &mut rng_for("validation split", VALIDATION_SEED, &[count as u64]));
    order.iter().take((count / 10).max(1)).for_each(|i| held_out[*i] = true);
    all.filter(|i| !held_out[i]).zip(all.filter(|i| held_out[i])).ok_or_else(|| {
        Error::invalid(folder.display(), "training images", "at least 2, to hold one out", count)
    })
}

/// Content of a pair of files.
struct Part {
    labels_path: PathBuf,
    pixels: Vec<u8>,
    shape: [usize; 3],
    labels: Vec<u8>,
}

impl Part {
    /// The pair of files that start with `prefix`; `None` if neither is there.
    fn read(folder: &Path, prefix: &str) -> Result<Option<Self>> {
        let images = find(folder, prefix, Kind::Images);
        let labels = find(folder, prefix, Kind::Labels);
        let (images_path, labels_path) = match (images, labels) {
            (None, None) => return Ok(None),
            (Some(images), Some(labels)) => (images, labels),
            (None, _) => return Err(missing(folder, &stem(prefix, Kind::Images))),
            (_, None) => return Err(missing(folder, &stem(prefix, Kind::Labels))),
        };
        let ([count, height, width], pixels) = read_idx::<3>(&images_path, IMAGES_MAGIC)?;
        let ([label_count], labels) = read_idx::<1>(&labels_path, LABELS_MAGIC)?;
        if label_count != count {
            let expected = format!("{count} as in {}", images_path.display());
            return Err(Error::invalid(labels_path.display(), "number of labels", expected, label_count));
        }
        Ok(Some(Self { labels_path, pixels, shape: [height, width, 1], labels }))
    }

    fn into_set(self, classes: usize) -> Result<ImageSet> {
        if let Some((i, label)) = self.labels.iter().enumerate().find(|(_, l)| usize::from(**l) >= classes) {
            let expected = format!("below the number of classes, {classes}");
            return Err(Error::invalid(self.labels_path.display(), format!("label {i}"), expected, label));
        }
        let labels = self.labels.into_iter().map(u32::from).collect();
        ImageSet::new(self.pixels, labels, self.shape, classes)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Images,
    Labels,
}

/// Both spellings in use: `train-images-idx3-ubyte` and `train-images.idx3-ubyte`.
fn stem(prefix: &str, kind: Kind) -> [String; 2] {
    let (word, format) = match kind {
        Kind::Images => ("images", "idx3"),
        Kind::Labels => ("labels", "idx1"),
    };
    ["-", "."].map(|separator| format!("{prefix}-{word}{separator}{format}-ubyte"))
}

fn find(folder: &Path, prefix: &str, kind: Kind) -> Option<PathBuf> {
    let names = stem(prefix, kind);
    let candidates = names.iter().flat_map(|name| [name.clone(), format!("{name}.gz")]);
    candidates.map(|name| folder.join(name)).find(|path| path.is_file())
}

fn missing(folder: &Path, names: &[String; 2]) -> Error {
    Error::invalid(folder.display(), "files", format!("{} or {}.gz", names[0], names[0]), "no such file")
        .and_then_do("put MNIST-format files into the folder")
}

/// Sizes and bytes of an IDX file of unsigned bytes with `D` dimensions.
fn read_idx<const D: usize>(path: &Path, magic: u32) -> Result<([usize; D], Vec<u8>)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    read_source(Source::new(path, BufReader::new(file), length)?, magic)
}

/// Sizes and values of the bytes of an IDX file with labels (`D` = 1) or images (`D` = 3), gzip or not; `place` names
/// it in messages.
///
/// # Errors
/// If the bytes are no such file, are cut off, or are fewer or more than their header says.
pub fn idx_from_bytes<const D: usize>(place: &str, bytes: &[u8]) -> Result<([usize; D], Vec<u8>)> {
    let magic = if D == 1 { LABELS_MAGIC } else { IMAGES_MAGIC };
    read_source(Source::new(Path::new(place), Cursor::new(bytes), bytes.len() as u64)?, magic)
}

fn read_source<const D: usize>(mut source: Source, magic: u32) -> Result<([usize; D], Vec<u8>)> {
    let path = source.path;
    let found = source.read_u32("magic number")?;
    if found != magic {
        let expected = format!("{magic:#010x}");
        return Err(Error::invalid(path.display(), "magic number", expected, format!("{found:#010x}")));
    }
    let mut sizes = [0; D];
    for size in &mut sizes {
        *size = source.read_u32("dimensions")? as usize;
    }
    let claim = sizes.map(|size| size.to_string()).join(" x ");
    if sizes.contains(&0) {
        return Err(Error::invalid(path.display(), "dimensions", "at least 1 each", claim));
    }
    Ok((sizes, source.read_rest(sizes.iter().map(|size| *size as u128).product(), &claim)?))
}

/// A file being read, unpacked on the way if it is gzip.
struct Source<'a> {
    path: &'a Path,
    reader: Box<dyn Read + 'a>,
    /// No more bytes than these can be left.
    at_most: u128,
    gzip: bool,
}

impl<'a> Source<'a> {
    fn new(path: &'a Path, mut file: impl BufRead + Seek + 'a, length: u64) -> Result<Self> {
        let mut start = Vec::with_capacity(2);
        file.by_ref().take(2).read_to_end(&mut start).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        // by content, not by name: unpacked files are often left with their old names
        let gzip = start == [0x1f, 0x8b];
        let reader: Box<dyn Read> =
            if gzip { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) };
        let at_most = u128::from(length) * if gzip { u128::from(MOST_INFLATION) } else { 1 };
        Ok(Self { path, reader, at_most, gzip })
    }

    fn read_u32(&mut self, field: &'static str) -> Result<u32> {
        let mut bytes = [0; 4];
        self.reader.read_exact(&mut bytes).map_err(|error| self.failed(field, error))?;
        self.at_most = self.at_most.saturating_sub(4);
        Ok(u32::from_be_bytes(bytes))
    }

    /// Exactly `expected` bytes, which the header claims in the words `claim`.
    fn read_rest(mut self, expected: u128, claim: &str) -> Result<Vec<u8>> {
        let wrong = |path: &Path, got: String| {
            Error::invalid(
                path.display(),
                "length",
                format!("{claim} = {expected} bytes after the header"),
                got,
            )
            .and_then_do("the file is cut off or its header is wrong; fetch it again")
        };
        let fits = if self.gzip { expected <= self.at_most } else { expected == self.at_most };
        if !fits {
            let bound = if self.gzip { "at most " } else { "" };
            return Err(wrong(self.path, format!("{bound}{}", self.at_most)));
        }
        // the vector grows with what is really there; one byte more tells a file that is too long
        let mut bytes = Vec::new();
        let limit = expected as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|error| self.failed("data", error))?;
        match bytes.len() as u128 {
            length if length == expected => Ok(bytes),
            length if length < expected => Err(wrong(self.path, length.to_string())),
            _ => Err(wrong(self.path, "more".to_owned())),
        }
    }

    fn failed(&self, field: &'static str, error: std::io::Error) -> Error {
        let broken = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
        );
        match (broken, self.gzip) {
            (true, true) => Error::invalid(self.path.display(), field, "a sound gzip stream", error)
                .and_then_do("the file is cut off or damaged; fetch it again"),
            (true, false) => Error::invalid(self.path.display(), field, "a whole IDX header", error),
            (false, _) => Error::io("read", self.path)(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Images, Split};
    use std::io::Write;

    const FASHION: &str = "/usr/share/datasets/fashion-mnist";

    fn idx(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let header = [magic].into_iter().chain(sizes.iter().copied()).flat_map(u32::to_be_bytes);
        header.chain(data.iter().copied()).collect()
    }

    fn images(count: u32) -> Vec<u8> {
        let data: Vec<u8> = (0..count * 6).map(|i| (i * 7) as u8).collect();
        idx(IMAGES_MAGIC, &[count, 2, 3], &data)
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        idx(LABELS_MAGIC, &[labels.len() as u32], labels)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Opens a folder `name` of these files.
    fn open_files(name: &str, files: &[(&str, Vec<u8>)]) -> Result<Dataset> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        files.iter().for_each(|(file, bytes)| std::fs::write(folder.join(file), bytes).unwrap());
        open(&folder, |folder| About::read(Path::new(folder), None))
    }

    /// The refusal of a folder whose training files hold these bytes.
    #[track_caller]
    fn check_refused(images: Vec<u8>, labels: Vec<u8>, expected: &str) {
        let files = [("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)];
        let message = open_files("set", &files).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn both_spellings_and_both_packings_hold_the_same() {
        let i = images(20);
        let l = labels(&[1; 20]);
        let plain = [("train-images-idx3-ubyte", i.clone()), ("train-labels-idx1-ubyte", l.clone())];
        let dotted = [("train-images.idx3-ubyte.gz", gzip(&i)), ("train-labels.idx1-ubyte", gzip(&l))];
        let plain = open_files("set", &plain).unwrap();
        let dotted = open_files("set", &dotted).unwrap();
        assert_eq!(plain.hash(), dotted.hash());
        assert_eq!((plain.name(), plain.size(), plain.channels(), plain.flip()), ("set", 2, 1, false));
        assert_eq!(plain.classes(), ["0", "1"]);
        assert!(plain.split(Split::Test).is_err());
    }

    #[test]
    fn train_and_val_part_the_training_images() {
        let files = [("train-images-idx3-ubyte", images(40)), ("train-labels-idx1-ubyte", labels(&[0; 40]))];
        let set = open_files("set", &files).unwrap();
        assert_eq!((set.train().len(), set.val().len()), (36, 4));
        let pixels = |set: &Images| -> Vec<Vec<u8>> {
            let loaded = (0..set.len()).map(|i| set.load(i).unwrap());
            loaded.map(|image| image.image().unwrap().pixels().bytes().unwrap().to_vec()).collect()
        };
        let mut both = [pixels(set.train()), pixels(set.val())].concat();
        both.sort();
        both.dedup();
        assert_eq!(both.len(), 40);
    }

    #[test]
    fn names_and_flip_come_from_the_data_and_never_from_the_folders_name() {
        let about =
            "name = \"two\"\nflip = true\nclasses = [\"left\", \"right\", \"never\"]\nsource = \"mine\"\n";
        let mut files = vec![
            ("train-images-idx3-ubyte", images(2)),
            ("train-labels-idx1-ubyte", labels(&[0, 1])),
            ("t10k-images-idx3-ubyte", images(1)),
            ("t10k-labels-idx1-ubyte", labels(&[1])),
        ];
        let [fashion, other] = ["fashion", "other"].map(|name| open_files(name, &files).unwrap());
        assert_eq!((fashion.classes(), fashion.flip()), (other.classes(), other.flip()));
        assert_eq!((fashion.hash(), fashion.flip()), (other.hash(), false));
        assert!(fashion.names_and_flip_from().starts_with("nothing: there is no dataset.toml"));
        files.push((NAME, about.as_bytes().to_vec()));
        let set = open_files("other", &files).unwrap();
        assert_eq!((set.name(), set.flip(), set.source()), ("two", true, "mine"));
        assert_eq!(set.classes(), ["left", "right", "never"]);
        assert!(set.names_and_flip_from().ends_with(NAME));
        assert_eq!(set.hash(), other.hash(), "the images are the same");
        files[3] = ("t10k-labels-idx1-ubyte", labels(&[3]));
        let message = open_files("other", &files).unwrap_err().to_string();
        assert!(message.contains("t10k-labels-idx1-ubyte: label 0: expected below the number"), "{message}");
        for (text, expected) in [
            ("classes = [\"a\", \"a\"]", "classes: expected each name once, got `a` twice"),
            ("classes = []", "classes: expected a name for each, got none"),
            ("classes = 3", "text: expected `name`, `source`, `flip` and `classes` in TOML"),
        ] {
            *files.last_mut().unwrap() = (NAME, text.as_bytes().to_vec());
            let message = open_files("other", &files).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_wrong_magic_number() {
        check_refused(labels(&[0]), labels(&[0]), "expected 0x00000803, got 0x00000801");
    }

    #[test]
    fn a_file_shorter_than_its_header() {
        check_refused(images(1)[..9].to_vec(), labels(&[0]), "dimensions: expected a whole IDX header");
    }

    #[test]
    fn a_truncated_file() {
        let expected = "length: expected 3 x 2 x 3 = 18 bytes after the header, got 17";
        check_refused(images(3)[..33].to_vec(), labels(&[0; 3]), expected);
    }

    #[test]
    fn a_file_that_is_too_long() {
        check_refused([images(3), vec![0]].concat(), labels(&[0; 3]), "18 bytes after the header, got 19");
        check_refused(gzip(&[images(3), vec![0]].concat()), labels(&[0; 3]), "the header, got more");
    }

    #[test]
    fn absurd_sizes_allocate_nothing() {
        let absurd = idx(IMAGES_MAGIC, &[u32::MAX; 3], &[0; 10]);
        check_refused(
            absurd.clone(),
            labels(&[0]),
            "length: expected 4294967295 x 4294967295 x 4294967295 =",
        );
        check_refused(gzip(&absurd), labels(&[0]), "bytes after the header, got at most");
    }

    #[test]
    fn a_size_of_zero() {
        check_refused(idx(IMAGES_MAGIC, &[1, 0, 3], &[]), labels(&[0]), "at least 1 each, got 1 x 0 x 3");
    }

    #[test]
    fn counts_that_disagree() {
        check_refused(
            images(3),
            labels(&[0; 2]),
            "train-labels-idx1-ubyte: number of labels: expected 3 as in",
        );
    }

    #[test]
    fn a_label_out_of_range() {
        let files = [("train-images-idx3-ubyte", images(2)), ("train-labels-idx1-ubyte", labels(&[9, 10]))];
        let about = (
            NAME,
            b"classes = [\"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\"]".to_vec(),
        );
        let [images, labels] = files;
        let message = open_files("set", &[images, labels, about]).unwrap_err().to_string();
        assert!(message.contains("label 1: expected below the number of classes, 10, got 10"), "{message}");
    }

    #[test]
    fn a_truncated_gzip_file() {
        let mut packed = gzip(&images(300));
        packed.truncate(packed.len() * 2 / 3);
        check_refused(packed, labels(&[0; 3]), "data: expected a sound gzip stream");
        check_refused(gzip(&images(3))[..12].to_vec(), labels(&[0; 3]), "expected a sound gzip stream");
    }

    #[test]
    fn a_missing_file() {
        let message = open_files("set", &[]).unwrap_err().to_string();
        assert!(message.contains("train-images-idx3-ubyte or train-images-idx3-ubyte.gz"), "{message}");
        let one = [("train-images-idx3-ubyte", images(2))];
        let message = open_files("set", &one).unwrap_err().to_string();
        assert!(message.contains("expected train-labels-idx1-ubyte"), "{message}");
    }

    #[test]
    fn a_single_image_cannot_be_split() {
        check_refused(images(1), labels(&[0]), "training images: expected at least 2");
    }

    #[test]
    fn fashion_mnist_reads() {
        if !Path::new(FASHION).is_dir() {
            eprintln!("skipped: no {FASHION} (Debian's package dataset-fashion-mnist)");
            return;
        }
        let set = open(Path::new(FASHION), |folder| About::read(Path::new(folder), None)).unwrap();
        assert_eq!(
            (set.name(), set.classes()[9].as_str(), set.flip()),
            ("fashion-mnist", "Ankle boot", true)
        );
        assert_eq!(set.names_and_flip_from(), "the labels, which are Fashion-MNIST's");
        let test = set.split(Split::Test).unwrap();
        assert_eq!((set.train().len(), set.val().len(), test.len()), (54_000, 6_000, 10_000));
        assert_eq!((set.size(), set.channels(), set.classes().len()), (28, 1, 10));
        // the published mean and deviation of all 60,000 are 0.2860 and 0.3530
        assert!((set.normalization().mean()[0] - 0.2860).abs() < 1e-3);
        assert!((set.normalization().std()[0] - 0.3530).abs() < 1e-3);
        assert!((0..10).all(|class| test.labels().iter().filter(|label| **label == class).count() == 1000));
    }
}
