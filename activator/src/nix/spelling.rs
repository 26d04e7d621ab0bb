//! How Nix writes hashes, names in its store and texts.

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

/// `sha256:<52 digits in Nix' base 32>` as `sha256-<base 64>`.
pub(crate) fn sri(hash: &str) -> Option<String> {
    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let text = hash.strip_prefix("sha256:")?;
    let mut bytes = [0u8; 32];
    for (n, digit) in text.bytes().rev().enumerate() {
        let value = u16::try_from(DIGITS.iter().position(|known| *known == digit)?).ok()?;
        let (at, shift) = (n * 5 / 8, n * 5 % 8);
        let bits = (value << shift).to_le_bytes();
        *bytes.get_mut(at)? |= bits[0];
        match bytes.get_mut(at + 1) {
            Some(next) => *next |= bits[1],
            None if bits[1] == 0 => {}
            None => return None,
        }
    }
    (text.len() == 52).then(|| format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// The hash in the name of a tree in the store: <https://nix.dev/manual/nix/latest/protocols/store-path>.
pub(crate) fn hash_of_copy(nar_hash: &str, name: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let whole = Sha256::digest(format!("source:sha256:{nar_hash}:/nix/store:{name}"));
    let mut short = [0u8; 20];
    for (n, byte) in whole.iter().enumerate() {
        short[n % 20] ^= byte;
    }
    let digit = |n: usize| {
        let (at, shift) = (n * 5 / 8, n * 5 % 8);
        let next = short.get(at + 1).copied().unwrap_or(0);
        let bits = (u16::from(short[at]) | u16::from(next) << 8) >> shift;
        char::from(DIGITS[usize::from(bits & 31)])
    };
    (0..32).rev().map(digit).collect()
}

/// A text inside a Nix string.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        if matches!(c, '\\' | '"' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_written_as_fetchers_want_them() {
        let nix = "sha256:0bb0mhspbjmm4j3hpz64ysiqva1lyzl6gdi66j7j5r4ix4sq558a";
        assert_eq!(sri(nix).as_deref(), Some("sha256-CpWCNemR5CKPNCa2Z+j3NKiNo/bE/AuHJLXKdTWsYC0="));
        assert_eq!(sri("sha256:0bb0"), None);
        assert_eq!(sri("sha256:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"), None);
        assert_eq!(sri("md5:0bb0mhspbjmm4j3hpz64ysiqva1lyzl6gdi66j7j5r4ix4sq558a"), None);
    }

    #[test]
    fn strings_do_not_become_code() {
        assert_eq!(escaped(r#"{"a":"${x}\n"}"#), r#"{\"a\":\"\${x}\\n\"}"#);
    }
}
