//! `cargo xtask mutants`: as many mutated images as one likes. A few hundred are part of `cargo xtask test`.

use anyhow::{Context, Result, bail, ensure};
use ferric_tests::{mutants, write::Writer};

pub fn run(arguments: &[&str]) -> Result<()> {
    let (mut count, mut seed) = (100_000, 0);
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = rest.next().with_context(|| format!("{option} needs a number"))?;
        let number: u64 = value.parse().with_context(|| format!("{option} {value}"))?;
        match *option {
            "--count" => count = number,
            "--seed" => seed = number,
            other => bail!("cargo xtask mutants does not know '{other}'"),
        }
    }
    let keep = mutants::keep_folder()?;
    let summary = mutants::run(&Writer::obtain()?, seed, count, &keep)?;
    print!("{}", summary.classes());
    println!("{summary}");
    ensure!(
        summary.faults.is_empty(),
        "{}\nkept in {}; one again: cargo xtask mutants --seed NUMBER --count 1",
        summary.faults.join("\n"),
        keep.display()
    );
    Ok(())
}
