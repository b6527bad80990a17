//! A config drive on its way from a client into the store: built where its parts were given, packed, measured.

use super::Refusal;
use crate::configdrive::{self, ConfigDrive};
use crate::domain::node::Node;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferric_common::limits;
use serde_json::Value;
use std::io::{Read as _, Write as _};

/// A config drive as a client gives it.
pub enum Drive {
    /// A URL, or base64 of a gzipped medium.
    Text(String),
    /// The parts, from which the medium is built.
    Parts(Value),
}

/// A config drive as it is stored.
pub(super) struct Packed {
    /// A URL, or base64 of a gzipped medium without white space.
    pub text: String,
    /// Bytes of the medium; only the machine sees what is behind a URL.
    pub size: Option<u64>,
}

fn bad(text: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(format!("Invalid configdrive: {text}"))
}

/// Brings what a client gave into the stored form.
///
/// # Errors
/// What about it no machine could use.
pub(super) async fn pack(given: Drive, node: &Node) -> Result<Packed, Refusal> {
    match given {
        Drive::Text(text) => measure(text).await,
        Drive::Parts(parts) => {
            let (uuid, name) = (node.uuid.to_string(), node.name.clone());
            aside(move || build(&parts, &uuid, name.as_deref())).await
        }
    }
}

/// Reads the stored form again, for its size.
///
/// # Errors
/// As [`pack`].
pub(super) async fn measure(text: String) -> Result<Packed, Refusal> {
    if text.contains("://") {
        return Ok(Packed { text, size: None });
    }
    aside(move || unpack(&text)).await
}

/// Up to 64 MiB are packed and unpacked: not on a thread that serves requests.
async fn aside(work: impl FnOnce() -> Result<Packed, Refusal> + Send + 'static) -> Result<Packed, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(bad)?
}

fn build(parts: &Value, uuid: &str, name: Option<&str>) -> Result<Packed, Refusal> {
    let parts = ConfigDrive::from_json(parts).map_err(bad)?;
    let medium = configdrive::build(&parts, uuid, name).map_err(bad)?;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let packed = packer.write_all(&medium).and_then(|()| packer.finish()).map_err(bad)?;
    Ok(Packed { text: STANDARD.encode(packed), size: u64::try_from(medium.len()).ok() })
}

fn unpack(text: &str) -> Result<Packed, Refusal> {
    let compact: String = text.split_whitespace().collect();
    let packed =
        STANDARD.decode(&compact).map_err(|e| bad(format_args!("it is neither a URL nor base64: {e}")))?;
    let past = limits::CONFIG_DRIVE.saturating_add(1);
    let mut medium = flate2::read::MultiGzDecoder::new(packed.as_slice()).take(past);
    let size = std::io::copy(&mut medium, &mut std::io::sink())
        .map_err(|e| bad(format_args!("what its base64 holds cannot be unpacked with gzip: {e}")))?;
    match size {
        0 => Err(bad("its medium is empty")),
        size if size > limits::CONFIG_DRIVE => {
            Err(bad("its medium is larger than 64 MiB, the most that fits beside an operating system"))
        }
        size => Ok(Packed { text: compact, size: Some(size) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn zipped(bytes: &[u8]) -> String {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        STANDARD.encode(packer.finish().unwrap())
    }

    #[tokio::test]
    async fn each_form_is_stored_as_the_agent_takes_it_with_its_size() {
        let node = Node::default();
        let mut text = zipped(&[7; 5000]);
        let whole = text.clone();
        text.insert(4, '\n');
        let packed = pack(Drive::Text(text), &node).await.unwrap();
        assert_eq!((packed.text, packed.size), (whole, Some(5000)));
        let packed = pack(Drive::Text("https://h/drive".into()), &node).await.unwrap();
        assert_eq!((packed.text.as_str(), packed.size), ("https://h/drive", None));
        let parts = pack(Drive::Parts(json!({"user_data": "x"})), &node).await.unwrap();
        let again = measure(parts.text.clone()).await.unwrap();
        assert_eq!((again.text, again.size), (parts.text, parts.size));
        assert!(parts.size.is_some_and(|size| size.is_multiple_of(2048)), "a whole ISO medium");
    }

    #[tokio::test]
    async fn what_no_machine_could_use_is_refused_in_words() {
        for (text, words) in [
            ("@@@".to_string(), "neither a URL nor base64"),
            (STANDARD.encode("plain"), "cannot be unpacked with gzip"),
            (
                STANDARD.encode(&STANDARD.decode(zipped(&[7; 5000])).unwrap()[..20]),
                "cannot be unpacked with gzip",
            ),
            (zipped(&[]), "empty"),
            (zipped(&vec![0; (64 << 20) + 1]), "larger than 64 MiB"),
        ] {
            let refusal = pack(Drive::Text(text), &Node::default()).await.err().unwrap().to_string();
            assert!(refusal.starts_with("Invalid configdrive: ") && refusal.contains(words), "{refusal}");
        }
        assert!(pack(Drive::Text(zipped(&vec![0; 64 << 20])), &Node::default()).await.is_ok());
    }
}
