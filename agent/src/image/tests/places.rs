//! Several places of one image: paths, servers, and both.

use super::server::End;
use super::*;

/// Writes an image of 4 MiB that is at `good` (a path), with these places in place of its name `GOOD`; `SERVER` has it, `GONE` not,
/// `NOTHING` has a file of no bytes, `CUTS` ends after 2 MiB whenever it is asked.
fn places_of(list: &[&str]) -> String {
    let image = mbr_image(3, 4 << 20);
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, &image).unwrap();
    std::fs::write(folder.path().join("empty"), b"").unwrap();
    let (server, gone) = (Server::honest(&image), Server::new(&image, [], Answer::status(404)));
    let nothing = Server::new(&[], [], Answer::default());
    let cuts = Server::new(&image, [Answer::default()], Answer::end(End::Reset(0)));
    let place = |name: &&str| match *name {
        "SERVER" => server.url(),
        "GONE" => gone.url(),
        "NOTHING" => nothing.url(),
        "CUTS" => cuts.url(),
        "ODD" => "ftp://there/image".to_string(),
        other => format!("file://{}", folder.path().join(other).display()),
    };
    let mut request = ask("", ImageFormat::Raw, &image);
    request.image.urls = list.iter().map(place).collect();
    let (result, disk) = write(&request, MemDisk::new(8 << 20));
    assert_eq!(result.is_ok(), left(&disk.content(), &image) == Left::Complete, "{list:?}");
    assert!(result.is_ok() || left(&disk.content(), &image) == Left::Untouched, "{list:?}");
    words(&result).replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn several_places_are_tried_in_turn_whatever_they_are() {
    for list in [
        ["missing", "good"],
        ["empty", "good"],
        ["good", "missing"],
        ["missing", "SERVER"],
        ["SERVER", "missing"],
        ["GONE", "good"],
        ["GONE", "SERVER"],
        ["good", "GONE"],
        ["NOTHING", "SERVER"],
        ["NOTHING", "good"],
        ["ODD", "SERVER"],
        ["SERVER", "ODD"],
        // Not only when it is opened.
        ["CUTS", "good"],
        ["CUTS", "SERVER"],
    ] {
        assert_eq!(places_of(&list), "complete", "{list:?}");
    }
}

#[test]
fn the_last_place_has_the_last_word() {
    let missing = "'DIR/missing' is not a usable image URL: No such file or directory (os error 2)";
    assert_eq!(places_of(&["GONE", "missing"]), missing);
    let gone = places_of(&["missing", "GONE"]);
    assert!(gone.contains("answered 404") && gone.contains("the image is not there"), "{gone}");
    assert_eq!(places_of(&[]), "'' is not a usable image URL: no URL was given");
}
