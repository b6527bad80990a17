//! What a conductor says of an image.
#![no_main]

use ferric_fuzz::Input;
use ferric_fuzz::commands::Rules;
use ferric_fuzz::commands::image_info::{self, Sum};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = input.byte();
    let Ok(value) = serde_json::from_slice(input.0) else { return };
    let permitted_formats =
        if kind & 1 == 0 { Vec::new() } else { vec!["raw".to_owned(), "qcow2".to_owned()] };
    let rules = Rules { md5: kind & 2 != 0, permitted_formats, ..Rules::default() };
    match image_info::check(&value, &rules) {
        Ok(image) => {
            assert!(!image.urls.is_empty());
            assert!(image.urls.iter().all(|url| matches!(url.scheme(), "http" | "https")));
            let proxies = image.urls.iter().filter_map(|url| image.proxies.of(url));
            assert!(proxies.into_iter().all(|proxy| proxy.scheme() == "http"));
            if let Sum::Hex { algorithm: None, value } = &image.sum {
                assert!(rules.md5 || value.len() != 32, "MD5 was let in");
            }
        }
        Err(failure) => assert!(!failure.details.is_empty()),
    }
});
