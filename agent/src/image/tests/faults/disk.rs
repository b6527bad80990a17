//! Disks that fail.

use super::*;

/// Writes onto a disk with this fault; the disk must be in a state that boots nothing wrong.
fn on_faulty(file: &[u8], format: ImageFormat, image: &[u8], fault: Fault, name: &str) -> String {
    let server = Server::honest(file);
    let disk = MemDisk::new(12 << 20).with_fault(fault);
    let (result, disk) = write(&ask(&server.url(), format, file), disk);
    let (text, content) = (words(&result), disk.content());
    let state = left(&content, image);
    match &result {
        Ok(_) => assert_eq!(state, Left::Complete, "{name} {fault:?}: {text}"),
        // What cannot be written cannot be blanked either; then the operator is told.
        Err(ImageError::NotBlanked { .. }) => {
            assert_ne!(state, Left::Complete, "{name} {fault:?}: {text}");
            assert!(text.contains("could NOT be blanked"), "{text}");
        }
        Err(_) => assert_eq!(state, Left::Blank, "{name} {fault:?}: {text}"),
    }
    text
}

#[test]
fn every_fault_of_the_disk_ends_blank_or_in_words() {
    let image = image();
    let packed = qcow2(&image, &["-c"]);
    let mut failed = 0;
    for seed in 0..40u64 {
        let mut rng = Rng::new(seed);
        let at = match rng.below(4) {
            0 => rng.below(MIB),
            1 => (12 << 20) - 1 - rng.below(MIB),
            _ => rng.below(12 << 20),
        };
        for fault in [Fault::Write(at), Fault::Read(at), Fault::Lost(at)] {
            let (file, format) =
                if rng.below(2) == 0 { (&image, ImageFormat::Raw) } else { (&packed, ImageFormat::Qcow2) };
            let text = on_faulty(file, format, &image, fault, &format!("seed {seed}"));
            failed += usize::from(text != "complete");
        }
    }
    assert!(failed > 40, "only {failed} faults were noticed");
    for flush in 0..8 {
        let text = on_faulty(&image, ImageFormat::Raw, &image, Fault::Flush(flush), "flush");
        assert_eq!(text != "complete", flush < 6, "flush {flush}: {text}");
    }
}

#[test]
fn faults_of_the_disk_are_named() {
    let image = image();
    let check = |fault: Fault, expected: &str| {
        let text = on_faulty(&image, ImageFormat::Raw, &image, fault, "named");
        assert_eq!(text, expected);
    };
    check(
        Fault::Flush(0),
        &format!("flushing /dev/mem0 (after blanking both ends): cache flush failed{BLANK}"),
    );
    check(Fault::Flush(1), &format!("flushing /dev/mem0 (after the body): cache flush failed{BLANK}"));
    check(
        Fault::Write(5),
        "blanking /dev/mem0 at byte 0: medium error; /dev/mem0 could NOT be blanked (blanking /dev/mem0 at byte 0: \
         medium error); do not boot from it",
    );
    check(
        Fault::Lost(5),
        "/dev/mem0 gives back other bytes at 0 than were written: the disk, its cable or its controller is faulty; \
         /dev/mem0 could NOT be blanked (/dev/mem0 gives back other bytes at 0 than were written: the disk, its cable \
         or its controller is faulty); do not boot from it",
    );
}
