//! The forms that checkpoints have in the wild: wrapped names, several networks, archives of every make, and files that
//! are none.

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::*;

/// A file of an archive: its name, its content, and how it is compressed.
type Member<'a> = (&'a str, &'a [u8], u16);

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

fn packed(content: &[u8], method: u16) -> Vec<u8> {
    if method != DEFLATED {
        return content.to_vec();
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// A zip archive, byte by byte as PyTorch writes one: with records of zip64 that the end record does not need, and with
/// zeros for checksums if those are switched off.
fn torch_zip(members: &[Member], checksums: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, content, method) in members {
        let packed = packed(content, *method);
        let crc = if checksums { crc32fast::hash(content) } else { 0 };
        // version, flags, method, time, date, checksum, both lengths, those of name and extra field
        let mut common = [20u16, 0x800, *method, 0, 0].map(u16::to_le_bytes).concat();
        common.extend([crc, packed.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat());
        common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(name.bytes());
        file.extend(packed);
    }
    let start = file.len();
    let count = members.len();
    file.extend(&directory);
    let zip64 = file.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend(44u64.to_le_bytes());
    file.extend([45u16, 45].map(u16::to_le_bytes).concat());
    file.extend([0u32, 0].map(u32::to_le_bytes).concat());
    file.extend([count, count, directory.len(), start].map(|number| (number as u64).to_le_bytes()).concat());
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(zip64.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count as u16, count as u16].map(u16::to_le_bytes).concat());
    file.extend([directory.len() as u32, start as u32].map(u32::to_le_bytes).concat());
    file.extend([0; 2]);
    file
}

const SIX: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

#[test]
fn a_folder_may_have_a_name_of_any_length() {
    for letters in 1..=60 {
        let root = "n".repeat(letters);
        let names = ["data.pkl", "byteorder", "data/0"].map(|name| format!("{root}/{name}"));
        let [pickle, order, storage] = &names;
        let members: [Member; 3] =
            [(pickle, &good(), STORED), (order, b"little", STORED), (storage, &data(), STORED)];
        assert_eq!(values(&torch_zip(&members, true), "w"), SIX, "{letters} letters");
    }
}

#[test]
fn archives_without_checksums_are_read() {
    let pickle = good();
    let values_of_w = data();
    let members: [Member; 2] = [("x/data.pkl", &pickle, STORED), ("x/data/0", &values_of_w, STORED)];
    let mut file = torch_zip(&members, false);
    assert_eq!(values(&file, "w"), SIX);
    // one checksum that is there makes the others count
    let directory = file.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    file[directory + 16..directory + 20].copy_from_slice(&crc32fast::hash(&pickle).to_le_bytes());
    assert!(refused(&file).contains("crc32 of x/data/0: expected 00000000"));
}

#[test]
fn archives_that_were_compressed_again_are_read() {
    let pickle = good();
    let values_of_w = data();
    for [first, second] in [[DEFLATED, DEFLATED], [STORED, DEFLATED], [DEFLATED, STORED]] {
        let members: [Member; 2] = [("x/data.pkl", &pickle, first), ("x/data/0", &values_of_w, second)];
        for checksums in [true, false] {
            assert_eq!(values(&torch_zip(&members, checksums), "w"), SIX);
        }
    }
    let members: [Member; 2] = [("x/data.pkl", &pickle, DEFLATED), ("x/data/0", &values_of_w, DEFLATED)];
    let whole = torch_zip(&members, true);
    let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    let length = directory + 24;
    for (bytes, part) in [
        ((length, 1), "x/data.pkl: expected"),
        ((30 + 10 + 20, 0xff), "the file is damaged"),
        ((directory + 16, 1), "crc32 of x/data.pkl"),
    ] {
        let mut altered = whole.clone();
        altered[bytes.0] ^= bytes.1;
        let error = refused(&altered);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn an_archive_does_not_grow_without_bounds() {
    let zeros = vec![0; 1 << 20];
    let bomb = torch_zip(&[("x/data.pkl", &good(), DEFLATED), ("x/data/0", &zeros, DEFLATED)], true);
    assert!(bomb.len() < 10_000);
    assert!(refused(&bomb).contains("archive: expected files of at most 32 times the archive's"));
    // longer than it says
    let mut liar = torch_zip(&[("x/data.pkl", &zeros[..4000], DEFLATED)], true);
    let directory = liar.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    liar[directory + 24..directory + 28].copy_from_slice(&100u32.to_le_bytes());
    assert!(refused(&liar).contains("x/data.pkl: expected 100 bytes when unpacked, got more"));
    let bzip2 = torch_zip(&[("x/data.pkl", &good(), 12)], true);
    assert!(refused(&bzip2).contains("x/data.pkl: expected a file as it is, or deflated, got"));
}

/// A dictionary of tensors with these names.
fn network(pickle: Pickle, names: &[&str]) -> Pickle {
    names
        .iter()
        .fold(pickle.then(b"}("), |pickle: Pickle, name: &&str| pickle.text(name).tensor(6, 0, &[6], &[1]))
        .then(b"u")
}

#[test]
fn what_wraps_a_network_is_stripped_and_named() {
    for (names, prefix, stripped) in [
        (["module.a.w", "module.b.w"], "module.", ["a.w", "b.w"]),
        (["_orig_mod.a.w", "_orig_mod.b.w"], "_orig_mod.", ["a.w", "b.w"]),
        (["module._orig_mod.a.w", "module._orig_mod.b.w"], "module._orig_mod.", ["a.w", "b.w"]),
        (["_orig_mod.module.a.w", "_orig_mod.module.b.w"], "_orig_mod.module.", ["a.w", "b.w"]),
        (["model.backbone.a.w", "model.backbone.b.w"], "model.backbone.", ["a.w", "b.w"]),
        (["my_net.a.w", "my_net.b.w"], "my_net.", ["a.w", "b.w"]),
        (["model.0.weight", "model.2.weight"], "model.", ["0.weight", "2.weight"]),
        // a list of modules is a part of the network
        (["layers.0.0.weight", "layers.1.weight"], "", ["layers.0.0.weight", "layers.1.weight"]),
        (["module.layers.0.w", "module.layers.1.w"], "module.", ["layers.0.w", "layers.1.w"]),
        (["module.a.w", "b.w"], "", ["b.w", "module.a.w"]),
        (["a.w", "ab.w"], "", ["a.w", "ab.w"]),
        (["module.", "module.x"], "", ["module.", "module.x"]),
    ] {
        let file = archive(&network(Pickle::new(), &names).end());
        let state = StateDict::from_bytes("net.pth", &file).expect("a network");
        assert_eq!(state.names().collect::<Vec<_>>(), stripped);
        assert_eq!(state.prefix(), prefix);
        assert_eq!(values(&file, stripped[0]), SIX);
    }
}

#[test]
fn one_of_several_networks_can_be_chosen() {
    let both = Pickle::new().then(b"}(").text("epoch").int(3).text("state_dict");
    let both = network(network(both, &["w"]).text("state_dict_ema"), &["module.v"]).then(b"u").end();
    let file = archive(&both);
    let usual = StateDict::from_bytes("net.pth", &file).expect("a network");
    assert_eq!(usual.names().collect::<Vec<_>>(), ["w"]);
    let entries =
        Entries { path: vec!["state_dict".to_string()], others: vec!["state_dict_ema".to_string()] };
    assert_eq!(usual.entries(), &entries);
    let chosen = StateDict::entry_from_bytes("net.pth", &file, "state_dict_ema").expect("a network");
    assert_eq!((chosen.names().collect::<Vec<_>>(), chosen.prefix()), (vec!["v"], "module."));
    assert_eq!(chosen.entries(), &Entries { path: vec!["state_dict_ema".to_string()], others: Vec::new() });
    let refuse = |file: &[u8], key: &str| {
        StateDict::entry_from_bytes("net.pth", file, key).err().expect("refused").to_string()
    };
    let error = refuse(&file, "epoch");
    assert!(
        error.contains("expected an entry epoch that holds a network, got state_dict, state_dict_ema"),
        "{error}"
    );

    let inner = network(Pickle::new().then(b"}").text("model").then(b"}").text("state_dict"), &["w"]);
    let nested = archive(&inner.then(b"ss").end());
    let state = StateDict::from_bytes("net.pth", &nested).expect("a network");
    assert_eq!(state.entries().path, ["model", "state_dict"]);

    let unusual = Pickle::new().then(b"}(").text("teacher");
    let unusual = network(network(unusual, &["w"]).text("student"), &["w"]).then(b"u").end();
    let error = refused(&archive(&unusual));
    assert!(error.ends_with("choose one of its entries with --key: teacher, student"), "{error}");
    let student = archive(&unusual);
    let student = StateDict::entry_from_bytes("net.pth", &student, "student").expect("a network");
    assert_eq!(student.entries().path, ["student"]);

    let named = Pickle::new().then(b"}(").text("model").text("ofa").text("net");
    let named = archive(&network(named, &["w"]).then(b"u").end());
    assert_eq!(values(&named, "w"), SIX, "a text is no network");
    let error = refuse(&tiny(|name| Some(name.to_string())), "state_dict");
    assert!(error.contains("safetensors, which have no entries; leave --key out"), "{error}");
}

/// The value under `x` next to a network.
fn beside(value: Pickle) -> crate::Result<PickleValue> {
    let pickle = network(value.then(b"s").text("state_dict"), &["w"]).then(b"s").end();
    let file = archive(&pickle);
    let file = from_bytes("net.pth", file.as_slice())?;
    Ok(file.value().get("x").cloned().expect("it is there"))
}

fn x() -> Pickle {
    Pickle::new().then(b"}").text("x")
}

#[test]
fn plain_values_beside_a_network_are_read() {
    let text = |text: &str| PickleValue::Text(text.into());
    let bytes = |bytes: &[u8]| PickleValue::Bytes(bytes.into());
    let encoded = |pickle: Pickle, letters: &str| {
        pickle.global("_codecs", "encode").text(letters).text("latin1").then([0x86]).then(b"R")
    };
    let table = [
        // as protocol 2 writes them, which is PyTorch's
        (
            x().global("__builtin__", "set").then(b"]").text("a").then(b"a").then([0x85]).then(b"R"),
            PickleValue::Set(vec![text("a")]),
        ),
        (x().global("__builtin__", "set").then(b")R"), PickleValue::Set(Vec::new())),
        (
            x().global("__builtin__", "frozenset").then(b"]K\x01a").then([0x85]).then(b"R"),
            PickleValue::Set(vec![PickleValue::Int(1)]),
        ),
        (x().global("torch", "float16"), text("torch.float16")),
        (x().global("torch", "bfloat16"), text("torch.bfloat16")),
        (encoded(x(), "abc\u{ff}"), bytes(b"abc\xff")),
        (encoded(x().global("__builtin__", "bytearray"), "xy").then([0x85]).then(b"R"), bytes(b"xy")),
        (x().global("__builtin__", "bytearray").then(b")R"), bytes(b"")),
        (
            x().global("__builtin__", "complex")
                .then(b"G")
                .then(1f64.to_be_bytes())
                .then(b"G")
                .then(2f64.to_be_bytes())
                .then([0x86])
                .then(b"R"),
            PickleValue::Tuple(vec![PickleValue::Float(1.0), PickleValue::Float(2.0)]),
        ),
        // as later ones do
        (x().then([0x8f]).then(b"(").text("a").then([0x90]), PickleValue::Set(vec![text("a")])),
        (x().then(b"(K\x01").then([0x91]), PickleValue::Set(vec![PickleValue::Int(1)])),
        (x().then(b"C\x03ab\xff"), bytes(b"ab\xff")),
        (x().then(b"B\x01\0\0\0a"), bytes(b"a")),
        (x().then([0x96]).then(2u64.to_le_bytes()).then(b"xy"), bytes(b"xy")),
        (x().global("builtins", "set").then(b")R"), PickleValue::Set(Vec::new())),
    ];
    for (pickle, expected) in table {
        assert_eq!(beside(pickle).expect("plain"), expected);
    }
}

#[test]
fn what_only_looks_like_a_plain_value_is_refused() {
    for (pickle, part) in [
        (x().global("__builtin__", "eval").text("1").then([0x85]).then(b"R"), "got __builtin__.eval"),
        (x().global("builtins", "getattr"), "got builtins.getattr"),
        (x().global("torch", "load"), "got torch.load"),
        (x().global("torch", "float"), "got torch.float"),
        (x().global("__builtin__", "set"), "a function or class"),
        (x().global("__builtin__", "set").text("ab").then([0x85]).then(b"R"), "a set's items in a list"),
        (
            x().global("__builtin__", "set").then(b"]]").then([0x86]).then(b"R"),
            "a set's items in one list, got more",
        ),
        (
            x().global("_codecs", "encode").text("\u{100}").text("latin1").then([0x86]).then(b"R"),
            "letters of Latin-1",
        ),
        (
            x().global("__builtin__", "bytearray").text("a").then([0x85]).then(b"R"),
            "a call that a checkpoint",
        ),
        (x().global("__builtin__", "complex").then(b")R"), "a call that a checkpoint"),
        (x().then(b"](K\x01").then([0x90]), "a list, dictionary or set to fill"),
        (x().then([0x8f]).then(b"q\0(h\0").then([0x90]), "deep in one another"),
        (x().then(b"C\xff"), "255 more bytes"),
    ] {
        let error = beside(pickle).expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn files_that_are_none_are_called_what_they_are() {
    let script: [Member; 3] = [
        ("x/data.pkl", b"\x80\x02c__torch__.torch.nn\nLinear\n.", STORED),
        ("x/code/__torch__.py", b"class Linear(Module):", DEFLATED),
        ("x/constants.pkl", b"\x80\x02).", STORED),
    ];
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &good()].concat();
    for (file, part) in [
        (torch_zip(&script, true), "got a TorchScript program, as torch.jit.save writes; save its tensors"),
        (
            torch_zip(&[("w.npy", b"\x93NUMPY", STORED)], true),
            "got arrays of numpy.savez; save them as safetensors",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n".to_vec(),
            "a Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html></html>".to_vec(), "got an HTML page"),
        (gzip, "got a gzip archive; unpack it"),
    ] {
        let error = refused(&file);
        assert!(error.contains(part), "{part}: {error}");
    }
}
