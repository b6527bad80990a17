//! MAC addresses, identifiers, digests, versions and names of formats.
#![no_main]

use ferric_common::ids::{AgentToken, Digest, DigestAlgorithm, MacAddress, NodeUuid};
use ferric_common::images::{ImageFormat, Packing};
use ferric_common::wire::version::ApiVersion;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Packing::found(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(mac) = text.parse::<MacAddress>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
    if let Ok(uuid) = text.parse::<NodeUuid>() {
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
    }
    if let Ok(version) = text.parse::<ApiVersion>() {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    if let Some(algorithm) = DigestAlgorithm::from_hex_len(text.len())
        && let Ok(digest) = Digest::from_hex(algorithm, text)
    {
        assert_eq!(digest.hex(), text.to_ascii_lowercase());
    }
    if let Ok(format) = text.parse::<ImageFormat>() {
        assert_eq!(format.named(text), format.named(text));
    }
    if let Some(token) = AgentToken::new(text) {
        assert!(token.matches(text) && !token.matches(&text[..0]));
    }
});
