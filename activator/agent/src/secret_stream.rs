//! Reading streams that have secrets in them.

use zeroize::Zeroizing;

/// Reads a stream to its end. Every buffer is wiped when it is dropped, also those that were too small.
pub(crate) fn read_secret(mut stream: impl std::io::Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; 64 << 10]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_any_length_is_read_whole() {
        for length in [0, 1, 64 << 10, (64 << 10) + 1, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            assert!(*read_secret(bytes.as_slice()).unwrap() == bytes, "{length}");
        }
    }
}
