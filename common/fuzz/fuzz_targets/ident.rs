//! The pages in which a disk says who it is.
#![no_main]

use ferric_fuzz::inventory::ident;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let plain = |text: &str| text.bytes().all(|b| (b' '..0x7f).contains(&b)) && !text.is_empty();
    assert!(ident::unit_serial(data).is_none_or(|serial| plain(&serial)));
    let found = ident::identification(data);
    for text in [found.wwn, found.vendor_extension, found.with_extension].into_iter().flatten() {
        assert!(text.starts_with("0x") && plain(&text));
    }
    if let Some(ata) = ident::ata_identity(data) {
        assert!([ata.model, ata.serial, ata.wwn].into_iter().flatten().all(|text| plain(&text)));
    }
});
