use base::random::rng_for;

use super::*;

/// The image after an operation; its rows are given one after the other, channel by channel.
fn after(operation: Operation, magnitude: f64, extent: [usize; 2], values: &[u8]) -> Vec<u8> {
    let extent = Extent { height: extent[0], width: extent[1] };
    let mut planes: Vec<f32> = values.iter().map(|value| f32::from(*value)).collect();
    let mut picture = Picture::of(&planes, extent);
    operation.apply(&mut picture, magnitude);
    picture.write(&mut planes);
    planes.iter().map(|value| *value as u8).collect()
}

const NINE: [u8; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

#[test]
fn moves_on_three_by_three_pixels_are_those_by_hand() {
    let [x, y] = [Axis::X, Axis::Y];
    for (operation, magnitude, expected) in [
        (Operation::Identity, 0.0, NINE),
        // row y shows what is half of y + .5, rounded, to the right: 0, 1, 1
        (Operation::Shear(x), 0.5, [1, 2, 3, 5, 6, 0, 8, 9, 0]),
        (Operation::Shear(x), -0.5, [1, 2, 3, 0, 4, 5, 0, 7, 8]),
        (Operation::Shear(y), 0.5, [1, 5, 6, 4, 8, 9, 7, 0, 0]),
        (Operation::Shear(y), -0.5, [1, 0, 0, 4, 2, 3, 7, 5, 6]),
        // to the right and down; pixels are cut off to whole ones
        (Operation::Translate(x), 1.9, [0, 1, 2, 0, 4, 5, 0, 7, 8]),
        (Operation::Translate(x), -1.9, [2, 3, 0, 5, 6, 0, 8, 9, 0]),
        (Operation::Translate(y), 1.0, [0, 0, 0, 1, 2, 3, 4, 5, 6]),
        (Operation::Translate(y), -2.0, [7, 8, 9, 0, 0, 0, 0, 0, 0]),
        (Operation::Translate(x), 0.4, NINE),
        (Operation::Rotate, 90.0, [3, 6, 9, 2, 5, 8, 1, 4, 7]),
        (Operation::Rotate, -90.0, [7, 4, 1, 8, 5, 2, 9, 6, 3]),
        // corners come from 1.41 to the side of the middle, which is inside of the outer pixels' 1.5, edges from (.7, .7)
        (Operation::Rotate, 45.0, [2, 3, 6, 1, 5, 9, 4, 7, 8]),
    ] {
        assert_eq!(after(operation, magnitude, [3, 3], &NINE), expected, "{operation:?} {magnitude}");
    }
}

/// Against the definition: the pixel whose square holds the rotated center, found by looking at all of them.
#[test]
fn a_rotation_shows_the_pixel_under_the_turned_center() {
    let [height, width] = [5usize, 7];
    let values: Vec<u8> = (1..=35).collect();
    for degrees in [-30.0f64, -11.0, 3.0, 17.0, 29.0] {
        let got = after(Operation::Rotate, degrees, [height, width], &values);
        let radians = degrees * std::f64::consts::PI / 180.0;
        for (at, got) in got.iter().enumerate() {
            // as complex numbers, up positive: clockwise, to where the pixel comes from
            let right = (at % width) as f64 + 0.5 - 3.5;
            let up = 2.5 - ((at / width) as f64 + 0.5);
            let from_right = right * radians.cos() + up * radians.sin() + 3.5;
            let from_top = 2.5 - (up * radians.cos() - right * radians.sin());
            let holds = |pixel: &usize| {
                let [left, top] = [(pixel % width) as f64, (pixel / width) as f64];
                left <= from_right && from_right < left + 1.0 && top <= from_top && from_top < top + 1.0
            };
            let expected = (0..35).find(holds).map_or(0, |pixel| values[pixel]);
            assert_eq!(*got, expected, "{degrees} at {at}");
        }
    }
}

#[test]
fn factors_move_values_away_from_what_they_are_compared_with() {
    // brightness: 1.5 times, cut off
    assert_eq!(after(Operation::Brightness, 0.5, [1, 3], &[10, 101, 200]), [15, 151, 255]);
    assert_eq!(after(Operation::Brightness, -0.5, [1, 3], &[10, 101, 200]), [5, 50, 100]);
    // contrast: the mean of 10, 20, 60 is 30
    assert_eq!(after(Operation::Contrast, 0.5, [1, 3], &[10, 20, 60]), [0, 15, 75]);
    assert_eq!(after(Operation::Contrast, -0.5, [1, 3], &[10, 20, 60]), [20, 25, 45]);
    // color: .299 100 + .587 60 + .114 40 = 69.68, whole 70; half of the distance
    assert_eq!(after(Operation::Color, -0.5, [1, 1], &[100, 60, 40]), [85, 65, 55]);
    assert_eq!(after(Operation::Color, 0.5, [1, 1], &[100, 60, 40]), [115, 55, 25]);
    assert_eq!(after(Operation::Color, 0.5, [1, 3], &[100, 60, 40]), [100, 60, 40], "grey has no color");
    // the contrast of colors is around their grey: 70 of one pixel
    assert_eq!(after(Operation::Contrast, -0.5, [1, 1], &[100, 60, 40]), [85, 65, 55]);
}

#[test]
fn sharpness_moves_the_inside_away_from_its_surroundings() {
    // (8 * 10 + 5 * 114) / 13 = 50, of which 114 is 64 away
    let image = [10, 10, 10, 10, 114, 10, 10, 10, 10];
    let with = |middle: u8| [10, 10, 10, 10, middle, 10, 10, 10, 10];
    assert_eq!(after(Operation::Sharpness, 0.5, [3, 3], &image), with(146));
    assert_eq!(after(Operation::Sharpness, -0.5, [3, 3], &image), with(82));
    // (36 + 4 * 5 + 9) / 13 = 5 in the middle of 1..=9: smooth already
    assert_eq!(after(Operation::Sharpness, 0.9, [3, 3], &NINE), NINE);
    assert_eq!(after(Operation::Sharpness, 0.9, [1, 3], &[1, 90, 3]), [1, 90, 3], "all border");
}

#[test]
fn bits_and_thresholds_are_those_of_their_definition() {
    let all: Vec<u8> = (0..=255).collect();
    for bits in 1..=8u32 {
        let width = 1 << (8 - bits);
        let expected: Vec<u8> = (0..256u32).map(|value| (value / width * width) as u8).collect();
        assert_eq!(after(Operation::Posterize, f64::from(bits), [16, 16], &all), expected, "{bits}");
    }
    let solarized = after(Operation::Solarize, 178.5, [16, 16], &all);
    assert!((0..=178).all(|value| solarized[value] == value as u8));
    assert!((179..256).all(|value| solarized[value] == 255 - value as u8));
    assert_eq!(after(Operation::Solarize, 255.0, [1, 2], &[254, 255]), [254, 0]);
}

#[test]
fn contrast_is_stretched_channel_by_channel() {
    // 255 / 50 = 5.1 times the distance from 100; a constant channel remains
    let values = [100, 110, 150, 7, 7, 7];
    assert_eq!(after(Operation::AutoContrast, 0.0, [1, 3], &values), [0, 51, 255, 7, 7, 7]);
}

/// Pillow's `ImageOps.equalize`, transcribed from its description: the table's entries are (step / 2 + pixels below) / step,
/// where a step is the 255th part of the pixels other than those of the highest value.
#[test]
fn equalizing_follows_the_histogram() {
    // 600 pixels: 300 of 10, 210 of 20, 90 of 200; step = 510 / 255 = 2
    let mut values = vec![10; 300];
    values.extend([20; 210]);
    values.extend([200; 90]);
    let got = after(Operation::Equalize, 0.0, [20, 30], &values);
    // (1 + 0) / 2, (1 + 300) / 2, (1 + 510) / 2
    for (from, to) in [(0, 0), (300, 150), (510, 255)] {
        assert_eq!(got[from], to);
    }
    // a step of (509 + 1 - 1) / 255 = 1 leads beyond 255, which is the end
    let mut values: Vec<u8> = vec![3; 300];
    values.extend([4; 209]);
    values.push(5);
    let got = after(Operation::Equalize, 0.0, [1, 510], &values);
    assert_eq!([got[0], got[300], got[509]], [0, 255, 255]);
    // fewer than 255 pixels below the highest value, or one value alone
    for values in [vec![9; 400], [vec![9; 254], vec![10; 146]].concat()] {
        assert_eq!(after(Operation::Equalize, 0.0, [20, 20], &values), values);
    }
}

/// The values of `torchvision.transforms.RandAugment._augmentation_space(31, (32, 64))` as its text defines them.
#[test]
fn magnitudes_are_those_of_torchvision() {
    let extent = Extent { height: 32, width: 64 };
    for (operation, at_0, at_9, at_30, signed) in [
        (Operation::Identity, 0.0, 0.0, 0.0, false),
        (Operation::Shear(Axis::X), 0.0, 0.09, 0.3, true),
        (Operation::Shear(Axis::Y), 0.0, 0.09, 0.3, true),
        (Operation::Translate(Axis::X), 0.0, 8.700_906_344_410_876, 29.003_021_148_036_254, true),
        (Operation::Translate(Axis::Y), 0.0, 4.350_453_172_205_438, 14.501_510_574_018_127, true),
        (Operation::Rotate, 0.0, 9.0, 30.0, true),
        (Operation::Brightness, 0.0, 0.27, 0.9, true),
        (Operation::Color, 0.0, 0.27, 0.9, true),
        (Operation::Contrast, 0.0, 0.27, 0.9, true),
        (Operation::Sharpness, 0.0, 0.27, 0.9, true),
        (Operation::Posterize, 8.0, 7.0, 4.0, false),
        (Operation::Solarize, 255.0, 178.5, 0.0, false),
        (Operation::AutoContrast, 0.0, 0.0, 0.0, false),
        (Operation::Equalize, 0.0, 0.0, 0.0, false),
    ] {
        for (magnitude, expected) in [(0, at_0), (9, at_9), (30, at_30)] {
            let got = operation.magnitude(magnitude, extent);
            assert!((got - expected).abs() < 1e-9, "{operation:?} {magnitude}: {got}");
        }
        assert_eq!(operation.is_signed(), signed, "{operation:?}");
        assert_eq!(OPERATIONS.iter().filter(|one| **one == operation).count(), 1);
    }
}

#[test]
fn operations_are_drawn_with_the_generator_and_leave_bytes() {
    let extent = Extent::square(8);
    let image: Vec<f32> = (0..192).map(|at| (at * at % 251) as f32 + 0.3).collect();
    let view = |operations, seed| {
        let mut planes = image.clone();
        RandAugment { operations, magnitude: 9 }.apply(&mut planes, extent, &mut rng_for("r", seed, &[]));
        planes
    };
    let views: Vec<_> = (0..200).map(|seed| view(2, seed)).collect();
    assert!(views.iter().flatten().all(|value| value.fract() == 0.0 && (0.0..=255.0).contains(value)));
    assert_eq!(view(2, 5), views[5]);
    let rounded: Vec<f32> = image.iter().map(|value| value.round()).collect();
    let unchanged = views.iter().filter(|view| **view == rounded).count();
    // of 14 operations the identity alone never changes these pixels: about 1 of 196 views
    assert!(unchanged < 10, "{unchanged}");
}
