//! Small files, put together here instruction by instruction.

use std::io::Write;

use base::random::rng_for;
use candle_core::{DType, Device, Tensor};
use space::preset;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::elastic::SharedWeights;

mod forms;

/// A pickle of protocol 2.
#[derive(Clone)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn then(mut self, code: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(code.as_ref());
        self
    }

    fn text(self, text: &str) -> Self {
        self.then(b"X").then((text.len() as u32).to_le_bytes()).then(text)
    }

    fn int(self, value: i32) -> Self {
        self.then(b"J").then(value.to_le_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.then(format!("c{module}\n{name}\n"))
    }

    fn ints(self, values: &[i32]) -> Self {
        values.iter().fold(self.then(b"("), |pickle, value| pickle.int(*value)).then(b"t")
    }

    fn storage(self, kind: &str, key: &str, elements: i32) -> Self {
        let pickle = self.then(b"(").text("storage").global("torch", kind);
        pickle.text(key).text("cpu").int(elements).then(b"tQ")
    }

    /// A tensor of f32 in storage `0`.
    fn tensor(self, elements: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Self {
        let pickle = self.global("torch._utils", "_rebuild_tensor_v2").then(b"(");
        let pickle = pickle.storage("FloatStorage", "0", elements).int(offset).ints(shape).ints(strides);
        pickle.then([0x89]).global("collections", "OrderedDict").then(b")RtR")
    }

    fn end(self) -> Vec<u8> {
        self.then(b".").0
    }
}

/// `{"w": a tensor}`.
fn one_tensor(elements: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    Pickle::new().then(b"}").text("w").tensor(elements, offset, shape, strides).then(b"s").end()
}

fn good() -> Vec<u8> {
    one_tensor(6, 0, &[2, 3], &[3, 1])
}

/// Six values, 0 to 5.
fn data() -> Vec<u8> {
    (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files {
        writer.start_file(*name, options).expect("a file in memory");
        writer.write_all(content).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn archive(pickle: &[u8]) -> Vec<u8> {
    let files = [("x/data.pkl", pickle), ("x/byteorder", b"little"), ("x/data/0", &data())];
    zipped(&files)
}

fn legacy(object: &[u8], count: i64) -> Vec<u8> {
    let magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let mut file = Pickle::new().then([0x8a, 10]).then(magic).end();
    file.extend(Pickle::new().then(b"M").then(1001u16.to_le_bytes()).end());
    let system = Pickle::new().then(b"}").text("little_endian").then([0x88]).then(b"s");
    file.extend(system.end());
    file.extend_from_slice(object);
    file.extend(Pickle::new().then(b"]").text("0").then(b"a").end());
    file.extend(count.to_le_bytes());
    file.extend(data());
    file
}

fn refused(bytes: &[u8]) -> String {
    let error = StateDict::from_bytes("net.pth", bytes).err().expect("refused").to_string();
    assert!(error.starts_with("net.pth: "), "{error}");
    error
}

fn values(bytes: &[u8], name: &str) -> Vec<f32> {
    let state = StateDict::from_bytes("net.pth", bytes).expect("a network");
    let tensor = state.tensor(name).expect("a tensor");
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32")
}

#[test]
fn both_containers_hold_the_same() {
    for file in [archive(&good()), legacy(&good(), 6)] {
        assert_eq!(values(&file, "w"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    let turned = one_tensor(6, 1, &[2, 2], &[1, 2]);
    for file in [archive(&turned), legacy(&turned, 6)] {
        assert_eq!(values(&file, "w"), [1.0, 3.0, 2.0, 4.0]);
    }
}

#[test]
fn a_network_is_found_within_a_checkpoint() {
    let network = |entry: &str, name: &str| {
        let pickle = Pickle::new().then(b"}(").text("epoch").int(3).text("best_acc").then(b"G");
        let pickle = pickle.then(0.5f64.to_be_bytes()).text(entry).then(b"}").text(name);
        archive(&pickle.tensor(6, 0, &[6], &[1]).then(b"su").end())
    };
    for entry in ["state_dict", "model", "state_dict_ema"] {
        assert_eq!(values(&network(entry, "w").clone(), "w").len(), 6);
        assert_eq!(values(&network(entry, "module.w"), "w").len(), 6, "DataParallel's prefix");
    }
    assert!(refused(&network("weights", "w")).contains("object: expected tensors by name"));
    let file = network("state_dict", "w");
    let file = from_bytes("net.pth", file.as_slice()).expect("a checkpoint");
    let epoch = file.value().get("epoch");
    let best = file.value().get("best_acc");
    assert_eq!((epoch, best), (Some(&PickleValue::Int(3)), Some(&PickleValue::Float(0.5))));
    let Some(PickleValue::Tensor(tensor)) = file.value().get("state_dict").and_then(|state| state.get("w"))
    else {
        panic!("a tensor");
    };
    assert_eq!((tensor.shape(), tensor.element()), (&[6][..], ElementType::F32));
    assert_eq!(file.values(tensor).len(), 6);
}

#[test]
fn what_a_pickle_must_not_do_is_refused() {
    let start = Pickle::new;
    let table: Vec<(Vec<u8>, &str)> = vec![
        (start().global("posix", "system").text("ls").then([0x85]).then(b"R").end(), "got posix.system"),
        (start().global("numpy", "dtype").end(), "got numpy.dtype"),
        (start().text("os").text("system").then([0x93]).end(), "got os.system"),
        (start().global("torch", "FloatTensor").end(), "got torch.FloatTensor"),
        (start().then(b"i").end(), "an instruction that checkpoints use, got 0x69"),
        (vec![0x80, 1, b'N', b'.'], "pickle's protocol 2 to 5, got 1"),
        (start().then(b"X\xff\xff\xff\xff").end(), "4294967295 more bytes"),
        (start().then(b"X\x01\0\0\0\xff").end(), "text in UTF-8"),
        (start().global("collections", "OrderedDict").end(), "a function or class"),
        (start().storage("FloatStorage", "0", 6).end(), "a storage by itself"),
        (start().then(b"0").end(), "a value on the stack"),
        (start().then(b"N(0N").then([0x87]).end(), "a value on the stack"),
        (start().then(b"N(s").end(), "a value on the stack"),
        (start().then(b"Nt").end(), "a mark on the stack"),
        (start().then(b"h\x07").end(), "value 7 to be known"),
        (start().then(b"NNa").end(), "a list, dictionary or set to fill"),
        (start().then(b"}(Nu").end(), "a list, dictionary or set to fill"),
        (start().then(b"NNR").end(), "arguments in a tuple"),
        (start().then(b"N)R").end(), "a call that a checkpoint of tensors needs"),
        (start().then(b"NNb").end(), "a dictionary that gets a state"),
        (start().then([0x8a, 17]).end(), "a number of at most 16 bytes"),
        (start().then(b"]q\0h\0a").end(), "deep in one another"),
        (start().then(vec![b']'; 100]).then(vec![b'a'; 99]).end(), "deep in one another"),
        (start().then(b"(").text("module").then(b"NNNNtQ").end(), "a storage's type"),
    ];
    for (pickle, part) in table {
        let error = refused(&archive(&pickle));
        assert!(error.contains(part), "{part}: {error}");
        let error = refused(&legacy(&pickle, 6));
        assert!(error.contains(part), "{part}: {error}");
    }
    for (pickle, part) in
        [(start().then(b"N"), "the file is cut off"), (start().then(b"cposix"), "a line's end")]
    {
        assert!(refused(&archive(&pickle.0)).contains(part), "{part}");
    }
}

#[test]
fn shared_values_do_not_multiply() {
    // thirty lists, each of the one before, twice: a billion when written out
    let mut pickle = Pickle::new().then(b"]q\0");
    for level in 0..30u8 {
        pickle = pickle.then(b"](h").then([level]).then(b"h").then([level]).then(b"eq").then([level + 1]);
    }
    assert!(refused(&archive(&pickle.end())).contains("at most 4194304 values"));
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    let table = [
        (one_tensor(6, 0, &[7], &[1]), "within the 6 elements of storage 0"),
        (one_tensor(6, 1, &[2, 3], &[3, 1]), "within the 6 elements of storage 0"),
        (one_tensor(6, 0, &[2], &[i32::MAX]), "within the 6 elements of storage 0"),
        (one_tensor(6, -1, &[2], &[1]), "a count, got -1"),
        (one_tensor(6, 0, &[-2], &[1]), "a count, got -2"),
        (one_tensor(6, 0, &[2], &[-1]), "a count, got -1"),
        (one_tensor(6, 0, &[2, 3], &[1]), "a stride for each dimension"),
        (one_tensor(6, 0, &[1; 17], &[1; 17]), "at most 16 dimensions"),
        (one_tensor(6, 0, &[i32::MAX, i32::MAX], &[0, 0]), "as the file has bytes"),
        (one_tensor(6, 0, &[i32::MAX; 16], &[0; 16]), "as the file has bytes"),
        (one_tensor(6, 0, &[900], &[0]), ""),
        (one_tensor(7, 0, &[2], &[1]), "7 elements"),
        (one_tensor(-1, 0, &[2], &[1]), "a count, got -1"),
    ];
    for (pickle, part) in table {
        for file in [archive(&pickle), legacy(&pickle, 6)] {
            if part.is_empty() {
                // within bounds one by one: what many of them would come to is bounded too
                let many = (0..9).fold(Pickle::new().then(b"}"), |pickle, index| {
                    pickle.text(&index.to_string()).tensor(6, 0, &[900], &[0]).then(b"s")
                });
                assert!(refused(&archive(&many.end())).contains("tensors: expected at most"));
            } else {
                let error = refused(&file);
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
    assert!(values(&archive(&one_tensor(6, 9, &[0, 4], &[4, 1])), "w").is_empty());
}

#[test]
fn broken_archives_are_refused() {
    let pickle = good();
    let values = data();
    let whole = archive(&pickle);
    let at = whole.windows(values.len()).position(|part| part == values).expect("its data");
    let mut altered = whole.clone();
    altered[at] ^= 1;
    let table: Vec<(Vec<u8>, &str)> = vec![
        (whole[..whole.len() - 30].to_vec(), "a whole zip archive"),
        (altered, "crc32 of x/data/0"),
        (zipped(&[("x/data.pkl", &pickle)]), "x/data/0: expected a file of data"),
        (
            zipped(&[("x/data.pkl", &pickle), ("x/data/0", &values[4..])]),
            "6 elements of 4 bytes, got 20 bytes",
        ),
        (zipped(&[("x/data.pkl", &pickle), ("y/data.pkl", &pickle)]), "one data.pkl"),
        (zipped(&[("model.json", b"{}")]), "one data.pkl"),
        (zipped(&[("x/data.pkl", &pickle), ("x/byteorder", b"big")]), "byteorder: expected little"),
    ];
    for (file, part) in table {
        let error = refused(&file);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn files_of_an_archive_that_lie_over_one_another_are_refused() {
    let elements = 9000;
    let pickle = Pickle::new().then(b"}").text("v").storage("CharStorage", "0", elements).then(b"0");
    let pickle = pickle.storage("CharStorage", "1", elements).then(b"0N").then(b"s").end();
    let content = vec![7; elements as usize];
    let mut file = zipped(&[("x/data.pkl", &pickle), ("x/data/0", &content), ("x/data/1", b"a")]);
    let entries: Vec<usize> = (0..file.len() - 4).filter(|at| &file[*at..*at + 4] == b"PK\x01\x02").collect();
    let first = entries[1];
    let second = entries[2];
    // checksum and sizes, then where the file lies
    for part in [16..28, 42..46] {
        file.copy_within(first + part.start..first + part.end, second + part.start);
    }
    assert!(refused(&file).contains("x/data/1: expected data of its own"));
}

#[test]
fn broken_legacy_files_are_refused() {
    let whole = legacy(&good(), 6);
    let other = legacy(&one_tensor(5, 0, &[5], &[1]), 6);
    let table: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "got an empty file; get or save it again"),
        (Pickle::new().0, "the file is cut off; give a file that torch.save wrote"),
        (b"what is this?".to_vec(), "give a file that torch.save wrote"),
        (Pickle::new().then(b"N").end(), "magic number"),
        (whole[..whole.len() - 1].to_vec(), "storage 0: expected its data, got none"),
        (whole[..whole.len() - 28].to_vec(), "storage 0: expected its data, got none"),
        (legacy(&good(), 7), "storage 0: expected 6 elements, got 7"),
        (legacy(&good(), -1), "storage 0: expected 6 elements"),
        (other, "storage 0: expected 5 elements, got 6"),
        (legacy(&Pickle::new().then(b"}").end(), 6), "storage 0: expected a tensor that uses it"),
    ];
    for (file, part) in table {
        let error = refused(&file);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn old_files_may_mean_a_part_of_a_storage() {
    let part = |start: i32, length: i32| {
        let pickle = Pickle::new().then(b"}").text("w").global("torch._utils", "_rebuild_tensor_v2");
        let pickle = pickle.then(b"((").text("storage").global("torch", "FloatStorage").text("0").text("cpu");
        let pickle = pickle.int(6).then(b"(").text("1").int(start).int(length).then(b"ttQ");
        legacy(&pickle.int(1).ints(&[2]).ints(&[1]).then(b"tRs").end(), 6)
    };
    assert_eq!(values(&part(2, 3), "w"), [3.0, 4.0]);
    assert!(refused(&part(2, 2)).contains("within the 2 elements"));
    assert!(refused(&part(2, 5)).contains("a part of 6 elements"));
}

/// A state dict of the tiny space in safetensors, its names changed.
fn tiny(rename: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let space = preset("tiny").expect("a preset");
    let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
    let mut tensors = BTreeMap::new();
    for (name, tensor) in weights.tensors() {
        if let Some(norm) = name.strip_suffix(".bn.weight") {
            for last in ["running_mean", "running_var", "num_batches_tracked"] {
                tensors.extend(rename(&format!("{norm}.bn.{last}")).map(|name| (name, tensor.clone())));
            }
        }
        tensors.extend(rename(name).map(|name| (name, tensor.clone())));
    }
    safetensors::serialize(&tensors, None).expect("bytes")
}

fn imported(bytes: &[u8]) -> crate::Result<Import> {
    import(&preset("tiny").expect("a preset"), &StateDict::from_bytes("net.pth", bytes)?)
}

#[test]
fn every_generation_of_names_is_imported() {
    let own = imported(&tiny(|name| Some(name.to_string()))).expect("our own names");
    let elastic = |name: &str| match name.starts_with("blocks.") && !name.ends_with("_matrix") {
        true => name.replace(".bn.", ".bn.bn.").replace("conv.weight", "conv.conv.weight"),
        false => name.to_string(),
    };
    let older = tiny(|name| {
        let older = match name.starts_with("blocks.") {
            true => name.replacen(".conv.", ".mobile_inverted_conv.", 1),
            false => name.to_string(),
        };
        Some(elastic(&older))
    });
    for file in [tiny(|name| Some(elastic(name))), older] {
        let other = imported(&file).expect("other names");
        assert_eq!((other.matrices_read, other.matrices_identity), (own.matrices_read, 0));
        assert_eq!(other.statistics.expect("some").len(), own.statistics.as_ref().expect("some").len());
        for (name, tensor) in own.weights.tensors() {
            let got = other.weights.get(name).expect("there");
            assert_eq!(got.to_string(), tensor.to_string(), "{name}");
        }
    }
}

#[test]
fn a_static_network_gets_identities_and_no_statistics_where_it_has_none() {
    let file = tiny(|name| {
        let kept = !name.ends_with("_matrix") && !name.contains("running_");
        kept.then(|| name.to_string())
    });
    let read = imported(&file).expect("a static network");
    assert!(read.statistics.is_none() && read.matrices_read == 0 && read.matrices_identity > 0);
    let matrix = read.weights.get("blocks.1.conv.depth_conv.conv.5to3_matrix").expect("there");
    let expected = Tensor::eye(9, DType::F32, &Device::Cpu).expect("a tensor");
    assert_eq!(matrix.to_vec2::<f32>().expect("f32"), expected.to_vec2::<f32>().expect("f32"));
}

#[test]
fn what_is_missing_left_over_or_of_another_shape_is_told() {
    let error =
        |rename: &dyn Fn(&str) -> Option<String>| imported(&tiny(rename)).err().expect("refused").to_string();
    let lost = error(&|name| (!name.contains("blocks.1.conv.point_linear")).then(|| name.to_string()));
    assert!(lost.contains("tensors of space tiny, got 5 missing (blocks.1.conv.point_linear."), "{lost}");
    assert!(lost.contains(", …)") && lost.contains("--space"), "{lost}");
    let renamed = error(&|name| Some(name.replace("classifier", "head")));
    assert!(renamed.contains("2 missing (classifier.linear.weight, classifier.linear.bias)"), "{renamed}");
    assert!(renamed.contains("2 no part of it (head.linear.bias, head.linear.weight)"), "{renamed}");
    let some =
        error(&|name| (!name.contains("blocks.1.conv.depth_conv.conv.7to5")).then(|| name.to_string()));
    assert!(some.contains("1 missing (blocks.1.conv.depth_conv.conv.7to5_matrix)"), "{some}");
    let file = tiny(|name| Some(name.to_string()));
    let state = StateDict::from_bytes("net.pth", &file).expect("a network");
    let space = preset("tiny").expect("a preset").to_toml().replace("classes = 10", "classes = 12");
    let space = space::SearchSpace::from_toml("x", &space).expect("a space");
    let classes = import(&space, &state).err().expect("refused").to_string();
    assert!(classes.contains("classifier.linear.weight: expected shape [12, "), "{classes}");
    assert!(classes.contains("and 1 more of other shapes; the file has other classes"), "{classes}");
    let error = state.tensor("nothing").expect_err("refused").to_string();
    assert!(error.contains("nothing: expected a tensor of this name"), "{error}");
}

#[test]
fn two_spellings_of_one_tensor_are_refused() {
    let bytes = tiny(|name| Some(name.to_string()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a file");
    let mut tensors: BTreeMap<String, _> = file.iter().map(|(name, view)| (name.to_string(), view)).collect();
    tensors.insert("first_conv.bn.bn.bias".to_string(), tensors["first_conv.bn.bias"].clone());
    let bytes = safetensors::serialize(&tensors, None).expect("bytes");
    let error = imported(&bytes).err().expect("refused").to_string();
    assert!(error.contains("one tensor, got first_conv.bn.bias and first_conv.bn.bn.bias"), "{error}");
}
