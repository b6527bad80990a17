//! The set-up of a session with a BMC, with codes as they come and made right.
#![no_main]

use ferric_fuzz::Input;
use ferric_fuzz::drivers::ipmi::rakp::{self, Login, Opened, Privilege, Rakp2, Secret, Suite};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = input.byte();
    let suite = [Suite::Seventeen, Suite::Three][usize::from(kind & 1)];
    let login = Login {
        user: "admin".into(),
        password: Secret::new(b"secret".to_vec()),
        bmc_key: (kind & 2 != 0).then(|| Secret::new(vec![3; 20])),
        privilege: Privilege::Administrator,
    };
    let opened = Opened { suite, console_id: 0x0102_0304, managed_id: 5, console_random: [6; 16] };
    let bytes = input.0;
    let tag = bytes.first().copied().unwrap_or(0);
    let _ = (rakp::open_response(bytes, tag, suite, opened.console_id), rakp::status_text(kind));
    // No answer is believed whose code does not come of the password.
    assert!(Rakp2::parse(bytes, tag, &opened, &login).is_err());
    let random = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([8; 16]);
    let rakp2 = Rakp2 { managed_random: random(8), guid: random(24) };
    let _ = rakp2.rakp3(tag, &opened, &login);
    let _ = rakp2.rakp4(bytes, tag, &opened, &login);
    let mut answer = [&[tag, 0, 0, 0][..], &opened.console_id.to_le_bytes()].concat();
    answer.extend(rakp2.managed_random);
    answer.extend(rakp2.guid);
    let proof = rakp2.proof(&opened, &login);
    let parts: Vec<&[u8]> = proof.iter().map(Vec::as_slice).collect();
    answer.extend(suite.mac(login.password.expose(), &parts).iter());
    assert_eq!(Rakp2::parse(&answer, tag, &opened, &login).as_ref(), Ok(&rakp2));
    let last = answer.len() - 1;
    answer[last] ^= 1 | kind;
    if suite.exchange_len() == answer.len() - 40 {
        assert!(Rakp2::parse(&answer, tag, &opened, &login).is_err());
    }
});
