//! Where our agent answers or asks otherwise than a recorded one, and why: the whole table.

/// An exchange (`*`: any), a difference there, and why we want it.
pub(super) type Row = (&'static str, &'static str, &'static str);

const BURN_IN: &str = "it wears disks out for days with programs that would double the ramdisk; not published, so nobody can ask for it";
const ECHO: &str = "a step is echoed as interface, step and priority: its arguments may hold credentials, and all later lists would repeat them";
const KEY: &str =
    "the recorded error is a KeyError on a node without instance_info; ours says what is not supported";
const HASH: &str =
    "the declared digest is none (wrong length, unknown name): refused in words before anything is fetched";
const STORED: &str = "a stored failure: the recorded agent cannot serialise what it stored and answers every later list with 500";
const ONCE: &str = "the recorded agent asks again without its usual headers before its first heartbeat; ours keeps the lookup's answer";

pub(super) const DIFFERENCES: &[Row] = &[
    ("*", "command_result.clean_steps.GenericHardwareManager.burnin_cpu: missing", BURN_IN),
    ("*", "command_result.clean_steps.GenericHardwareManager.burnin_disk: missing", BURN_IN),
    ("*", "command_result.clean_steps.GenericHardwareManager.burnin_gpu: missing", BURN_IN),
    ("*", "command_result.clean_steps.GenericHardwareManager.burnin_memory: missing", BURN_IN),
    ("*", "command_result.clean_steps.GenericHardwareManager.burnin_network: missing", BURN_IN),
    (
        "*",
        "command_result.deploy_steps.GenericHardwareManager.execute_bootc_install: missing",
        "it needs podman in the ramdisk; what cannot be done is not published",
    ),
    ("*", "command_result.service_steps.GenericHardwareManager.burnin_cpu: missing", BURN_IN),
    ("*", "command_result.service_steps.GenericHardwareManager.burnin_gpu: missing", BURN_IN),
    ("*", "command_result.service_steps.GenericHardwareManager.burnin_memory: missing", BURN_IN),
    ("*", "command_result.service_steps.GenericHardwareManager.burnin_network: missing", BURN_IN),
    (
        "*",
        "command_result.service_steps.GenericHardwareManager.execute_bootc_install: missing",
        "it needs podman in the ramdisk; what cannot be done is not published",
    ),
    (
        "*",
        "command_result.service_steps.GenericHardwareManager.write_image.argsinfo: more",
        "a service has no step of the conductor's that brings the arguments, and the conductor refuses those that are not named",
    ),
    ("*", "command_result.clean_step.abortable: missing", ECHO),
    (
        "clean.execute_clean_step erase_devices",
        "command_result.clean_result./dev/loop0: an object instead of null",
        "each disk's result says what was done to it, how long it took and the proof",
    ),
    (
        "clean.execute_clean_step erase_devices_metadata",
        "command_result.clean_step.reboot_requested: missing",
        ECHO,
    ),
    (
        "clean.execute_clean_step erase_devices_metadata",
        "command_result.clean_step.requires_ramdisk: missing",
        ECHO,
    ),
    (
        "clean.execute_clean_step erase_devices_metadata",
        "command_error.details: other words",
        "the defect that stopped it is the recorded agent's own; what stops ours is told in its words",
    ),
    ("deploy.execute_deploy_step write_image", "command_result.deploy_step.args: missing", ECHO),
    (
        "deploy.execute_deploy_step write_image",
        "command_result.deploy_result.report: more",
        "the account of the write; conductors from Yoga to 39.0 read of a write's result the echo of the step alone",
    ),
    (
        "deploy.execute_deploy_step write_image",
        "command_error.details: other words",
        "the words say what failed, where, and what to do; class, code and message are the same",
    ),
    (
        "standby.get_partition_uuids",
        "command_result.root uuid: more",
        "the recorded agent tells it after a raw image alone, as it would after any",
    ),
    (
        "get_clean_steps",
        "status: 200 instead of 404",
        "the recorded 404 is a KeyError on a node without instance_info, reported as a missing extension",
    ),
    (
        "poll, not standalone",
        "status: 404 instead of 200",
        "no conductor asks for the namespace poll; a missing extension is what it is told",
    ),
    ("poll set, not standalone", "status: 404 instead of 400", "as above"),
    (
        "clean version mismatch",
        "command_error.details: other words",
        "versions are quoted as JSON, not as Python",
    ),
    (
        "clean step without a name",
        "command_error.details: other words",
        "the step is quoted as JSON, not as Python, and without its arguments",
    ),
    ("not JSON", "faultstring: other words", "the parser's own words after the same beginning"),
    (
        "install_bootloader, no such root",
        "command_error.type: \"InvalidImage\" instead of \"CommandExecutionError\"",
        KEY,
    ),
    ("install_bootloader, no such root", "command_error.message: other words", KEY),
    ("install_bootloader, no such root", "command_error.details: other words", KEY),
    ("prepare_image, image is not there (404)", "command_error.code: 400 instead of 500", HASH),
    ("prepare_image, image is not there (404)", "command_error.details: other words", HASH),
    (
        "prepare_image, image is not there (404)",
        "command_error.message: \"Invalid command parameters\" instead of \"Command execution failed\"",
        HASH,
    ),
    (
        "prepare_image, image is not there (404)",
        "command_error.type: \"InvalidCommandParamsError\" instead of \"CommandExecutionError\"",
        HASH,
    ),
    ("prepare_image, unknown hash", "command_error.code: 400 instead of 500", HASH),
    ("prepare_image, unknown hash", "command_error.details: other words", HASH),
    (
        "prepare_image, unknown hash",
        "command_error.message: \"Invalid command parameters\" instead of \"Command execution failed\"",
        HASH,
    ),
    (
        "prepare_image, unknown hash",
        "command_error.type: \"InvalidCommandParamsError\" instead of \"CommandExecutionError\"",
        HASH,
    ),
    ("a long async command starts", "command_error.code: 400 instead of 500", HASH),
    ("a long async command starts", "command_error.details: other words", HASH),
    (
        "a long async command starts",
        "command_error.message: \"Invalid command parameters\" instead of \"Command execution failed\"",
        HASH,
    ),
    (
        "a long async command starts",
        "command_error.type: \"InvalidCommandParamsError\" instead of \"CommandExecutionError\"",
        HASH,
    ),
    (
        "a long async command starts",
        "command_status: \"RUNNING\" instead of \"FAILED\"",
        "an asynchronous command has not failed yet when it is answered; the recorded agent was that quick",
    ),
    ("a long async command starts", "command_error: null instead of an object", "as above"),
    (
        "unexpected parameter (real IPA: 500, and its list answers 500 from now on)",
        "status: 200 instead of 500",
        STORED,
    ),
    ("missing parameters", "status: 200 instead of 500", STORED),
    ("list at the end", "status: 200 instead of 500", STORED),
    ("list near the end", "also \"get_clean_steps\"", "it succeeded here, see get_clean_steps"),
    ("*", "header user-agent: missing", "no conductor reads it; a heartbeat names the agent and its version"),
    (
        "*",
        "header accept-encoding: missing",
        "answers are short: they are read as they come, nothing is unpacked",
    ),
    (
        "*",
        "header connection: close instead of keep-alive",
        "each question has a connection of its own: minutes lie between two of them",
    ),
    ("question for the API's version", "header accept: application/json instead of */*", ONCE),
    ("question for the API's version", "header content-type: more", ONCE),
];
