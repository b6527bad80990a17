//! Against a drive that follows the state machine of ACS-4.

use super::*;
use crate::platform::fake::drive::FakeAta;

fn erase_of(drive: &FakeAta) -> Result<AtaErase, String> {
    erase("/dev/sda", drive).map_err(|error| super::super::chain(&error))
}

#[test]
fn words_of_identify_are_read_as_the_standard_has_them() {
    let mut block = [0; ATA_BLOCK];
    let mut put =
        |word: usize, value: u16| block[word * 2..word * 2 + 2].copy_from_slice(&value.to_le_bytes());
    for (number, value) in [(82, 2), (89, 10), (90, 0x8000 | 300), (128, 0b10_1001)] {
        put(number, value);
    }
    let state = AtaState::parse(&block);
    let expected = AtaState {
        supported: true,
        frozen: true,
        enhanced: true,
        normal_time: Some(Duration::from_secs(1200)),
        enhanced_time: Some(Duration::from_secs(36_000)),
        ..AtaState::default()
    };
    assert_eq!(state, expected);
    assert_eq!(AtaState::parse(&[0; ATA_BLOCK]), AtaState::default());
    assert_eq!((time(255), time(0xffff), time(254)), (None, None, Some(Duration::from_secs(30_480))));
}

#[test]
fn a_drive_is_erased_and_left_without_a_password() {
    for (enhanced, how) in [(true, AtaErase::Enhanced), (false, AtaErase::Normal)] {
        let drive = FakeAta::new();
        drive.change(|d| d.enhanced = enhanced);
        assert_eq!(erase_of(&drive), Ok(how));
        assert_eq!(drive.erased(), 1);
        let state = AtaState::parse(&drive.identify().unwrap());
        assert!(!state.enabled && !state.locked);
        assert_eq!(drive.commands(), ["SetPassword", "ErasePrepare", "EraseUnit"]);
    }
}

#[test]
fn a_frozen_drive_is_refused_before_anything() {
    let drive = FakeAta::new();
    drive.change(|d| d.frozen = true);
    let error = erase_of(&drive).unwrap_err();
    assert!(error.starts_with("Block device /dev/sda is frozen and cannot be erased"), "{error}");
    assert!(drive.commands().is_empty());
}

#[test]
fn what_a_power_cut_left_locked_is_opened_and_erased() {
    for password in [b"".as_slice(), b"NULL"] {
        let drive = FakeAta::new();
        drive.lock(password);
        assert_eq!(erase_of(&drive), Ok(AtaErase::Enhanced), "{password:?}");
        assert_eq!((drive.erased(), drive.state().enabled), (1, false));
    }
    let drive = FakeAta::new();
    drive.lock(b"");
    open("/dev/sda", &drive).unwrap();
    assert!(!drive.state().locked && drive.erased() == 0);
    let untouched = FakeAta::new();
    open("/dev/sda", &untouched).unwrap();
    assert!(untouched.commands().is_empty());
}

#[test]
fn a_strangers_password_stays() {
    let drive = FakeAta::new();
    drive.lock(b"secret");
    let error = erase_of(&drive).unwrap_err();
    assert!(error.starts_with("Block device /dev/sda already has a security password set"), "{error}");
    assert_eq!((drive.erased(), drive.commands()), (0, vec!["Unlock"; 2]));
    // The next tries use up the counter of five.
    erase_of(&drive).unwrap_err();
    let error = erase_of(&drive).unwrap_err();
    assert!(error.contains("needs a power cycle"), "{error}");
    assert_eq!(drive.commands().len(), 5, "nothing is sent to a drive whose counter has expired");
    drive.change(|d| d.frozen = true);
    assert!(matches!(open("/dev/sda", &drive), Err(AtaError::Frozen(_))));
}

#[test]
fn an_enhanced_erase_that_fails_is_followed_by_a_normal_one() {
    let drive = FakeAta::new();
    drive.change(|d| d.enhanced_fails = true);
    assert_eq!(erase_of(&drive), Ok(AtaErase::Normal));
    assert_eq!(drive.erased(), 1);
}

#[test]
fn a_failed_erase_leaves_the_drive_open() {
    let drive = FakeAta::new();
    drive.change(|d| (d.enhanced_fails, d.normal_fails) = (true, true));
    let error = erase_of(&drive).unwrap_err();
    assert_eq!(error, "erasing /dev/sda: the drive refused the command");
    let state = drive.state();
    assert!(!state.enabled && !state.locked);
    assert_eq!(drive.commands().last(), Some(&"DisablePassword"));
    // A power cycle does not lock it.
    drive.power_cycle();
    assert!(!drive.state().locked);
}

#[test]
fn a_drive_that_takes_the_command_and_does_nothing_is_found_out() {
    let drive = FakeAta::new();
    drive.change(|d| d.pretends = true);
    let error = erase_of(&drive).unwrap_err();
    assert!(error.contains("its security is still on"), "{error}");
    assert!(!drive.state().enabled, "the password is off again");
}

#[test]
fn a_refused_password_is_told() {
    let drive = FakeAta::new();
    drive.change(|d| d.refuses_password = true);
    assert_eq!(
        erase_of(&drive).unwrap_err(),
        "setting a password on /dev/sda: the drive refused the command"
    );
}
