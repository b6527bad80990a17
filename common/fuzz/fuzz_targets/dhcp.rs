//! DHCP messages: whatever was read is written and read again alike.
#![no_main]

use ferric_common::formats::dhcp::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = Message::parse(data) else { return };
    look(&message);
    let again = Message::parse(&message.encode()).unwrap();
    assert_eq!(again, message);
});

/// Every reading of the options.
fn look(message: &Message) {
    let _ = (message.message_type(), message.requested_ip(), message.server_id(), message.subnet_mask());
    let _ = (message.lease_seconds(), message.renewal_seconds(), message.rebind_seconds());
    let _ = (message.routers(), message.dns(), message.ntp_servers(), message.classless_routes());
    let _ = (message.hostname(), message.domain(), message.mtu(), message.vendor_class());
    let _ = (message.user_classes(), message.client_arch(), message.client_id(), message.client_uuid());
    let _ = (message.boot_file(), message.tftp_server(), message.is_ipxe(), message.ipxe_has_http());
    assert!(message.prefix_length().is_none_or(|length| length <= 32));
    assert!(message.text_option(12).is_none_or(|text| !text.contains('\0')));
}
