//! A few hundred mutated qcow2 images; `cargo xtask mutants` runs as many as one likes.

use anyhow::{Result, ensure};
use ferric_tests::mutants;
use ferric_tests::write::Writer;

#[test]
fn mutated_images_are_refused_or_mean_what_qemu_says() -> Result<()> {
    let summary = mutants::run(&Writer::obtain()?, 0, 500, &mutants::keep_folder()?)?;
    println!("{}{summary}", summary.classes());
    ensure!(summary.faults.is_empty(), "{}", summary.faults.join("\n"));
    // A generator whose images all fail, or all pass, would show nothing.
    ensure!(summary.equal > 50 && summary.refused > 50, "{summary}");
    Ok(())
}
