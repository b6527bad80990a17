//! Config drives on disks whose sectors are larger than the blocks of their file systems. Judges: blkid and mtools.

use super::*;
use ferric_common::formats::iso9660;

const META: &[u8] = b"{\"uuid\": \"n\"}";

fn iso() -> Vec<u8> {
    let file = iso9660::File { path: "openstack/latest/meta_data.json", bytes: META };
    iso9660::build("config-2", "ferric", &[file], 1_700_000_001).unwrap()
}

fn tool(program: &str, arguments: &[&str]) -> Vec<u8> {
    let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default());
    let out = Command::new(program).args(arguments).env("PATH", path).output();
    let out =
        out.unwrap_or_else(|e| panic!("{program} (Debian packages dosfstools, mtools, util-linux): {e}"));
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Writes an image with this drive; what came of it, and the bytes from the drive's place on.
fn written(sector: usize, drive: &[u8]) -> (String, Vec<u8>) {
    written_onto(&gpt_image(91, 8 << 20, sector), sector, drive)
}

fn written_onto(image: &[u8], sector: usize, drive: &[u8]) -> (String, Vec<u8>) {
    let server = Server::honest(image);
    let mut request = ask(&server.url(), ImageFormat::Raw, image);
    request.config_drive = Some(drive.to_vec());
    let (result, disk) = write(&request, MemDisk::new(96 << 20).with_sector(sector as u32));
    let content = disk.content();
    if result.is_err() {
        assert_eq!(left(&content, image), Left::Untouched);
        return (words(&result), Vec::new());
    }
    let table = gpt::Gpt::parse(&content, SectorSize(sector as u32)).unwrap();
    let place = table.partitions().last().unwrap().first as usize * sector;
    (words(&result), content[place..].to_vec())
}

/// The judges find one file system, with the file.
fn is_the_drive(found: &[u8]) {
    is_a_drive(found, 4096);
}

fn is_a_drive(found: &[u8], sector: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drive");
    std::fs::write(&path, found).unwrap();
    let path = path.to_str().unwrap();
    let said = String::from_utf8(tool("blkid", &["-p", "-o", "export", path])).unwrap();
    for line in ["LABEL=CONFIG-2", "TYPE=vfat", &format!("BLOCK_SIZE={sector}")] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert_eq!(tool("mtype", &["-i", path, "::/openstack/latest/meta_data.json"]), META);
}

#[test]
fn an_iso_becomes_fat_where_it_could_not_be_mounted() {
    let iso = iso();
    let (result, found) = written(512, &iso);
    assert_eq!((result.as_str(), &found[..iso.len()]), ("complete", &iso[..]));

    let (result, found) = written(4096, &iso);
    assert_eq!(result, "complete");
    is_the_drive(&found);

    // In the place of a former one, whose marks are gone then.
    let mut image = gpt_image(92, 8 << 20, 4096);
    label_partition(&mut image, b"config-2");
    let (result, found) = written_onto(&image, 4096, &iso);
    assert_eq!(result, "complete");
    is_the_drive(&found);
}

/// A file system of mkfs.vfat, whose sectors are of 512 bytes by itself, with the same file.
fn small_fat() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let [image, file] = ["drive", "file"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&file, META).unwrap();
    tool("mkfs.vfat", &["-C", "-n", "config-2", &image, "1024"]);
    tool("mmd", &["-i", &image, "::/openstack", "::/openstack/latest"]);
    tool("mcopy", &["-i", &image, &file, "::/openstack/latest/meta_data.json"]);
    std::fs::read(image).unwrap()
}

#[test]
fn a_fat_of_small_sectors_is_made_anew_for_larger_ones() {
    let fat = small_fat();
    let (result, found) = written(512, &fat);
    assert_eq!((result.as_str(), &found[..fat.len()]), ("complete", &fat[..]));

    let (result, found) = written(4096, &fat);
    assert_eq!(result, "complete");
    is_the_drive(&found);

    // One that fits stays as it came.
    let fitting = found[..32 * 4096].to_vec();
    assert_eq!(&written(4096, &fitting).1[..fitting.len()], &fitting[..]);
}

#[test]
fn every_drive_is_made_anew_where_an_operator_wants_it() {
    for drive in [iso(), small_fat()] {
        let request = |sector| {
            let mut request = ask("http://192.0.2.1/", ImageFormat::Raw, b"");
            (request.config_drive, request.rebuild_drive) = (Some(drive.clone()), true);
            crate::image::drive::fit(&request, SectorSize(sector))
        };
        let made = request(512).unwrap().unwrap().config_drive.unwrap();
        is_a_drive(&made, 512);
        is_a_drive(&request(4096).unwrap().unwrap().config_drive.unwrap(), 4096);
    }
    let mut odd = ask("http://192.0.2.1/", ImageFormat::Raw, b"");
    (odd.config_drive, odd.rebuild_drive) = (Some(vec![7; 4096]), true);
    assert_eq!(
        crate::image::error::chain(&crate::image::drive::fit(&odd, SectorSize(512)).unwrap_err()),
        "the config drive is to be made anew (option config_drive_rebuild), and no other could be made: it is neither ISO \
         9660 nor FAT"
    );
    // Whatever nobody here knows stays as it came.
    odd.rebuild_drive = false;
    assert!(crate::image::drive::fit(&odd, SectorSize(4096)).unwrap().is_none());
}

#[test]
fn an_iso_that_no_other_can_be_made_of_is_refused_before_the_first_write() {
    let mut iso = iso();
    iso[16 * 2048 + 158..][..4].fill(0xff);
    let (result, _) = written(4096, &iso);
    assert_eq!(
        result,
        "the config drive cannot be mounted from a disk with sectors of 4096 bytes, and no other could be made: reading \
         it as ISO 9660: the root directory lies outside of the image"
    );
    assert_eq!(written(512, &iso).0, "complete", "what is in a drive is looked at only where it must be");
}
