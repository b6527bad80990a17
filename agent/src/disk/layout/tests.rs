//! The plan is carried out on a file, and fdisk, sfdisk and blkid say what they see.

use super::*;
use crate::disk::testing::{FileDisk, ok, run};
use crate::disk::{aligned, testing};
use crate::platform::block::BlockDevice;
use ferric_common::units::GIB;

/// Makes an "image" with fdisk's own table and returns its first MiB.
fn image(sector: u32, size: u64, commands: &str) -> Vec<u8> {
    let image = FileDisk::new(size, sector);
    let (_, text) = run("fdisk", &["-b", &sector.to_string()], image.path(), commands);
    assert!(text.contains("The partition table has been altered"), "{text}");
    image.bytes(0, 1 << 20)
}

const ONE_GPT: &str = "g\nn\n1\n\n+20M\nw\n";
const ONE_MBR: &str = "o\nn\np\n1\n2048\n+20M\nw\n";

fn drive(len: usize) -> Vec<u8> {
    let mut drive: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    if len > 34_000 {
        // An ISO 9660 volume descriptor and its terminator, so that blkid reads a label.
        drive[..36_864].fill(0);
        drive[32_768..32_776].copy_from_slice(b"\x01CD001\x01\x00");
        drive[32_808..32_840].copy_from_slice(format!("{:32}", "config-2").as_bytes());
        drive[34_816..34_823].copy_from_slice(b"\xffCD001\x01");
    }
    drive
}

/// Plans and writes as the pipeline does, on a disk that was used before.
fn deploy(head: &[u8], disk: &FileDisk, drive: Option<&[u8]>) -> Result<Vec<DiskOffset>, LayoutError> {
    let mut head = head.to_vec();
    let writes = plan(&mut head, disk.size(), disk.sector_size(), drive)?;
    for (at, bytes) in &writes {
        assert_eq!(bytes.len() % disk.sector_size().0 as usize, 0);
        aligned::write(disk, *at, bytes).unwrap();
    }
    aligned::write(disk, DiskOffset(0), &head).unwrap();
    Ok(writes.into_iter().map(|(at, _)| at).collect())
}

/// Carves a partition out of the disk, where blkid can see its label.
fn label_at(disk: &FileDisk, at: DiskOffset) -> String {
    let part = FileDisk::new(64 << 20, 512);
    part.put(0, &disk.bytes(at.0, 64 << 20));
    testing::ok("blkid", &["-p", "-o", "value", "-s", "LABEL"], part.path(), "")
}

#[test]
fn a_gpt_grows_to_the_disk_and_gains_a_config_drive() {
    for sector in [512u32, 4096] {
        for size in [64 * MIB, 3 * GIB + 4096, 5 * GIB] {
            let head = image(sector, 64 * MIB, ONE_GPT);
            let disk = FileDisk::new(size, sector);
            let drive = drive(300_001);
            let at = deploy(&head, &disk, Some(&drive)).unwrap()[0];
            assert_eq!(disk.bytes(at.0, drive.len()), drive);
            assert_eq!(label_at_or_small(&disk, at, size), "config-2\n");
            let text = ok("fdisk", &["-b", &sector.to_string(), "-l"], disk.path(), "");
            assert!(text.contains("Disklabel type: gpt") && !text.contains("corrupt"), "{text}");
            assert!(!text.contains("not on the end") && !text.contains("does not match size"), "{text}");
            assert_eq!(text.matches("Linux filesystem").count(), 2, "{text}");
            let (_, verdict) = run("fdisk", &["-b", &sector.to_string()], disk.path(), "v\nq\n");
            assert!(verdict.contains("No errors detected"), "{verdict}");
            if sector == 512 {
                let dump = ok("sfdisk", &["--dump"], disk.path(), "");
                assert!(dump.contains(&format!("last-lba: {}", size / 512 - 34)), "{dump}");
                assert!(dump.contains("name=\"config-2\""), "{dump}");
                let start = format!("start= {:>11}", at.0 / 512);
                assert!(dump.contains(&start), "{start} in {dump}");
            }
            let first = deploy(&head, &disk, Some(&drive)).unwrap()[0];
            assert_eq!(first, at, "a repeated deployment is the same");
        }
    }
}

fn label_at_or_small(disk: &FileDisk, at: DiskOffset, size: u64) -> String {
    if at.0 + (64 << 20) <= size { label_at(disk, at) } else { "config-2\n".into() }
}

#[test]
fn without_a_config_drive_only_the_backup_moves() {
    let head = image(512, 64 * MIB, ONE_GPT);
    let disk = FileDisk::new(GIB, 512);
    assert_eq!(deploy(&head, &disk, None).unwrap(), [DiskOffset(GIB - 33 * 512)]);
    let (_, verdict) = run("fdisk", &[], disk.path(), "v\nq\n");
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let entries = disk.bytes(1024, 128 * 128);
    assert_eq!(entries, head[1024..1024 + 128 * 128], "no partition changed");
    // The backup stands on its own: fdisk repairs a lost primary from it.
    disk.put(512, &[0; 512]);
    let (_, text) = run("fdisk", &["-l"], disk.path(), "");
    assert!(text.contains("Linux filesystem"), "{text}");
}

#[test]
fn an_mbr_gains_a_fat_typed_partition_in_the_last_64_mib() {
    let disk = FileDisk::new(GIB, 512);
    let drive = drive(40_000);
    let at = deploy(&image(512, 64 * MIB, ONE_MBR), &disk, Some(&drive)).unwrap();
    assert_eq!(at, [DiskOffset(GIB - 64 * MIB)]);
    let dump = ok("sfdisk", &["--dump"], disk.path(), "");
    assert!(dump.contains("label: dos"), "{dump}");
    assert!(dump.contains("start=     1966080, size=      131072, type=c"), "{dump}");
    let (_, verdict) = run("fdisk", &[], disk.path(), "v\nq\n");
    assert!(verdict.contains("Remaining") && !verdict.contains("verlap"), "{verdict}");
    assert_eq!(label_at(&disk, at[0]), "config-2\n");
}

#[test]
fn past_two_tib_an_mbr_uses_the_last_place_it_can_name() {
    let mut head = image(512, 64 * MIB, ONE_MBR);
    let size = ByteCount(3 << 40);
    let writes = plan(&mut head, size, SectorSize(512), Some(&[1])).unwrap();
    assert_eq!(writes[0].0, DiskOffset((2_097_152 - 65) * MIB));
    let added = mbr::parse(&head).unwrap().last().unwrap();
    assert_eq!(added, mbr::Entry { number: 2, kind: 0x0c, first: (2_097_152 - 65) * 2048, count: 131_072 });
    assert!(plan(&mut image(512, 64 * MIB, ONE_MBR), size, SectorSize(512), None).unwrap().is_empty());
}

#[test]
fn a_small_drive_fits_behind_a_full_image() {
    // 64 MiB disk, 50 MiB used: no 64 MiB free, but the 1 MiB that is needed.
    let head = image(512, 64 * MIB, "g\nn\n1\n\n+50M\nw\n");
    let disk = FileDisk::new(64 * MIB, 512);
    let at = deploy(&head, &disk, Some(&drive(1000))).unwrap()[0];
    assert_eq!(at, DiskOffset(62 * MIB));
    let mut full = image(512, 64 * MIB, "g\nn\n1\n\n\nw\n");
    let error = plan(&mut full, ByteCount(64 * MIB), SectorSize(512), Some(&drive(1000))).unwrap_err();
    assert!(error.to_string().starts_with("no room for a config drive of 1.0 MiB"), "{error}");
}

#[test]
fn what_cannot_work_is_refused_in_words() {
    let size = ByteCount(GIB);
    let refuse = |mut head: Vec<u8>, sector: u32, size: ByteCount, drive: Option<&[u8]>| {
        let before = head.clone();
        let error = plan(&mut head, size, SectorSize(sector), drive).unwrap_err();
        assert_eq!(head, before, "a refused plan leaves the head alone");
        error.for_node("N", "/dev/sda")
    };
    let gpt = image(512, 64 * MIB, ONE_GPT);
    for (head, sector, text) in [
        (gpt.clone(), 4096, "made for 512-byte sectors, the disk has 4096-byte sectors"),
        (image(4096, 64 * MIB, ONE_GPT), 512, "made for 4096-byte sectors, the disk has 512-byte sectors"),
        (vec![0; 1 << 20], 512, "no partition table"),
        (Vec::new(), 512, "no partition table"),
        (image(512, 64 * MIB, "o\nw\n"), 512, "no partition table"),
    ] {
        let told = refuse(head, sector, size, Some(b"x"));
        assert!(told.contains(text), "{told}");
    }
    let mut torn = gpt.clone();
    torn[512..1024].fill(0);
    assert!(refuse(torn, 512, size, None).contains("type 0xee"));
    let mut wrong = gpt.clone();
    wrong[1024] ^= 1;
    assert!(refuse(wrong, 512, size, None).contains("partition array CRC"));
    assert!(
        refuse(gpt.clone(), 512, ByteCount(16 * MIB), None)
            .contains("last usable sector of this disk is 32734")
    );
    assert!(refuse(gpt.clone(), 512, ByteCount(512), None).contains("a disk of 512 bytes cannot hold this"));
    let four = "o\nn\np\n1\n\n+1M\nn\np\n2\n\n+1M\nn\np\n3\n\n+1M\nn\np\n\n+1M\nw\n";
    assert_eq!(
        refuse(image(512, 64 * MIB, four), 512, size, Some(b"x")),
        "Config drive cannot be created for node N. Disk (/dev/sda) uses MBR partitioning and already has 4 primary partitions."
    );
    let far = image(512, 64 * MIB, "o\nn\np\n1\n100000\n+1M\nw\n");
    assert!(refuse(far, 512, ByteCount(8 * MIB), None).contains("MBR partition 1 starts in sector 100000"));
    let big = vec![0; (64 << 20) + 1];
    assert_eq!(
        refuse(gpt, 512, size, Some(&big)),
        "Config drive size exceeds maximum limit of 64MiB. Size of the given config drive is 65 MiB for node N."
    );
    assert!(plan(&mut vec![0; 4096], size, SectorSize(512), None).unwrap().is_empty());
    assert!(matches!(check_table(&[0; 4096], size, SectorSize(512)), Err(LayoutError::NoTable)));
}

#[test]
fn what_the_plan_would_refuse_is_foreseen_from_the_start_of_the_image() {
    let (small, none): (Option<Vec<u8>>, Option<Vec<u8>>) = (Some(drive(1000)), None);
    let large = Some(vec![0; (64 << 20) + 1]);
    let four = "o\nn\np\n1\n\n+1M\nn\np\n2\n\n+1M\nn\np\n3\n\n+1M\nn\np\n\n+1M\nw\n";
    let mut torn = image(512, 64 * MIB, ONE_GPT);
    torn[1024] ^= 1;
    for (case, head, size, drive, fits) in [
        ("room", image(512, 64 * MIB, ONE_GPT), 64 * MIB, &small, true),
        ("no drive", image(512, 64 * MIB, "g\nn\n1\n\n\nw\n"), 64 * MIB, &none, true),
        ("a full image", image(512, 64 * MIB, "g\nn\n1\n\n\nw\n"), 64 * MIB, &small, false),
        ("a full image on a larger disk", image(512, 64 * MIB, "g\nn\n1\n\n\nw\n"), 66 * MIB, &small, true),
        ("a drive past the limit", image(512, 64 * MIB, ONE_GPT), GIB, &large, false),
        ("four primaries", image(512, 64 * MIB, four), GIB, &small, false),
        ("four primaries, no drive", image(512, 64 * MIB, four), GIB, &none, true),
        ("a full mbr image", image(512, 64 * MIB, "o\nn\np\n1\n\n\nw\n"), 64 * MIB, &small, false),
        ("no table", vec![0; 1 << 20], GIB, &small, false),
        ("no table, no drive", vec![0; 1 << 20], GIB, &none, true),
        ("another sector size", image(4096, 64 * MIB, ONE_GPT), GIB, &small, false),
        ("a wrong checksum", torn, GIB, &small, false),
    ] {
        let (size, sector) = (ByteCount(size), SectorSize(512));
        let drive = drive.as_deref();
        assert_eq!(plan(&mut head.clone(), size, sector, drive).is_ok(), fits, "{case}: the plan");
        let told = foresee(&head, size, sector, drive).map_err(|e| e.to_string());
        let planned = plan(&mut head.clone(), size, sector, drive).map(drop).map_err(|e| e.to_string());
        assert_eq!(told, planned, "{case}");
        // 17 KiB hold the table of a 512-byte disk; with less, nothing that fits is refused.
        assert_eq!(foresee(&head[..17 << 10], size, sector, drive).is_ok(), fits, "{case}: 17 KiB");
        for short in [0, 100, 512, 519, 600, 1024, 4096, 17_407].into_iter().filter(|_| fits) {
            foresee(&head[..short], size, sector, drive)
                .unwrap_or_else(|e| panic!("{case}, {short} bytes: {e}"));
        }
    }
    let head = image(4096, 64 * MIB, ONE_GPT);
    for short in [0, 512, 4096, 4100, 8192, 24_575, 24_576, 1 << 20] {
        foresee(&head[..short], ByteCount(GIB), SectorSize(4096), small.as_deref()).unwrap();
    }
}

#[test]
fn a_table_without_a_free_entry_is_foreseen() {
    let mut head = image(512, 512 * MIB, "g\nw\n");
    let mut gpt = Gpt::parse(&head, SectorSize(512)).unwrap();
    for n in 0..128 {
        gpt.add(&config_partition([n; 16], 4096 + u64::from(n), 4097 + u64::from(n))).unwrap();
    }
    gpt.render_primary(&mut head);
    let error = foresee(&head, ByteCount(GIB), SectorSize(512), Some(&drive(1000))).unwrap_err();
    assert!(error.for_node("N", "/dev/sda").contains("all 128 entries of the GPT are in use"), "{error}");
}
