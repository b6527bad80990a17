//! The functional tests of ironic-python-agent, run against our agent as a process on loopback.

use anyhow::{Result, ensure};
use ferric_tests::Netns;
use ferric_tests::artifacts::{agent, run_folder};
use ferric_tests::ironic::functional;

/// `test_commands` (tokens, commands, results) and `test_tls` (1.3 and 1.2, nothing older, the operator's certificate).
#[test]
fn the_functional_tests_of_ironic_python_agent_pass() -> Result<()> {
    functional::install()?;
    let program = agent()?;
    let folder = run_folder("functional")?;
    let _network = Netns::enter_bare()?;
    let said = functional::judge(&program, &folder)?;
    ensure!(said.contains("ran 2, skipped 0"), "they ran otherwise than expected: {said}");
    Ok(())
}
