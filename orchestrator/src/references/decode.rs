//! A fetched file that is in base64: decoded piece by piece beside itself, then put in its own place. Blocks.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters that are decoded at once; a multiple of four, so that pieces decode on their own.
const PIECE: usize = 64 * 1024;

/// Decodes the file and answers its new size in bytes. What is no base64 is an error of the kind `InvalidData`.
pub(super) fn base64(path: &Path) -> io::Result<u64> {
    let beside = path.with_extension("decoded");
    let result = decode(path, &beside).and_then(|bytes| fs::rename(&beside, path).map(|()| bytes));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

fn decode(from: &Path, to: &Path) -> io::Result<u64> {
    let wrong = |error: base64::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut source = File::open(from)?;
    let mut target = BufWriter::new(File::create_new(to)?);
    let mut buffer = vec![0; PIECE];
    let mut digits = Vec::with_capacity(2 * PIECE);
    let mut bytes = 0;
    loop {
        let read = source.read(&mut buffer)?;
        digits.extend(buffer[..read].iter().filter(|byte| !byte.is_ascii_whitespace()));
        // Padding in the middle is an error, as it should be.
        let whole = if read == 0 { digits.len() } else { digits.len() / 4 * 4 };
        let decoded = STANDARD.decode(&digits[..whole]).map_err(wrong)?;
        digits.drain(..whole);
        // Padding ends the text; what follows would be hidden in the next piece.
        if decoded.len() < whole / 4 * 3 && !(digits.is_empty() && rest_is_blank(&mut source)?) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "data after the padding"));
        }
        target.write_all(&decoded)?;
        bytes += decoded.len() as u64;
        if read == 0 {
            break;
        }
    }
    target.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(bytes)
}

fn rest_is_blank(source: &mut File) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|byte| !byte.is_ascii_whitespace()) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8]) -> io::Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("1-fetched");
        fs::write(&file, text).unwrap();
        let bytes = base64(&file)?;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let decoded = fs::read(&file).unwrap();
        assert_eq!(bytes, decoded.len() as u64);
        Ok(decoded)
    }

    #[test]
    fn pieces_of_any_size_are_decoded_and_nothing_hides_behind_the_end() {
        for length in [0, 1, 2, 3, 48 * 1024, 48 * 1024 + 1, 200_000] {
            let bytes: Vec<u8> = (0..length).map(|n: usize| n.to_le_bytes()[0]).collect();
            let text = STANDARD.encode(&bytes);
            assert_eq!(check(text.as_bytes()).unwrap(), bytes, "{length}");
            let lines: Vec<&[u8]> = text.as_bytes().chunks(76).collect();
            assert_eq!(
                check(&[lines.join(&b"\r\n"[..]), b"\n".to_vec()].concat()).unwrap(),
                bytes,
                "{length}"
            );
        }
        let padded = [STANDARD.encode([b'x'; 48 * 1024 - 1]).into_bytes(), b"eA==".to_vec()].concat();
        for wrong in [&b"a"[..], b"<a/>", b"eA==eA==", b"eA", &padded] {
            assert_eq!(check(wrong).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
