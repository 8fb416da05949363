//! Files that downloads leave in place of weights and images, recognized by their first bytes.

use crate::error::{Error, Result};

/// A description of the bytes, and advice.
struct Foreign {
    what: &'static str,
    advice: &'static str,
}

const PAGE: &str = "the address leads to a page, such as a log-in or an error, and not to the file; download the file itself";
const PACKED: &str = "unpack it, and give the file within";

/// First bytes of files that hold others.
const PACKERS: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
];

fn recognize(bytes: &[u8]) -> Option<Foreign> {
    if bytes.is_empty() {
        return Some(Foreign { what: "an empty file", advice: "get or save it again" });
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        let advice = "fetch the file itself with `git lfs pull`, or download it";
        return Some(Foreign { what: "a Git LFS pointer, which stands in place of the file", advice });
    }
    if let Some((_, what)) = PACKERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(Foreign { what, advice: PACKED });
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some(Foreign { what: "a tar archive", advice: PACKED });
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let starts =
        |tag: &str| text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag.as_bytes()));
    if starts("<!doctype html") || starts("<html") {
        return Some(Foreign { what: "an HTML page", advice: PAGE });
    }
    starts("<?xml").then_some(Foreign { what: "an XML document", advice: PAGE })
}

/// Refuses bytes that are a well-known something else than `expected`; `place` names them in the message.
///
/// # Errors
/// If the bytes are such a file; the error names it.
pub(crate) fn refuse(place: &str, expected: &str, bytes: &[u8]) -> Result<()> {
    match recognize(bytes) {
        Some(Foreign { what, advice }) => {
            Err(Error::invalid(place, "content", expected, what).and_then_do(advice))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_downloads_leave_is_called_what_it_is() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, part) in [
            (&b""[..], "got an empty file; get or save it again"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 30931841\n",
                "got a Git LFS pointer, which stands in place of the file; fetch the file itself with `git lfs pull`",
            ),
            (
                b"<!DOCTYPE html><html><body>Sign in</body></html>",
                "got an HTML page; the address leads to a page",
            ),
            (b"\xef\xbb\xbf\r\n  <HTML>", "got an HTML page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "got an XML document"),
            (b"\x1f\x8b\x08\0\0", "got a gzip archive; unpack it, and give the file within"),
            (&tar, "got a tar archive"),
        ] {
            let error = refuse("net.pth", "a file of torch.save", bytes).expect_err(part).to_string();
            assert!(error.starts_with("net.pth: content: expected a file of torch.save, got "), "{error}");
            assert!(error.contains(part), "{error}");
        }
        for bytes in [&b"PK\x03\x04"[..], b"\x80\x02}", b"\x89PNG", b"<", b"version", b"{}"] {
            refuse("x", "y", bytes).expect("nothing that is known");
        }
    }
}
