//! Rectangular inputs, from training to a verified folder and a prediction.

use image::GrayImage;
use network::data::{Dataset, Images, Split};

use crate::testing::commands::{assert_fails, json};
use crate::testing::files::{read_text, scratch, write_file};
use crate::testing::tables::write_phone_rows;

/// `tiny` at 8 x 12 and 12 x 10.
fn wide() -> String {
    let text = space::preset("tiny").expect("a preset").to_toml();
    let text = text.replace("name = \"tiny\"", "name = \"wide\"");
    let wide = text.replace("resolutions = [8, 12]", "resolutions = [\"8x12\", \"12x10\"]");
    assert!(wide.contains("8x12"), "{text}");
    wide
}

#[test]
fn a_space_of_inputs_that_are_not_square_goes_all_the_way() {
    let folder = scratch();
    let at = folder.path();
    write_file(at.join("wide.toml"), wide());
    json(
        "supernet",
        at,
        "train --space wide.toml --data digits --seed 1 --scale 0.001 --out run --threads 2",
    );
    let log = read_text(at.join("run/log.jsonl"));
    assert!(log.contains("\"resolution\":\"8x12\"") && log.contains("\"resolution\":\"12x10\""), "{log}");
    let eval = "eval --supernet run/supernet.safetensors --data digits";
    let judged = json("supernet", at, &format!("{eval} --arch smallest --arch r12x10:k5e4/k3e6,k7e3"));
    assert_eq!(judged["results"][0]["arch"], "r8x12:k3e3/k3e3");
    assert_eq!(judged["results"][1]["arch"], "r12x10:k5e4/k3e6,k7e3");
    let from = "--supernet run/supernet.safetensors --data digits";
    json("supernet", at, &format!("sample {from} --count 25 --calibration-images 100 --out rows.jsonl"));
    write_phone_rows(at, "wide.toml", "phone.jsonl", 1.0);
    for line in [
        "fit --accuracy rows.jsonl --out estimator.safetensors",
        "measure --space wide.toml --rows phone.jsonl --out table.json",
        "search --space wide.toml --estimator estimator.safetensors --latency-table table.json --max-latency 1s \
         --resolutions 12x10 --extrapolate --out found.json",
        &format!("export {from} --calibration-images 100 --arch found.json --format onnx --out model"),
        &format!("verify model {from}"),
    ] {
        json("extract", at, line);
    }
    let config = read_text(at.join("model/config.json"));
    assert!(config.contains("\"resolution\": \"12x10\""), "{config}");
    let digits = Dataset::open("digits").expect("embedded");
    let Images::Pixels(set) = digits.split(Split::Test).expect("there") else { panic!("in memory") };
    let image = GrayImage::from_raw(8, 8, set.pixels(0).bytes().expect("bytes").to_vec()).expect("64 values");
    image.save(at.join("digit.png")).expect("written");
    let predicted = json("extract", at, "predict model digit.png --logits");
    let logits = predicted["predictions"][0]["logits"].as_array().map(Vec::len);
    assert_eq!(logits, Some(10), "{predicted}");
    assert_fails(
        "supernet",
        at,
        &format!("{eval} --arch r12x8:k3e3/k3e3"),
        1,
        "resolution: expected one of 8x12, 12x10, got 12x8",
    );
}
