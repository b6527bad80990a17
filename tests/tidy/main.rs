//! Rules of the tree, as tests: who may import whom, what every file opens with, what must not appear.
//!
//! Reads the sources as text, so that a broken rule fails within a second and names file and line. Each rule is a
//! function from text to faults; beside its run over the tree stands a test that shows it a fault.

mod compatibility;
mod features;
mod panics;
mod papers;
mod shape;
mod tree;
mod versions;
mod walls;

use panics::MAY_PANIC;
use shape::LONG;
use tree::{assert_none, root};
use walls::WALLS;

#[test]
fn every_wall_and_exception_is_about_something_that_exists() {
    let mut paths: Vec<&str> =
        WALLS.iter().flat_map(|wall| wall.rooms.iter().chain(wall.but)).copied().collect();
    paths.extend(LONG.iter().chain(MAY_PANIC).map(|(path, _)| *path));
    let gone = paths.into_iter().filter(|path| !root().join(path).exists());
    assert_none(gone.map(|path| format!("{path} does not exist: the rule about it holds nothing")).collect());
}
