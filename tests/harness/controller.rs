//! The controller as an operator runs it: a configuration file, one program, killed and started at will.

use crate::artifacts::Artifacts;
use crate::netns;
use crate::operator::Operator;
use crate::process::{Background, tail};
use crate::wait;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The default port of Ironic's API.
pub const API_PORT: u16 = 6385;

/// A controller with its store; the program may run or not.
#[derive(Debug)]
pub struct Controller {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    operator: Operator,
    running: Option<Background>,
}

impl Controller {
    /// Writes the configuration into `folder` and starts the program.
    pub fn start(artifacts: &Artifacts, folder: &Path) -> Result<Self> {
        Self::start_with(artifacts, folder, "", "")
    }

    /// The same with more settings: lines for the top of the configuration, and tables for its end.
    pub fn start_with(artifacts: &Artifacts, folder: &Path, top: &str, tables: &str) -> Result<Self> {
        let config = folder.join("controller.toml");
        fs::create_dir_all(folder.join("state"))?;
        fs::write(&config, configuration(artifacts, folder, top, tables))?;
        let mut controller = Self {
            program: artifacts.controller.clone(),
            config,
            log: folder.join("controller.log"),
            operator: Operator {
                url: format!("http://{}:{API_PORT}", netns::CONTROLLER),
                program: artifacts.ferric.clone(),
            },
            running: None,
        };
        controller.restart()?;
        Ok(controller)
    }

    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Starts the program again and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config);
        let mut running = Background::spawn("ferric-controller", &mut command, &self.log)?;
        let (operator, log) = (self.operator.clone(), self.log.clone());
        wait::until(
            "the controller to answer",
            Duration::from_secs(20),
            || {
                running.expect_running()?;
                Ok(operator.expect("GET", "/v1", None).ok().map(drop))
            },
            || tail(&log, 20),
        )?;
        self.running = Some(running);
        Ok(())
    }

    pub fn process(&self) -> Option<u32> {
        self.running.as_ref().map(Background::id)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn configuration(artifacts: &Artifacts, folder: &Path, top: &str, tables: &str) -> String {
    let (address, first, last) = (netns::CONTROLLER, netns::FIRST_LEASE, netns::LAST_LEASE);
    let (kernel, ramdisk) = (artifacts.kernel.display(), artifacts.ramdisk.display());
    format!(
        "state_dir = '{}'\nhostname = 'ferric'\n{top}\n\
         [boot]\ninterface = '{}'\naddress = '{address}'\nkernel = '{kernel}'\nramdisk = '{ramdisk}'\n\
         kernel_parameters = 'console=ttyS0'\n\n\
         [dhcp]\nrange_start = '{first}'\nrange_end = '{last}'\nnetmask = '255.255.255.0'\n\n{tables}\n",
        folder.join("state").display(),
        netns::BRIDGE
    )
}
