use super::*;

/// The values of `plain_view` before normalization, in pixel units.
fn resized(pixels: &[u8], shape: [usize; 3], resolution: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; shape[2] * resolution * resolution];
    let image = Image::new(pixels, shape).unwrap();
    draw(
        image,
        Filter::Bilinear,
        &shown(Resize::Stretch, [shape[0], shape[1]], resolution.into()),
        false,
        &mut out,
    );
    out
}

#[test]
fn resizing_to_the_same_size_is_exact() {
    for shape in [[8, 8, 1], [5, 5, 3]] {
        let [side, _, channels] = shape;
        let pixels: Vec<u8> = (0..side * side * channels).map(|i| (i * 37) as u8).collect();
        let out = resized(&pixels, shape, side);
        for (i, pixel) in pixels.iter().enumerate() {
            let position = i / channels;
            let channel = i % channels;
            assert_eq!(out[channel * side * side + position], f32::from(*pixel));
        }
    }
}

#[test]
fn a_constant_stays_constant() {
    for (height, width, resolution) in [(8, 8, 3), (8, 8, 29), (7, 19, 10), (1, 1, 4), (64, 3, 1)] {
        let out = resized(&vec![200; height * width], [height, width, 1], resolution);
        assert!(out.iter().all(|value| (value - 200.0).abs() < 1e-4), "{height} {width} {resolution}");
    }
}

/// ```python
/// from PIL import Image  # 13.0
/// for w, h, r in [(5, 4, 3), (8, 8, 2)]:
///     image = Image.new("F", (w, h))
///     image.putdata([(i * i * 13) % 256 for i in range(w * h)])
///     print([round(v, 3) for v in image.resize((r, r), Image.BILINEAR).getdata()])
/// ```
#[test]
fn resizing_agrees_with_pillow() {
    let small = [42.986, 79.678, 131.5, 78.786, 108.278, 123.643, 51.786, 111.056, 129.786];
    let smaller = [81.913, 139.189, 134.689, 130.985];
    for (height, width, resolution, expected) in [(4, 5, 3, &small[..]), (8, 8, 2, &smaller[..])] {
        let pixels: Vec<u8> = (0..height * width).map(|i| (i * i * 13 % 256) as u8).collect();
        let out = resized(&pixels, [height, width, 1], resolution);
        let near = out.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-3);
        assert!(near && out.len() == expected.len(), "{out:?}");
    }
}

/// The same for 5 x 4 pixels to 7 x 7: the first row and the last.
#[test]
fn enlarging_agrees_with_pillow() {
    let pixels: Vec<u8> = (0..20).map(|i| (i * i * 13 % 256) as u8).collect();
    let out = resized(&pixels, [4, 5, 1], 7);
    let first = [0.0, 7.429, 24.143, 52.0, 98.429, 156.0, 208.0];
    let last = [46.714, 49.429, 173.0, 132.286, 102.714, 85.0];
    for (got, want) in out.iter().zip(first).chain(out[43..].iter().zip(last)) {
        assert!((got - want).abs() < 1e-3, "{out:?}");
    }
}

#[test]
fn a_crop_reads_nothing_outside_itself() {
    let mut pixels = [255; 36];
    (2..5).for_each(|y| pixels[y * 6 + 1..y * 6 + 4].fill(10));
    let mut out = [f32::NAN; 49];
    let image = Image::new(&pixels, [6, 6, 1]).unwrap();
    draw(image, Filter::Bilinear, &[Lines::all(2, 3, 7), Lines::all(1, 3, 7)], false, &mut out);
    assert!(out.iter().all(|value| (value - 10.0).abs() < 1e-5), "{out:?}");
}

fn pattern(width: usize, height: usize) -> Vec<u8> {
    (0..height * width).map(|i| (i * i * 13 % 256) as u8).collect()
}

/// ```python
/// from PIL import Image  # 13.0
/// import math, torchvision.transforms as T
/// image = Image.new("L", (w, h)); image.putdata([(i * i * 13) % 256 for i in range(w * h)])
/// list(image.resize((r, r), Image.BILINEAR).getdata())                       # stretch
/// list(T.CenterCrop(r)(T.Resize(math.ceil(r / 0.875))(image)).getdata())     # middle
/// ```
#[test]
fn rounded_values_are_pillows_and_torchvisions() {
    let middle = Resize::Middle(0.875);
    let cases: [(usize, usize, usize, Resize, &[u8]); 6] = [
        (5, 4, 3, Resize::Stretch, &[43, 80, 132, 79, 109, 124, 52, 111, 129]),
        (
            5,
            4,
            7,
            Resize::Stretch,
            &[
                0, 7, 24, 52, 98, 156, 208, 25, 58, 82, 78, 92, 118, 144, 64, 141, 175, 120, 82, 57, 42, 45,
                91, 118, 103, 105, 120, 137, 26, 31, 49, 87, 129, 184, 233, 77, 41, 49, 140, 131, 134, 142,
                109, 47, 49, 173, 132, 103, 85,
            ],
        ),
        (8, 8, 2, Resize::Stretch, &[82, 139, 135, 131]),
        (9, 6, 4, middle, &[87, 169, 137, 140, 74, 153, 184, 79, 137, 161, 96, 133, 109, 104, 83, 171]),
        (
            5,
            12,
            5,
            middle,
            &[
                99, 52, 111, 159, 134, 103, 99, 109, 159, 186, 188, 116, 41, 86, 194, 181, 193, 82, 36, 110,
                80, 175, 147, 96, 83,
            ],
        ),
        (
            40,
            7,
            8,
            middle,
            &[
                161, 198, 167, 151, 149, 156, 177, 128, 182, 227, 203, 195, 201, 203, 187, 109, 145, 197,
                182, 182, 195, 169, 36, 57, 76, 84, 77, 85, 107, 120, 101, 153, 83, 100, 92, 45, 56, 95, 147,
                162, 159, 232, 215, 69, 57, 101, 153, 80, 88, 113, 122, 109, 141, 157, 90, 117, 38, 51, 75,
                114, 167, 178, 74, 142,
            ],
        ),
    ];
    for (width, height, resolution, resize, expected) in cases {
        let pixels = pattern(width, height);
        let image = Image::new(&pixels, [height, width, 1]).unwrap();
        let lines = shown(resize, [height, width], resolution.into());
        let mut out = vec![f32::NAN; resolution * resolution];
        draw(image, Filter::BilinearRounded, &lines, false, &mut out);
        let expected: Vec<f32> = expected.iter().map(|value| f32::from(*value)).collect();
        assert_eq!(out, expected, "{width} x {height} to {resolution}");
        let mut exact = vec![f32::NAN; resolution * resolution];
        draw(image, Filter::Bilinear, &lines, false, &mut exact);
        assert!(exact.iter().zip(&out).all(|(exact, out)| (exact - out).abs() <= 1.01), "{exact:?}");
    }
}

#[test]
fn the_middle_is_torchvisions() {
    // (height, width, resolution) -> sides after Resize, and where CenterCrop begins
    for (sides, resolution, resized, first) in [
        ([256, 256], 224, [256, 256], [16, 16]),
        ([500, 375], 224, [341, 256], [58, 16]),
        ([375, 500], 160, [183, 244], [12, 42]),
        ([10, 1000], 8, [10, 1000], [1, 496]),
        ([28, 28], 28, [32, 32], [2, 2]),
        ([1, 1], 1, [2, 2], [0, 0]),
    ] {
        let lines = shown(Resize::Middle(0.875), sides, resolution.into());
        for axis in 0..2 {
            let Lines { start, length, outputs, shown, .. } = &lines[axis];
            assert_eq!((*start, *length, *outputs), (0, sides[axis], resized[axis]), "{sides:?}");
            assert_eq!(*shown, first[axis]..first[axis] + resolution, "{sides:?}");
        }
    }
}

#[test]
fn a_mirrored_view_is_the_view_from_right_to_left() {
    let pixels = pattern(9, 6);
    let image = Image::new(&pixels, [6, 9, 1]).unwrap();
    for filter in [Filter::Bilinear, Filter::BilinearRounded] {
        let lines = shown(Resize::Middle(0.875), [6, 9], Extent::square(4));
        let [mut plain, mut mirrored] = [[0.0; 16]; 2];
        draw(image, filter, &lines, false, &mut plain);
        draw(image, filter, &lines, true, &mut mirrored);
        mirrored.chunks_exact_mut(4).for_each(<[f32]>::reverse);
        assert_eq!(plain, mirrored);
    }
}
