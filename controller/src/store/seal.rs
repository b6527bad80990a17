//! Secrets at rest: sealed under a key that is not in the database.
//!
//! ChaCha20-Poly1305 with a random nonce; the node's UUID is bound in, so that a sealed text cannot be moved to another node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;

/// Seals and opens texts.
pub struct Sealer {
    key: LessSafeKey,
}

impl Sealer {
    /// Reads the key file, or makes one (mode 0600) if there is none.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not hold 32 bytes.
    pub fn from_file(path: &Path) -> io::Result<Sealer> {
        let bytes = match fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(error),
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| {
            io::Error::other(format!("{} does not hold a key of {KEY_LEN} bytes", path.display()))
        })?;
        Ok(Sealer { key: LessSafeKey::new(key) })
    }

    /// Seals `text` for `owner`.
    pub fn seal(&self, owner: &str, text: &str) -> io::Result<String> {
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
        let mut bytes = text.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut bytes)
            .map_err(|_| io::Error::other("sealing failed"))?;
        let mut out = nonce.to_vec();
        out.append(&mut bytes);
        Ok(BASE64.encode(out))
    }

    /// Opens what [`Sealer::seal`] made for the same owner under the same key; `None` for anything else.
    pub fn open(&self, owner: &str, sealed: &str) -> Option<Zeroizing<String>> {
        let bytes = BASE64.decode(sealed).ok()?;
        let (nonce, body) = bytes.split_at_checked(NONCE_LEN)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(owner), &mut body).ok()?;
        String::from_utf8(plain.to_vec()).ok().map(Zeroizing::new)
    }
}

/// Writes a new key aside, flushes it and renames it into place.
fn create(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0u8; KEY_LEN]);
    getrandom::fill(&mut key).map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
    let aside = path.with_extension("key.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_the_same_key_and_owner_open_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let sealed = Sealer::from_file(&path).unwrap().seal("node-a", "tok").unwrap();
        assert!(!sealed.contains("tok"));
        let again = Sealer::from_file(&path).unwrap();
        assert_eq!(again.open("node-a", &sealed).unwrap().as_str(), "tok");
        assert!(again.open("node-b", &sealed).is_none());
        assert!(again.open("node-a", "AAAA").is_none());
        assert!(Sealer::from_file(&dir.path().join("other.key")).unwrap().open("node-a", &sealed).is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_of_the_wrong_length_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        fs::write(&path, b"short").unwrap();
        assert!(Sealer::from_file(&path).err().unwrap().to_string().contains("32 bytes"));
    }
}
