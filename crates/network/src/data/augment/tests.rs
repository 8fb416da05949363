use base::random::rng_for;
use rand::RngCore;

use super::*;
use crate::data::Normalization;

pub(super) fn plain(min_area: f32) -> Augmentation {
    Augmentation {
        min_area,
        min_width: None,
        ratio: RATIO,
        flip: false,
        brightness: 0.0,
        saturation: 0.0,
        jpeg_oversampling: 0.0,
        rand_augment: None,
        erasing: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
    }
}

fn unchanged(channels: usize) -> Preprocess {
    let normalization = Normalization::new(vec![0.0; channels], vec![1.0 / 255.0; channels]).unwrap();
    Preprocess::whole(normalization)
}

#[test]
fn views_are_normalized_by_channel() {
    let image = Image::new(&[0, 255, 51, 0, 255, 51], [1, 2, 3]).unwrap();
    let normalization = Normalization::new(vec![0.0, 0.5, 0.2], vec![1.0, 0.25, 2.0]).unwrap();
    let mut out = [f32::NAN; 3];
    plain_view(image, 1, &Preprocess::whole(normalization), &mut out);
    assert_eq!(out, [0.0, 2.0, 0.0]);
}

#[test]
fn a_crop_stays_inside() {
    for (height, width, min_area) in
        [(28, 28, 0.6), (8, 8, 0.8), (224, 300, 0.08), (1, 1, 0.08), (3, 90, 0.5)]
    {
        for seed in 0..200 {
            let crop = Crop::random([height, width], 1.0, &plain(min_area), &mut rng_for("crop", seed, &[]));
            assert!(crop.top + crop.height <= height && crop.left + crop.width <= width, "{crop:?}");
            assert!(crop.height > 0 && crop.width > 0, "{crop:?}");
        }
    }
}

#[test]
fn crops_that_do_not_fit_become_central() {
    let expected = Crop { top: 0, left: 43, height: 3, width: 4 };
    assert_eq!(Crop::random([3, 90], 1.0, &plain(0.9), &mut rng_for("crop", 0, &[])), expected);
    assert_eq!(Crop::central([90, 3], RATIO), Crop { top: 43, left: 0, height: 4, width: 3 });
    assert_eq!(Crop::central([9, 8], RATIO), Crop { top: 0, left: 0, height: 9, width: 8 });
}

#[test]
fn the_bounds_of_a_crop_are_the_recipes() {
    let augmentation = Augmentation { ratio: [1.0, 1.0], ..plain(0.25) };
    let sides: Vec<_> = (0..100)
        .map(|seed| Crop::random([40, 60], 1.0, &augmentation, &mut rng_for("crop", seed, &[])))
        .map(|crop| (crop.height, crop.width))
        .collect();
    assert!(sides.iter().all(|(height, width)| height == width && *height >= 24), "{sides:?}");
}

#[test]
fn half_of_the_views_are_mirrored() {
    let image = Image::new(&[0, 255, 0, 255], [2, 2, 1]).unwrap();
    let mirrored = |flip| {
        let augmentation = Augmentation { flip, ..plain(1.0) };
        let views = (0..1000).filter(|seed| {
            let mut out = [0.0; 4];
            augmentation.train_view(image, 2, &unchanged(1), &mut rng_for("v", *seed, &[]), &mut out);
            out[0] > out[1]
        });
        views.count()
    };
    assert_eq!(mirrored(false), 0);
    assert!((400..600).contains(&mirrored(true)));
}

#[test]
fn colors_vary_within_their_bounds() {
    let image = Image::new(&[100, 60, 40], [1, 1, 3]).unwrap();
    let view = |augmentation: Augmentation, seed| {
        let mut out = [0.0f32; 3];
        augmentation.train_view(image, 1, &unchanged(3), &mut rng_for("v", seed, &[]), &mut out);
        out
    };
    let grey = 100.0 * 0.299 + 60.0 * 0.587 + 40.0 * 0.114;
    let mut brightness = [f32::MAX, 0.0f32];
    let mut saturation = [f32::MAX, 0.0f32];
    let seen = |range: &mut [f32; 2], value: f32| *range = [range[0].min(value), range[1].max(value)];
    for seed in 0..500 {
        let brighter = view(Augmentation { brightness: 0.25, ..plain(1.0) }, seed);
        assert!((brighter[1] / brighter[0] - 0.6).abs() < 1e-4, "one factor for all: {brighter:?}");
        seen(&mut brightness, brighter[0] / 100.0);
        let stronger = view(Augmentation { saturation: 0.5, ..plain(1.0) }, seed);
        let kept = stronger[0] * 0.299 + stronger[1] * 0.587 + stronger[2] * 0.114;
        assert!((kept - grey).abs() < 0.1, "the brightness stays: {stronger:?}");
        seen(&mut saturation, (stronger[0] - stronger[2]) / 60.0);
    }
    assert!(
        brightness[0] >= 0.7499 && brightness[0] < 0.76 && brightness[1] > 1.24 && brightness[1] <= 1.2501
    );
    assert!(saturation[0] >= 0.499 && saturation[0] < 0.52 && saturation[1] > 1.48 && saturation[1] <= 1.501);
    let unchanged = view(plain(1.0), 1);
    assert!(unchanged.iter().zip([100.0, 60.0, 40.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{unchanged:?}");
}

#[test]
fn impossible_settings_are_refused() {
    let none = AugmentationSettings::default();
    assert!(none.check("r.toml").is_ok());
    let operations = |operations, magnitude| Some(RandAugment { operations, magnitude });
    let all = AugmentationSettings { rand_augment: operations(2, 9), erasing: Some(0.25), ..none };
    assert!(AugmentationSettings { mixup: Some(0.2), cutmix: Some(0.0), ..all }.check("r.toml").is_ok());
    for (settings, field) in [
        (AugmentationSettings { min_area: Some(0.0), ..none }, "min_area"),
        (AugmentationSettings { min_area: Some(f32::NAN), ..none }, "min_area"),
        (AugmentationSettings { ratio: Some([2.0, 1.0]), ..none }, "ratio"),
        (AugmentationSettings { brightness: Some(1.5), ..none }, "brightness"),
        (AugmentationSettings { saturation: Some(-0.1), ..none }, "saturation"),
        (AugmentationSettings { erasing: Some(1.1), ..none }, "erasing"),
        (AugmentationSettings { mixup: Some(-1.0), ..none }, "mixup"),
        (AugmentationSettings { cutmix: Some(f32::NAN), ..none }, "cutmix"),
        (AugmentationSettings { rand_augment: operations(0, 9), ..none }, "rand_augment.operations"),
        (AugmentationSettings { rand_augment: operations(2, 31), ..none }, "rand_augment.magnitude"),
    ] {
        let error = settings.check("r.toml").unwrap_err().to_string();
        assert!(error.starts_with(&format!("r.toml: augmentation.{field}: expected ")), "{error}");
    }
}

/// Views of runs without them are those of versions that did not know them: a crop and a flip are all that is drawn.
#[test]
fn what_is_off_draws_nothing() {
    let image = Image::new(&[0, 255, 51, 7, 90, 3, 80, 81, 82], [3, 3, 1]).unwrap();
    let augmentation = Augmentation { flip: true, ..plain(0.3) };
    for seed in 0..20 {
        let mut rng = rng_for("v", seed, &[]);
        augmentation.train_view(image, 3, &unchanged(1), &mut rng, &mut [0.0; 9]);
        let mut drawn = rng_for("v", seed, &[]);
        augmentation.crop([3, 3], Extent::square(3), &mut drawn);
        drawn.random_bool(0.5);
        assert_eq!(rng.next_u64(), drawn.next_u64());
    }
    let unused = || unreachable!("no generator is needed");
    assert_eq!(augmentation.mix(Extent::square(3), unused), None);
}

/// Plans of runs without them are those of versions that did not know them.
#[test]
fn what_is_off_is_not_in_a_plan() {
    let off = serde_json::to_value(plain(0.5)).unwrap();
    let fields: Vec<_> = off.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["brightness", "flip", "min_area", "ratio", "saturation"]);
    let on = Augmentation {
        rand_augment: Some(RandAugment { operations: 2, magnitude: 9 }),
        erasing: 0.25,
        mixup: 0.5,
        cutmix: 1.0,
        ..plain(0.5)
    };
    let mut json = serde_json::to_value(on).unwrap();
    assert_eq!(serde_json::from_value::<Augmentation>(json.clone()).unwrap(), on);
    let expected = serde_json::json!({
        "rand_augment": { "operations": 2, "magnitude": 9 }, "erasing": 0.25, "mixup": 0.5, "cutmix": 1.0,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(json.as_object_mut().unwrap().remove(field).as_ref(), Some(value));
    }
    assert_eq!(json, off);
}
