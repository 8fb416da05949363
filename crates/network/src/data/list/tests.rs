use super::*;
use crate::data::Dataset;
use image::{GrayImage, Luma};

/// A folder with grey images `0.png`, `1.png`, … of 8 x 6, and a list of this text.
fn data(images: u32, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..images {
        let image = GrayImage::from_fn(8, 6, |x, y| Luma([(x * 10 + y + i) as u8]));
        image.save(folder.path().join(format!("{i}.png"))).unwrap();
    }
    std::fs::write(folder.path().join("mine.csv"), text).unwrap();
    folder
}

fn opened(folder: &tempfile::TempDir) -> Result<Dataset> {
    Dataset::open(&format!("list:{}", folder.path().join("mine.csv").display()))
}

#[test]
fn a_list_says_which_images_are_of_which_class_and_split() {
    let text = "\u{feff}Path,note,label,split\r\n3.png,\"a, b\",dog,train\r\n0.png,,cat,train\r\n\
                1.png,,cat,VAL\r\n2.png,,dog,validation\r\n4.png,,cat,test\r\n5.png,,dog,testing\r\n";
    let folder = data(6, text);
    let set = opened(&folder).unwrap();
    assert_eq!((set.name(), set.classes()), ("mine", &["cat".to_string(), "dog".to_string()][..]));
    assert_eq!((set.train().labels(), set.val().labels()), (&[0, 1][..], &[0, 1][..]));
    assert!(set.in_words().contains("2 train, 2 val (those that the list says), test not opened"));
    assert_eq!(set.split(Split::Test).unwrap().labels(), [0, 1]);
    // the same images as a folder are the same data
    let tree = tempfile::tempdir().unwrap();
    for (image, at) in [("0", "train/cat"), ("3", "train/dog"), ("1", "val/cat"), ("2", "val/dog")] {
        std::fs::create_dir_all(tree.path().join(at)).unwrap();
        let name = format!("{image}.png");
        std::fs::copy(folder.path().join(&name), tree.path().join(at).join(&name)).unwrap();
    }
    let as_folder = Dataset::open(&format!("folder:{}", tree.path().display())).unwrap();
    assert_eq!(as_folder.hash(), set.hash());
}

#[test]
fn without_val_a_tenth_is_held_out() {
    let rows: String = (0..20).map(|i| format!("{i}.png,{},train\n", ["a", "b"][i % 2])).collect();
    let set = opened(&data(20, &format!("path,label,split\n{rows}"))).unwrap();
    assert_eq!((set.train().len(), set.val().labels()), (18, &[0, 1][..]));
    assert!(set.in_words().contains("a fixed tenth of each class of train"), "{}", set.in_words());
}

#[test]
fn what_is_wrong_with_a_list_is_said_with_its_line() {
    let list = "path,label,split\n0.png,a,train\n1.png,a,train\n";
    for (text, expected) in [
        ("path,label\n0.png,a\n".to_string(), "header: expected columns path, label, split, got path,label"),
        (format!("{list}2.png,a,holdout\n"), "line 4: expected a split: train, val or test, got `holdout`"),
        (format!("{list}2.png,,val\n"), "line 4: expected a label, got none"),
        (format!("{list}2.png,b,val\n"), "line 4: expected a class that has training images, got `b`"),
        (
            format!("{list}1.png,b,train\n"),
            "line 4: expected another image of the split, got 1.png as in line 3",
        ),
        (format!("{list}2.png,b,train\n3.png,a,val\n"), "val images: expected some of class `b`, got none"),
        ("path,label,split\n0.png,a,val\n".to_string(), "training images: expected at least one, got none"),
        (format!("{list}9.png,a,val\n"), "9.png: cannot read"),
    ] {
        let message = opened(&data(4, &text)).unwrap_err().to_string();
        assert!(message.contains("mine.csv: ") && message.contains(expected), "{expected}: {message}");
    }
    assert!(
        Dataset::open("list:/no/such.csv").unwrap_err().to_string().contains("/no/such.csv: cannot read")
    );
}
