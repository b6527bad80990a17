//! A DHCP client whose servers say anything at any time.
#![no_main]

use ferric_common::formats::dhcp::Message;
use ferric_common::ids::MacAddress;
use ferric_fuzz::Input;
use ferric_fuzz::network::client::{Action, Client, Event};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);

fuzz_target!(|data: &[u8]| {
    let (mut input, mut client) = (Input(data), Client::new(MAC));
    let mut now = Duration::from_secs(100);
    let mut asked = None;
    while !input.0.is_empty() {
        let kind = input.byte();
        let event = match kind % 4 {
            0 => Event::LinkUp,
            1 => Event::LinkDown,
            2 => {
                now = now.max(client.deadline().min(now + Duration::from_secs(1 << 20)));
                Event::Timeout
            }
            _ => {
                let length = usize::from(input.byte()) * 4;
                let (bytes, rest) = input.0.split_at(length.min(input.0.len()));
                input.0 = rest;
                match answer(bytes, asked.as_ref()) {
                    Some(message) => Event::Received(message),
                    None => continue,
                }
            }
        };
        for action in client.on(event, now, u32::from(kind) << 24) {
            match action {
                Action::Broadcast { message, .. } | Action::Unicast { message, .. } => {
                    assert_eq!(Message::parse(&message.encode()).as_ref(), Ok(&message));
                    asked = Some(message);
                }
                Action::Configure(lease) => {
                    assert!(lease.prefix <= 32 && !lease.address.is_unspecified());
                }
                Action::Remove(_) | Action::Say(_) => {}
            }
        }
        now += Duration::from_millis(u64::from(kind));
    }
});

/// A message to this client: any, or the options of one in the answer to what was asked last.
fn answer(bytes: &[u8], asked: Option<&Message>) -> Option<Message> {
    let mut message = Message::parse(bytes).ok()?;
    if let Some(asked) = asked {
        message.op = asked.reply(asked.message_type()?).op;
        (message.xid, message.chaddr) = (asked.xid, asked.chaddr);
    }
    Some(message)
}
