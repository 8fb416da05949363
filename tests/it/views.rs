//! Preprocessing belongs to the weights: it is the same in training, export, prediction, Python and ONNX, whatever the data
//! folder says.

use std::path::Path;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::Value;

use crate::testing::commands::{assert_fails, fails, json};
use crate::testing::files::{plan_of, read_json, scratch, write_file};
use crate::testing::python::{assert_logits, logits, python_with, run_script};

const SPACE: &str = r#"
version = 1
name = "views"
family = "mobilenet-v3"
classes = 2
input_channels = 3
resolutions = [16]
kernel = [3]
expand = [1, 2]
depth = [1]
stem = { channels = 8, stride = 2, activation = "relu" }
first_block = { channels = 8, activation = "relu" }
stages = [{ channels = 8, stride = 2, activation = "h_swish", squeeze_excite = true }]
head = { expand_channels = 8, feature_channels = 8, activation = "h_swish" }
"#;

const RECIPE: &str = r#"
version = 1
name = "views"
batch = 4
lr_batch = 4
momentum = 0.9
weight_decay = 3e-5
label_smoothing = 0.1
augmentation = { min_area = 0.5, saturation = 0.0 }

[[phases]]
name = "full"
allowed = { kernel = 1, depth = 1, expand = 1 }
subnetworks = 1
epochs = 2
warmup_epochs = 0
lr = 0.01
distill = false
sort_channels = false
"#;

/// A picture with a different color in each corner.
fn picture(width: u32, height: u32, tint: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let share = |at: u32, length: u32| (at * 255 / length) as u8;
        Rgb([share(x, width), share(y, height), (x * y % 97) as u8].map(|value| value.saturating_add(tint)))
    })
}

/// Writes a folder of twelve pictures per class.
fn folder(at: &Path, name: &str, classes: [&str; 2], tint: u8) {
    for (index, class) in classes.into_iter().enumerate() {
        let to = at.join(name).join("train").join(class);
        std::fs::create_dir_all(&to).expect("a folder");
        for i in 0..12 {
            let picture = picture(18 + i, 30 - i, tint + 40 * index as u8);
            picture.save(to.join(format!("{i:02}.png"))).expect("written");
        }
    }
}

/// A PNG with this orientation in its EXIF data.
fn turned_png(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, ImageFormat::Png).expect("encoded");
    let bytes = bytes.into_inner();
    let tiff =
        [&b"II\x2a\0\x08\0\0\0"[..], &[1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0]];
    let chunk = [&b"eXIf"[..], &tiff.concat()].concat();
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1)));
    }
    let length = (chunk.len() as u32 - 4).to_be_bytes();
    let header = 8 + 25; // signature and IHDR
    [&bytes[..header], &length, &chunk, &(!crc).to_be_bytes(), &bytes[header..]].concat()
}

/// The picture as stored so that this orientation restores it.
fn stored(image: &RgbImage, orientation: u8) -> RgbImage {
    use image::imageops::{flip_horizontal, flip_vertical, rotate90, rotate180, rotate270};
    match orientation {
        2 => flip_horizontal(image),
        3 => rotate180(image),
        4 => flip_vertical(image),
        5 => flip_horizontal(&rotate90(image)),
        6 => rotate270(image),
        7 => flip_horizontal(&rotate270(image)),
        8 => rotate90(image),
        _ => image.clone(),
    }
}

/// A folder with a supernet trained on `images`, and its largest network exported as `model`.
fn trained() -> tempfile::TempDir {
    let folder_of = scratch();
    let at = folder_of.path();
    write_file(at.join("space.toml"), SPACE);
    write_file(at.join("recipe.toml"), RECIPE);
    folder(at, "images", ["cat", "dog"], 0);
    json("supernet", at, "train --space space.toml --recipe recipe.toml --data folder:images --out run");
    export(at, "images", "model");
    folder_of
}

fn export(at: &Path, images: &str, out: &str) -> Value {
    let export = "export --supernet run/supernet.safetensors --arch largest --format onnx";
    json("extract", at, &format!("{export} --data folder:{images} --out {out}"));
    config(at, out)
}

fn config(at: &Path, model: &str) -> Value {
    read_json(at.join(model).join("config.json"))
}

fn predicted(at: &Path, image: &str) -> Vec<f64> {
    logits(&json("extract", at, &format!("predict model {image} --logits"))["predictions"][0]["logits"])
}

#[test]
fn what_is_seen_is_the_supernets_and_not_the_folders() {
    let made = trained();
    let at = made.path();
    let input = &config(at, "model")["input"];
    assert_eq!(
        (&input["orient"], &input["grey"], &input["filter"]),
        (&"exif".into(), &"rec601".into(), &"bilinear_rounded".into())
    );
    assert_eq!(input["resize"], serde_json::json!({ "middle": 0.875 }));
    // fields of the recipe, and defaults that come from the data
    let plan = plan_of(&at.join("run"));
    let varied = &plan["plan"]["augmentation"];
    assert_eq!((&varied["min_area"], &varied["saturation"]), (&0.5.into(), &0.0.into()));
    assert_eq!(varied["flip"], true);
    assert!((varied["brightness"].as_f64().expect("a number") - 32.0 / 255.0).abs() < 1e-6);
    // a folder with a tint, and one with other names in the other order
    folder(at, "tinted", ["cat", "dog"], 90);
    assert_eq!(&export(at, "tinted", "tinted-model")["input"], input);
    folder(at, "renamed", ["ant", "bee"], 0);
    let eval = "eval --supernet run/supernet.safetensors --arch largest";
    assert_fails(
        "supernet",
        at,
        &format!("{eval} --data folder:renamed"),
        1,
        "class 1: expected `cat` or another of its, got `ant`",
    );
    // all of it on request, and in the resume of such a run
    let train =
        "train --space space.toml --recipe recipe.toml --data folder:images --out stretched --resize stretch";
    json("supernet", at, train);
    json("supernet", at, &format!("{train} --resume"));
    let refused = fails("supernet", at, &format!("{train} --resume").replace("--resize stretch", ""), 1);
    assert!(refused.contains("preprocess: expected ") && refused.contains("\"stretch\""), "{refused}");
    let tuned = "finetune model --data folder:tinted --out tuned --epochs 1 --batch 4";
    json("supernet", at, tuned);
    assert_eq!(&config(at, "tuned")["input"], input);
}

#[test]
fn the_same_picture_gives_the_same_logits_whichever_way_it_is_stored() {
    let made = trained();
    let at = made.path();
    for (width, height) in [(40, 30), (30, 40), (64, 20), (33, 33)] {
        let picture = picture(width, height, 0);
        picture.save(at.join("upright.png")).expect("written");
        let upright = predicted(at, "upright.png");
        for orientation in 1..=8 {
            write_file(at.join("turned.png"), turned_png(&stored(&picture, orientation), orientation));
            assert_eq!(predicted(at, "turned.png"), upright, "{width} x {height}, orientation {orientation}");
        }
    }
}

#[test]
fn python_sees_the_same_through_config_and_onnx() {
    let scripts = [("predict.py", "PIL, numpy, safetensors"), ("run_onnx.py", "PIL, numpy, onnxruntime")];
    let scripts = scripts.map(|(script, modules)| (script, python_with(script, modules)));
    if scripts.iter().all(|(_, python)| python.is_none()) {
        return;
    }
    let made = trained();
    let at = made.path();
    for (width, height, orientation) in [(40, 30, 1), (30, 40, 6), (70, 20, 3)] {
        let picture = picture(width, height, 0);
        write_file(at.join("picture.png"), turned_png(&picture, orientation));
        DynamicImage::from(picture).to_luma8().save(at.join("grey.png")).expect("written");
        for image in ["picture.png", "grey.png"] {
            let expected = predicted(at, image);
            for (script, python) in &scripts {
                let Some(python) = python else { continue };
                assert_logits(script, &run_script(at, python, script, &["model", image]), &expected);
            }
        }
    }
}
