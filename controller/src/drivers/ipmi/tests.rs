//! The client against the test BMC: what works, what each refusal says, and what a bad network may not break.

use super::test_bmc::{Rules, Seen, Spoil, TestBmc, info};
use super::*;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

fn quick() -> IpmiSettings {
    IpmiSettings {
        tries: 3,
        first_wait: Duration::from_millis(80),
        talk: Duration::from_secs(20),
        allow_empty_password: false,
    }
}

fn with(bmc: &TestBmc, key: &str, value: serde_json::Value) -> DriverInfo {
    let mut info = bmc.info();
    info.insert(key.into(), value);
    info
}

fn seen(bmc: &TestBmc) -> std::sync::MutexGuard<'_, Seen> {
    bmc.seen.lock().unwrap()
}

#[tokio::test]
async fn power_and_boot_device_work_with_both_suites() {
    for (suites, number) in [(vec![Suite::Seventeen], 17), (vec![Suite::Three], 3)] {
        let bmc = TestBmc::start(Rules { suites, ..Rules::default() }).await;
        let (ipmi, info) = (Ipmi::new(quick()), bmc.info());
        assert_eq!(ipmi.power_state(&info).await.unwrap(), PowerState::Off);
        ipmi.power(&info, PowerAction::On).await.unwrap();
        assert_eq!(ipmi.power_state(&info).await.unwrap(), PowerState::On);
        for (action, byte) in [
            (PowerAction::Cycle, 2),
            (PowerAction::Reset, 3),
            (PowerAction::SoftOff, 5),
            (PowerAction::On, 1),
            (PowerAction::Off, 0),
        ] {
            ipmi.power(&info, action).await.unwrap();
            let last = seen(&bmc).requests.iter().rfind(|(netfn, ..)| *netfn == 0).cloned();
            assert_eq!(last, Some((0, 2, vec![byte])), "{action:?}");
        }
        for action in [PowerAction::Off, PowerAction::SoftOff, PowerAction::Cycle, PowerAction::Reset] {
            ipmi.power(&info, PowerAction::Off).await.unwrap();
            ipmi.power(&info, action).await.unwrap();
            let on = matches!(action, PowerAction::Cycle | PowerAction::Reset);
            let state = if on { PowerState::On } else { PowerState::Off };
            assert_eq!(ipmi.power_state(&info).await.unwrap(), state, "{action:?} of a machine that is off");
        }
        ipmi.set_boot_device(&info, BootDevice::Pxe, Persistence::Once, BootMode::Uefi).await.unwrap();
        assert_eq!(seen(&bmc).boot, [0xA0, 0x04, 0, 0, 0]);
        ipmi.set_boot_device(&info, BootDevice::Disk, Persistence::Always, BootMode::Bios).await.unwrap();
        assert_eq!(seen(&bmc).boot, [0xC0, 0x08, 0, 0, 0]);
        assert_eq!(ipmi.boot_device(&info).await.unwrap(), (Some(BootDevice::Disk), Persistence::Always));
        assert_eq!(
            ipmi.verify(&info).await.unwrap(),
            format!(
                "Dell (manufacturer 674), product 0x0100, BMC firmware 4.40, IPMI 2.0, cipher suite {number}"
            )
        );
        let seen = seen(&bmc);
        assert_eq!((seen.open, seen.most_open), (0, 1), "every session was closed");
    }
}

#[tokio::test]
async fn suite_3_comes_only_after_a_no_to_17_and_is_remembered() {
    for status in [0x04, 0x11] {
        let rules = Rules { suites: vec![Suite::Three], unknown_suite: status, ..Rules::default() };
        let bmc = TestBmc::start(rules).await;
        let ipmi = Ipmi::new(quick());
        ipmi.power_state(&bmc.info()).await.unwrap();
        ipmi.power_state(&bmc.info()).await.unwrap();
        assert_eq!(seen(&bmc).offered, [17, 3, 3]);
    }
    let bmc = TestBmc::start(Rules { suites: vec![Suite::Three], ..Rules::default() }).await;
    let only = with(&bmc, "ipmi_cipher_suite", json!(17));
    let said = Ipmi::new(quick()).power_state(&only).await.unwrap_err();
    assert!(matches!(said, DriverError::SessionRefused { .. }), "{said}");
    assert!(said.to_string().contains("knows none of the cipher suites tried (17)"), "{said}");
}

#[tokio::test]
async fn a_wrong_password_is_named_and_tried_once() {
    for suites in [vec![Suite::Seventeen, Suite::Three], vec![Suite::Three]] {
        let bmc = TestBmc::start(Rules { suites, ..Rules::default() }).await;
        let said = Ipmi::new(quick()).power_state(&info(bmc.port, "wrong")).await.unwrap_err();
        assert!(matches!(said, DriverError::Credentials { .. }), "{said}");
        assert!(!said.is_transient());
        let text = said.to_string();
        assert!(text.contains("refused user 'admin': wrong user name or password"), "{text}");
        assert!(!text.contains("wrong;") && !format!("{said:?}").contains("\"wrong\""), "{text}");
        assert_eq!(seen(&bmc).logins, 1);
    }
    let bmc = TestBmc::start(Rules::default()).await;
    let said = Ipmi::new(quick()).power_state(&with(&bmc, "ipmi_username", json!("eve"))).await.unwrap_err();
    assert!(said.to_string().contains("does not know this user"), "{said}");
    assert_eq!(seen(&bmc).logins, 1);
}

#[tokio::test]
async fn the_bmcs_own_key_is_asked_for_and_used() {
    let bmc = TestBmc::start(Rules { bmc_key: Some(vec![0xAB; 20]), ..Rules::default() }).await;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err();
    assert!(said.to_string().contains("set ipmi_hex_kg_key"), "{said}");
    let good = with(&bmc, "ipmi_hex_kg_key", json!("ab".repeat(20)));
    assert_eq!(Ipmi::new(quick()).power_state(&good).await.unwrap(), PowerState::Off);
}

#[tokio::test]
async fn too_low_a_privilege_is_named() {
    let bmc = TestBmc::start(Rules { privilege: 2, ..Rules::default() }).await;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err();
    assert!(matches!(said, DriverError::Privilege { .. }), "{said}");
    assert!(said.to_string().contains("'admin' the privilege ADMINISTRATOR"), "{said}");
    let as_user = with(&bmc, "ipmi_priv_level", json!("USER"));
    assert_eq!(Ipmi::new(quick()).power_state(&as_user).await.unwrap(), PowerState::Off);
    let said = Ipmi::new(quick()).power(&as_user, PowerAction::On).await.unwrap_err();
    assert!(matches!(said, DriverError::Privilege { .. }), "{said}");
    assert_eq!(seen(&bmc).open, 0, "sessions are closed after a refusal too");
}

#[tokio::test]
async fn a_bmc_of_ipmi_1_5_is_refused() {
    let bmc = TestBmc::start(Rules { speaks_2_0: false, ..Rules::default() }).await;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err();
    assert!(said.to_string().contains("IPMI 1.5 is never used"), "{said}");
    assert_eq!(seen(&bmc).logins, 0);
}

#[tokio::test]
async fn silence_names_the_port_and_the_stage() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let said = Ipmi::new(quick()).power_state(&info(port, "right")).await.unwrap_err();
    assert!(matches!(said, DriverError::NoAnswer { tries: 3, .. }), "{said}");
    let text = said.to_string();
    assert!(text.contains(&format!("ipmi_port is set to {port}, BMCs listen on 623")), "{text}");
    drop(silent);
    let said = Ipmi::new(quick()).power_state(&info(port, "right")).await.unwrap_err().to_string();
    assert!(said.contains("nothing listens on this port"), "{said}");

    let bmc = TestBmc::start(Rules {
        spoil: Arc::new(|n, a| if n < 5 { vec![a] } else { vec![] }),
        ..Rules::default()
    });
    let bmc = bmc.await;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err().to_string();
    assert!(said.contains("fell silent at 'Get Chassis Status'"), "{said}");
}

#[tokio::test]
async fn a_talk_ends_by_its_deadline_even_in_a_flood() {
    let noise: Spoil = Arc::new(|_, _| vec![vec![0xFF; 300]; 400]);
    let bmc = TestBmc::start(Rules { spoil: noise, ..Rules::default() }).await;
    let short = IpmiSettings { tries: 50, talk: Duration::from_secs(1), ..quick() };
    let start = std::time::Instant::now();
    let said = Ipmi::new(short).power_state(&bmc.info()).await.unwrap_err();
    assert!(matches!(said, DriverError::Protocol { .. }), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Answers until the session is open, then falls silent; what it is asked it still does.
fn silent_within_the_session() -> Rules {
    Rules { spoil: Arc::new(|n, a| if n < 5 { vec![a] } else { vec![] }), ..Rules::default() }
}

#[tokio::test]
async fn a_session_is_closed_also_when_the_time_of_the_talk_is_over() {
    let bmc = TestBmc::start(silent_within_the_session()).await;
    let short = IpmiSettings { tries: 50, talk: Duration::from_millis(700), ..quick() };
    let said = Ipmi::new(short).power_state(&bmc.info()).await.unwrap_err();
    assert!(matches!(said, DriverError::NoAnswer { .. }), "{said}");
    let seen = seen(&bmc);
    assert_eq!((seen.open, seen.most_open), (0, 1), "{:?}", seen.requests);
}

#[tokio::test]
async fn a_session_is_closed_also_when_nobody_waits_for_the_talk_any_more() {
    let bmc = TestBmc::start(silent_within_the_session()).await;
    let (ipmi, info) = (Arc::new(Ipmi::new(quick())), bmc.info());
    let talk = tokio::spawn(async move { ipmi.power_state(&info).await });
    let until = |what: &'static str, is_so: &'static dyn Fn(&Seen) -> bool| {
        let seen = Arc::clone(&bmc.seen);
        async move {
            let end = Instant::now() + Duration::from_secs(10);
            while !is_so(&seen.lock().unwrap()) {
                assert!(Instant::now() < end, "{what}");
                tokio::task::yield_now().await;
            }
        }
    };
    until("the power is asked for", &|seen| seen.requests.iter().any(|(netfn, ..)| *netfn == 0)).await;
    talk.abort();
    until("the session is closed", &|seen| seen.open == 0).await;
}

#[tokio::test]
async fn a_bad_network_is_survived() {
    let flip = |mut bytes: Vec<u8>, at: usize| {
        let at = at % bytes.len();
        bytes[at] ^= 0x80;
        bytes
    };
    let count = Arc::new(AtomicUsize::new(0));
    let every: Vec<(&str, Spoil)> = vec![
        ("each second answer lost", {
            let count = Arc::clone(&count);
            Arc::new(
                move |_, a| {
                    if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { vec![] } else { vec![a] }
                },
            )
        }),
        ("each answer twice", Arc::new(|_, a| vec![a.clone(), a])),
        ("a truncated copy first", Arc::new(|n, a| vec![a[..n % a.len()].to_vec(), a])),
        // Bytes 4 to 15 are the header: type, ids, numbers, length. (Codes of the login itself prove the password;
        // a change there is the same as a wrong one.)
        ("a copy with a changed header first", Arc::new(move |n, a| vec![flip(a.clone(), 4 + n % 12), a])),
        (
            "a lying length first",
            Arc::new(|_, a| {
                let mut lies = a.clone();
                lies[14] = 0xFF;
                vec![lies, a]
            }),
        ),
        ("noise first", Arc::new(|_, a| vec![vec![], vec![6, 0, 0xFF, 7], vec![0xFF; 1200], a])),
    ];
    for (name, spoil) in every {
        let bmc = TestBmc::start(Rules { spoil, ..Rules::default() }).await;
        let (ipmi, info) = (Ipmi::new(quick()), bmc.info());
        for _ in 0..3 {
            ipmi.power(&info, PowerAction::On).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(ipmi.power_state(&info).await.unwrap(), PowerState::On, "{name}");
        }
        assert!(seen(&bmc).logins >= 6);
    }
}

#[tokio::test]
async fn an_answer_that_was_changed_within_the_session_is_not_believed() {
    let spoil: Spoil = Arc::new(|n, mut a| {
        if n > 4 {
            let last = a.len() - 1;
            a[last] ^= 1;
        }
        vec![a]
    });
    let bmc = TestBmc::start(Rules { spoil, ..Rules::default() }).await;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err();
    assert!(matches!(said, DriverError::Protocol { .. }), "{said}");
    assert!(said.to_string().contains("integrity code is wrong"), "{said}");
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again() {
    let bmc = TestBmc::start(Rules::default()).await;
    seen(&bmc).busy_answers = 2;
    assert_eq!(Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap(), PowerState::Off);
    seen(&bmc).busy_answers = 9;
    let said = Ipmi::new(quick()).power_state(&bmc.info()).await.unwrap_err();
    assert!(matches!(said, DriverError::Command { code: 0xC0, .. }) && said.is_transient(), "{said}");
}

#[tokio::test]
async fn a_boot_option_that_a_killed_run_left_in_progress_is_finished() {
    let bmc = TestBmc::start(Rules::default()).await;
    seen(&bmc).in_progress = Some(true);
    let ipmi = Ipmi::new(quick());
    ipmi.set_boot_device(&bmc.info(), BootDevice::Pxe, Persistence::Once, BootMode::Bios).await.unwrap();
    assert_eq!(seen(&bmc).boot[..2], [0x80, 0x04]);
    assert_eq!(seen(&bmc).in_progress, Some(false));
}

#[tokio::test]
async fn one_talk_at_a_time() {
    let bmc = TestBmc::start(Rules::default()).await;
    let ipmi = Arc::new(Ipmi::new(quick()));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (ipmi, info) = (Arc::clone(&ipmi), bmc.info());
            tokio::spawn(async move { ipmi.power_state(&info).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let seen = seen(&bmc);
    assert_eq!((seen.most_open, seen.logins), (1, 20));
}

#[tokio::test]
async fn supermicro_gets_its_own_number_for_a_uefi_disk() {
    let bmc = TestBmc::start(Rules { manufacturer: 10876, ..Rules::default() }).await;
    let ipmi = Ipmi::new(quick());
    ipmi.set_boot_device(&bmc.info(), BootDevice::Disk, Persistence::Always, BootMode::Uefi).await.unwrap();
    assert_eq!(seen(&bmc).boot, [0xE0, 0x24, 0, 0, 0]);
}
